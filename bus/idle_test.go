package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

// TestIdleBusLeavesTheProcessorAlone is not parallel: it measures the whole process.
func TestIdleBusLeavesTheProcessorAlone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b := bustest.Open(t, bus.Config{Retention: time.Hour})
	publish(t, b, 3, 100)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := b.Consumer(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ended := make(chan error, 2)
	go func() { ended <- b.RunJanitor(ctx, func() uint64 { return 3 }) }()
	go func() {
		_, err := c.Next(ctx)
		ended <- err
	}()
	if _, err := b.Watch(ctx, "control"); err != nil {
		t.Fatal(err)
	}
	const span = 2 * time.Second
	start := cpu()
	<-time.After(span)
	used := cpu() - start
	t.Logf("%s of processor time in %s", used, span)
	if used > span/20 {
		t.Errorf("an idle bus used %s of processor time in %s", used, span)
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
