package bus

import "time"

const (
	// keeps is how long nats-server keeps a block of the stream in memory after it was written,
	// if somebody reads it (nats-server 2.15.2, defaultCacheBufferExpiration).
	keeps = 10 * time.Second
	// freely is the part of the memory up to which nothing is slowed: the rest is for garbage
	// until it is collected.
	freely = 0.65
	// paceMin is the part of the rate that is always left, since memory that something else
	// holds does not come back by waiting.
	paceMin = 1.0 / 8
	// paceStep bounds how long a rate is kept that is out of date.
	paceStep = 100 * time.Millisecond
)

// pace bounds what is published while memory is short, the more the shorter it is, so that
// what the embedded server keeps of it comes down to a size.
type pace struct {
	use  func() float64 // the part of the memory that is in use
	rate float64        // bytes per second where memory begins to be short
	debt float64        // bytes that were published and are not yet due
	at   time.Time      // when debt was worked out; zero while memory is not short
	next time.Time      // when to look again
}

func newPace(cfg *Config) pace {
	if cfg.DataDir == "" || cfg.MemoryUse == nil || cfg.KeepBytes <= 0 {
		return pace{}
	}
	return pace{use: cfg.MemoryUse, rate: float64(cfg.KeepBytes) / keeps.Seconds()}
}

// wait reports whether no frame may be published now; then next is set.
func (p *pace) wait(now time.Time) bool {
	if p.use == nil {
		return false
	}
	use := p.use()
	if use <= freely {
		p.debt, p.at = 0, time.Time{}
		return false
	}
	left := max(0, (1-use)/(1-freely))
	rate := p.rate * max(paceMin, left*left)
	if p.at.IsZero() {
		p.at = now
	}
	p.debt = max(0, p.debt-rate*now.Sub(p.at).Seconds())
	p.at = now
	if p.debt < 1 { // Less than a byte is arithmetic.
		return false
	}
	p.next = now.Add(min(paceStep, time.Duration(p.debt/rate*float64(time.Second))+1))
	return true
}

// spend notes bytes that are published.
func (p *pace) spend(bytes int) {
	if !p.at.IsZero() {
		p.debt += float64(bytes)
	}
}
