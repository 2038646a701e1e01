package apply_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// memRow is what the sink keeps of a row.
type memRow struct {
	values   []string
	deleted  bool
	version  cdc.LSN
	syncedAt time.Time
}

// memChange is a row of a table without a key.
type memChange struct {
	pos  cdc.Position
	text string
}

// memSink keeps tables in memory, deduplicates by batch ID as labels do, and fails as
// its script says. It does what [apply.Sink] promises, as a sink may at its weakest: a
// refused batch is stored in part, and a guarded delete looks first and removes later.
type memSink struct {
	mu      sync.Mutex
	hard    bool // deleted rows disappear
	tables  map[string]map[string]memRow
	appends map[string][]memChange
	done    map[string]string // batch ID -> its content
	partly  map[string]bool   // batch ID -> it was stored in part, as it said
	begun   map[string]bool   // batch ID -> it was refused, and a part is stored
	owner   map[string]string // row -> ID of the batch that it was stored with
	script  func() fault
	poison  func(table string, values []string) bool // nil: takes everything
	names   bool                                     // a refused row is named
	err     error                                    // a broken promise that the sink has seen
	calls   int
}

type fault int

const (
	none fault = iota
	failBefore
	failAfter // committed, but the answer is lost
	crash     // the test kills apply, before
	crashAfter
	half // half of the rows are committed, and the sink says so
	trip // another apply takes over; this one does not know until it asks
)

var errInjected = errors.New("injected")

func newMemSink(script func() fault) *memSink {
	if script == nil {
		script = func() fault { return none }
	}
	return &memSink{
		tables: map[string]map[string]memRow{}, appends: map[string][]memChange{}, done: map[string]string{}, partly: map[string]bool{}, begun: map[string]bool{}, owner: map[string]string{}, script: script,
	}
}

func (s *memSink) broken(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

func (s *memSink) Check(context.Context) error                { return nil }
func (s *memSink) Prepare(context.Context, *cdc.Schema) error { return nil }

func texts(tuple cdc.Tuple) []string {
	var out []string
	for len(tuple) > 0 {
		v, rest, ok := tuple.Next()
		if !ok {
			panic("malformed tuple")
		}
		switch v.Kind {
		case cdc.Null:
			out = append(out, "NULL")
		case cdc.Unchanged:
			out = append(out, "?")
		case cdc.Text:
			out = append(out, string(v.Bytes))
		}
		tuple = rest
	}
	return out
}

type faultKey struct{}

// fault returns what happens to a call: as the script says, or the one that makes it.
func (s *memSink) fault(ctx context.Context) fault {
	if f, ok := ctx.Value(faultKey{}).(fault); ok {
		return f
	}
	return s.script()
}

func (s *memSink) Apply(ctx context.Context, b *apply.TableBatch) (apply.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	f := s.fault(ctx)
	if f == failBefore || f == crash {
		return apply.Result{}, errInjected
	}
	content := s.content(b)
	if before, ok := s.done[b.ID]; ok {
		if before != content {
			s.broken("batch %s formed again with other content:\n%s\n%s", b.ID, before, content)
		}
		if s.partly[b.ID] {
			return apply.Result{}, fmt.Errorf("injected: %w", apply.ErrIncomplete)
		}
		return apply.Result{Loads: 1}, answer(f)
	}
	moved := slices.ContainsFunc(b.Rows, func(r apply.Row) bool { return r.MovedFrom != nil })
	if refused := s.refused(b); refused != nil {
		if !moved && !s.begun[b.ID] {
			part := slices.Clone(b.Rows[:len(b.Rows)/2])
			part = slices.DeleteFunc(part, func(r apply.Row) bool { return s.refuses(b, r) })
			if _, err := s.store(b, part); err != nil {
				return apply.Result{}, err
			}
		}
		s.begun[b.ID] = true
		return apply.Result{}, refused
	}
	if f == half && !moved {
		if _, err := s.store(b, b.Rows[:len(b.Rows)/2]); err != nil {
			return apply.Result{}, err
		}
		s.done[b.ID], s.partly[b.ID] = content, true
		return apply.Result{}, fmt.Errorf("injected: %w", apply.ErrIncomplete)
	}
	left, err := s.store(b, b.Rows)
	if err != nil {
		return apply.Result{}, err
	}
	s.done[b.ID] = content
	s.own(b)
	return apply.Result{Loads: 1, Rows: int64(len(b.Rows)), Left: left}, answer(f)
}

func answer(f fault) error {
	if f == failAfter || f == crashAfter {
		return errInjected
	}
	return nil
}

// own checks that a row reaches the sink with one batch of a pipeline only.
func (s *memSink) own(b *apply.TableBatch) {
	pipeline := strings.Join(strings.SplitN(b.ID, "-", 3)[:2], "-")
	for _, r := range b.Rows {
		row := fmt.Sprint(pipeline, b.Schema.Table, texts(r.Tuple)[0], r.Position, r.Op)
		if id, ok := s.owner[row]; ok {
			s.broken("row %s is stored with batch %s and %s", row, id, b.ID)
		}
		s.owner[row] = b.ID
	}
}

func rowText(r *apply.Row) string {
	return fmt.Sprint(r.Op, r.KeyOnly, r.Partial, r.Optional, texts(r.Tuple), texts(r.MovedFrom), r.Position)
}

// content is what is equal if a batch is formed again, and checks its form.
func (s *memSink) content(b *apply.TableBatch) string {
	content := fmt.Sprint(b.SyncedAt)
	keys := map[string]bool{}
	last := cdc.Position{}
	for _, r := range b.Rows {
		content += rowText(&r)
		if len(b.Schema.Key) == 0 {
			if !r.Position.After(last) || r.Partial || r.Optional || r.KeyOnly || r.MovedFrom != nil {
				s.broken("row %s of batch %s is not one change after %s", r.Position, b.ID, last)
			}
			last = r.Position
			continue
		}
		if r.Optional && !r.Partial {
			s.broken("row %s of batch %s is whole and optional", r.Position, b.ID)
		}
		key := texts(r.Tuple)[0]
		if keys[key] {
			s.broken("key %s twice in batch %s", key, b.ID)
		}
		keys[key] = true
	}
	return content
}

func (s *memSink) refuses(b *apply.TableBatch, r apply.Row) bool {
	return s.poison != nil && r.Op != apply.OpDelete && s.poison(b.Schema.Table, texts(r.Tuple))
}

// refused returns the error for the first row that the sink does not take.
func (s *memSink) refused(b *apply.TableBatch) error {
	for i, r := range b.Rows {
		if !s.refuses(b, r) {
			continue
		}
		e := &apply.RowError{Table: b.Schema.Name(), Column: "a", Type: "text", Target: "int", Reason: "poison"}
		if s.names {
			e.Row = i + 1
		}
		return fmt.Errorf("load: %w", e)
	}
	return nil
}

// store makes rows of a batch part of their table.
func (s *memSink) store(b *apply.TableBatch, rows []apply.Row) (left int64, err error) {
	if len(b.Schema.Key) == 0 {
		return s.append(b.Schema.Table, rows), nil
	}
	t := s.tables[b.Schema.Table]
	if t == nil {
		t = map[string]memRow{}
		s.tables[b.Schema.Table] = t
	}
	before := maps.Clone(t)
	var removed []apply.Row
	for _, r := range rows {
		r, lacks := s.optional(b, before, r)
		if lacks {
			left++
		}
		if lacks && r.Op != apply.OpDelete {
			continue
		}
		next, stays, err := s.next(b, before, r)
		if err != nil {
			return left, err
		}
		if stays {
			left++
			continue
		}
		key := next.values[0]
		if now, ok := t[key]; ok && now.version > next.version {
			s.broken("key %s goes back from version %s to %s in batch %s", key, now.version, next.version, b.ID)
		}
		switch {
		case !s.hard || r.Op != apply.OpDelete:
			t[key] = next
		case b.Guarded:
			removed = append(removed, r)
		default:
			delete(t, key)
		}
	}
	if len(removed) > 0 {
		// What the delete has found goes a moment later, whatever it has become.
		s.mu.Unlock()
		for range 3 {
			runtime.Gosched()
		}
		s.mu.Lock()
		for _, r := range removed {
			delete(t, texts(r.Tuple)[0])
		}
	}
	return left, nil
}

// next returns what a row of the batch makes of its key, or that the key's row stays.
func (s *memSink) next(b *apply.TableBatch, before map[string]memRow, r apply.Row) (next memRow, stays bool, err error) {
	next = memRow{values: texts(r.Tuple), deleted: r.Op == apply.OpDelete, version: r.Position.Commit, syncedAt: b.SyncedAt}
	now, exists := before[next.values[0]]
	if b.Guarded && exists && now.version > next.version {
		return next, true, nil
	}
	old, ok := now, exists && (!b.Guarded || !now.deleted)
	if r.MovedFrom != nil && !s.movedBefore(b, now, exists, next) {
		from, found := before[texts(r.MovedFrom)[0]]
		switch {
		case found && (!b.Guarded || (!from.deleted && from.version < r.MovedBefore)):
			old, ok = from, true
		case b.Guarded && ok && now.version == next.version:
		default:
			ok = false
		}
	}
	for i := range next.values {
		missing := next.values[i] == "?" || (r.KeyOnly && i > 0)
		switch {
		case missing && ok:
			next.values[i] = old.values[i]
		case missing && r.Op != apply.OpDelete && b.Guarded:
			return next, true, nil
		case missing && r.Op != apply.OpDelete:
			if !s.hard {
				s.broken("update of key %s which is not in the sink, batch %s", next.values[0], b.ID)
			}
			return next, false, &apply.RowError{Table: b.Schema.Name(), Key: next.values[0], Reason: "the row is not there"}
		}
	}
	return next, false, nil
}

// optional tells whether the sink lacks what an optional row needs, and returns the delete
// that one becomes which has moved.
func (s *memSink) optional(b *apply.TableBatch, before map[string]memRow, r apply.Row) (row apply.Row, lacks bool) {
	if !r.Optional || b.Guarded || (r.MovedFrom == nil && r.Op == apply.OpDelete) {
		return r, false
	}
	from := r.Tuple
	if r.MovedFrom != nil {
		from = r.MovedFrom
		now, exists := before[texts(r.Tuple)[0]]
		if s.movedBefore(b, now, exists, memRow{version: r.Position.Commit, syncedAt: b.SyncedAt}) {
			return r, false
		}
	}
	base, ok := before[texts(from)[0]]
	// A part of the batch may have made a row under the key already.
	if ok && !base.deleted && (r.MovedFrom == nil || !base.syncedAt.Equal(b.SyncedAt)) {
		return r, false
	}
	if r.MovedFrom != nil {
		r.Op, r.KeyOnly, r.Partial, r.Optional, r.MovedFrom = apply.OpDelete, true, false, false, nil
	}
	return r, true
}

// movedBefore tells that a row got its key by this batch under another ID.
func (s *memSink) movedBefore(b *apply.TableBatch, now memRow, exists bool, next memRow) bool {
	return exists && now.version == next.version && now.syncedAt.Equal(b.SyncedAt)
}

func (s *memSink) append(table string, rows []apply.Row) (left int64) {
	for _, r := range rows {
		if slices.ContainsFunc(s.appends[table], func(c memChange) bool { return c.pos == r.Position }) {
			left++
			continue
		}
		text := fmt.Sprint(r.Op, texts(r.Tuple))
		if strings.Contains(text, "?") {
			s.broken("change %s of table %s is not whole: %s", r.Position, table, text)
		}
		s.appends[table] = append(s.appends[table], memChange{r.Position, text})
	}
	return left
}

func (s *memSink) Truncate(ctx context.Context, tr *apply.TableTruncate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	f := s.fault(ctx)
	if f == failBefore || f == crash {
		return errInjected
	}
	name := tr.Schema.Table
	s.appends[name] = slices.DeleteFunc(s.appends[name], func(c memChange) bool {
		later := c.pos.After(tr.Position)
		if later && !tr.Guarded {
			s.broken("truncate at %s finds %s", tr.Position, c.pos)
		}
		return !later
	})
	for k, r := range s.tables[name] {
		if r.version > tr.Position.Commit {
			if !tr.Guarded {
				s.broken("truncate at %s finds version %s", tr.Position, r.version)
			}
			continue
		}
		if r.deleted = true; s.hard {
			delete(s.tables[name], k)
			continue
		}
		r.version = max(r.version, tr.Position.Commit)
		s.tables[name][k] = r
	}
	return answer(f)
}

func (s *memSink) live(table string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]string{}
	for k, r := range s.tables[table] {
		if !r.deleted {
			out[k] = strings.Join(r.values, ",")
		}
	}
	return out
}

// appended returns the rows of a table without a key, in the order of the source.
func (s *memSink) appended(table string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	changes := slices.Clone(s.appends[table])
	slices.SortFunc(changes, func(a, b memChange) int { return a.pos.Compare(b.pos) })
	var out []string
	for _, c := range changes {
		out = append(out, c.text)
	}
	return out
}
