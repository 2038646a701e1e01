package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// health is how the work at a stage goes.
type health struct {
	works   bool
	problem string // of work that does not, empty while it only begins
}

const (
	// reliefEvery is how often the health of a stage is looked at.
	reliefEvery = time.Second
	// failedFor is how long a process that has given a stage away for not getting
	// on counts as one that cannot do better: two that both cannot hand the stage
	// over at most once in this time.
	failedFor = 10 * time.Minute
	// stepBack is how long a process that has given a stage away leaves it to others.
	stepBack = 5 * time.Second
)

// errRelieved ends a term that did not get on while another process might.
var errRelieved = errors.New("the stage is left to a standby")

// relief decides when a process that leads a stage and cannot do its work lets a standby
// try. It has no clock of its own.
type relief struct {
	// after is how long the work must have failed; zero keeps the stage for ever.
	after time.Duration
	// failing is since when the work does not go on, zero while it does.
	failing time.Time
	problem string
}

// due takes in how the work goes and tells whether the stage should be given away. free
// tells whether a standby is there that has not failed at the stage itself.
func (r *relief) due(now time.Time, h health, free bool) bool {
	if h.works {
		r.failing, r.problem = time.Time{}, ""
		return false
	}
	if r.failing.IsZero() {
		r.failing = now
	}
	if h.problem != "" {
		r.problem = h.problem
	}
	return r.after > 0 && r.problem != "" && free && now.Sub(r.failing) >= r.after
}

// relieve ends the term when a standby should try, until ctx is done.
func (r *role) relieve(ctx context.Context, end context.CancelCauseFunc) {
	if r.health == nil || r.free == nil || r.patience == 0 {
		return
	}
	watch := relief{after: r.patience}
	ticker := time.NewTicker(reliefEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		if !watch.due(now, r.health(), r.free()) {
			continue
		}
		r.gaveUp.Store(&now)
		r.log.WarnContext(ctx, "stage is left to a standby, since it does not get on here", "stage", r.name,
			"after", now.Sub(watch.failing).Round(time.Second), "err", watch.problem)
		end(fmt.Errorf("%w: %s", errRelieved, watch.problem))
		return
	}
}

// failed tells whether this process has given the stage away not long ago.
func (r *role) failedLately() bool {
	at := r.gaveUp.Load()
	return at != nil && time.Since(*at) < failedFor
}
