package bus_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// TestShortMemoryPacesThePublisher publishes more than may go at once while memory is short: it
// waits, says so, loses nothing, and is as fast as ever when memory is not short any more.
func TestShortMemoryPacesThePublisher(t *testing.T) {
	t.Parallel()
	const (
		keep  = 20 << 20
		size  = 64 << 10
		total = 200
	)
	ctx := bounded(t)
	var short atomic.Bool
	short.Store(true)
	use := func() float64 {
		if short.Load() {
			return 0.825 // A quarter of what is kept where memory begins to be short.
		}
		return 0
	}
	b := bustest.Open(t, bus.Config{KeepBytes: 4 * keep, MemoryUse: use})
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), total, size)
	waitFor(ctx, t, "the publisher to be paced", func() bool { return p.State() == bus.StatePaced })
	c, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := bustest.Checker{Epoch: b.Epoch()}
	for check.Count < total {
		if _, err := check.Read(ctx, c, check.Count+1); err != nil {
			t.Fatal(err)
		}
		if check.Count < total/2 {
			continue
		}
		if least := time.Duration(total/2*size-2*size) * 10 * time.Second / keep; short.Swap(false) && time.Since(begun) < least {
			t.Errorf("half of it in %s; the pace allows it in %s", time.Since(begun), least)
		}
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d frames in %s", check.Frames, time.Since(begun))
	if check.Skipped > 0 || check.Frames != total {
		t.Errorf("%d frames, %d changes twice", check.Frames, check.Skipped)
	}
	waitFor(ctx, t, "the pace to be over", func() bool { return p.State() == bus.StatePublishing })
	p.Close()
}
