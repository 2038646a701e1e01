package bus_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// cpu returns the processor time of the process, user and system.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, start time.Duration, frame int) {
	b.Helper()
	gb := float64(b.N) * float64(frame) / 1e9
	b.ReportMetric((cpu()-start).Seconds()/gb, "cpu-s/GB")
}

// BenchmarkPublish stores frames with fsync on each message.
func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{64 << 10, 256 << 10, 512 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			q := bustest.Open(b, bus.Config{MaxBytes: 64 << 30})
			publishFrames(b, q, b.N, size)
		})
	}
}

func publishFrames(b *testing.B, q *bus.Bus, frames, size int) {
	b.Helper()
	ctx := b.Context()
	s := bustest.NewSource(q.Epoch(), cdc.Tail{})
	data, _ := s.Frame(1, size)
	// One body for all: only the header's chain must be right, so frames are
	// made by hand in the benchmark of the whole.
	p, err := q.Publisher(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	prev := cdc.Position{}
	for i := range frames {
		last := cdc.Position{Commit: cdc.LSN(i + 1), Ordinal: 1} //nolint:gosec // Small.
		h := cdc.Header{Epoch: q.Epoch(), Prev: prev, Last: last, Changes: 1000}
		if err := p.Publish(ctx, data, h, nil); err != nil {
			b.Fatal(err)
		}
		prev = last
	}
	if err := p.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	reportCPU(b, start, len(data))
}

// BenchmarkConsume reads frames that are stored, acknowledging every 64.
func BenchmarkConsume(b *testing.B) {
	for _, size := range []int{64 << 10, 256 << 10, 512 << 10} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			q := bustest.Open(b, bus.Config{MaxBytes: 64 << 30})
			publishFrames(b, q, b.N, size)
			ctx := b.Context()
			c, err := q.Consumer(ctx, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			b.StartTimer()
			start := cpu()
			for i := range b.N {
				m, err := c.Next(ctx)
				if err != nil {
					b.Fatal(err)
				}
				if i%64 == 63 {
					if err := c.Ack(ctx, m.Sequence); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.StopTimer()
			reportCPU(b, start, size)
		})
	}
}

// BenchmarkBacklog stores 4 GB that nobody reads, then reads it,
// and reports the largest resident memory of the process.
func BenchmarkBacklog(b *testing.B) {
	const size, frames = 256 << 10, 16 << 10
	q := bustest.Open(b, bus.Config{MaxBytes: 64 << 30})
	for range b.N {
		publishFrames(b, q, frames, size)
		b.ReportMetric(peakMB(b), "MB-storing")
		c, err := q.Consumer(b.Context(), 0)
		if err != nil {
			b.Fatal(err)
		}
		for range frames {
			if _, err := c.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		c.Close()
		b.ReportMetric(peakMB(b), "MB-reading")
	}
}

// peakMB returns the largest resident memory so far.
func peakMB(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Maxrss) / 1024
}
