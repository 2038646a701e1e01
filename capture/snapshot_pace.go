package capture

import (
	"cmp"
	"context"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// SetSnapshot changes settings from the next chunk on.
func (c *Capture) SetSnapshot(s SnapshotSettings) {
	n := c.snapshots
	n.mu.Lock()
	defer n.mu.Unlock()
	s = SnapshotSettings{
		Workers: cmp.Or(s.Workers, n.settings.Workers), ChunkRows: cmp.Or(s.ChunkRows, n.settings.ChunkRows), Rate: cmp.Or(s.Rate, n.settings.Rate),
	}
	if s != n.settings {
		n.settings, n.due = s, time.Time{}
		notify(n.wake)
	}
}

// HaltSnapshot ends the copying of existing rows for the rest of the life of this
// process, and returns when nothing more of it will be written. The next process goes on
// with it. The copy of a table without a key starts over then.
func (c *Capture) HaltSnapshot(ctx context.Context) error {
	n := c.snapshots
	n.mu.Lock()
	n.halted = true
	n.mu.Unlock()
	notify(n.wake)
	for {
		n.mu.Lock()
		working := n.working
		n.mu.Unlock()
		if working == 0 {
			return nil
		}
		if !sleep(ctx, snapshotRetry) {
			return ctx.Err()
		}
	}
}

// applied is how far the sink is.
func (n *snapshots) applied() cdc.Position {
	cp, _ := n.c.progress.Checkpoint()
	return cp.Position
}

// pay puts the reading of more rows off as the rate demands, for all workers.
func (n *snapshots) pay(rows int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.settings.Rate <= 0 {
		return
	}
	if now := time.Now(); n.due.Before(now) {
		n.due = now
	}
	n.due = n.due.Add(time.Duration(float64(rows) / float64(n.settings.Rate) * float64(time.Second)))
}

// room is how many bytes of rows may be in the stream that are not applied. Changes wait
// behind them, so it follows the sink, of which nothing is known at first: it begins small
// and doubles, for rows that were written since it did, until some are not applied soon.
// From then on it grows slowly while rows are applied soon after they were written, and is
// cut to half when they are not.
type room struct {
	bytes   int
	ahead   []aheadMark // in order
	cut     time.Time   // when it was cut last
	doubled time.Time   // when it was doubled last
	known   bool        // the sink's limit has been met
}

// aheadMark is the end of rows that are not applied.
type aheadMark struct {
	at      cdc.Position
	written time.Time
}

const (
	roomLeast = 2 << 20
	// soon and late are times from the stream into the sink.
	soon = 2 * time.Second
	late = 4 * time.Second
)

// wrote takes note of rows that were written up to there.
func (r *room) wrote(at cdc.Position, now time.Time) {
	r.ahead = append(r.ahead, aheadMark{at, now})
}

// applied learns from what the sink has applied.
func (r *room) applied(at cdc.Position, now time.Time, most int) {
	for len(r.ahead) > 0 && !r.ahead[0].at.After(at) {
		m := r.ahead[0]
		r.ahead = r.ahead[1:]
		took := now.Sub(m.written)
		r.known = r.known || took >= soon
		switch {
		case m.written.Before(r.cut), !r.known && m.written.Before(r.doubled): // It has had its effect.
		case took > late:
			r.bytes, r.cut = max(r.bytes/2, roomLeast), now
		case took < soon && !r.known:
			r.bytes, r.doubled = min(2*r.bytes, most), now
		case took < soon:
			r.bytes = min(r.bytes+r.bytes/4, most)
		}
	}
}

// full tells that the rows that are in the stream, and not yet applied, are as many as
// there may be.
func (n *snapshots) full(applied cdc.Position) bool {
	n.room.applied(applied, time.Now(), n.c.cfg.SnapshotBacklog)
	var backlog uint64
	for _, t := range n.state.Tables {
		backlog += t.backlog(applied)
	}
	return backlog > uint64(min(n.room.bytes, n.c.cfg.SnapshotBacklog)) //nolint:gosec // Positive.
}

// unwanted tells that the worker has to leave its table, be it that the copy is asked for
// anew or not at all.
func (w *worker) unwanted() bool { return w.n.halted || w.n.state.find(w.t.Table) != w.t }

// retry waits for a moment before something is looked at again. It answers errCopyStop if
// the worker has to leave its table, or the copy is paused.
func (w *worker) retry(ctx context.Context, after time.Duration) error {
	w.n.mu.Lock()
	leave := w.unwanted() || w.n.state.Paused
	w.n.mu.Unlock()
	switch {
	case leave:
		return errCopyStop
	case !sleep(ctx, after):
		return ctx.Err()
	}
	return nil
}

// await waits until more may be read: the copy is not paused, the sink keeps up, and the
// rate allows it. inside tells that a transaction is open, which a pause does not end.
func (w *worker) await(ctx context.Context, inside bool) error {
	for {
		changed := w.c.progress.Changed()
		applied := w.n.applied()
		w.n.mu.Lock()
		leave := w.unwanted() || !inside && (w.n.state.Paused || w.n.working > w.n.settings.Workers)
		wait := time.Until(w.n.due)
		why := ""
		switch {
		case leave:
		case w.n.full(applied):
			why, wait = waitsForSink, time.Second
		case wait > 0 && w.n.settings.Rate > 0:
			why = waitsForRate
		}
		w.t.waiting = why
		w.n.mu.Unlock()
		switch {
		case leave:
			return errCopyStop
		case why == "":
			return nil
		}
		timer := time.NewTimer(min(wait, 100*time.Millisecond))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// What a copy waits for.
const (
	waitsForSink = "rows that are in the queue must be applied first"
	waitsForRate = "the rate is reached"
)

// say notes what the worker waits for.
func (w *worker) say(waiting string) {
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	w.t.waiting = waiting
}
