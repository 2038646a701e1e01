package apply_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// recorder is a sink that keeps what it is given, and can be held.
type recorder struct {
	mu      sync.Mutex
	batches [][]string
	arrived chan struct{} // one for each batch
	hold    chan struct{} // nil, or what Apply waits for
	fail    error
}

func newRecorder() *recorder { return &recorder{arrived: make(chan struct{}, 100)} }

func (r *recorder) Check(context.Context) error                          { return nil }
func (r *recorder) Prepare(context.Context, *cdc.Schema) error           { return nil }
func (r *recorder) Truncate(context.Context, *apply.TableTruncate) error { return nil }

func (r *recorder) Apply(ctx context.Context, b *apply.TableBatch) (apply.Result, error) {
	r.mu.Lock()
	hold, fail := r.hold, r.fail
	r.mu.Unlock()
	r.arrived <- struct{}{}
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return apply.Result{}, ctx.Err()
		}
	}
	if fail != nil {
		return apply.Result{}, fail
	}
	var rows []string
	for _, row := range b.Rows {
		rows = append(rows, fmt.Sprint(int(row.Op), texts(row.Tuple), row.KeyOnly, row.Partial, texts(row.MovedFrom)))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, rows)
	return apply.Result{Loads: 1}, nil
}

func (r *recorder) got() [][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([][]string(nil), r.batches...)
}

// bench runs apply on a stream that the test writes.
type bench struct {
	*apply.Apply
	stream *memStream
	w      *cdc.Writer
	table  *cdc.Schema
	tail   cdc.Tail
	lsn    cdc.LSN
	stop   func()
}

func newBench(t *testing.T, config apply.Config, sink apply.Sink) *bench {
	t.Helper()
	b := &bench{stream: newMemStream(), table: schema("t1", 1), lsn: 0x100}
	b.stream.schemas[b.table.Fingerprint()] = b.table
	b.w = cdc.NewWriter("e1", cdc.Position{Commit: 0x80}, 0x80)
	b.w.Reset(nil)
	b.Apply = apply.New(config, b.stream, sink)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// transaction publishes one frame with one transaction.
func (b *bench) transaction(t *testing.T, changes func(*cdc.Writer)) {
	t.Helper()
	b.w.Begin(b.lsn, time.Now().UnixMicro(), 1)
	changes(b.w)
	b.w.Commit(b.lsn + 8)
	b.lsn += 0x10
	data, h, err := b.w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	b.stream.publish(data)
	b.tail = cdc.Tail{Last: h.Last, End: h.End}
	b.w.Reset(nil)
}

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

func (b *bench) drain(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Drain(ctx, b.tail); err != nil {
		t.Fatalf("%v: %+v", err, b.Status())
	}
}

func (b *bench) insert(vals ...string) func(*cdc.Writer) {
	return func(w *cdc.Writer) { w.Insert(b.table); put(w, vals...) }
}

func (b *bench) update(vals ...string) func(*cdc.Writer) {
	return func(w *cdc.Writer) { w.Update(b.table, cdc.OldNone); put(w, vals...) }
}

func (b *bench) remove(key string) func(*cdc.Writer) {
	return func(w *cdc.Writer) { w.Delete(b.table, cdc.OldKey); put(w, key, "NULL", "NULL") }
}

func (b *bench) move(from string, vals ...string) func(*cdc.Writer) {
	return func(w *cdc.Writer) {
		w.Update(b.table, cdc.OldKey)
		put(w, from, "NULL", "NULL")
		put(w, vals...)
	}
}

func TestOneRowPerKeyReachesTheSink(t *testing.T) {
	t.Parallel()
	type step = func(*cdc.Writer)
	var x bench
	x.table = schema("t1", 1)
	for _, c := range []struct {
		name  string
		steps []step
		want  []string
	}{
		{"the last of several updates", []step{x.insert("k", "1", "b"), x.update("k", "2", "b"), x.update("k", "3", "c")}, []string{"1 [k 3 c] false false []"}},
		{"an update fills what it did not send", []step{x.insert("k", "1", "big"), x.update("k", "2", "?")}, []string{"1 [k 2 big] false false []"}},
		{"partial updates merge", []step{x.update("k", "2", "?"), x.update("k", "3", "?")}, []string{"1 [k 3 ?] false true []"}},
		{"a partial update after a whole one is whole", []step{x.update("k", "2", "?"), x.update("k", "3", "new"), x.update("k", "4", "?")}, []string{"1 [k 4 new] false false []"}},
		{"a delete keeps the values that are known", []step{x.insert("k", "1", "b"), x.remove("k")}, []string{"2 [k 1 b] false false []"}},
		{"a delete of an unknown row has the key", []step{x.remove("k")}, []string{"2 [k NULL NULL] true false []"}},
		{"a delete after a partial update keeps what it knows", []step{x.update("k", "2", "?"), x.remove("k")}, []string{"2 [k 2 ?] false true []"}},
		{"a row that comes back is whole", []step{x.remove("k"), x.insert("k", "1", "b")}, []string{"0 [k 1 b] false false []"}},
		{"a change of key deletes and inserts", []step{x.move("k", "m", "1", "b")}, []string{"2 [k NULL NULL] true false []", "1 [m 1 b] false false []"}},
		{"a moved row is filled from the batch", []step{x.insert("k", "1", "b"), x.move("k", "m", "2", "?")}, []string{"2 [k 1 b] false false []", "1 [m 2 b] false false []"}},
		{"a moved row is filled from the sink otherwise", []step{x.move("k", "m", "2", "?")}, []string{"2 [k NULL NULL] true false []", "1 [m 2 ?] false true [k NULL NULL]"}},
		{
			"a row that moves twice is filled from where it was",
			[]step{x.move("k", "m", "2", "?"), x.update("m", "3", "?"), x.move("m", "n", "4", "?")},
			[]string{"2 [k NULL NULL] true false []", "2 [m 3 ?] false true [k NULL NULL]", "1 [n 4 ?] false true [k NULL NULL]"},
		},
		{"a row that moves away and back is itself", []step{x.insert("k", "1", "b"), x.move("k", "m", "2", "?"), x.move("m", "k", "3", "?")}, []string{"1 [k 3 b] false false []", "2 [m 2 b] false false []"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sink := newRecorder()
			b := newBench(t, apply.Config{}, sink)
			b.transaction(t, func(w *cdc.Writer) {
				for _, s := range c.steps {
					s(w)
				}
			})
			b.drain(t)
			if diff := cmp.Diff([][]string{c.want}, sink.got()); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestNothingBeginsWhilePausedAndAllArrivesAfterwards(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	sink.hold = make(chan struct{})
	b := newBench(t, apply.Config{MinSpacing: time.Millisecond}, sink)
	b.transaction(t, b.insert("a", "1", "x"))
	<-sink.arrived
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.Pause(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("pause with a running load returned %v", err)
	}
	close(sink.hold)
	if err := b.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.transaction(t, b.insert("b", "1", "x"))
	select {
	case <-sink.arrived:
		t.Fatal("a batch began while paused")
	case <-time.After(100 * time.Millisecond):
	}
	if s := b.Status(); s.State != apply.Paused {
		t.Fatalf("state %s", s.State)
	}
	b.Resume()
	<-sink.arrived
	b.drain(t)
	if n := len(sink.got()); n != 2 {
		t.Fatalf("%d batches", n)
	}
}

func TestStopLetsARunningLoadFinishAndKeepsItsCheckpoint(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	sink.hold = make(chan struct{})
	b := newBench(t, apply.Config{MinSpacing: time.Millisecond}, sink)
	b.transaction(t, b.insert("a", "1", "x"))
	<-sink.arrived
	time.AfterFunc(50*time.Millisecond, func() { close(sink.hold) })
	b.stop()
	c, err := apply.ParseCheckpoint(b.stream.states[""].value)
	if err != nil || c.End != b.tail.End || c.Position != b.tail.Last {
		t.Fatalf("checkpoint %+v after the stop, tail %+v: %v", c, b.tail, err)
	}
}

func TestALoneChangeDoesNotWaitForTheInterval(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	b := newBench(t, apply.Config{FlushInterval: time.Hour}, sink)
	for range 3 {
		b.transaction(t, b.insert("a", "1", "x"))
		select {
		case <-sink.arrived:
		case <-time.After(patience):
			t.Fatalf("the change waits: %+v", b.Status())
		}
	}
}

func TestBatchesEndWithTransactionsUnlessOneAloneIsLarger(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	b := newBench(t, apply.Config{FlushBytes: 60, MinSpacing: time.Millisecond}, sink)
	if err := b.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	rows := func(prefix string, n int) func(*cdc.Writer) {
		return func(w *cdc.Writer) {
			for i := range n {
				w.Insert(b.table)
				put(w, fmt.Sprint(prefix, i), "1", "x")
			}
		}
	}
	b.transaction(t, rows("a", 2))
	b.transaction(t, rows("b", 30)) // far more than a batch, in one frame
	b.transaction(t, rows("c", 2))
	b.drain(t)
	total := 0
	for _, batch := range sink.got() {
		total += len(batch)
		if total != 2 && total != 32 && total != 34 {
			t.Fatalf("a batch ends after %d rows", total)
		}
	}
	b.Resume()
	// One transaction over several frames that fills more than a batch.
	before := len(sink.got())
	b.w.Begin(b.lsn, 0, 1)
	for i := range 5 {
		rows(fmt.Sprint("d", i), 10)(b.w)
		data, _, err := b.w.Seal()
		if err != nil {
			t.Fatal(err)
		}
		b.stream.publish(data)
		b.w.Reset(nil)
	}
	deadline := time.After(patience)
	for len(sink.got()) < before+4 {
		select {
		case <-deadline:
			t.Fatalf("the open transaction is not taken in parts: %+v", b.Status())
		case <-time.After(time.Millisecond):
		}
	}
	if c := b.Status().Checkpoint; c.End != b.tail.End {
		t.Fatalf("an open transaction moved the end from %s to %s", b.tail.End, c.End)
	}
}

func TestStatusShowsWhatIsWrongUntilItIsNot(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	sink.fail = errors.New("the sink is down")
	b := newBench(t, apply.Config{BackoffMax: 5 * time.Millisecond}, sink)
	b.transaction(t, b.insert("a", "1", "x"))
	<-sink.arrived
	<-sink.arrived
	if s := b.Status(); s.State != apply.Failing || s.Err == "" || s.Failures == 0 || s.OldestCommit.IsZero() {
		t.Fatalf("%+v", s)
	}
	sink.mu.Lock()
	sink.fail = nil
	sink.mu.Unlock()
	b.drain(t)
	if s := b.Status(); s.Err != "" || s.Changes != 1 || s.Batches != 1 || s.P99 == 0 || !s.OldestCommit.IsZero() {
		t.Fatalf("%+v", s)
	}
}

func TestAFrameOfAnotherPipelineOrWithAHoleStopsApply(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(b *bench){
		"another epoch": func(b *bench) { b.w = cdc.NewWriter("other", b.tail.Last, b.tail.End); b.w.Reset(nil) },
		"a missing frame": func(b *bench) {
			b.w = cdc.NewWriter("e1", cdc.Position{Commit: b.lsn + 0x10, Ordinal: 1}, b.lsn+0x18)
			b.w.Reset(nil)
			b.lsn += 0x20
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := newRecorder()
			b := newBench(t, apply.Config{BackoffMax: time.Millisecond, MinSpacing: time.Millisecond}, sink)
			b.transaction(t, b.insert("a", "1", "x"))
			b.drain(t)
			damage(b)
			b.transaction(t, b.insert("b", "1", "x"))
			deadline := time.After(patience)
			for b.Status().State != apply.Failing {
				select {
				case <-deadline:
					t.Fatalf("%+v", b.Status())
				case <-time.After(time.Millisecond):
				}
			}
			if n := len(sink.got()); n != 1 {
				t.Fatalf("%d batches: changes behind the hole were applied", n)
			}
		})
	}
}

func TestTheEndOfATransactionAloneIsAppliedAfterARestart(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	b := newBench(t, apply.Config{FlushBytes: 1, MinSpacing: time.Millisecond}, sink)
	// The change is in one frame and applied as far as the stream goes; its commit
	// is in another, which comes after the restart.
	b.w.Begin(b.lsn, 0, 1)
	b.insert("a", "1", "x")(b.w)
	data, h, err := b.w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	b.stream.publish(data)
	b.w.Reset(nil)
	b.tail = cdc.Tail{Last: h.Last, End: h.End}
	b.drain(t)
	b.stop()
	b.w.Commit(b.lsn + 8)
	if data, h, err = b.w.Seal(); err != nil {
		t.Fatal(err)
	}
	if h.Prev != h.Last {
		t.Fatalf("the second frame has changes: %+v", h)
	}
	b.stream.publish(data)
	again := apply.New(apply.Config{}, b.stream, sink)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- again.Run(ctx) }()
	drain, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if err := again.Drain(drain, cdc.Tail{Last: h.Last, End: h.End}); err != nil {
		t.Errorf("%v: %+v", err, again.Status())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// used is a stream of which something was acknowledged.
type used struct{ *memStream }

func (used) Acknowledged(context.Context) (uint64, error) { return 7, nil }

func TestALostCheckpointIsNotTakenForABeginning(t *testing.T) {
	t.Parallel()
	b := newBench(t, apply.Config{}, newRecorder())
	b.transaction(t, b.insert("a", "1", "x"))
	b.transaction(t, b.insert("b", "1", "x"))
	b.drain(t)
	b.stop()
	purged := newMemStream()
	purged.messages, purged.schemas = b.stream.messages[1:], b.stream.schemas
	for name, stream := range map[string]apply.Stream{"the front is purged": purged, "something was acknowledged": used{newMemStream()}} {
		sink := newRecorder()
		a := apply.New(apply.Config{BackoffMax: time.Millisecond}, stream, sink)
		stop := started(t, a)
		wait(t, name+" is refused", func() bool { return strings.Contains(a.Status().Err, "the checkpoint is lost") })
		stop()
		if len(sink.arrived) > 0 {
			t.Fatalf("%s: the sink was called", name)
		}
	}
}

// aheadRecorder notes what it is asked to encode.
type aheadRecorder struct {
	*recorder
	encodes chan int // rows
	used    atomic.Int64
}

func (r *aheadRecorder) Encode(b *apply.TableBatch) any {
	r.encodes <- len(b.Rows)
	return len(b.Rows)
}

func (r *aheadRecorder) Apply(ctx context.Context, b *apply.TableBatch) (apply.Result, error) {
	if b.Encoded == any(len(b.Rows)) {
		r.used.Add(1)
	}
	return r.recorder.Apply(ctx, b)
}

func TestAFullBatchIsEncodedWhileTheOneBeforeIsLoaded(t *testing.T) {
	t.Parallel()
	sink := &aheadRecorder{recorder: newRecorder(), encodes: make(chan int, 10)}
	sink.hold = make(chan struct{})
	b := newBench(t, apply.Config{FlushBytes: 60, MinSpacing: time.Millisecond}, sink)
	b.transaction(t, b.insert("a", "1", "x"))
	<-sink.arrived // It is held there.
	b.transaction(t, b.insert("b", "1", "x"))
	select {
	case <-sink.encodes:
		t.Error("a batch that others may join was encoded")
	case <-time.After(50 * time.Millisecond):
	}
	b.transaction(t, func(w *cdc.Writer) {
		for i := range 30 {
			b.insert(fmt.Sprint("c", i), "1", "x")(w)
		}
	})
	select {
	case n := <-sink.encodes:
		if n != 31 {
			t.Errorf("%d rows were encoded, want 31", n)
		}
	case <-time.After(patience):
		t.Fatal("a full batch waits, and nothing was encoded")
	}
	close(sink.hold)
	b.drain(t)
	if n := sink.used.Load(); n != 1 || len(sink.encodes) > 0 {
		t.Errorf("%d batches came encoded, and %d more were encoded; want 1 and 0", n, len(sink.encodes))
	}
}
