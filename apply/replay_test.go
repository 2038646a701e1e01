package apply_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// replay runs lives of one replay until it is done.
func (m *model) replay(t *rapid.T, config apply.ReplayConfig) apply.ReplaySummary {
	for {
		l := &life{memStream: m.stream, m: m, name: "replay", over: make(chan struct{})}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		l.stop = cancel
		config.Config = m.config(l)
		config.Config.DeadLetters = nil
		summary, err := apply.NewReplay(config, l, l).Run(ctx)
		timedOut := errors.Is(ctx.Err(), context.DeadlineExceeded)
		cancel()
		if timedOut {
			t.Fatalf("the replay does not end: %+v", summary)
		}
		if m.sink.mu.Lock(); m.sink.err != nil {
			t.Fatal(m.sink.err)
		}
		m.sink.mu.Unlock()
		if err == nil {
			return summary
		}
		expected := errors.Is(err, errInjected) || errors.Is(err, errTaken) || errors.Is(err, context.Canceled) ||
			errors.Is(err, apply.ErrIncomplete) || strings.Contains(err.Error(), "revision conflict")
		if !expected {
			t.Fatal(err)
		}
	}
}

// TestAReplayIntoAnotherSinkMakesItEqualToTheSource replays all of a random history into
// an empty sink, with all that can go wrong. The tables that were not asked for stay empty.
func TestAReplayIntoAnotherSinkMakesItEqualToTheSource(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := newOracle()
		o.history(t)
		m := newModel(t, o)
		config := apply.ReplayConfig{To: m.stream.tail.Last}
		if m.stream.tail.Last.IsZero() {
			t.Skip("no changes") // skip: a range needs an end.
		}
		if rapid.Bool().Draw(t, "some tables") {
			config.Tables = []string{"public.t1", "public.t3"}
			clear(o.tables["t2"])
		}
		m.replay(t, config)
		o.compare(t, m.sink, nil)
	})
}

// TestAReplayBringsBackWhatTheLiveTablesHaveLost takes rows out of a sink that live apply
// has filled, and replays into it. Updates of keys carry whole rows: what one left out may
// have been replaced in the sink since.
func TestAReplayBringsBackWhatTheLiveTablesHaveLost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := newOracle()
		o.whole = true
		o.history(t)
		m := newModel(t, o)
		m.run(t)
		for _, name := range []string{"t1", "t2"} {
			for _, key := range slices.Sorted(maps.Keys(m.sink.tables[name])) {
				if rapid.Bool().Draw(t, "lost") {
					delete(m.sink.tables[name], key)
				}
			}
		}
		m.sink.appends["t3"] = slices.DeleteFunc(m.sink.appends["t3"], func(memChange) bool { return rapid.Bool().Draw(t, "lost") })
		m.calls = drawFaults(t, "calls", failBefore, failAfter, crash, crashAfter, half, trip)
		m.replay(t, apply.ReplayConfig{
			Guarded: true, HardDeletes: m.sink.hard, Live: m.stream.live,
			Quiet: func(context.Context) (context.Context, func(), error) {
				return context.Background(), func() {}, nil
			},
		})
		o.compare(t, m.sink, nil)
	})
}

// TestAReplayIntoTheLiveTablesChangesNothingWhileLiveApplyWorks lets live apply and a
// replay of the same history run side by side while the history arrives. No version may
// go back, and in the end the sink must equal the source.
func TestAReplayIntoTheLiveTablesChangesNothingWhileLiveApplyWorks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := newOracle()
		o.history(t)
		m := newModel(t, o)
		m.stream = o.stream(rapid.IntRange(0, len(o.frames)).Draw(t, "frames before"))
		// Live apply lives through it: its holds are of its process.
		live := apply.New(apply.Config{FlushBytes: m.flushBytes, MinSpacing: 1, BackoffMax: time.Millisecond}, m.stream, m.sink)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- live.Run(ctx) }()
		pace := time.Duration(rapid.IntRange(0, 300).Draw(t, "pace")) * time.Microsecond
		arrived := make(chan struct{})
		go func() {
			defer close(arrived)
			for _, data := range o.frames[len(m.stream.messages):] {
				m.stream.publish(data)
				<-time.After(pace)
			}
		}()
		m.replay(t, apply.ReplayConfig{
			Guarded: true, HardDeletes: m.sink.hard, Live: m.stream.live, QuietWait: 5 * time.Millisecond, Quiet: quietOf(live),
		})
		<-arrived
		drain, stop := context.WithTimeout(ctx, patience)
		defer stop()
		err := live.Drain(drain, m.stream.tail)
		cancel()
		if err := errors.Join(err, <-done); err != nil {
			t.Fatalf("%v: %+v", err, live.Status())
		}
		o.compare(t, m.sink, nil)
	})
}

func quietOf(live *apply.Apply) func(context.Context) (context.Context, func(), error) {
	return func(ctx context.Context) (context.Context, func(), error) {
		if err := live.Hold(ctx, time.Minute); err != nil {
			return nil, nil, err
		}
		return context.Background(), live.Release, nil
	}
}

// gate is a sink whose first two loads wait.
type gate struct {
	*memSink
	arrived, open chan struct{}
	loads         int
}

func (g *gate) Apply(ctx context.Context, b *apply.TableBatch) (apply.Result, error) {
	if g.loads++; g.loads <= 2 {
		g.arrived <- struct{}{}
		<-g.open
	}
	return g.memSink.Apply(ctx, b)
}

func TestAReplayRemovesARowThatLiveApplyDeletedWhileItWasBroughtBack(t *testing.T) {
	t.Parallel()
	sink := newMemSink(nil)
	sink.hard = true
	b := newBench(t, apply.Config{MinSpacing: time.Millisecond}, sink)
	b.transaction(t, b.insert("k", "1", "x"))
	b.drain(t)
	g := &gate{memSink: sink, arrived: make(chan struct{}), open: make(chan struct{})}
	r := apply.NewReplay(apply.ReplayConfig{
		Guarded: true, HardDeletes: true, Live: b.stream.live, Quiet: quietOf(b.Apply),
	}, apart{b.stream, "replay"}, g)
	done := make(chan error, 1)
	go func() {
		_, err := r.Run(context.Background())
		done <- err
	}()
	<-g.arrived
	b.transaction(t, b.insert("l", "1", "x"))
	b.drain(t)
	g.open <- struct{}{}
	// The replay looks for the end once more, and that is all that live apply has.
	<-g.arrived
	b.transaction(t, b.remove("l"))
	b.transaction(t, b.remove("k"))
	b.drain(t)
	g.open <- struct{}{} // The row comes back.
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if sink.err != nil {
		t.Fatal(sink.err)
	}
	if live := sink.live("t1"); len(live) != 0 {
		t.Fatalf("rows that were deleted are back: %v", live)
	}
}

func TestAReplayWithHardDeletesIsRefusedWhereItCouldLeaveDeletedRows(t *testing.T) {
	t.Parallel()
	stream := newMemStream()
	quiet := func(context.Context) (context.Context, func(), error) { return context.Background(), func() {}, nil }
	for name, config := range map[string]apply.ReplayConfig{
		"an end":            {Guarded: true, HardDeletes: true, Live: stream.live, Quiet: quiet, To: cdc.Position{Commit: 1}},
		"no quiet":          {Guarded: true, HardDeletes: true, Live: stream.live},
		"no live apply":     {Guarded: true, Quiet: quiet},
		"nowhere to end":    {},
		"the end first":     {From: cdc.Position{Commit: 9}, To: cdc.Position{Commit: 8}},
		"a state of apply":  {To: cdc.Position{Commit: 1}},
		"another one there": {To: cdc.Position{Commit: 2}, Tables: []string{"public.x"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stream := newMemStream()
			var other []byte
			switch name {
			case "a state of apply":
				other = []byte(`{"pipeline":"p"}`)
			case "another one there":
				other = []byte(`{"pipeline":"p","replay":{"from":"0/0.0","to":"0/3.1"}}`)
			}
			if other != nil {
				if _, err := stream.save("", other, 0); err != nil {
					t.Fatal(err)
				}
			}
			_, err := apply.NewReplay(config, stream, newMemSink(nil)).Run(t.Context())
			if !errors.Is(err, apply.ErrRange) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// TestLettersAreRetriedWhileLiveApplyGoesOn retries all letters while the rest of the
// history arrives, on a sink that takes everything from then on.
func TestLettersAreRetriedWhileLiveApplyGoesOn(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := newOracle()
		o.history(t)
		m := newModel(t, o)
		m.stream = o.stream(rapid.IntRange(0, len(o.frames)).Draw(t, "frames before"))
		m.letters = newMemLetters()
		m.sink.poison = poison(t)
		live := apply.New(apply.Config{
			FlushBytes: m.flushBytes, MinSpacing: 1, BackoffMax: time.Millisecond, DeadLetters: m.letters,
		}, m.stream, m.sink)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- live.Run(ctx) }()
		for live.Status().Checkpoint.End < m.stream.tail.End {
			<-time.After(10 * time.Microsecond)
		}
		m.sink.mu.Lock()
		m.sink.poison = nil
		m.sink.mu.Unlock()
		arrived := make(chan struct{})
		go func() {
			defer close(arrived)
			for _, data := range o.frames[len(m.stream.messages):] {
				m.stream.publish(data)
				<-time.After(100 * time.Microsecond)
			}
		}()
		retry := func() {
			if m.sink.hard {
				if err := live.Hold(ctx, time.Minute); err != nil {
					t.Fatal(err)
				}
				defer live.Release()
			}
			refs, err := m.letters.Refs(ctx)
			if err != nil {
				t.Fatal(err)
			}
			checkpoint := live.Status().Checkpoint
			refs = slices.DeleteFunc(refs, func(r apply.LetterRef) bool { return !r.Complete(checkpoint) })
			if err := m.letters.retryThese(ctx, m.sink, refs); err != nil {
				t.Fatal(err)
			}
		}
		retry()
		<-arrived
		drain, stop := context.WithTimeout(ctx, patience)
		defer stop()
		err := live.Drain(drain, m.stream.tail)
		cancel()
		if err := errors.Join(err, <-done); err != nil {
			t.Fatalf("%v: %+v", err, live.Status())
		}
		// What followed letters that were just being retried.
		if err := m.letters.retryAll(context.Background(), m.sink); err != nil {
			t.Fatal(err)
		}
		o.compare(t, m.sink, nil)
	})
}

func TestExploreCountsTheRangeAndTouchesNothing(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	b := newBench(t, apply.Config{}, sink)
	from := b.lsn
	b.transaction(t, b.insert("a", "1", "x"))
	b.transaction(t, func(w *cdc.Writer) {
		b.insert("b", "1", "x")(w)
		b.update("b", "2", "?")(w)
		w.Truncate(0, []*cdc.Schema{b.table})
	})
	middle := b.tail.Last
	b.transaction(t, b.remove("b"))
	b.drain(t)
	revisions := b.stream.states[""].revision
	for name, c := range map[string]struct {
		config  apply.ReplayConfig
		changes uint64
		table   apply.TableSurvey
	}{
		"all":       {apply.ReplayConfig{Live: b.stream.live}, 5, apply.TableSurvey{Inserts: 2, Updates: 1, Deletes: 1, Truncates: 1, Bytes: 16}},
		"an end":    {apply.ReplayConfig{To: middle}, 4, apply.TableSurvey{Inserts: 2, Updates: 1, Truncates: 1, Bytes: 12}},
		"a start":   {apply.ReplayConfig{From: cdc.Position{Commit: from + 0x10}, Live: b.stream.live}, 4, apply.TableSurvey{Inserts: 1, Updates: 1, Deletes: 1, Truncates: 1, Bytes: 12}},
		"no tables": {apply.ReplayConfig{Live: b.stream.live, Tables: []string{"public.none"}}, 0, apply.TableSurvey{}},
	} {
		survey, err := apply.Explore(t.Context(), c.config, b.stream)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := survey.Tables["public.t1"]
		got.Bytes, c.table.Bytes = 0, 0
		if survey.Changes != c.changes || got != c.table || (c.changes > 0 && (survey.FirstTime.IsZero() || survey.Last.Compare(survey.First) <= 0)) {
			t.Errorf("%s: %+v", name, survey)
		}
	}
	if b.stream.states[""].revision != revisions || len(b.stream.states) != 1 {
		t.Fatal("something was written")
	}
}

func TestAReplaySaysWhatItDidAndThatItsRangeIsGone(t *testing.T) {
	t.Parallel()
	b := newBench(t, apply.Config{}, newRecorder())
	b.transaction(t, b.insert("a", "1", "x"))
	b.transaction(t, func(w *cdc.Writer) {
		b.insert("b", "1", "x")(w)
		b.update("b", "2", "y")(w)
	})
	b.drain(t)
	sink := newMemSink(nil)
	config := apply.ReplayConfig{To: b.tail.Last}
	summary, err := apply.NewReplay(config, apart{b.stream, "replay"}, sink).Run(t.Context())
	if err != nil || summary.Changes != 3 || summary.Rows != 2 || summary.Tables["public.t1"].Changes != 3 || summary.To != b.tail.Last || !summary.Finished {
		t.Fatalf("%+v, %v", summary, err)
	}
	calls := sink.calls
	if _, err := apply.NewReplay(config, apart{b.stream, "replay"}, sink).Run(t.Context()); err != nil || sink.calls != calls {
		t.Fatalf("the same again: %d calls, %v", sink.calls-calls, err)
	}
	config.Tables = []string{"public.none"}
	summary, err = apply.NewReplay(config, apart{b.stream, "none"}, sink).Run(t.Context())
	if err != nil || summary.Changes != 0 || summary.To != b.tail.Last {
		t.Fatalf("a table that is not there: %+v, %v", summary, err)
	}
	b.stream.messages = b.stream.messages[1:] // Purged.
	config.From = cdc.Position{Commit: 0x90}
	if _, err := apply.NewReplay(config, apart{b.stream, "gone"}, sink).Run(t.Context()); !errors.Is(err, apply.ErrGap) {
		t.Fatalf("a range that is gone: %v", err)
	}
}

func TestARowThatIsRefusedEndsAReplay(t *testing.T) {
	t.Parallel()
	b := newBench(t, apply.Config{}, newRecorder())
	b.transaction(t, b.insert("a", "bad", "x"))
	b.drain(t)
	sink := newMemSink(nil)
	sink.poison = bad
	_, err := apply.NewReplay(apply.ReplayConfig{To: b.tail.Last}, apart{b.stream, "replay"}, sink).Run(t.Context())
	if _, ok := errors.AsType[*apply.RowError](err); !ok {
		t.Fatalf("got %v", err)
	}
	sink.poison = nil
	summary, err := apply.NewReplay(apply.ReplayConfig{To: b.tail.Last}, apart{b.stream, "replay"}, sink).Run(t.Context())
	if err != nil || len(sink.live("t1")) != 1 {
		t.Fatalf("%+v, %v", summary, err)
	}
}

func TestLiveApplyWaitsWhileAReplayRemovesRows(t *testing.T) {
	t.Parallel()
	for _, hard := range []bool{true, false} {
		t.Run(fmt.Sprintf("hard deletes %t", hard), func(t *testing.T) {
			t.Parallel()
			sink := newMemSink(nil)
			sink.hard = hard
			b := newBench(t, apply.Config{MinSpacing: time.Millisecond}, sink)
			b.transaction(t, b.insert("k", "1", "x"))
			b.transaction(t, b.remove("k"))
			b.drain(t)
			g := &gate{memSink: sink, arrived: make(chan struct{}), open: make(chan struct{})}
			r := apply.NewReplay(apply.ReplayConfig{
				Guarded: true, HardDeletes: hard, Live: b.stream.live, Quiet: quietOf(b.Apply),
			}, apart{b.stream, "replay"}, g)
			done := make(chan error, 1)
			go func() {
				_, err := r.Run(context.Background())
				done <- err
			}()
			<-g.arrived
			b.transaction(t, b.insert("l", "1", "x"))
			if hard {
				<-time.After(50 * time.Millisecond)
				if live := sink.live("t1"); len(live) > 0 {
					t.Errorf("live apply has written while the replay deletes: %v", live)
				}
			} else {
				b.drain(t)
			}
			g.open <- struct{}{}
			go func() {
				select {
				case <-g.arrived:
					g.open <- struct{}{}
				case <-t.Context().Done():
				}
			}()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			b.drain(t)
			if live := sink.live("t1"); sink.err != nil || len(live) != 1 {
				t.Fatalf("%v, %v", live, sink.err)
			}
		})
	}
}

// versions is a sink that notes with which versions rows come.
type versions struct {
	*memSink
	seen []string
}

func (v *versions) Apply(ctx context.Context, b *apply.TableBatch) (apply.Result, error) {
	for _, r := range b.Rows {
		v.seen = append(v.seen, fmt.Sprint(r.Op, " ", r.Position.Commit))
	}
	return v.memSink.Apply(ctx, b)
}

func TestAReplayWritesAPartOfATransactionWithTheVersionBeforeIt(t *testing.T) {
	t.Parallel()
	sink := newMemSink(nil)
	b := newBench(t, apply.Config{}, sink)
	b.transaction(t, b.insert("f", "1", "x"))
	// The next transaction is in two frames, of which each fills a batch.
	b.w.Begin(b.lsn, 0, 1)
	b.remove("f")(b.w)
	data, _, err := b.w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	b.stream.publish(data)
	b.w.Reset(nil)
	b.insert("f", "2", "y")(b.w)
	b.w.Commit(b.lsn + 8)
	if data, _, err = b.w.Seal(); err != nil {
		t.Fatal(err)
	}
	b.stream.publish(data)
	b.tail = b.stream.tail
	b.drain(t)
	v := &versions{memSink: sink}
	config := apply.ReplayConfig{Config: apply.Config{FlushBytes: 1}, Guarded: true, Live: b.stream.live}
	if _, err := apply.NewReplay(config, apart{b.stream, "replay"}, v).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"insert 0/100", "delete 0/10F", "insert 0/110"}
	if !slices.Equal(v.seen, want) || sink.err != nil || sink.live("t1")["f"] != "f,2,y" {
		t.Fatalf("rows came as %v, want %v; %v, %v", v.seen, want, sink.live("t1"), sink.err)
	}
}
