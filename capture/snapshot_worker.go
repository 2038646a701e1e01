package capture

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// The pauses of the workers.
const (
	copyRetryMin = time.Second
	copyRetryMax = time.Minute
	// snapshotRetry is how long a worker waits before it takes another snapshot.
	snapshotRetry = 10 * time.Millisecond
	// chunkTries is how often a chunk is read again before the copy starts over.
	chunkTries = 5
)

// sit makes the desk of a session that has opened the stream; nil without a place to
// keep the state in.
func (n *snapshots) sit(ctx context.Context, s *session, st *start) (*desk, error) {
	if n.c.cfg.SnapshotStore == nil {
		return nil, nil //nolint:nilnil // No desk is an answer.
	}
	d := newDesk(s, st)
	d.after = n.applied()
	if n.c.cfg.Reached != nil {
		at, err := n.c.cfg.Reached(ctx)
		if err != nil {
			return nil, fmt.Errorf("read how far the sink is: %w", err)
		}
		if at.After(d.after) {
			d.after = at
		}
	}
	s.sock.called = &d.called
	return d, nil
}

// work copies what there is to copy, until ctx is done. What goes wrong with a table is
// in the status and is tried again; only what is wrong with the state ends the session.
func (d *desk) work(ctx context.Context) error {
	if d == nil {
		return nil
	}
	d.estimate(ctx)
	var running sync.WaitGroup
	defer d.n.rest()
	defer running.Wait()
	active := map[*tableCopy]bool{}
	ended := make(chan *tableCopy)
	failed := make(chan error, 1)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for {
			t := d.n.next(active)
			if t == nil {
				break
			}
			active[t] = true
			running.Go(func() {
				if err := d.copyTable(ctx, t); err != nil && ctx.Err() == nil {
					select {
					case failed <- err:
					default:
					}
				}
				select {
				case ended <- t:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case t := <-ended:
			delete(active, t)
		case <-d.n.wake:
		case <-tick.C:
		}
	}
}

// estimate finds out about how many rows are to be copied, so that it shows how much is
// left before the last table has begun.
func (d *desk) estimate(ctx context.Context) {
	d.n.mu.Lock()
	var open []*tableCopy
	if d.n.state != nil {
		for _, t := range d.n.state.Tables {
			if t.open() && t.Estimate == 0 && t.OID != 0 {
				open = append(open, t)
			}
		}
	}
	d.n.mu.Unlock()
	for _, t := range open {
		var rows uint64
		if err := d.c.source.with(ctx, func(conn *pgx.Conn) (err error) {
			rows, err = estimateRows(ctx, conn, t.OID)
			return err
		}); err != nil {
			d.c.log.DebugContext(ctx, "rows are not estimated", "table", t.Table.String(), "err", err)
			return
		}
		d.n.mu.Lock()
		t.Estimate = max(t.Estimate, rows)
		d.n.mu.Unlock()
	}
}

// rest notes that nobody works any more.
func (n *snapshots) rest() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.working = 0
}

// next returns a table whose turn it is, nil if there is none.
func (n *snapshots) next(active map[*tableCopy]bool) *tableCopy {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.working = len(active)
	if n.state == nil || n.state.Paused || n.halted || len(active) >= n.settings.Workers {
		return nil
	}
	busy := map[Table]bool{}
	for t := range maps.Keys(active) {
		busy[t.Table] = true
	}
	for _, t := range n.state.Tables {
		if t.open() && !t.held && !busy[t.Table] && !time.Now().Before(t.retry) {
			n.working++
			return t
		}
	}
	return nil
}

// copyTable copies a table or goes on with it. It returns errors of the state only.
func (d *desk) copyTable(ctx context.Context, t *tableCopy) error {
	if err := d.n.update(ctx, func(*snapshotState) {
		t.State = CopyRunning
		t.from, t.fromRows = time.Now(), t.last().Rows
		if t.Started.IsZero() {
			t.Started = t.from
		}
	}); err != nil {
		return err
	}
	w := &worker{d: d, c: d.c, n: d.n, t: t}
	err := w.run(ctx)
	w.hangUp(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return d.n.update(ctx, func(*snapshotState) {
		t.waiting = ""
		switch {
		case err == nil && t.over():
			t.State, t.Finished, t.err, t.tries = CopyDone, time.Now(), "", 0
			d.c.log.InfoContext(ctx, "existing rows are copied", "table", t.Table.String(), "rows", t.last().Rows, "took", t.Finished.Sub(t.Started).Round(time.Millisecond))
		case err == nil || errors.Is(err, errCopyStop):
			t.State = CopyWaiting
		default:
			t.State, t.err = CopyFailed, oneLine(err)
			t.retry = time.Now().Add(min(copyRetryMin<<min(t.tries, 10), copyRetryMax))
			t.tries++
			d.c.log.WarnContext(ctx, "copying existing rows failed", "table", t.Table.String(), "err", err, "retry_at", t.retry)
		}
	})
}

// errCopyStop ends the work on a table that is not over: a pause, or it is not wanted.
var errCopyStop = errors.New("stop")

// worker copies one table.
type worker struct {
	d     *desk
	c     *Capture
	n     *snapshots
	t     *tableCopy
	conn  *pgx.Conn
	info  tableInfo
	major int
	// standby tells that the server is one. It shows neither what a transaction of the
	// primary has locked nor which of them are in a snapshot.
	standby bool
	// rows is how many to read at a time after chunks had to be read again, zero if
	// none had; average is how many bytes a row has, zero if that is not known.
	rows, average int
	tries         int
	// spare are the buffers of chunks that are written, for others.
	spare  []buffers
	joined bool // transactions that were running when the table joined have ended
}

// run copies chunk after chunk. While one is being written the next one is read.
func (w *worker) run(ctx context.Context) error {
	if err := w.d.arm(ctx, w); err != nil {
		return err
	}
	if err := w.connect(ctx); err != nil {
		return err
	}
	if err := w.look(ctx); err != nil {
		return err
	}
	switch {
	case w.info.appends() && w.standby:
		return setupProblem("Table '%s' has no key, and a standby does not show what is in a snapshot of it: give the table a key, or copy it from the primary", w.t.Table)
	case w.info.appends():
		return w.runWhole(ctx)
	}
	if err := w.clear(ctx); err != nil {
		return err
	}
	var writing *written
	from := w.t.last()
	for {
		err := w.await(ctx, false)
		var c *chunk
		keys, over, again := w.left()
		if writing != nil && writing.c.singles != nil {
			keys = nil
		}
		if err == nil && !over && !again && (!from.Ended || keys != nil) {
			c, err = w.read(ctx, from, keys)
			killpoint.Reached("copy.read")
		}
		// A chunk that is under way is written in any case; its window is open.
		if writing != nil {
			why, waitErr := w.finish(ctx, writing)
			switch {
			case waitErr != nil:
				return waitErr
			case why != "":
				w.drop(ctx, c)
				if err := w.again(ctx, why); err != nil {
					return err
				}
				writing, from = nil, w.t.last()
				continue
			}
			writing = nil
		}
		switch {
		case err != nil:
			return err
		case c != nil:
			writing = w.write(c)
			if c.singles == nil {
				from = copyMark{Key: c.last, Ended: c.ended}
			}
		case over:
			return w.stored(ctx)
		case again:
			if err := w.n.update(ctx, func(*snapshotState) { w.t.restart() }); err != nil {
				return err
			}
			from = copyMark{}
		}
	}
}

// runWhole copies a table without a key unless that is done.
func (w *worker) runWhole(ctx context.Context) error {
	if _, over, _ := w.left(); !over {
		if err := w.await(ctx, false); err != nil {
			return err
		}
		if err := w.readWhole(ctx); err != nil {
			return err
		}
	}
	return w.stored(ctx)
}

// left returns keys that must be copied again, and whether the copy is over, or has to
// start over.
func (w *worker) left() (keys []*singleKey, over, again bool) {
	w.n.mu.Lock()
	defer w.n.mu.Unlock()
	return w.t.missing(), w.t.over(), w.t.Again
}

// written is a chunk that is with the reader.
type written struct {
	c   *chunk
	ask *ask
}

func (w *worker) write(c *chunk) *written {
	return &written{c: c, ask: w.d.submit(func(ctx context.Context) (bool, error) { return w.d.write(ctx, c) })}
}

// finish waits until a chunk is written and remembers it. again says why it was not.
func (w *worker) finish(ctx context.Context, p *written) (again string, err error) {
	stop := w.c.flushWhile(ctx)
	err = w.d.wait(ctx, p.ask)
	stop()
	if err != nil || p.c.again != "" {
		return p.c.again, err
	}
	w.tries, w.rows = 0, 0
	w.spare = append(w.spare, p.c.buffers)
	applied := w.n.applied()
	killpoint.Reached("copy.written")
	err = w.n.update(ctx, func(*snapshotState) {
		w.t.err = ""
		w.t.Estimate = p.c.estimate
		w.t.settle(applied)
	})
	killpoint.Reached("copy.noted")
	return "", err
}

// drop gives up a chunk that was read.
func (w *worker) drop(ctx context.Context, c *chunk) {
	if c == nil {
		return
	}
	_ = w.d.do(ctx, func(context.Context) (bool, error) { // Only ctx ends it.
		w.d.closeWindow(c.table, c.window)
		return true, nil
	})
}

// again counts a chunk that must be read again. A copy whose chunks do not fit the stream
// again and again starts over.
func (w *worker) again(ctx context.Context, why string) error {
	w.c.log.InfoContext(ctx, "a chunk is read again", "table", w.t.Table.String(), "reason", why)
	w.rows = max(w.limit()/2, 1)
	if w.tries++; w.tries < chunkTries {
		return nil
	}
	return fmt.Errorf("copy %s: %s, %d times in a row", w.t.Table, why, w.tries)
}

// stored waits until what was written is stored.
func (w *worker) stored(ctx context.Context) error {
	w.n.mu.Lock()
	at := w.t.last().At
	for _, k := range w.t.Singles {
		if k.At.After(at) {
			at = k.At
		}
	}
	w.n.mu.Unlock()
	for {
		w.c.mu.Lock()
		published := w.c.status.Published
		w.c.mu.Unlock()
		// Nothing was ever written where there is no ordinal.
		if at.Ordinal == 0 || !at.After(published) {
			return nil
		}
		if !sleep(ctx, snapshotRetry) {
			return ctx.Err()
		}
	}
}

// limit is how many rows the next chunk has.
func (w *worker) limit() int {
	w.n.mu.Lock()
	s, bytes := w.n.settings, w.n.chunkBytes()
	w.n.mu.Unlock()
	limit := s.ChunkRows
	if w.rows > 0 {
		limit = min(limit, w.rows)
	}
	if w.average > 0 {
		// Some room, since being cut off costs a connection.
		limit = min(limit, max(bytes*3/4/w.average, 1))
	}
	if s.Rate > 0 {
		limit = min(limit, max(s.Rate/s.Workers, 1))
	}
	return limit
}

// size learns from a chunk how large rows are.
func (w *worker) size(c *chunk) {
	if len(c.ends) > 0 {
		w.average = max(len(c.data)/len(c.ends), 1)
	}
}

// flushWhile sees to it, until stop is called, that the reader gets to the end of the
// WAL on a server where nothing happens: what is not flushed is not sent.
func (c *Capture) flushWhile(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for wait := 100 * time.Millisecond; sleep(ctx, wait); wait = time.Second {
			// Without it only the wait is longer.
			_ = c.source.with(ctx, func(conn *pgx.Conn) error { return flushWAL(ctx, conn) })
		}
	}()
	return func() { cancel(); <-done }
}

// flushWAL writes a commit record, and waits until all WAL up to there is on disk.
func flushWAL(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, `SELECT set_config('synchronous_commit', 'local', true), pg_logical_emit_message(true, 'dbmazz', '')
WHERE NOT pg_is_in_recovery()`); err != nil {
		return fmt.Errorf("flush the WAL: %w", err)
	}
	return nil
}
