package starrocks

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// backoff says how often and at what pace something is tried.
type backoff struct {
	// first is the wait after the first failure; it doubles up to longest.
	first, longest time.Duration
	// attempts is how often a request is sent before the caller hears of it.
	attempts int
	// polls is how often the state of a label is asked for before a load that
	// does not end is cancelled, and then again before the caller hears of it.
	polls int
	// appear is how long rows that a query does not show may still become visible,
	// where nothing tells that they cannot.
	appear time.Duration
}

var defaultBackoff = backoff{first: 200 * time.Millisecond, longest: 2 * time.Second, attempts: 2, polls: 4, appear: 30 * time.Second}

// wait pauses before try n, which counts from 1. Half of the pause is random, so that
// tables that failed together do not come back together.
func (b backoff) wait(ctx context.Context, n int) error {
	pause := b.longest
	if shift := n - 1; shift < 20 && b.first<<shift < b.longest {
		pause = b.first << shift
	}
	pause = pause/2 + rand.N(pause/2+1) //nolint:gosec // Not a secret.
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// PermanentError is an error that trying again does not cure: somebody has to change
// something first. A *[apply.RowError] is permanent too.
type PermanentError struct{ Err error }

// Error implements error.
func (e *PermanentError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *PermanentError) Unwrap() error { return e.Err }

// Permanent lets a caller find out without importing this package.
func (e *PermanentError) Permanent() bool { return true }

func permanent(err error) error {
	if err == nil {
		return nil
	}
	return &PermanentError{err}
}

// IsPermanent reports whether trying again is of no use.
func IsPermanent(err error) bool {
	var p *PermanentError
	return errors.As(err, &p)
}
