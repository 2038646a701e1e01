package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// State says what a publisher is doing, in words for the status.
type State string

// The states of a publisher.
const (
	StatePublishing State = "publishing"
	StateFull       State = "stream full, waiting for apply"
	StateDiskFull   State = "disk almost full, waiting for space"
	StatePaced      State = "publishing as fast as the memory limit allows"
	StateDoubt      State = "no answer from the bus, checking what is stored"
	StateClosed     State = "closed"
)

// Publisher is one writing session. Frames are stored in the order of the calls of
// Publish, which one goroutine makes. A bus has at most one publisher at a time.
type Publisher struct {
	b       *Bus
	in      chan *frame
	flushes chan chan struct{}
	quit    chan struct{} // closed by Close
	dead    chan struct{} // closed when the session has ended; err is set before
	close   sync.Once
	err     error
	state   atomic.Pointer[State]

	mu   sync.Mutex
	tail cdc.Tail
}

// frame is one call of Publish.
type frame struct {
	data   []byte
	header cdc.Header
	stored func(buf []byte)
}

// Publisher opens a writing session that continues after the stream's last message.
// It must be closed before the next one is opened.
func (b *Bus) Publisher(ctx context.Context) (*Publisher, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.done:
		return nil, ErrClosed
	default:
	}
	if b.publisher != nil {
		select {
		case <-b.publisher.dead:
		default:
			return nil, errors.New("open publisher: the one before is still open")
		}
	}
	t, err := b.tail(ctx)
	if err != nil {
		return nil, fmt.Errorf("open publisher: %w", err)
	}
	p := &Publisher{
		b: b, in: make(chan *frame), flushes: make(chan chan struct{}),
		quit: make(chan struct{}), dead: make(chan struct{}), tail: t.Tail,
	}
	p.setState(StatePublishing)
	s, err := newSession(p, strings.ToLower(rand.Text()[:12]), t)
	if err != nil {
		return nil, fmt.Errorf("open publisher: %w", err)
	}
	b.publisher = p
	go s.run() //nolint:contextcheck // The session lives until Close, not as long as ctx.
	return p, nil
}

// Publish hands over a frame to be stored after all those before it. It returns once
// the frame is in the window, waiting for room while the window is full; an error of
// storing it shows in a later call. The data must not change until stored is called
// with it, which happens when the frame is stored as a whole; stored must not block.
//
// A full stream or disk is not an error: the session waits for room, see State. After
// an error of the session, nothing more is stored: read [Bus.Tail] and open another.
func (p *Publisher) Publish(ctx context.Context, data []byte, header cdc.Header, stored func(buf []byte)) error {
	if header.Epoch != p.b.epoch {
		return fmt.Errorf("publish frame up to %s: it is of epoch %q, the stream of %q", header.Last, header.Epoch, p.b.epoch)
	}
	if int64(len(data)) > p.b.cfg.MaxBytes/4 {
		return fmt.Errorf("publish frame up to %s: %w: it has %d bytes, a quarter of the limit of %d is allowed; raise the limit",
			header.Last, ErrFrameTooLarge, len(data), p.b.cfg.MaxBytes)
	}
	if err := p.Err(); err != nil {
		return err
	}
	select {
	case p.in <- &frame{data: data, header: header, stored: stored}:
		return nil
	case <-p.dead:
		return p.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Flush waits until everything handed over is stored.
func (p *Publisher) Flush(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case p.flushes <- done:
	case <-p.dead:
		return p.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-p.dead:
		return p.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Err returns why the session has ended, nil while it has not: ErrFenced,
// ErrClosed, or what the bus answered.
func (p *Publisher) Err() error {
	select {
	case <-p.dead:
		return p.err
	default:
		return nil
	}
}

// Done is closed when the session has ended; Err then says why.
func (p *Publisher) Done() <-chan struct{} { return p.dead }

// State tells what the session is doing.
func (p *Publisher) State() State { return *p.state.Load() }

func (p *Publisher) setState(s State) { p.state.Store(&s) }

// Stored describes the stream's end as this session knows it: the last frame that is
// stored as a whole.
func (p *Publisher) Stored() cdc.Tail {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tail
}

func (p *Publisher) setStored(sequence uint64, f *frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tail.Sequence = sequence
	if f != nil {
		p.tail.Empty, p.tail.Last, p.tail.End, p.tail.Total = false, f.header.Last, f.header.End, f.header.Total
	}
}

// Close ends the session after a short wait for the answers that are due. Frames that
// are not stored by then may or may not be stored; the next session's start shows.
func (p *Publisher) Close() {
	p.close.Do(func() { close(p.quit) })
	<-p.dead
}
