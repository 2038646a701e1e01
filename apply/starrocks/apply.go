package starrocks

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// synced is the form of dbmazz_synced_at.
const synced = "2006-01-02 15:04:05.000000"

// group is the rows of a batch that go into loads with the same columns.
type group struct {
	as form
	// partial asks for a partial update, with the columns of list.
	partial bool
	list    string
	// whole tells that the group is one load, whatever its size: its bytes depend
	// on what the sink held before, so no cut may depend on them.
	whole bool
	rows  []int32
}

// Apply implements [apply.Sink].
func (s *Sink) Apply(ctx context.Context, batch *apply.TableBatch) (apply.Result, error) {
	l, err := s.layoutOf(batch.Schema)
	if err != nil {
		return apply.Result{}, err
	}
	if e := s.encoded(l, batch); e != nil {
		return e.apply(ctx, batch)
	}
	buffer := s.take(l.bodyBytes(batch))
	defer func() { s.buffers.Put(buffer) }()
	run := s.run(l, batch)
	if l.appends {
		err := run.appendRows(ctx, buffer)
		run.countNulls(ctx)
		return run.result, err
	}
	groups, err := run.plan()
	if err != nil {
		return apply.Result{}, err
	}
	for _, g := range groups {
		if err := run.apply(ctx, g, buffer); err != nil {
			return run.result, err
		}
	}
	err = run.deleteGuarded(ctx)
	run.countNulls(ctx)
	return run.result, err
}

func (s *Sink) run(l *layout, batch *apply.TableBatch) *applyRun {
	return &applyRun{
		sink: s, layout: l, batch: batch,
		writer: newWriter(l, s.config.DeleteMode, batch.SyncedAt.UTC().Format(synced)),
	}
}

func (s *Sink) layoutOf(schema *cdc.Schema) (*layout, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.layouts[keyOf(schema)]
	if l == nil {
		return nil, fmt.Errorf("apply changes of table %s: Prepare was not called for this schema", schema.Name())
	}
	return l, nil
}

// take returns room for a body of a size.
func (s *Sink) take(size int) *[]byte {
	const sizeMin, rowRoom = 4 << 10, 64 << 10
	size = max(min(size, s.config.MaxBodyBytes+rowRoom), sizeMin)
	b, ok := s.buffers.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	if cap(*b) < size {
		// Growing it row by row would copy it over and over.
		*b = make([]byte, 0, size)
	}
	return b
}

// bodyBytes returns about what the batch takes as JSON. Only what has to be escaped
// takes more.
func (l *layout) bodyBytes(batch *apply.TableBatch) int {
	return batch.Bytes + len(batch.Rows)*l.rowBytes
}

// applyRun is one call of Apply.
type applyRun struct {
	sink   *Sink
	layout *layout
	batch  *apply.TableBatch
	writer *writer
	loads  int // labels given out
	// deletes are the rows of a guarded batch that are to be removed.
	deletes []int32
	result  apply.Result
}

// refused makes the error for a row of the batch that StarRocks cannot take.
func (a *applyRun) refused(i int, r columnRefusal) *apply.RowError {
	e := a.layout.refused(&a.batch.Rows[i], r)
	e.Row = i + 1
	return e
}

// numbered adds the number of a row of the batch to an error about it.
func (a *applyRun) numbered(i int, err error) error {
	if e, ok := errors.AsType[*apply.RowError](err); ok {
		e.Row = i + 1
	}
	return err
}

// plan cuts the batch into groups. What group a row is in, and the order of groups,
// depend on nothing but the rows and the mode.
//
// Rows that moved come first, with all deletes that need no partial update: their
// unchanged values are read from the sink before anything of the batch is there. In a
// guarded batch they are alone in their group, and deletes that remove rows are in none.
func (a *applyRun) plan() ([]*group, error) {
	skip, err := a.foldKeys()
	if err != nil {
		return nil, err
	}
	l, hard, guarded := a.layout, a.sink.config.DeleteMode == DeleteHard, a.batch.Guarded
	full := &group{as: formFull}
	moved := &group{as: formFull, whole: true}
	if l.foreign {
		full.list = l.list("", hard)
		moved.list = full.list
	}
	anyMoved := false
	for i := range a.batch.Rows {
		anyMoved = anyMoved || a.reads(&a.batch.Rows[i])
	}
	var partials []*group
	bySet := map[string]*group{}
	absent := make([]byte, (len(l.columns)+7)/8)
	for i := range a.batch.Rows {
		if skip != nil && skip[i] {
			continue
		}
		row := &a.batch.Rows[i]
		g := full
		switch {
		case guarded && hard && row.Op == apply.OpDelete:
			a.deletes = append(a.deletes, int32(i)) //nolint:gosec // Rows of a batch.
			continue
		case a.reads(row) && (!guarded || row.Op != apply.OpDelete):
			g = moved
		case row.Op == apply.OpDelete && (hard || (!row.KeyOnly && !row.Partial)):
			if anyMoved && !guarded {
				g = moved
			}
		case row.Op == apply.OpDelete || row.Partial:
			if err := l.absent(absent, row); err != nil {
				return nil, a.numbered(i, err)
			}
			if g = bySet[string(absent)]; g == nil {
				g = &group{as: formPresent, partial: true, list: l.list(string(absent), false)}
				bySet[string(absent)] = g
				partials = append(partials, g)
			}
		}
		g.rows = append(g.rows, int32(i)) //nolint:gosec // Rows of a batch.
	}
	groups := make([]*group, 0, 2+len(partials))
	for _, g := range append([]*group{moved, full}, partials...) {
		if len(g.rows) > 0 {
			groups = append(groups, g)
		}
	}
	return groups, nil
}

// reads tells whether values that the row lacks are in the sink, under its old key. One
// that is removed needs none, and leaves nothing by which to tell that it was here.
func (a *applyRun) reads(row *apply.Row) bool {
	return len(row.MovedFrom) > 0 && (row.Op != apply.OpDelete || a.sink.config.DeleteMode != DeleteHard)
}

// absent marks the columns that the row does not carry.
func (l *layout) absent(set []byte, row *apply.Row) error {
	clear(set)
	tuple := row.Tuple
	for i := range l.columns {
		v, rest, ok := tuple.Next()
		if !ok {
			return l.refused(row, columnRefusal{refuseSyntax, i})
		}
		tuple = rest
		if v.Kind == cdc.Unchanged || (row.KeyOnly && !l.columns[i].key) {
			set[i/8] |= 1 << (i % 8)
		}
	}
	return nil
}

// foldKeys finds rows whose keys differ in the source's text but are one key in the
// sink, such as numeric 1.0 and 1.00. PostgreSQL has one of them at a time, so of such
// rows the one that is alive counts, or the last. It returns the rows to leave out.
func (a *applyRun) foldKeys() ([]bool, error) {
	if !a.layout.foldsKeys {
		return nil, nil
	}
	skip := make([]bool, len(a.batch.Rows))
	winner := make(map[string]int, len(a.batch.Rows))
	for i := range a.batch.Rows {
		row := &a.batch.Rows[i]
		key, err := a.layout.sinkKey(row.Tuple)
		if err != nil {
			return nil, a.numbered(i, err)
		}
		before, ok := winner[key]
		switch {
		case !ok:
			winner[key] = i
		case row.Op == apply.OpDelete && a.batch.Rows[before].Op != apply.OpDelete:
			skip[i] = true
		case row.Op != apply.OpDelete && a.batch.Rows[before].Op != apply.OpDelete:
			return nil, permanent(fmt.Errorf("apply batch %s: two rows of table %s have the key %s", a.batch.ID, a.layout.schema.Name(), a.layout.keyText(row.Tuple)))
		default:
			skip[before] = true
			winner[key] = i
		}
	}
	return skip, nil
}

// apply delivers the loads of a group.
func (a *applyRun) apply(ctx context.Context, g *group, buffer *[]byte) error {
	if g.whole && a.batch.Guarded {
		return a.applyMovedGuarded(ctx, g, buffer)
	}
	if g.whole {
		return a.applyMoved(ctx, g, buffer)
	}
	if g.partial {
		if err := a.checkBase(ctx, g); err != nil {
			return err
		}
		if len(g.rows) == 0 {
			a.loads++ // The labels of the other groups do not depend on what was there.
			return nil
		}
	}
	for rows := g.rows; len(rows) > 0; {
		body, n, err := a.body(g, rows, buffer)
		if err != nil {
			return err
		}
		if err := a.send(ctx, g, body, rows[:n]); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// body encodes as many of the rows of a group as one load takes, and returns how many these are.
func (a *applyRun) body(g *group, rows []int32, buffer *[]byte) (body []byte, n int, err error) {
	body = append((*buffer)[:0], '[')
	for n, i := range rows {
		row := &a.batch.Rows[i]
		before, nulled := len(body), a.writer.nulled
		if n > 0 {
			body = append(body, ',')
		}
		as := g.as
		if g.partial && row.KeyOnly {
			as = formKey
		}
		var refused columnRefusal
		if body, refused = a.writer.append(body, row, row.Tuple, as); refused.refusal != nil {
			return nil, 0, a.refused(int(i), refused)
		}
		*buffer = body
		if n > 0 && len(body) >= a.sink.config.MaxBodyBytes {
			a.writer.nulled = nulled // The row is the first of the next load.
			return append(body[:before], ']'), n, nil
		}
	}
	*buffer = append(body, ']')
	return *buffer, len(rows), nil
}

// label returns that of the next load.
func (a *applyRun) label() string {
	label := a.batch.ID + "_" + a.layout.shape + "_" + strconv.Itoa(a.loads)
	a.loads++
	return label
}

// send delivers one load of rows of a group.
func (a *applyRun) send(ctx context.Context, g *group, body []byte, rows []int32) error {
	r := &request{
		table: a.layout.table, label: a.label(), columns: g.list, partial: g.partial, condition: a.condition(), body: body, rows: int64(len(rows)),
		missing: a.lookFor(rows),
	}
	if err := checkLabel(r.label); err != nil {
		return err
	}
	retries, err := a.sink.deliver(ctx, a.layout, r)
	a.result.Retries += retries
	if err != nil {
		return a.locate(err)
	}
	a.committed(r.rows, len(body))
	return nil
}

func (a *applyRun) committed(rows int64, bytes int) {
	a.result.Loads++
	a.result.Rows += rows
	a.result.Bytes += int64(bytes)
}

// locate finds the row that an error of StarRocks is about by its key, if one row of
// the batch alone has it.
func (a *applyRun) locate(err error) error {
	row, ok := errors.AsType[*apply.RowError](err)
	if !ok || row.Key == "" || row.Row != 0 {
		return err
	}
	found := 0
	for i := range a.batch.Rows {
		if a.layout.rowText(&a.batch.Rows[i]) != row.Key {
			continue
		}
		if found != 0 {
			return err
		}
		found = i + 1
	}
	row.Row = found
	return err
}
