package roster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	// ErrLost means that the member may not lead any more: it could not renew in
	// time, or somebody else has taken over.
	ErrLost = errors.New("leadership was lost")
	// ErrReleased means that the member has given its leadership back.
	ErrReleased = errors.New("leadership was released")
)

// Term is one time of leading. It ends by Release or by loss, never to come back; until
// then it is renewed. Its methods may be called concurrently.
type Term struct {
	l     *Lease
	id    string
	since time.Time

	done   chan struct{} // closed when the term has ended
	idle   chan struct{} // closed when nothing is renewed any more
	cancel context.CancelFunc
	guard  *time.Timer

	mu       sync.Mutex
	began    instant // when the last successful write began
	tried    instant // when the last write began
	record   record  // of the last write
	revision uint64  // that the key is believed to have
	err      error   // why the term has ended

	// releasing holds true once the key says that the term is released; taking it
	// out is the right to write that.
	releasing chan bool
}

// limit is how long after the beginning of a write the term is valid.
func (t *Term) limit() time.Duration { return t.l.cfg.TTL - t.l.cfg.Margin }

// Check returns nil if the member leads, and will for the margin to come; otherwise an
// error that wraps ErrLost or ErrReleased. It asks the clock, not the store, and costs a
// system call. It must be called before each write that only the leader may do, and
// again if that write has not begun within the margin.
func (t *Term) Check() error {
	at := t.l.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.check(at)
}

// check is Check by a reading of the clock; the caller holds mu.
func (t *Term) check(at instant) error {
	if t.err != nil {
		return t.err
	}
	if age := at.since(t.began); age >= t.limit() {
		t.end(fmt.Errorf("%w: %s was not renewed for %s", ErrLost, t.l.cfg.Key, age.Round(time.Millisecond)))
	}
	return t.err
}

// end ends the term if it has not; the caller holds mu.
func (t *Term) end(err error) {
	if t.err != nil {
		return
	}
	t.err = err
	t.guard.Stop()
	t.cancel()
	close(t.done)
}

// Done is closed when the term has ended. It can be late where Check is not: after the
// process was stopped, or the machine slept.
func (t *Term) Done() <-chan struct{} { return t.done }

// Context returns a context that is cancelled when the term ends, with the cause that
// Check tells. It is for waiting; before a write, Check counts.
func (t *Term) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		select {
		case <-t.done:
			cancel(t.Check())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// expire is called when the term would end by its last renewal.
func (t *Term) expire() {
	at := t.l.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.check(at) == nil {
		t.guard.Reset(max(time.Millisecond, t.limit()-at.since(t.began)))
	}
}

// run renews the term until it ends.
func (t *Term) run(ctx context.Context) {
	defer close(t.idle)
	timer := time.NewTimer(t.l.cfg.Renew)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		began, err := t.renew(ctx)
		if t.Check() != nil {
			t.l.log.WarnContext(ctx, "not leading any more", "err", t.Check())
			return
		}
		if err != nil {
			t.l.log.WarnContext(ctx, "leadership is not renewed", "err", err)
			timer.Reset(t.l.cfg.Renew / 4)
			continue
		}
		timer.Reset(max(0, t.l.cfg.Renew-t.l.now().since(began)))
	}
}

// renew writes the key again. It must not begin after the term has ended: a process that
// was stopped would otherwise find that it leads after all.
func (t *Term) renew(ctx context.Context) (began instant, err error) {
	began = t.l.now()
	t.mu.Lock()
	if err := t.check(began); err != nil {
		t.mu.Unlock()
		return began, err
	}
	t.record.Write++
	t.tried = began
	r, revision := t.record, t.revision
	t.mu.Unlock()
	data, err := r.encode()
	if err != nil {
		return began, err
	}
	next, err := t.l.update(ctx, data, revision)
	if err != nil {
		stored, lookErr := t.look(ctx)
		if stored {
			return began, nil
		}
		return began, errors.Join(err, lookErr)
	}
	at := t.l.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	return began, t.renewed(at, next)
}

// renewed notes that the last write is stored; the caller holds mu. An answer that comes
// after the end of the term does not revive it.
func (t *Term) renewed(at instant, revision uint64) error {
	if err := t.check(at); err != nil {
		return err
	}
	t.began, t.revision = t.tried, revision
	t.guard.Reset(max(time.Millisecond, t.limit()-at.since(t.began)))
	return t.check(at)
}

// look reads the key after a write that was refused or not answered, and reports whether
// it is stored. If an earlier write of ours has arrived late, the next one goes on behind
// it.
func (t *Term) look(ctx context.Context) (stored bool, err error) {
	value, revision, err := t.l.get(ctx)
	if err != nil {
		return false, err
	}
	at := t.l.now()
	t.l.see(value, revision, t.id)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil || revision < t.revision {
		// An old answer, or the key of a store that was made anew, which the next
		// renewals will not find either.
		return false, t.err
	}
	r, err := decode(value)
	switch {
	case err == nil && r.Term == t.id && r.Write == t.record.Write:
		return true, t.renewed(at, revision)
	case err == nil && r.Term == t.id:
		t.revision = revision
	case err == nil && !r.Released:
		t.end(fmt.Errorf("%w: %s was taken by %s", ErrLost, t.l.cfg.Key, r.Member))
	default:
		t.end(fmt.Errorf("%w: %s was deleted or overwritten", ErrLost, t.l.cfg.Key))
	}
	return false, t.err
}

// Release gives the leadership back, so that a standby takes over at once. The caller
// must have ended its work: Check is an error from the first moment. Releasing again, or
// a term that was lost, is no error. After an error, the key is left to run out; the
// call may be repeated.
func (t *Term) Release(ctx context.Context) error {
	at := t.l.now()
	t.mu.Lock()
	_ = t.check(at)
	t.end(ErrReleased)
	lost := errors.Is(t.err, ErrLost)
	t.mu.Unlock()
	if lost {
		return nil
	}
	select {
	case <-t.idle: // A renewal that is under way cannot follow.
	case <-ctx.Done():
		return fmt.Errorf("release leadership of %s: %w", t.l.cfg.Key, ctx.Err())
	}
	var released bool
	select {
	case released = <-t.releasing:
	case <-ctx.Done():
		return fmt.Errorf("release leadership of %s: %w", t.l.cfg.Key, ctx.Err())
	}
	defer func() { t.releasing <- released }()
	for pause := t.l.cfg.Renew / 16; !released; pause = min(2*pause, t.l.cfg.Renew) {
		err := t.tryRelease(ctx)
		if released = err == nil; released {
			break
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("release leadership of %s, which runs out within %s: %w", t.l.cfg.Key, t.l.cfg.TTL, err)
		}
	}
	return nil
}

// tryRelease marks the key as released if it is still ours.
func (t *Term) tryRelease(ctx context.Context) error {
	t.mu.Lock()
	t.record.Write++
	t.record.Released = true
	r, revision := t.record, t.revision
	t.mu.Unlock()
	data, err := r.encode()
	if err != nil {
		return err
	}
	if _, err = t.l.update(ctx, data, revision); err == nil {
		return nil
	}
	value, revision, readErr := t.l.get(ctx)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if revision < t.revision {
		return err // an old answer
	}
	if r, err := decode(value); err != nil || r.Term != t.id || r.Released {
		return nil
	}
	t.revision = revision
	return err
}
