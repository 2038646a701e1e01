package apply_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// memStream is a stream in memory. A closed consumer forgets what was delivered.
type memStream struct {
	mu       sync.Mutex
	epoch    string
	messages [][]byte
	state    []byte
	revision uint64
	added    chan struct{}
	acked    uint64
	schemas  map[cdc.Fingerprint]*cdc.Schema
}

func newMemStream() *memStream {
	return &memStream{epoch: "e1", added: make(chan struct{}), schemas: map[cdc.Fingerprint]*cdc.Schema{}}
}

func (m *memStream) publish(data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, bytes.Clone(data))
	close(m.added)
	m.added = make(chan struct{})
}

func (m *memStream) Epoch() string { return m.epoch }

func (m *memStream) Locate(_ context.Context, p cdc.Position) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, data := range m.messages {
		f, err := cdc.Open(data)
		if err != nil {
			return 0, err
		}
		if f.Header.Last.Compare(p) >= 0 {
			return uint64(i), nil
		}
	}
	return uint64(len(m.messages)), nil
}

func (m *memStream) Consumer(_ context.Context, after uint64) (apply.Consumer, error) {
	return &memConsumer{m: m, next: after + 1}, nil
}

func (m *memStream) Schema(_ context.Context, f cdc.Fingerprint) (*cdc.Schema, error) {
	s, ok := m.schemas[f]
	if !ok {
		return nil, fmt.Errorf("no schema %s", f)
	}
	return s, nil
}

func (m *memStream) Tables(context.Context) (<-chan []*cdc.Schema, error) {
	return make(chan []*cdc.Schema), nil
}

func (m *memStream) LoadState(context.Context) ([]byte, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state, m.revision, nil
}

func (m *memStream) SaveState(_ context.Context, value []byte, revision uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if revision != m.revision {
		return 0, errors.New("revision conflict")
	}
	m.state = bytes.Clone(value)
	m.revision++
	return m.revision, nil
}

type memConsumer struct {
	m    *memStream
	next uint64
}

func (c *memConsumer) Next(ctx context.Context) (apply.Message, error) {
	for {
		c.m.mu.Lock()
		added := c.m.added
		if c.next <= uint64(len(c.m.messages)) {
			data := c.m.messages[c.next-1]
			c.next++
			c.m.mu.Unlock()
			return apply.Message{Sequence: c.next - 1, Data: data}, nil
		}
		c.m.mu.Unlock()
		select {
		case <-added:
		case <-ctx.Done():
			return apply.Message{}, ctx.Err()
		}
	}
}

func (c *memConsumer) Ack(_ context.Context, sequence uint64) error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.acked = max(c.m.acked, sequence)
	return nil
}

func (c *memConsumer) Pending() uint64 {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return uint64(len(c.m.messages)) + 1 - c.next
}
func (c *memConsumer) Close() {}

// memRow is what the sink keeps of a row.
type memRow struct {
	values  []string
	deleted bool
	version cdc.LSN
}

// memSink keeps tables in memory, deduplicates by batch ID as labels do, and fails as
// its script says.
type memSink struct {
	mu     sync.Mutex
	tables map[string]map[string]memRow
	done   map[string]string // batch ID -> its content
	script func() fault
	err    error // a broken promise that the sink has seen
	calls  int
}

type fault int

const (
	none fault = iota
	failBefore
	failAfter // committed, but the answer is lost
	crash     // the test kills apply, before
	crashAfter
	half // half of the rows are committed, and the sink says so
)

var errInjected = errors.New("injected")

func newMemSink(script func() fault) *memSink {
	return &memSink{tables: map[string]map[string]memRow{}, done: map[string]string{}, script: script}
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

func (s *memSink) Apply(ctx context.Context, b *apply.TableBatch) (apply.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	f := s.script()
	if f == failBefore || f == crash {
		return apply.Result{}, errInjected
	}
	content := fmt.Sprint(b.SyncedAt)
	keys := map[string]bool{}
	for _, r := range b.Rows {
		content += fmt.Sprint(r.Op, r.KeyOnly, r.Partial, texts(r.Tuple), texts(r.MovedFrom), r.Position)
		key := texts(r.Tuple)[0]
		if keys[key] {
			s.err = fmt.Errorf("key %s twice in batch %s", key, b.ID)
		}
		keys[key] = true
	}
	if before, ok := s.done[b.ID]; ok {
		if before != content {
			s.err = fmt.Errorf("batch %s formed again with other content:\n%s\n%s", b.ID, before, content)
		}
	} else if f == half && !hasMoved(b) {
		part := *b
		part.Rows = b.Rows[:len(b.Rows)/2]
		s.apply(&part)
		s.done[b.ID] = content
		return apply.Result{}, fmt.Errorf("injected: %w", apply.ErrIncomplete)
	} else {
		s.apply(b)
		s.done[b.ID] = content
	}
	if f == failAfter || f == crashAfter {
		return apply.Result{}, errInjected
	}
	return apply.Result{Loads: 1}, nil
}

func hasMoved(b *apply.TableBatch) bool {
	return slices.ContainsFunc(b.Rows, func(r apply.Row) bool { return r.MovedFrom != nil })
}

func (s *memSink) apply(b *apply.TableBatch) {
	t := s.tables[b.Schema.Table]
	if t == nil {
		t = map[string]memRow{}
		s.tables[b.Schema.Table] = t
	}
	before := maps.Clone(t)
	for _, r := range b.Rows {
		vals := texts(r.Tuple)
		old, ok := before[vals[0]]
		if r.MovedFrom != nil {
			if old, ok = before[texts(r.MovedFrom)[0]]; !ok {
				s.err = fmt.Errorf("moved row %s not in the sink", texts(r.MovedFrom)[0])
			}
		}
		for i := range vals {
			missing := vals[i] == "?" || (r.KeyOnly && i > 0)
			switch {
			case missing && ok:
				vals[i] = old.values[i]
			case missing && r.Op != apply.OpDelete:
				s.err = fmt.Errorf("update of key %s which is not in the sink", vals[0])
			}
		}
		if now, ok := t[vals[0]]; ok && now.version > r.Position.Commit {
			s.err = fmt.Errorf("key %s goes back from version %s to %s", vals[0], now.version, r.Position.Commit)
		}
		t[vals[0]] = memRow{values: vals, deleted: r.Op == apply.OpDelete, version: r.Position.Commit}
	}
}

func (s *memSink) Truncate(_ context.Context, tr *apply.TableTruncate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.script()
	if f == failBefore || f == crash {
		return errInjected
	}
	for k, r := range s.tables[tr.Schema.Table] {
		if r.version > tr.Position.Commit {
			s.err = fmt.Errorf("truncate at %s finds version %s", tr.Position, r.version)
		}
		r.deleted = true
		s.tables[tr.Schema.Table][k] = r
	}
	if f == failAfter || f == crashAfter {
		return errInjected
	}
	return nil
}

// oracle is the source: live rows by key, as PostgreSQL would hold them.
type oracle struct {
	tables  map[string]map[string][]string
	schemas map[string]*cdc.Schema
}

func newOracle() *oracle {
	return &oracle{
		tables:  map[string]map[string][]string{"t1": {}, "t2": {}},
		schemas: map[string]*cdc.Schema{"t1": schema("t1", 1), "t2": schema("t2", 2)},
	}
}

func (o *oracle) compare(t *rapid.T, sink *memSink) {
	for name := range o.tables {
		if got, want := sink.live(name), o.live(name); !maps.Equal(got, want) {
			t.Fatalf("table %s\n got %v\nwant %v", name, got, want)
		}
	}
}

func schema(name string, oid uint32) *cdc.Schema {
	s := &cdc.Schema{OID: oid, Namespace: "public", Table: name, Key: []int{0}}
	for _, c := range []string{"id", "a", "big"} {
		s.Columns = append(s.Columns, cdc.Column{Name: c, Type: cdc.TypeText, Mod: -1, BaseMod: -1})
	}
	if err := s.Seal(); err != nil {
		panic(err)
	}
	return s
}

func put(w *cdc.Writer, vals ...string) {
	w.StartTuple(len(vals))
	for _, v := range vals {
		switch v {
		case "NULL":
			w.Null()
		case "?":
			w.Unchanged()
		default:
			w.Text([]byte(v))
		}
	}
}

// history plays random transactions, cut into frames at random places.
func (o *oracle) history(t *rapid.T, w *cdc.Writer, flush func()) {
	lsn := cdc.LSN(0x100)
	for range rapid.IntRange(1, 25).Draw(t, "transactions") {
		w.Begin(lsn, time.Now().UnixMicro(), 1)
		for range rapid.IntRange(0, 6).Draw(t, "changes") {
			o.step(t, w)
			if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
				flush()
			}
		}
		w.Commit(lsn + 8)
		if rapid.IntRange(0, 2).Draw(t, "cut") == 0 {
			flush()
		}
		lsn += 0x10
	}
	flush()
}

// step makes one random change and writes it.
func (o *oracle) step(t *rapid.T, w *cdc.Writer) {
	name := rapid.SampledFrom([]string{"t1", "t2"}).Draw(t, "table")
	s, rows := o.schemas[name], o.tables[name]
	live := slices.Sorted(maps.Keys(rows))
	value := func() string { return strconv.Itoa(rapid.IntRange(0, 1_000_000).Draw(t, "value")) }
	free := func() string {
		for {
			k := "k" + strconv.Itoa(rapid.IntRange(0, 9).Draw(t, "key"))
			if _, taken := rows[k]; !taken {
				return k
			}
		}
	}
	op := rapid.IntRange(0, 19).Draw(t, "op")
	switch {
	case op == 19:
		w.Truncate(0, []*cdc.Schema{s})
		clear(rows)
	case len(live) == 0 || (op < 6 && len(live) < 8):
		k := free()
		rows[k] = []string{k, value(), value()}
		w.Insert(s)
		put(w, rows[k]...)
	case op < 12:
		k := rapid.SampledFrom(live).Draw(t, "key")
		a, big := value(), "?"
		next := []string{k, a, rows[k][2]}
		if rapid.Bool().Draw(t, "changes big") {
			big = value()
			next[2] = big
		}
		rows[k] = next
		w.Update(s, cdc.OldNone)
		put(w, k, a, big)
	case op < 15 && len(live) < 9:
		k, to := rapid.SampledFrom(live).Draw(t, "key"), free()
		a := value()
		rows[to] = []string{to, a, rows[k][2]}
		delete(rows, k)
		w.Update(s, cdc.OldKey)
		put(w, k, "NULL", "NULL")
		put(w, to, a, "?")
	default:
		k := rapid.SampledFrom(live).Draw(t, "key")
		delete(rows, k)
		w.Delete(s, cdc.OldKey)
		put(w, k, "NULL", "NULL")
	}
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

func (o *oracle) live(table string) map[string]string {
	out := map[string]string{}
	for k, r := range o.tables[table] {
		out[k] = strings.Join(r, ",")
	}
	return out
}

// TestRandomHistoriesReachTheSinkExactlyThroughCrashesAndLostAnswers plays random
// histories, cut into random frames, against a sink that fails, loses answers and
// stops apply at random calls. In the end the sink must equal the source, no batch
// may have been formed in two ways, and no version may have gone back.
func TestRandomHistoriesReachTheSinkExactlyThroughCrashesAndLostAnswers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := newOracle()
		stream := newMemStream()
		for _, s := range o.schemas {
			stream.schemas[s.Fingerprint()] = s
		}
		w := cdc.NewWriter("e1", cdc.Position{Commit: 0x80}, 0x80)
		w.Reset(nil)
		tail := cdc.Tail{Empty: true}
		flush := func() {
			if !w.Empty() {
				data, h, err := w.Seal()
				if err != nil {
					t.Fatal(err)
				}
				stream.publish(data)
				tail = cdc.Tail{Last: h.Last, End: h.End}
				w.Reset(nil)
			}
		}
		o.history(t, w, flush)
		faults := rapid.SliceOfN(rapid.SampledFrom([]fault{none, none, failBefore, failAfter, crash, crashAfter, half}), 0, 30).Draw(t, "faults")
		flushBytes := rapid.IntRange(1, 200).Draw(t, "flush bytes")
		var stop context.CancelFunc
		sink := newMemSink(func() fault {
			if len(faults) == 0 {
				return none
			}
			f := faults[0]
			faults = faults[1:]
			if f == crash || f == crashAfter {
				stop()
			}
			return f
		})
		for {
			ctx, cancel := context.WithCancel(context.Background())
			stop = cancel
			a := apply.New(apply.Config{FlushBytes: flushBytes, MinSpacing: 1, BackoffMax: time.Millisecond}, stream, sink)
			done := make(chan error, 1)
			go func() { done <- a.Run(ctx) }()
			drain, stopDrain := context.WithTimeout(ctx, 20*time.Second)
			err := a.Drain(drain, tail)
			timedOut := errors.Is(drain.Err(), context.DeadlineExceeded)
			stopDrain()
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if sink.err != nil {
				t.Fatal(sink.err)
			}
			if timedOut {
				t.Fatalf("apply does not end: %+v", a.Status())
			}
			if err == nil {
				break
			}
		}
		o.compare(t, sink)
	})
}
