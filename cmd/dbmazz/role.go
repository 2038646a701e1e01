package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dbmazz/dbmazz/bus/roster"
)

// The names of the stages, on the board, in calls between processes and for people.
const (
	roleCapture = "capture"
	roleApply   = "apply"
)

// role is a stage that one process of the pipeline works at while the others wait.
type role struct {
	name string
	log  *slog.Logger
	// lease is nil where nothing else can run the stage: the folder of the queue is
	// locked by this process.
	lease *roster.Lease
	term  atomic.Pointer[roster.Term]
	alone atomic.Bool // at work without a lease
	// problem is what ended the last term, nil if it was somebody else's lease.
	problem atomic.Pointer[string]

	// refuse says why this process must not take the stage over, nil if it may. It and
	// the others are nil where nothing is to be asked.
	refuse func() error
	// health is how the work goes, free whether a standby is there that has not failed
	// itself, patience how long work fails before such a one may try; see relief.
	health   func() health
	free     func() bool
	patience time.Duration
	gaveUp   atomic.Pointer[time.Time]
}

// errNotLeading keeps a stage from acting between two terms.
var errNotLeading = errors.New("this process does not lead the stage")

// fence returns an error unless this process may act for the stage now. A process that
// was stopped and goes on learns here that its time is over.
func (r *role) fence() error {
	if r.alone.Load() {
		return nil
	}
	term := r.term.Load()
	if term == nil {
		return fmt.Errorf("%s: %w", r.name, errNotLeading)
	}
	return term.Check()
}

// lost returns a channel that is closed when the present term is over, nil without one.
func (r *role) lost() <-chan struct{} {
	if term := r.term.Load(); term != nil {
		return term.Done()
	}
	return nil
}

// leads tells whether this process works at the stage.
func (r *role) leads() bool { return r.fence() == nil }

// lead works whenever this process has the lease, until ctx is done. An error of the
// work ends the term; without a lease it is returned.
func (r *role) lead(ctx context.Context, work func(context.Context) error) error {
	if r.lease == nil {
		r.alone.Store(true)
		defer r.alone.Store(false)
		return work(ctx)
	}
	for last := ""; ctx.Err() == nil; {
		err := r.mayLead()
		if err == nil {
			err = r.turn(ctx, work)
		}
		if ctx.Err() != nil {
			return nil
		}
		wait := time.Second
		if errors.Is(err, errRelieved) {
			wait = stepBack
		}
		if text := fmt.Sprint(err); err != nil && text != last {
			r.log.WarnContext(ctx, "stage waits to try again", "stage", r.name, "err", err)
			last = text
		}
		pause(ctx, wait)
	}
	return nil
}

// mayLead asks whether this process may take the stage over, and notes it for the status.
func (r *role) mayLead() error {
	if r.refuse == nil {
		return nil
	}
	err := r.refuse()
	if err != nil {
		r.failed(err)
	}
	return err
}

// turn waits for the lease and works through one term. What is in the way of leading is
// asked again: the process may have waited for long.
func (r *role) turn(ctx context.Context, work func(context.Context) error) error {
	term, err := r.lease.Acquire(ctx)
	if err != nil {
		return err
	}
	if refused := r.mayLead(); refused != nil {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		return errors.Join(refused, term.Release(bounded))
	}
	r.log.InfoContext(ctx, "this process leads the stage", "stage", r.name)
	err = r.serve(ctx, term, work)
	r.failed(err)
	r.log.InfoContext(ctx, "this process leads the stage no more", "stage", r.name, "err", err)
	return err
}

// releaseTimeout bounds giving a lease back, which ends by itself otherwise.
const releaseTimeout = 2 * time.Second

// failed remembers what ended a term, for the status.
func (r *role) failed(err error) {
	if err == nil {
		r.problem.Store(nil)
		return
	}
	text := err.Error()
	r.problem.Store(&text)
}

// trouble says what keeps the process from leading, empty if nothing but another does.
func (r *role) trouble() string {
	if r.lease == nil {
		return ""
	}
	if err := r.lease.Err(); err != nil {
		return err.Error()
	}
	if text := r.problem.Load(); text != nil {
		return *text
	}
	return ""
}

// serve works through one term and gives the lease back, so that another process need
// not wait for its end.
func (r *role) serve(ctx context.Context, term *roster.Term, work func(context.Context) error) error {
	r.term.Store(term)
	during, cancel := term.Context(ctx)
	during, end := context.WithCancelCause(during)
	var watch sync.WaitGroup
	watch.Go(func() { r.relieve(during, end) })
	err := work(during)
	if cause := context.Cause(during); errors.Is(cause, errRelieved) {
		err = errors.Join(cause, err)
	}
	end(context.Canceled)
	cancel()
	watch.Wait()
	r.term.Store(nil)
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	return errors.Join(err, term.Release(bounded))
}

// pause waits, at most until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
