package apply_test

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// snapshot publishes one frame with rows of a snapshot, which are as old as at. An end of
// false leaves the sequence open, as when frames are cut inside it.
func (b *bench) snapshot(t *testing.T, at time.Time, end bool, rows ...[]string) {
	t.Helper()
	if !b.w.InTransaction() && !b.w.BeginSnapshot(cdc.Position{}, at.UnixMicro()) {
		t.Fatal("the snapshot cannot begin")
	}
	for _, row := range rows {
		b.w.SnapshotRow(b.table)
		put(b.w, row...)
	}
	if end {
		b.w.EndSnapshot()
	}
	data, h, err := b.w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	b.stream.publish(data)
	b.tail = cdc.Tail{Last: h.Last, End: h.End}
	b.w.Reset(nil)
}

func (b *bench) loose(vals ...string) func(*cdc.Writer) {
	return func(w *cdc.Writer) { w.LooseUpdate(b.table, cdc.OldNone); put(w, vals...) }
}

func (b *bench) looseMove(from string, vals ...string) func(*cdc.Writer) {
	return func(w *cdc.Writer) {
		w.LooseUpdate(b.table, cdc.OldKey)
		put(w, from, "NULL", "NULL")
		put(w, vals...)
	}
}

// seen is a row as a sink gets it.
type seen struct {
	Op                         apply.Op
	Values, From               []string
	KeyOnly, Partial, Optional bool
}

// TestLooseUpdatesAndRowsOfASnapshotBecomeOneRow: a row is optional as long as nothing in
// the batch says that the sink must have it.
func TestLooseUpdatesAndRowsOfASnapshotBecomeOneRow(t *testing.T) {
	t.Parallel()
	x := bench{table: schema("t1", 1)}
	row := func(vals ...string) func(*cdc.Writer) {
		return func(w *cdc.Writer) { w.SnapshotRow(x.table); put(w, vals...) }
	}
	gone := seen{Op: apply.OpDelete, Values: []string{"k", "NULL", "NULL"}, KeyOnly: true}
	for _, c := range []struct {
		name    string
		changes []func(*cdc.Writer)
		want    []seen
	}{
		{"a row", []func(*cdc.Writer){row("k", "1", "x")}, []seen{{Values: []string{"k", "1", "x"}}}},
		{"loose", []func(*cdc.Writer){x.loose("k", "1", "?")}, []seen{{Op: apply.OpUpdate, Values: []string{"k", "1", "?"}, Partial: true, Optional: true}}},
		{"loose and whole", []func(*cdc.Writer){x.loose("k", "1", "x")}, []seen{{Op: apply.OpUpdate, Values: []string{"k", "1", "x"}}}},
		{"loose, then the row", []func(*cdc.Writer){x.loose("k", "1", "?"), row("k", "1", "x")}, []seen{{Values: []string{"k", "1", "x"}}}},
		{"the row, then loose", []func(*cdc.Writer){row("k", "1", "x"), x.loose("k", "2", "?")}, []seen{{Op: apply.OpUpdate, Values: []string{"k", "2", "x"}}}},
		{"loose twice", []func(*cdc.Writer){x.loose("k", "1", "?"), x.loose("k", "?", "?")}, []seen{{Op: apply.OpUpdate, Values: []string{"k", "1", "?"}, Partial: true, Optional: true}}},
		{"loose, then not", []func(*cdc.Writer){x.loose("k", "1", "?"), x.update("k", "2", "?")}, []seen{{Op: apply.OpUpdate, Values: []string{"k", "2", "?"}, Partial: true}}},
		{"not loose, then loose", []func(*cdc.Writer){x.update("k", "1", "?"), x.loose("k", "2", "?")}, []seen{{Op: apply.OpUpdate, Values: []string{"k", "2", "?"}, Partial: true}}},
		{"moved", []func(*cdc.Writer){x.looseMove("k", "m", "1", "?")}, []seen{gone, {Op: apply.OpUpdate, Values: []string{"m", "1", "?"}, From: []string{"k", "NULL", "NULL"}, Partial: true, Optional: true}}},
		{"not loose, then moved", []func(*cdc.Writer){x.update("k", "1", "?"), x.looseMove("k", "m", "2", "?")}, []seen{
			{Op: apply.OpDelete, Values: []string{"k", "1", "?"}, Partial: true}, {Op: apply.OpUpdate, Values: []string{"m", "2", "?"}, From: []string{"k", "NULL", "NULL"}, Partial: true},
		}},
		{"moved, then the row", []func(*cdc.Writer){x.looseMove("k", "m", "1", "?"), row("m", "1", "x")}, []seen{gone, {Values: []string{"m", "1", "x"}}}},
		{"the row, then moved", []func(*cdc.Writer){row("k", "1", "x"), x.looseMove("k", "m", "2", "?")}, []seen{
			{Op: apply.OpDelete, Values: []string{"k", "1", "x"}}, {Op: apply.OpUpdate, Values: []string{"m", "2", "x"}},
		}},
		{"deleted, then the row", []func(*cdc.Writer){x.remove("k"), row("k", "1", "x")}, []seen{{Values: []string{"k", "1", "x"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := &keeper{}
			b := newBench(t, apply.Config{}, got)
			b.transaction(t, func(w *cdc.Writer) {
				for _, change := range c.changes {
					change(w)
				}
			})
			b.drain(t)
			if diff := cmp.Diff(c.want, got.rows); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// keeper is a sink that keeps the rows that it gets.
type keeper struct{ rows []seen }

func (k *keeper) Check(context.Context) error                          { return nil }
func (k *keeper) Prepare(context.Context, *cdc.Schema) error           { return nil }
func (k *keeper) Truncate(context.Context, *apply.TableTruncate) error { return nil }

func (k *keeper) Apply(_ context.Context, b *apply.TableBatch) (apply.Result, error) {
	for _, r := range b.Rows {
		k.rows = append(k.rows, seen{Op: r.Op, Values: texts(r.Tuple), From: texts(r.MovedFrom), KeyOnly: r.KeyOnly, Partial: r.Partial, Optional: r.Optional})
	}
	return apply.Result{Loads: 1}, nil
}

func TestRowsOfASnapshotAreCountedAndAreNoLag(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	b := newBench(t, apply.Config{MinSpacing: time.Millisecond}, sink)
	b.transaction(t, b.insert("a", "1", "x"))
	b.drain(t)
	<-sink.arrived
	before := b.Status()
	sink.mu.Lock()
	sink.hold = make(chan struct{})
	sink.mu.Unlock()
	b.snapshot(t, time.Now().Add(-time.Hour), true, []string{"k", "1", "x"}, []string{"l", "1", "x"})
	<-sink.arrived
	if s := b.Status(); !s.OldestCommit.IsZero() {
		t.Errorf("the oldest commit that is on its way is of %s", s.OldestCommit)
	}
	close(sink.hold)
	b.drain(t)
	s := b.Status()
	if s.SnapshotRows != 2 || s.Changes != 3 || s.P99 != before.P99 || s.P99 > time.Minute {
		t.Errorf("%d rows of a snapshot among %d changes, latency %s, before %s", s.SnapshotRows, s.Changes, s.P99, before.P99)
	}
	// Beside them the change counts.
	b.w.Begin(b.lsn, time.Now().Add(-10*time.Minute).UnixMicro(), 1)
	b.insert("b", "1", "x")(b.w)
	b.w.Commit(b.lsn + 8)
	b.snapshot(t, time.Now().Add(-time.Hour), true, []string{"m", "1", "x"})
	b.drain(t)
	if s := b.Status(); s.P99 < 5*time.Minute || s.P99 > 30*time.Minute {
		t.Errorf("the latency is %s, want about ten minutes", s.P99)
	}
}

// TestAReplayEndsBehindTheRowsOfASnapshotThatBelongToItsEnd: their transaction was complete
// before them.
func TestAReplayEndsBehindTheRowsOfASnapshotThatBelongToItsEnd(t *testing.T) {
	t.Parallel()
	source := newBench(t, apply.Config{}, newMemSink(nil))
	source.transaction(t, source.insert("a", "1", "x"))
	for _, key := range []string{"k", "l", "m"} {
		source.snapshot(t, time.Now(), false, []string{key, "1", "x"})
	}
	last := source.tail.Last
	source.snapshot(t, time.Now(), true, []string{"n", "1", "x"})
	source.drain(t)
	commit := source.tail.Last.Commit
	source.transaction(t, source.insert("b", "1", "x"))
	source.drain(t)
	for name, c := range map[string]struct {
		config apply.ReplayConfig
		want   []string
	}{
		"a transaction": {apply.ReplayConfig{To: cdc.Position{Commit: commit}}, []string{"a", "k", "l", "m", "n"}},
		"live apply": {
			apply.ReplayConfig{Live: func(context.Context) (apply.Live, error) {
				return apply.Live{Checkpoint: cdc.Checkpoint{Position: last}, Reached: last}, nil
			}},
			[]string{"a", "k", "l", "m"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for try := range 20 {
				sink := newMemSink(nil)
				config := c.config
				config.FlushBytes, config.MinSpacing = 1, 1
				if _, err := apply.NewReplay(config, apart{source.stream, name + string(rune('a'+try))}, sink).Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				var got []string
				for key := range sink.live("t1") {
					got = append(got, key)
				}
				if slices.Sort(got); !slices.Equal(got, c.want) {
					t.Fatalf("the replay has brought %v, want %v", got, c.want)
				}
			}
			survey, err := apply.Explore(t.Context(), c.config, source.stream)
			if err != nil || survey.Changes != uint64(len(c.want)) || survey.Tables["public.t1"].SnapshotRows != uint64(len(c.want)-1) {
				t.Errorf("the survey finds %+v, %v", survey, err)
			}
		})
	}
}

func TestALetterOfALooseUpdateStaysLoose(t *testing.T) {
	t.Parallel()
	b, sink, letters := letterBench(t, apply.Config{})
	sink.poison = func(_ string, values []string) bool { return values[1] == "bad" }
	b.transaction(t, b.insert("a", "1", "x"))
	b.snapshot(t, time.Now(), true, []string{"k", "bad", "x"})
	b.drain(t)
	b.transaction(t, b.loose("k", "2", "?"))
	b.drain(t)
	if len(letters.order) != 2 {
		t.Fatalf("letters are %v", letters.list())
	}
	frame, err := cdc.Open(letters.letters[letters.order[1]].Frames[0])
	if err != nil {
		t.Fatal(err)
	}
	records, err := frame.Reader([]*cdc.Schema{b.table})
	if err != nil {
		t.Fatal(err)
	}
	loose := false
	var rec cdc.Record
	for more := true; more; {
		if more, err = records.Next(&rec); err != nil {
			t.Fatal(err)
		}
		loose = loose || rec.Loose
	}
	if !loose {
		t.Error("the letter says that the sink must have the row")
	}
	sink.poison = nil
	if err := letters.retryAll(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	if got := sink.live("t1")["k"]; got != "k,2,x" {
		t.Errorf("the row is %q after the letters were retried", got)
	}
}

// purged is a stream of which nothing is left.
type purged struct{ apart }

func (p purged) Consumer(ctx context.Context, _ uint64) (apply.Consumer, error) {
	return p.apart.Consumer(ctx, uint64(len(p.messages)))
}

func TestAReplayThatHasAppliedEverythingEndsAlthoughTheStreamWasPurged(t *testing.T) {
	t.Parallel()
	source := newBench(t, apply.Config{}, newMemSink(nil))
	source.transaction(t, source.insert("a", "1", "x"))
	source.drain(t)
	to := cdc.Position{Commit: source.tail.Last.Commit, Ordinal: math.MaxUint64}
	state, err := json.Marshal(map[string]any{
		"pipeline": "p", "checkpoint": source.Status().Checkpoint, "replay": map[string]any{"from": cdc.Position{}, "to": to},
	})
	if err != nil {
		t.Fatal(err)
	}
	stream := purged{apart{source.stream, "replay"}}
	if _, err := stream.SaveState(t.Context(), state, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := apply.NewReplay(apply.ReplayConfig{To: to}, stream, newMemSink(nil)).Run(ctx); err != nil {
		t.Error(err)
	}
}
