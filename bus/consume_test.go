package bus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

func testConsumerStartsAfterASequence(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	publish(t, b, 10, 100)
	// An old session acknowledges more than the new one asks for.
	c, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	check := bustest.Checker{Epoch: b.Epoch()}
	m, err := check.Read(ctx, c, 8)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ack(ctx, m.Sequence); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if c, err = b.Consumer(ctx, 4); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for want := uint64(5); want <= 10; want++ {
		if got := c.Pending(); got != 11-want {
			t.Errorf("%d pending before sequence %d", got, want)
		}
		m, ok, err := c.TryNext(ctx)
		if err == nil && !ok {
			m, err = c.Next(ctx)
		}
		if err != nil || m.Sequence != want || m.FirstSequence != want || time.Since(m.StoredAt) > time.Hour {
			t.Fatalf("got %d, %v; want %d", m.Sequence, err, want)
		}
	}
	if _, ok, err := c.TryNext(ctx); ok || err != nil {
		t.Errorf("a frame after the last: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := c.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait without a frame: %v", err)
	}
	var lost *bus.LostTailError
	if _, err := b.Consumer(ctx, 11); !errors.As(err, &lost) || lost.After != 11 || lost.Last != 10 {
		t.Errorf("consumer beyond the end: %v", err)
	}
}

func testConsumerIsReplacedByTheNext(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	old, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	c, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	publish(t, b, 2, 10)
	if _, err := old.Next(ctx); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("the old consumer goes on: %v", err)
	}
	check := bustest.Checker{Epoch: b.Epoch()}
	if _, err := check.Read(ctx, c, 2); err != nil {
		t.Error(err)
	}
}

func testLocateFindsThePosition(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	if after, err := b.Locate(ctx, cdc.Position{Commit: 5}); err != nil || after != 0 {
		t.Errorf("in an empty stream: %d, %v", after, err)
	}
	publish(t, b, 5, 10)
	publish(t, b, 1, 9<<20) // in several messages
	publish(t, b, 5, 10)
	tail, err := b.Tail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	parts := tail.Sequence - 10
	end := func(n uint64) uint64 {
		if n > 5 {
			return n - 1 + parts
		}
		return n
	}
	// Each frame has one change, with ordinal 1: that position asks for the frame
	// itself, the one behind it for the next.
	for n := uint64(1); n <= 11; n++ {
		for ordinal, want := range map[uint64]uint64{0: end(n - 1), 1: end(n - 1), 2: end(n)} {
			after, err := b.Locate(ctx, cdc.Position{Commit: cdc.LSN(1000 * n), Ordinal: ordinal})
			if err != nil || after != want {
				t.Errorf("position %d of number %d: after %d, %v; want %d", ordinal, n, after, err, want)
			}
		}
	}
}

func testJanitorKeepsWhatItMust(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	cfg.JanitorPeriod = 10 * time.Millisecond
	b := bustest.Open(t, cfg)
	publish(t, b, 5, 10)
	publish(t, b, 1, 9<<20)
	publish(t, b, 4, 10)
	publish(t, b, 1, 9<<20)
	tail, err := b.Tail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	parts := (tail.Sequence - 9) / 2
	janitor, stop := context.WithCancel(ctx)
	defer stop()
	var acked atomic.Uint64
	ended := make(chan error, 1)
	go func() { ended <- b.RunJanitor(janitor, acked.Load) }()
	first := func() uint64 {
		info, err := b.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return info.FirstSequence
	}
	steps := []struct{ acked, first uint64 }{
		{3, 4},                             // what is acknowledged goes, the rest stays
		{5 + 1, 6},                         // not a part of a frame
		{5 + parts + 2, 5 + parts + 3},     // past the split frame
		{tail.Sequence, 5 + parts + 5},     // the last complete frame stays
		{tail.Sequence + 9, 5 + parts + 5}, // whatever is said
	}
	for _, step := range steps {
		acked.Store(step.acked)
		waitFor(ctx, t, "purge", func() bool { return first() >= step.first })
		if got := first(); got != step.first {
			t.Errorf("acknowledged %d: first is %d, want %d", step.acked, got, step.first)
		}
	}
	if after, err := b.Tail(ctx); err != nil || after != tail {
		t.Errorf("tail is %+v, %v; it was %+v", after, err, tail)
	}
	var purged *bus.PurgedError
	if _, err := b.Consumer(ctx, 3); !errors.As(err, &purged) || purged.First != 5+parts+5 {
		t.Errorf("consumer of purged messages: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestJanitorKeepsHistoryForTheRetention(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	cfg := bus.Config{DataDir: t.TempDir(), Pipeline: "test", JanitorPeriod: 10 * time.Millisecond, Retention: time.Second, MaxBytes: 16 << 20}
	b := bustest.Open(t, cfg)
	publish(t, b, 20, 1000)
	janitor, stop := context.WithCancel(ctx)
	defer stop()
	var acked atomic.Uint64
	acked.Store(20)
	ended := make(chan error, 1)
	go func() { ended <- b.RunJanitor(janitor, acked.Load) }()
	for range 3 {
		if info, err := b.Info(ctx); err != nil || (info.FirstSequence != 1 && time.Since(info.OldestAt) < time.Second) {
			t.Fatalf("purged too early: %+v, %v", info, err)
		}
	}
	waitFor(ctx, t, "history to be purged after its time", func() bool {
		info, err := b.Info(ctx)
		return err == nil && info.FirstSequence == 20
	})
	// Above the high water mark age does not count, the acknowledgement does.
	publish(t, b, 14, 1<<20)
	acked.Store(21)
	first := func() uint64 {
		info, err := b.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return info.FirstSequence
	}
	waitFor(ctx, t, "room to be made", func() bool { return first() >= 22 })
	<-time.After(100 * time.Millisecond) // more looks of the janitor
	if got := first(); got != 22 {
		t.Errorf("first is %d, what is not acknowledged was purged", got)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// nats-server can give a new consumer the state of the one before it, which was deleted. What that one
// had under way would never come.
func TestConsumerThatComesWithTheStateOfTheOneBeforeIsMadeAgain(t *testing.T) {
	t.Parallel()
	b := bustest.Open(t, bus.Config{})
	publish(t, b, 6, 100)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second) // Less than a heartbeat.
	defer cancel()
	c, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := bustest.Checker{Epoch: b.Epoch()}
	if _, err := check.Read(ctx, c, 3); err != nil {
		t.Fatal(err)
	}
	if err := bus.AttachAgain(ctx, c); err != nil {
		t.Fatal(err)
	}
	if _, err := check.Read(ctx, c, 6); err != nil {
		t.Error(err)
	}
}
