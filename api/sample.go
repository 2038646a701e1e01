package api

import (
	"context"
	"sync"
	"time"
)

// sample is the pipeline and the process at one moment.
type sample struct {
	at     time.Time
	status Status
	cpu    time.Duration
	rss    uint64
}

// rates are differences between two samples, per second.
type rates struct {
	rowsCaptured, rowsApplied   float64
	bytesCaptured, bytesApplied float64
	rowsCopied                  float64
	cpuMillicores               float64
}

// since returns the rates between an earlier sample and this one.
func (s *sample) since(before *sample) rates {
	seconds := s.at.Sub(before.at).Seconds()
	if before.at.IsZero() || seconds <= 0 {
		return rates{}
	}
	per := func(now, then uint64) float64 {
		if now < then {
			return 0
		}
		return float64(now-then) / seconds
	}
	now, then := &s.status.Counters, &before.status.Counters
	return rates{
		rowsCaptured:  per(now.RowsCaptured, then.RowsCaptured),
		rowsApplied:   per(now.RowsApplied, then.RowsApplied),
		bytesCaptured: per(now.BytesCaptured, then.BytesCaptured),
		bytesApplied:  per(now.BytesApplied, then.BytesApplied),
		rowsCopied:    per(s.status.Snapshot.sums().rows, before.status.Snapshot.sums().rows),
		cpuMillicores: max(0, (s.cpu-before.cpu).Seconds()) / seconds * 1000,
	}
}

// sampler takes samples and remembers one that is about a second old, for rates that
// are wanted at once.
type sampler struct {
	pipeline Pipeline
	timeout  time.Duration

	mu           sync.Mutex
	older, newer sample
}

// run takes a sample per interval until ctx ends.
func (s *sampler) run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		s.remember(s.take(ctx))
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (s *sampler) take(ctx context.Context) sample {
	bound, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	status := s.pipeline.Status(bound)
	return sample{at: time.Now(), status: status, cpu: processCPU(), rss: processRSS()}
}

// remember keeps a sample unless the last one is hardly older.
func (s *sampler) remember(latest sample) {
	const spacing = sampleInterval * 9 / 10
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newer.at.IsZero() || latest.at.Sub(s.newer.at) >= spacing {
		s.older, s.newer = s.newer, latest
	}
}

// base returns what rates of a sample taken now are measured from: the older of the two,
// or in the first second the only one there is.
func (s *sampler) base() sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.older.at.IsZero() {
		return s.newer
	}
	return s.older
}
