package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// The copy of a table without a key.
//
// Each change of such a table is a row of its own in the sink, so nothing tells the row of
// a chunk from that of a change, and each must get there once. The table is therefore read
// whole, in one transaction with a snapshot S, and starts over if that is interrupted:
//
//  1. The worker locks the table against truncates and changes of its form.
//  2. The reader stops between two transactions, and the worker takes S. If one that the
//     reader has passed is not in S, all is let go and tried again.
//  3. The reader empties the table in the sink. What it has passed is in S.
//  4. It goes on, and leaves out changes of transactions that are in S: all of them are in
//     the log before H, which the worker reads at the end. The others are no part of S.
//  5. The rows of S are written in between, in any order, while the worker still has its
//     lock, so that no truncate can come before the last of them.
//
// So a change that the reader passed before step 3, or that is in S, is in the sink as part
// of S and not otherwise; any other is there by itself. A change that is left out has its
// position nevertheless. The server may repeat it, and then it must not be written; it is
// not, since its transaction ends before the end of the stream, or the copy was not over
// and starts with step 3 again.
//
// Unlike a copy by key this keeps a transaction open as long as it takes.

// holdFor bounds how long the reader stands still for a snapshot.
const holdFor = 2 * time.Second

// errNotNow says that the snapshot was not good.
var errNotNow = errors.New("the snapshot lacks what the stream has")

// readWhole copies a table without a key.
func (w *worker) readWhole(ctx context.Context) (err error) {
	c, err := w.holdOn(ctx)
	for errors.Is(err, errNotNow) {
		if err := w.retry(ctx, snapshotRetry); err != nil {
			return err
		}
		c, err = w.holdOn(ctx)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			w.hangUp(ctx)
			// Changes are left out no more; the sink lacks them until the next copy.
			_ = w.d.do(ctx, func(context.Context) (bool, error) { w.d.release(c.table); return true, nil })
		}
	}()
	q := &chunkQuery{table: w.t.Table, only: w.info.kind == "r", columns: c.relation.columns}
	if q.filter, err = rowFilter(ctx, w.conn, w.major, w.c.cfg.Publication, w.info.oid); err != nil {
		return err
	}
	r := &copyReader{c: c, columns: len(c.relation.columns), limit: pieceBytes}
	r.flush = func() error {
		if err := w.writePiece(ctx, c); err != nil {
			return err
		}
		return w.await(ctx, true)
	}
	if _, err = w.conn.PgConn().CopyTo(ctx, r, q.sql()); err == nil {
		err = r.flush()
	}
	if err != nil {
		return w.readError(c, err)
	}
	if _, err = w.conn.Exec(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("read %s: %w", w.t.Table, err)
	}
	if err = w.head(ctx, c); err != nil {
		return err
	}
	stop := w.c.flushWhile(ctx)
	defer stop()
	killpoint.Reached("copy.whole")
	return w.d.do(ctx, func(context.Context) (bool, error) {
		if w.d.s.view.clear < c.end {
			return false, nil
		}
		w.d.n.mu.Lock()
		m := w.t.last()
		m.At, m.Ended = c.at, true
		w.t.Marks = []copyMark{m}
		w.d.n.mu.Unlock()
		w.d.release(w.t)
		return true, nil
	})
}

// holdOn makes steps 1 to 3.
func (w *worker) holdOn(ctx context.Context) (*chunk, error) {
	if _, err := w.conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE "+w.lockName()+" IN ACCESS SHARE MODE"); err != nil {
		return nil, fmt.Errorf("lock %s: %w", w.t.Table, err)
	}
	c := &chunk{table: w.t, window: &window{}}
	held, verdict := make(chan struct{}), make(chan error, 1)
	var began bool
	ask := w.d.submit(func(ctx context.Context) (bool, error) {
		if w.d.s.view.clear < w.d.ready {
			return false, nil
		}
		close(held)
		timer := time.NewTimer(holdFor)
		defer timer.Stop()
		select {
		case err := <-verdict:
			if err != nil {
				return true, nil // The worker knows.
			}
		case <-timer.C:
			return true, nil
		case <-ctx.Done():
			return true, nil
		}
		var err error
		began, err = w.d.startOver(ctx, c)
		return true, err
	})
	select {
	case <-held:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	err := w.seeAll(ctx, c)
	verdict <- err
	if waitErr := w.d.wait(ctx, ask); waitErr != nil {
		return nil, waitErr
	}
	if err == nil && !began {
		err = errNotNow
	}
	if errors.Is(err, errNotNow) {
		if _, err := w.conn.Exec(ctx, "ROLLBACK"); err != nil {
			return nil, fmt.Errorf("take a snapshot: %w", err)
		}
	}
	return c, err
}

// seeAll takes the snapshot and describes the table in it.
func (w *worker) seeAll(ctx context.Context, c *chunk) error {
	var text string
	err := w.conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&text)
	if err != nil {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	if c.seen, err = parseVisibility(text); err != nil {
		return err
	}
	w.d.mu.Lock()
	mark := w.d.passed.mark()
	w.d.mu.Unlock()
	good, err := w.d.judge(ctx, w, c.seen, mark)
	if err != nil {
		return err
	}
	if !good {
		return errNotNow
	}
	if c.relation, err = catalogRelation(ctx, w.conn, w.major, w.c.cfg.Publication, &w.info); err != nil {
		return err
	}
	c.schema, _, err = describe(ctx, w.conn, c.relation, nil, w.d.s.record.get().shape(w.t.Table.String()))
	return err
}

// startOver empties the table in the sink, and leaves changes out that the copy has. It
// reports false if the time has not come.
func (d *desk) startOver(ctx context.Context, c *chunk) (bool, error) {
	schema, err := d.c.keepSchema(ctx, c.schema)
	if err != nil {
		return false, err
	}
	c.schema = schema
	d.s.starting()
	if !d.s.out.BeginSnapshot(d.after, d.time) {
		return false, nil
	}
	d.s.out.Truncate(0, []*cdc.Schema{schema})
	d.s.out.EndSnapshot()
	d.n.mu.Lock()
	c.table.restart()
	c.table.Marks = []copyMark{{At: d.s.out.Last()}}
	d.n.mu.Unlock()
	d.tables[c.table.Table] = &deskTable{copied: c.table, seen: c.seen}
	d.version++
	return true, nil
}

// release ends the copy of a table without a key.
func (d *desk) release(c *tableCopy) {
	delete(d.tables, c.Table)
	d.version++
}

// has reports whether the copy of a table without a key has the changes of the
// transaction that the reader passes.
func (d *desk) has(t *table) bool {
	c := d.of(t)
	return c != nil && c.seen != nil && c.seen.sees(d.xid)
}

// writePiece has the reader write what was read, and forgets it.
func (w *worker) writePiece(ctx context.Context, c *chunk) error {
	for c.next = 0; c.next < len(c.ends); {
		err := w.d.do(ctx, func(ctx context.Context) (bool, error) {
			n, ok, err := w.d.frame(ctx, c, nil)
			return ok && n >= 0, err
		})
		if err != nil {
			return err
		}
		w.n.mu.Lock()
		stop := w.unwanted()
		w.n.mu.Unlock()
		if stop {
			return errCopyStop
		}
	}
	rows, bytes := uint64(len(c.ends)), uint64(len(c.data))
	c.data, c.ends = c.data[:0], c.ends[:0]
	w.n.pay(int(rows)) //nolint:gosec // Of one piece.
	applied := w.n.applied()
	return w.d.do(ctx, func(context.Context) (bool, error) {
		w.d.n.mu.Lock()
		defer w.d.n.mu.Unlock()
		c.at = w.d.s.out.Last()
		m := w.t.last()
		w.t.Marks = append(w.t.Marks, copyMark{At: c.at, Rows: m.Rows + rows, Bytes: m.Bytes + bytes, Chunks: m.Chunks + 1})
		w.t.settle(applied)
		w.n.room.wrote(c.at, time.Now())
		return true, nil
	})
}
