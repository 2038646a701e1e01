package apply

import (
	"context"
	"time"
)

// hold keeps apply from beginning a batch, for a replay that writes the same tables. Its
// fields are under Apply's lock.
type hold struct {
	until time.Time // zero for no hold
	timer *time.Timer
	// under tells that a batch is planned and not finished, or that it is not known
	// because no session has looked.
	under bool
}

func (h *hold) held() bool { return !h.until.IsZero() && time.Now().Before(h.until) }

// Hold keeps apply from beginning another batch for a time d, and returns once none is
// under way, or with the error of ctx; the time begins with the call in either case.
// Called again it lasts that long from then on. It is of this process: one that takes
// over knows nothing of it.
func (a *Apply) Hold(ctx context.Context, d time.Duration) error {
	a.control(func() {
		a.hold.until = time.Now().Add(d)
		if a.hold.timer != nil {
			a.hold.timer.Stop()
		}
		a.hold.timer = time.AfterFunc(d, func() { a.control(func() {}) })
	})
	return a.until(ctx, func() bool { return !a.hold.under })
}

// Release ends a hold.
func (a *Apply) Release() {
	a.control(func() {
		a.hold.until = time.Time{}
		if a.hold.timer != nil {
			a.hold.timer.Stop()
		}
	})
}

// enter waits for the end of a hold and tells that a batch is under way.
func (a *Apply) enter(ctx context.Context) error {
	return a.until(ctx, func() bool {
		if !a.hold.under && a.hold.held() {
			return false
		}
		a.hold.under = true
		return true
	})
}

// left tells whether a batch is under way, by the ledger.
func (a *Apply) left(l *ledger) {
	a.control(func() { a.hold.under = l.state.Plan != nil })
}
