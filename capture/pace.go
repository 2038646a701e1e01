package capture

import (
	"context"
	"time"
)

// The numbers of pace.
const (
	napTime  = time.Millisecond
	napBytes = 256 << 10 // a read that returns this much needs no nap
	// A read that comes back within quickWait counts as load, one that takes longer
	// than slowWait against it, and after quietWait there is none.
	quickWait = 500 * time.Microsecond
	slowWait  = 5 * time.Millisecond
	quietWait = 50 * time.Millisecond
	// busyReads quick reads are load; up to four times as many are remembered, so
	// that a server that does not get the processor for a moment does not end it.
	busyReads = 8
	quickMax  = 4 * busyReads
)

// pace decides when the reader lets the socket fill up. The server makes one send per
// change, and a reader that wakes for each makes both do several times the work. So
// when reads come back quickly and small, one after another, the reader takes a nap
// before the next. A lone transaction, which is a handful of messages, never meets one.
type pace struct {
	quick int // reads that came back at once, less what spoke against load
	timer *time.Timer
	now   func() time.Time
	// quiet makes the kernel wake nobody for packets that come in during a nap.
	quiet func(on bool)
	// waiting returns how many bytes the socket holds, nil where a read empties it.
	// A read through TLS returns one record, which is one change.
	waiting func() int
}

func newPace(quiet func(on bool)) *pace {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &pace{timer: t, now: time.Now, quiet: quiet}
}

// busy reports whether changes keep coming.
func (p *pace) busy() bool { return p.quick >= busyReads }

// wait is called before a read, with the size of the read before.
func (p *pace) wait(ctx context.Context, last int) {
	if !p.busy() || last >= napBytes || (p.waiting != nil && p.waiting() > 0) {
		return
	}
	p.quiet(true)
	defer p.quiet(false)
	p.timer.Reset(napTime)
	select {
	case <-p.timer.C:
	case <-ctx.Done():
	}
}

// read is called after a read that returned something and took so long.
func (p *pace) read(took time.Duration) {
	switch {
	case took < quickWait:
		p.quick = min(p.quick+1, quickMax)
	case took > quietWait:
		p.quick = 0
	case took > slowWait:
		p.idle()
	}
}

// idle is called after a read that returned nothing until its deadline.
func (p *pace) idle() { p.quick = max(0, p.quick-busyReads) }
