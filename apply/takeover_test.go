package apply_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// started runs an apply beside the one of the bench.
func started(t *testing.T, a *apply.Apply) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("never: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestAnApplyThatWasReplacedStopsWithoutACallOfTheSink(t *testing.T) {
	t.Parallel()
	first, second := newRecorder(), newRecorder()
	b := newBench(t, apply.Config{MinSpacing: time.Millisecond}, first)
	b.transaction(t, b.insert("a", "1", "x"))
	wait(t, "the first has applied", func() bool { return b.Status().Checkpoint.End == b.tail.End })
	if err := b.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	// The other one applies a batch that the first has not seen.
	other := apply.New(apply.Config{MinSpacing: time.Millisecond}, b.stream, second)
	stop := started(t, other)
	b.transaction(t, b.insert("b", "1", "x"))
	if err := other.Drain(context.Background(), b.tail); err != nil {
		t.Fatal(err)
	}
	stop()
	before := b.Status().Restarts
	b.Resume()
	wait(t, "the first ends its session", func() bool { return b.Status().Restarts > before })
	b.drain(t)
	if n, m := len(first.got()), len(second.got()); n != 1 || m != 1 {
		t.Fatalf("the first has made %d calls, the second %d", n, m)
	}
}

func TestAProcessThatWasStoppedWritesNothingWhenItGoesOn(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(b *bench, sink *recorder){
		"before a batch": func(*bench, *recorder) {},
		"between two tries": func(b *bench, sink *recorder) {
			sink.mu.Lock()
			sink.fail = errors.New("the sink is down")
			sink.mu.Unlock()
			b.transaction(t, b.insert("b", "1", "x"))
			<-sink.arrived
			<-sink.arrived
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var down atomic.Bool
			sink := newRecorder()
			b := newBench(t, apply.Config{
				MinSpacing: time.Millisecond, BackoffMax: time.Millisecond,
				Fence: func() error {
					if down.Load() {
						return errTaken
					}
					return nil
				},
			}, sink)
			b.transaction(t, b.insert("a", "1", "x"))
			b.drain(t)
			<-sink.arrived
			between(b, sink)
			down.Store(true)
			state, revision, err := b.stream.load("")
			if err != nil {
				t.Fatal(err)
			}
			sink.mu.Lock()
			sink.fail = nil
			sink.mu.Unlock()
			calls := len(sink.arrived)
			b.transaction(t, b.insert("c", "1", "x"))
			before := b.Status().Restarts
			wait(t, "the session ends", func() bool { return b.Status().Restarts > before+1 })
			after, now, err := b.stream.load("")
			if err != nil {
				t.Fatal(err)
			}
			// A call that had begun may be counted when the fence went down.
			if n := len(sink.arrived) - calls; n > 1 || (n > 0 && name == "before a batch") {
				t.Fatalf("%d calls of the sink", n)
			}
			if now != revision || string(after) != string(state) {
				t.Fatalf("the state was written: %s", after)
			}
			if got := len(sink.got()); got > 2 {
				t.Fatalf("%d batches", got)
			}
		})
	}
}

func TestALostLeaseEndsARunningCallAndRun(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	sink.hold = make(chan struct{})
	lost := make(chan struct{})
	stream := newMemStream()
	b := &bench{stream: stream, table: schema("t1", 1), lsn: 0x100}
	b.w = cdc.NewWriter("e1", cdc.Position{Commit: 0x80}, 0x80)
	b.w.Reset(nil)
	a := apply.New(apply.Config{Lost: lost, Grace: time.Hour}, stream, sink)
	done := make(chan error, 1)
	go func() { done <- a.Run(context.Background()) }()
	b.transaction(t, b.insert("a", "1", "x"))
	<-sink.arrived
	close(lost)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("Run goes on")
	}
	if a.Status().State != apply.Stopped {
		t.Fatalf("%+v", a.Status())
	}
}

func TestAHeldApplyBeginsNoBatchUntilItIsReleasedOrTheTimeIsOver(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	sink.hold = make(chan struct{})
	b := newBench(t, apply.Config{MinSpacing: time.Millisecond}, sink)
	b.transaction(t, b.insert("a", "1", "x"))
	<-sink.arrived
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.Hold(short, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("hold with a batch under way returned %v", err)
	}
	close(sink.hold)
	if err := b.Hold(context.Background(), time.Minute); err != nil {
		t.Fatal(err)
	}
	live, err := b.stream.live(context.Background())
	if err != nil || live.Reached != live.Checkpoint.Position || live.Reached != b.tail.Last {
		t.Fatalf("a batch is under way: %+v, %v", live, err)
	}
	b.transaction(t, b.insert("b", "1", "x"))
	select {
	case <-sink.arrived:
		t.Fatal("a batch began while held")
	case <-time.After(50 * time.Millisecond):
	}
	b.Release()
	<-sink.arrived
	b.drain(t)
	if err := b.Hold(context.Background(), 20*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	b.transaction(t, b.insert("c", "1", "x"))
	<-sink.arrived
	b.drain(t)
}

// allowed is a sink that asks before it writes, after a while.
type allowed struct {
	*recorder
	before chan struct{}
	answer chan error
}

func (s *allowed) Apply(ctx context.Context, _ *apply.TableBatch) (apply.Result, error) {
	s.before <- struct{}{}
	<-s.before
	err := apply.Allowed(ctx)
	s.answer <- err
	return apply.Result{}, err
}

func TestASinkLearnsThatItMayNotWriteAnyMore(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	sink := &allowed{recorder: newRecorder(), before: make(chan struct{}), answer: make(chan error, 10)}
	b := newBench(t, apply.Config{BackoffMax: time.Millisecond, Fence: func() error {
		if down.Load() {
			return errTaken
		}
		return nil
	}}, sink)
	b.transaction(t, b.insert("a", "1", "x"))
	<-sink.before
	down.Store(true)
	sink.before <- struct{}{}
	if err := <-sink.answer; !errors.Is(err, errTaken) {
		t.Fatalf("got %v", err)
	}
}
