package capture

import (
	"context"
	"time"
)

// The numbers of pace.
const (
	napTime   = time.Millisecond
	napBytes  = 256 << 10 // a read that returns this much needs no nap
	busyWait  = 500 * time.Microsecond
	busyReads = 8
)

// pace decides when the reader lets the socket fill up. The server makes one send per
// change, and a reader that wakes for each makes both do several times the work. So
// when reads come back quickly and small, one after another, the reader takes a nap
// before the next. A lone transaction, which is a handful of messages, never meets one.
type pace struct {
	quick int // reads in a row that came back at once
	timer *time.Timer
	now   func() time.Time
}

func newPace() *pace {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &pace{timer: t, now: time.Now}
}

// busy reports whether changes keep coming.
func (p *pace) busy() bool { return p.quick >= busyReads }

// wait is called before a read, with the size of the read before.
func (p *pace) wait(ctx context.Context, last int) {
	if !p.busy() || last >= napBytes {
		return
	}
	p.timer.Reset(napTime)
	select {
	case <-p.timer.C:
	case <-ctx.Done():
	}
}

// read is called after a read that returned something and took so long.
func (p *pace) read(took time.Duration) {
	if took > busyWait {
		p.quick = 0
		return
	}
	p.quick = min(p.quick+1, busyReads)
}

// idle is called after a read that returned nothing until its deadline.
func (p *pace) idle() { p.quick = 0 }
