package shop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// Options say how large the load is. The zero value is not useful: Changes must be given.
type Options struct {
	// Seed decides every change.
	Seed uint64
	// Changes is how many row changes are committed, or a few more.
	Changes int
	// Sessions is how many connections work at once. Defaults to 3.
	Sessions int
	// Lasting spreads the changes over a time. Defaults to as fast as the source takes them.
	Lasting time.Duration
}

// Load is one run of the workload.
type Load struct {
	options  Options
	sessions []*session
	filled   bool
	written  atomic.Int64
	commits  atomic.Int64
}

// New prepares a load.
func New(o Options) *Load {
	if o.Sessions == 0 {
		o.Sessions = 3
	}
	l := &Load{options: o}
	for i := range o.Sessions {
		l.sessions = append(l.sessions, newSession(o.Seed, i, o.Sessions))
	}
	return l
}

// Written is how many changes have been committed.
func (l *Load) Written() int64 { return l.written.Load() }

// Transactions is how many transactions have been committed.
func (l *Load) Transactions() int64 { return l.commits.Load() }

// Ledger returns the keys of all sessions. It may be called once Run has returned without an error.
func (l *Load) Ledger() *Ledger {
	all := newLedger()
	for _, s := range l.sessions {
		all.merge(s.ledger)
	}
	return all
}

// fills are what makes rows and takes none away.
var fills = []func(*session){
	(*session).importCustomers, (*session).importOrders, (*session).importPrices, (*session).importCustomers, (*session).fillCarts,
}

// Fill makes rows before Run does, about that many, and returns how many changes that
// took. They count neither as written nor as transactions.
func (l *Load) Fill(ctx context.Context, conn *pgx.Conn, rows int) (int64, error) {
	w, s := &writer{load: l, conn: conn}, l.sessions[0] // The carts are its own.
	add := func(t tx) error { return w.add(ctx, t) }
	err := add(s.fillStock())
	for i, made := 0, 0; made < rows && err == nil; i++ {
		s.tx = tx{}
		s.tx.control("BEGIN")
		fills[i%len(fills)](s)
		s.tx.control("COMMIT")
		made += s.tx.changes
		err = add(s.tx)
	}
	if err == nil {
		err = w.flush(ctx)
	}
	l.filled = true
	l.commits.Store(0)
	return l.written.Swap(0), err
}

// Run changes rows over connections of its own until the number is reached.
func (l *Load) Run(ctx context.Context, connect func(context.Context) (*pgx.Conn, error)) error {
	conns := make([]*pgx.Conn, len(l.sessions))
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close(context.WithoutCancel(ctx)) // Everything was committed or given up before.
			}
		}
	}()
	for i := range conns {
		var err error
		if conns[i], err = connect(ctx); err != nil {
			return fmt.Errorf("open session %d of the load: %w", i+1, err)
		}
	}
	if !l.filled {
		w := &writer{load: l, conn: conns[0]}
		if err := errors.Join(w.add(ctx, l.sessions[0].fillStock()), w.flush(ctx)); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for i, s := range l.sessions {
		group.Go(func() error {
			if err := l.drive(ctx, s, conns[i]); err != nil {
				return fmt.Errorf("session %d of the load: %w", i+1, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// drive makes one session's share of the changes.
func (l *Load) drive(ctx context.Context, s *session, conn *pgx.Conn) error {
	share := (l.options.Changes + len(l.sessions) - 1) / len(l.sessions)
	w := &writer{load: l, conn: conn}
	begun := time.Now()
	for made := 0; made < share; {
		t := s.next()
		made += t.changes
		if err := w.add(ctx, t); err != nil {
			return err
		}
		if l.options.Lasting == 0 {
			continue
		}
		due := time.Duration(float64(l.options.Lasting) * float64(made) / float64(share))
		if wait := due - time.Since(begun); wait > 0 {
			if err := w.flush(ctx); err != nil {
				return err
			}
			if err := pause(ctx, wait); err != nil {
				return err
			}
		}
	}
	return w.flush(ctx)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// batchSteps is how many statements travel at once.
const batchSteps = 60

// writer sends transactions over one connection, many in one round trip.
type writer struct {
	load  *Load
	conn  *pgx.Conn
	batch pgx.Batch
	steps []step
	held  tx // What the batch will have changed, without its steps.
	count int64
}

// add queues a transaction and sends what is queued once it is enough. A COPY cannot be queued.
func (w *writer) add(ctx context.Context, t tx) error {
	for _, s := range t.steps {
		if s.copy != nil {
			if err := w.flush(ctx); err != nil {
				return err
			}
			return w.direct(ctx, t)
		}
	}
	for _, s := range t.steps {
		w.batch.Queue(s.sql, s.args...)
		w.steps = append(w.steps, s)
	}
	w.held.changes += t.changes
	if t.changes > 0 {
		w.count++
	}
	if len(w.steps) >= batchSteps {
		return w.flush(ctx)
	}
	return nil
}

// flush sends what is queued and checks every answer.
func (w *writer) flush(ctx context.Context) error {
	if len(w.steps) == 0 {
		return nil
	}
	results := w.conn.SendBatch(ctx, &w.batch)
	for _, s := range w.steps {
		tag, err := results.Exec()
		if err == nil {
			err = s.check(tag.RowsAffected())
		}
		if err != nil {
			return errors.Join(fmt.Errorf("run %q: %w", s.sql, err), results.Close())
		}
	}
	if err := results.Close(); err != nil {
		return fmt.Errorf("end a batch of statements: %w", err)
	}
	w.done(int64(w.held.changes), w.count)
	w.batch, w.steps, w.held, w.count = pgx.Batch{}, w.steps[:0], tx{}, 0
	return nil
}

// direct sends the statements of one transaction one by one.
func (w *writer) direct(ctx context.Context, t tx) error {
	for _, s := range t.steps {
		tag, err := w.one(ctx, s)
		if err == nil {
			err = s.check(tag.RowsAffected())
		}
		if err != nil {
			return fmt.Errorf("run %q: %w", s.sql, err)
		}
	}
	w.done(int64(t.changes), 1)
	return nil
}

func (w *writer) one(ctx context.Context, s step) (pgconn.CommandTag, error) {
	if s.copy != nil {
		return w.conn.PgConn().CopyFrom(ctx, bytes.NewReader(s.copy), s.sql)
	}
	return w.conn.Exec(ctx, s.sql, s.args...)
}

func (w *writer) done(changes, commits int64) {
	w.load.written.Add(changes)
	w.load.commits.Add(commits)
}

// check compares the rows that a statement touched with those that it must touch.
func (s *step) check(rows int64) error {
	if s.rows >= 0 && rows != int64(s.rows) {
		return fmt.Errorf("it touched %d rows instead of %d", rows, s.rows)
	}
	return nil
}
