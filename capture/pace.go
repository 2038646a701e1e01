package capture

import (
	"context"
	"time"
)

// The numbers of pace.
const (
	// tick is how often a nap looks at what has come in, and the length of one where that
	// cannot be seen.
	tick = time.Millisecond
	// After lightTime a nap ends if less than lightBytes have come in.
	lightTime  = 5 * time.Millisecond
	lightBytes = 16 << 10
	// stillTicks without more bytes tell that the server cannot send more.
	stillTicks = 2
	// gatherTime is how long the server is left to gather changes then.
	gatherTime = 20 * time.Millisecond
	// napMax bounds a nap but for gatherTime.
	napMax = 40 * time.Millisecond
	// refilledBytes are in the socket right after a read if the server had gathered more.
	refilledBytes = 64 << 10
	// largeMessage is a size at which one send for each is no loss.
	largeMessage = 2 << 10
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
//
// While the receive buffer has room, each send is a packet through the whole stack. Once
// it is full, a send only adds to the server's own buffer, which costs less than half, and
// the next read has the system move all of that in a few large packets. Both states last:
// at the cost of packets the server is too slow to fill the buffer during a short nap. So
// a nap lasts until the buffer is full, and, if it took time to fill, a while longer, for
// the server to gather what the next reads find there at once.
type pace struct {
	quick int // reads that came back at once, less what spoke against load
	now   func() time.Time
	sleep func(context.Context, time.Duration) bool
	// quiet makes the kernel wake nobody for packets that come in during a nap.
	quiet func(on bool)
	// inside returns how many bytes the socket holds, nil if that is not known.
	inside func() int
	// records tells that a read returns one record, which is one change, as through TLS.
	records bool
	// narrow tells that the socket can be full: it has a buffer of a fixed size. inside is
	// known then.
	narrow bool
}

func newPace(quiet func(on bool)) *pace {
	return &pace{now: time.Now, sleep: sleep, quiet: quiet}
}

// busy reports whether changes keep coming.
func (p *pace) busy() bool { return p.quick >= busyReads }

// wait is called before a read. message is the mean size of the messages of the read before.
func (p *pace) wait(ctx context.Context, message int) {
	if !p.busy() || p.records && p.inside() > 0 {
		return
	}
	fills := p.narrow && message < largeMessage
	if fills && p.inside() >= refilledBytes {
		return
	}
	p.quiet(true)
	defer p.quiet(false)
	if fills {
		p.fill(ctx)
	} else {
		p.sleep(ctx, tick)
	}
}

// fill sleeps until the socket is full and the server has gathered more, or it does not fill.
func (p *pace) fill(ctx context.Context) {
	began, last, still := p.now(), 0, 0
	for p.sleep(ctx, tick) {
		n, took := p.inside(), p.now().Sub(began)
		if n > last {
			last, still = n, 0
		} else {
			still++
		}
		switch {
		case n >= lightBytes && still >= stillTicks:
			p.sleep(ctx, gatherTime)
			return
		case took >= lightTime && n < lightBytes, took >= napMax:
			return
		}
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
