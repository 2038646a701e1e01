package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// committed is when transaction n of a [bustest.Source] committed.
func committed(n uint64) time.Time { return time.Unix(int64(n), 0).UTC() } //nolint:gosec // Small.

// markOf is what describes the frame of transaction n, alone in a message.
func markOf(n uint64) bus.Mark {
	return bus.Mark{
		Sequence: n, LastSequence: n, Prev: positionOf(n - 1), First: positionOf(n), Last: positionOf(n),
		End: cdc.LSN(1000*n + 1), CommitTime: committed(n),
	}
}

func positionOf(n uint64) cdc.Position {
	if n == 0 {
		return cdc.Position{}
	}
	return cdc.Position{Commit: cdc.LSN(1000 * n), Ordinal: 1}
}

func testMarksDescribeFrames(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	for name, find := range map[string]func(context.Context) (bus.Mark, error){"Oldest": b.Oldest, "Newest": b.Newest} {
		if _, err := find(ctx); !errors.Is(err, bus.ErrNoFrames) {
			t.Errorf("%s of an empty stream: %v", name, err)
		}
	}
	if _, err := b.LocateTime(ctx, time.Now()); !errors.Is(err, bus.ErrNoFrames) {
		t.Errorf("LocateTime in an empty stream: %v", err)
	}
	publish(t, b, 3, 10)
	publish(t, b, 1, 9<<20)
	publish(t, b, 2, 10)
	check := func(name string, got bus.Mark, err error, want bus.Mark) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", name, got, err, want)
		}
	}
	m, err := b.Oldest(ctx)
	check("oldest", m, err, markOf(1))
	m, err = b.MarkAt(ctx, 2)
	check("sequence 2", m, err, markOf(2))
	tail, err := b.Tail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	split := markOf(4)
	split.LastSequence = tail.Sequence - 2
	for _, sequence := range []uint64{4, 5, split.LastSequence} {
		m, err = b.MarkAt(ctx, sequence)
		check("the split frame", m, err, split)
	}
	last := markOf(6)
	last.Sequence, last.LastSequence = tail.Sequence, tail.Sequence
	m, err = b.Newest(ctx)
	check("newest", m, err, last)
	var beyond *bus.LostTailError
	if _, err = b.MarkAt(ctx, tail.Sequence+1); !errors.As(err, &beyond) {
		t.Errorf("a sequence beyond the end: %v", err)
	}
}

// testTimesAreLocated uses frames a second apart, of several transactions each.
func testTimesAreLocated(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	cfg.Retention = time.Nanosecond
	b := bustest.Open(t, cfg)
	publish(t, b, 300, 10)
	for _, c := range []struct {
		at   time.Time
		want uint64
	}{
		{committed(0), 1},
		{committed(1), 1},
		{committed(1).Add(bus.ClockSlack), 1},
		{committed(1).Add(bus.ClockSlack + 1), 2},
		{committed(100).Add(bus.ClockSlack), 100},
		{committed(300).Add(bus.ClockSlack), 300},
	} {
		if m, err := b.LocateTime(ctx, c.at); err != nil || m != markOf(c.want) {
			t.Errorf("%s is located at %+v, %v; want transaction %d", c.at, m, err, c.want)
		}
	}
	m, err := b.LocateTime(ctx, committed(301).Add(bus.ClockSlack))
	if err != nil || m.Sequence != 301 || m.Prev != positionOf(300) || !m.CommitTime.IsZero() {
		t.Errorf("a time after the end is located at %+v, %v", m, err)
	}
	if err := bus.Purge(ctx, b, 100); err != nil {
		t.Fatal(err)
	}
	var purged *bus.PurgedError
	for _, at := range []time.Time{committed(0), committed(50), committed(101).Add(bus.ClockSlack)} {
		if _, err := b.LocateTime(ctx, at); !errors.As(err, &purged) || purged.Oldest != markOf(101) {
			t.Errorf("a time that is purged: %v", err)
		}
	}
	if m, err := b.LocateTime(ctx, purged.Time); err != nil || m.Sequence != 102 {
		t.Errorf("the earliest time that can be asked for is located at %+v, %v", m, err)
	}
	if _, err := b.MarkAt(ctx, 100); !errors.As(err, &purged) || purged.First != 101 || purged.Oldest != markOf(101) {
		t.Errorf("a sequence that is purged: %v", err)
	}
}

func testReaderDisturbsNobody(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	publish(t, b, 50, 100)
	live, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	check := bustest.Checker{Epoch: b.Epoch()}
	if _, err := check.Read(ctx, live, 20); err != nil {
		t.Fatal(err)
	}
	if err := live.Ack(ctx, 20); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		reader, err := b.Reader(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		again := bustest.Checker{Epoch: b.Epoch(), Position: positionOf(10), Count: 10}
		last, err := again.Read(ctx, reader, 50)
		if err != nil || last.Sequence != 50 || again.Skipped > 0 {
			t.Fatalf("the reader got %d frames to %d, %v", again.Frames, last.Sequence, err)
		}
		if err := reader.Ack(ctx, 50); err != nil {
			t.Error(err)
		}
		if _, ok, err := reader.TryNext(ctx); ok || err != nil {
			t.Errorf("there is more: %v", err)
		}
		reader.Close()
		reader.Close()
	}
	if _, err := check.Read(ctx, live, 50); err != nil || check.Skipped > 0 {
		t.Errorf("live consumer: %v", err)
	}
	info, err := b.Info(ctx)
	if err != nil || info.AckFloor != 20 {
		t.Errorf("the acknowledged sequence is %d, %v", info.AckFloor, err)
	}
	var lost *bus.LostTailError
	if _, err := b.Reader(ctx, 51); !errors.As(err, &lost) {
		t.Errorf("a reader beyond the end: %v", err)
	}
	if n, err := bus.Consumers(ctx, b); err != nil || n != 1 {
		t.Errorf("%d consumers are on the server, %v", n, err)
	}
}

// testReaderHoldsTheHistory: the janitor is told, and a purge all the same is an error.
func testReaderHoldsTheHistory(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	bus.SetBoardTTL(b, 4*time.Second)
	publish(t, b, 2000, 100)
	wait := func(want uint64, held bool) {
		t.Helper()
		for ctx.Err() == nil {
			if after, ok := b.Held(); after == want && ok == held {
				return
			}
			<-time.After(5 * time.Millisecond)
		}
		t.Fatal("the hold does not show")
	}
	wait(0, false)
	reader, err := b.Reader(ctx, 5)
	if err != nil {
		t.Fatal(err)
	}
	wait(5, true)
	check := bustest.Checker{Epoch: b.Epoch(), Position: positionOf(5), Count: 5}
	if _, err := check.Read(ctx, reader, 20); err != nil {
		t.Fatal(err)
	}
	wait(20, true)
	<-time.After(6 * time.Second) // longer than an announcement lives
	if after, ok := b.Held(); after != 20 || !ok {
		t.Errorf("after a while Held says %d, %v", after, ok)
	}
	reader.Close()
	began := time.Now()
	wait(0, false)
	if took := time.Since(began); took > 5*time.Second/2 { // Left to die, it would take four.
		t.Errorf("the hold of a closed reader ended after %s", took)
	}

	if reader, err = b.Reader(ctx, 20); err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := bus.Purge(ctx, b, 1990); err != nil {
		t.Fatal(err)
	}
	var purged *bus.PurgedError
	for err == nil {
		_, err = reader.Next(ctx)
	}
	if !errors.As(err, &purged) || purged.Oldest != markOf(1991) {
		t.Errorf("the reader of a purged stream ends with %v", err)
	}
	if _, err := b.Reader(ctx, 20); !errors.As(err, &purged) || purged.First != 1991 || purged.Oldest != markOf(1991) {
		t.Errorf("a reader of what is purged: %v", err)
	}
}

func TestReaderGoesOnAfterARestartOfTheServer(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	b := bustest.Open(t, bus.Config{FetchBytes: 64 << 10})
	bus.SetPatience(b, time.Second)
	publish(t, b, 300, 20<<10)
	publish(t, b, 2, 9<<20)
	reader, err := b.Reader(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	check := bustest.Checker{Epoch: b.Epoch()}
	for n := uint64(100); n <= 300; n += 100 {
		if _, err := check.Read(ctx, reader, n); err != nil {
			t.Fatal(err)
		}
		if err := bus.RestartServer(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := check.Read(ctx, reader, 302); err != nil || check.Skipped > 0 || check.Frames != 302 {
		t.Errorf("%d frames, %d changes twice, %v", check.Frames, check.Skipped, err)
	}
}

// TestReaderStopsWhereHistoryWasLost publishes a frame that says that it does not follow
// the end of the stream. Live apply is past that and goes on.
func TestReaderStopsWhereHistoryWasLost(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	b := bustest.Open(t, bus.Config{})
	publish(t, b, 3, 10)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := bustest.NewSource(b.Epoch(), cdc.Tail{Last: cdc.Position{Commit: 6500}, End: 6500})
	data, h := s.Frame(1, 10)
	if err := p.Publish(ctx, data, h, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	live, err := b.Consumer(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if _, err := live.Next(ctx); err != nil {
		t.Errorf("live apply: %v", err)
	}
	reader, err := b.Reader(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	check := bustest.Checker{Epoch: b.Epoch()}
	if _, err := check.Read(ctx, reader, 3); err != nil {
		t.Fatal(err)
	}
	var gap *bus.GapError
	if _, err := reader.Next(ctx); !errors.As(err, &gap) || gap.Found != 4 {
		t.Errorf("the reader got %v", err)
	}
}
