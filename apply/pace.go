package apply

import (
	"fmt"
	"time"
)

// pacer decides when a batch is due. It reads no clock.
type pacer struct {
	planned *plan     // the batch that must be formed again first
	oldest  time.Time // when the first of the waiting changes came; zero for none
	last    time.Time // when the last batch was taken
}

// pace is what the decision depends on.
type pace struct {
	Settings
	config           Config
	paused, draining bool
	more             bool // the stream has more that is about to come
	now              time.Time
}

// idle is how long the collector sleeps when only an event can change anything.
const idle = time.Hour

// due tells whether a batch should begin now, with how many changes, or after which
// time to ask again.
func (p *pacer) due(c *collector, now pace) (n int, due bool, wait time.Duration, err error) {
	if now.paused || c.empty() {
		return 0, false, idle, nil
	}
	if p.planned != nil {
		n, due, err = p.again(c)
		return n, due, idle, err
	}
	full := c.bytes >= now.config.FlushBytes
	n, ok := c.ready(full)
	if !ok {
		return 0, false, idle, nil
	}
	if full || now.draining || c.barrier >= 0 || c.exhausted() {
		return n, true, idle, nil
	}
	spacing := min(now.config.MinSpacing, now.FlushInterval)
	if left := spacing - now.now.Sub(p.last); left > 0 {
		return 0, false, left, nil
	}
	left := now.FlushInterval - now.now.Sub(p.oldest)
	if len(c.changes) >= now.FlushRows || !now.more || left <= 0 {
		return n, true, idle, nil
	}
	return 0, false, left, nil
}

// again tells whether the planned batch is complete.
func (p *pacer) again(c *collector) (n int, due bool, err error) {
	if p.planned.To.After(c.last) {
		return 0, false, nil
	}
	n, exact := c.until(p.planned.To)
	if !exact {
		return 0, false, fmt.Errorf("%w: the planned batch ends at %s, which the stream does not have", ErrGap, p.planned.To)
	}
	return n, true, nil
}

// room tells whether the collector may take another frame.
func (p *pacer) room(c *collector, config Config) bool {
	if p.planned != nil {
		return p.planned.To.After(c.last)
	}
	return c.bytes < config.FlushBytes && c.barrier < 0
}

func (p *pacer) added(now time.Time) {
	if p.oldest.IsZero() {
		p.oldest = now
	}
}

func (p *pacer) taken(now time.Time, c *collector) {
	p.planned = nil
	p.last = now
	p.oldest = time.Time{}
	if !c.empty() {
		p.oldest = now
	}
}
