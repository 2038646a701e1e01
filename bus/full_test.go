package bus_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// waitFor polls a condition that no channel tells.
func waitFor(ctx context.Context, tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for !ok() {
		select {
		case <-ctx.Done():
			tb.Fatalf("waited in vain for: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// flood publishes frames until the number, in a goroutine; its error comes on the
// channel.
func flood(ctx context.Context, p *bus.Publisher, s *bustest.Source, upTo uint64, payload int) <-chan error {
	result := make(chan error, 1)
	go func() {
		for s.Next() <= upTo {
			data, h := s.Frame(1, payload)
			if err := p.Publish(ctx, data, h, nil); err != nil {
				result <- err
				return
			}
		}
		result <- p.Flush(ctx)
	}()
	return result
}

func testFullStreamHolds(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	cfg.MaxBytes, cfg.JanitorPeriod = 2<<20, 20*time.Millisecond
	b := bustest.Open(t, cfg)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const total = 300 // of 64 KB: ten times the limit
	result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), total, 64<<10)
	waitFor(ctx, t, "the publisher to hold", func() bool { return p.State() == bus.StateFull })

	info, err := b.Info(ctx)
	if err != nil || info.Bytes > 2<<20 {
		t.Fatalf("stream has %d bytes, %v", info.Bytes, err)
	}
	janitor, stop := context.WithCancel(ctx)
	var acked atomic.Uint64
	ended := make(chan error, 1)
	go func() { ended <- b.RunJanitor(janitor, acked.Load) }()
	c, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := bustest.Checker{Epoch: b.Epoch()}
	for check.Count < total {
		m, err := check.Read(ctx, c, check.Count+1)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Ack(ctx, m.Sequence); err != nil {
			t.Fatal(err)
		}
		acked.Store(m.Sequence)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if check.Skipped > 0 || check.Frames != total {
		t.Errorf("%d frames, %d changes twice", check.Frames, check.Skipped)
	}
	if p.State() != bus.StatePublishing {
		t.Errorf("state after all is %q", p.State())
	}
	p.Close()
	waitFor(ctx, t, "all but the last frame to be purged", func() bool {
		info, err := b.Info(ctx)
		return err == nil && info.Messages == 1 && info.AckFloor == total
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFrameThatCanNeverFitIsRefused(t *testing.T) {
	t.Parallel()
	b := bustest.Open(t, bus.Config{MaxBytes: 4 << 20})
	p, err := b.Publisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	data, h := bustest.NewSource(b.Epoch(), cdc.Tail{}).Frame(1, 2<<20)
	if err := p.Publish(t.Context(), data, h, nil); !errors.Is(err, bus.ErrFrameTooLarge) {
		t.Errorf("got %v", err)
	}
}

func TestLowDiskHoldsThePublisher(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	b := bustest.Open(t, bus.Config{DiskReserve: 1 << 60})
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	data, h := bustest.NewSource(b.Epoch(), cdc.Tail{}).Frame(1, 100)
	if err := p.Publish(ctx, data, h, nil); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, "the publisher to hold", func() bool { return p.State() == bus.StateDiskFull })
	p.Close()
	if tail, err := b.Tail(ctx); err != nil || !tail.Empty {
		t.Errorf("tail is %+v, %v", tail, err)
	}
	if _, err := b.Put(ctx, "apply", []byte("state is still written")); err != nil {
		t.Error(err)
	}
}

func testStoredGivesBuffersBackInOrder(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := bustest.NewSource(b.Epoch(), cdc.Tail{})
	back := make(chan []byte, 50)
	var sent [][]byte
	for i := range 50 {
		size := 1000
		if i%20 == 7 {
			size = 9 << 20
		}
		data, h := s.Frame(1, size)
		sent = append(sent, data)
		if err := p.Publish(ctx, data, h, func(buf []byte) { back <- buf }); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range sent {
		select {
		case got := <-back:
			if len(got) != len(want) || &got[0] != &want[0] || !bytes.Equal(got, want) {
				t.Fatalf("buffer %d is not the one published", i)
			}
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
	tail, err := b.Tail(ctx)
	if err != nil || p.Stored() != tail {
		t.Errorf("stored is %+v, the tail %+v, %v", p.Stored(), tail, err)
	}
}
