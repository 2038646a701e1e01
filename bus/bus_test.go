package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// bounded returns a context that ends a test which hangs.
func bounded(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 5*time.Minute)
	tb.Cleanup(cancel)
	return ctx
}

// publish publishes and flushes frames of one transaction each.
func publish(tb testing.TB, b *bus.Bus, frames, payload int) *bustest.Source {
	tb.Helper()
	ctx := bounded(tb)
	t, err := b.Tail(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := b.Publisher(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	defer p.Close()
	s := bustest.NewSource(b.Epoch(), t)
	for range frames {
		data, h := s.Frame(1, payload)
		if err := p.Publish(ctx, data, h, nil); err != nil {
			tb.Fatal(err)
		}
	}
	if err := p.Flush(ctx); err != nil {
		tb.Fatal(err)
	}
	return s
}

// readAll reads numbers from a consumer after the sequence and returns the last message.
func readAll(tb testing.TB, b *bus.Bus, after, upTo uint64) bus.Message {
	tb.Helper()
	ctx := bounded(tb)
	c, err := b.Consumer(ctx, after)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	check := bustest.Checker{Epoch: b.Epoch()}
	last, err := check.Read(ctx, c, upTo)
	if err != nil {
		tb.Fatal(err)
	}
	return last
}

func testFramesComeBackInOrder(t *testing.T, cfg bus.Config) {
	b := bustest.Open(t, cfg)
	publish(t, b, 200, 1000)
	last := readAll(t, b, 0, 200)
	if last.Sequence != 200 {
		t.Errorf("last sequence is %d", last.Sequence)
	}
	tail, err := b.Tail(t.Context())
	want := cdc.Tail{Sequence: 200, Last: cdc.Position{Commit: 200_000, Ordinal: 1}, End: 200_001, Total: 200}
	if err != nil || tail != want {
		t.Errorf("tail is %+v, %v; want %+v", tail, err, want)
	}
}

func testLargeFrameIsSplitAndReassembled(t *testing.T, cfg bus.Config) {
	b := bustest.Open(t, cfg)
	publish(t, b, 1, 100)
	publish(t, b, 2, 20<<20)
	publish(t, b, 1, 100)
	last := readAll(t, b, 0, 4)
	if last.Sequence < 8 {
		t.Errorf("last sequence is %d, want at least 8: 1, 3, 3 and 1 parts", last.Sequence)
	}
}
