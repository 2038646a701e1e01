package bus

import "time"

// keeps is how long nats-server keeps a block of the stream in memory after it was written,
// if somebody reads it (nats-server 2.15.2, defaultCacheBufferExpiration).
const keeps = 10 * time.Second

// pace bounds what is published while memory is short, so that what the embedded server keeps
// of it comes down to a size.
type pace struct {
	short func() bool
	rate  float64   // bytes per second
	next  time.Time // when more may be published; zero while memory is not short
}

func newPace(cfg *Config) pace {
	if cfg.DataDir == "" || cfg.MemoryShort == nil || cfg.KeepBytes <= 0 {
		return pace{}
	}
	return pace{short: cfg.MemoryShort, rate: float64(cfg.KeepBytes) / keeps.Seconds()}
}

// wait is for how long no frame may be published, if any.
func (p *pace) wait(now time.Time) time.Duration {
	if p.short == nil || !p.short() {
		p.next = time.Time{}
		return 0
	}
	if p.next.IsZero() {
		p.next = now
	}
	return p.next.Sub(now)
}

// spend notes bytes that are published.
func (p *pace) spend(bytes int, now time.Time) {
	if p.next.IsZero() {
		return
	}
	if p.next.Before(now) {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(bytes) / p.rate * float64(time.Second)))
}
