package starrocks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

const (
	// keysAsked is how many rows one query asks about where the key is one column,
	// and keysAskedTogether where it is more: their conditions nest.
	keysAsked         = 1000
	keysAskedTogether = 100
	// codeSyntax is MySQL's error code for a statement that is not understood.
	codeSyntax = 1064
)

// exec runs a statement that changes something.
func (s *Sink) exec(ctx context.Context, statement string) error {
	if err := apply.Allowed(ctx); err != nil {
		return err
	}
	_, err := s.db.ExecContext(ctx, statement)
	return sqlError(err)
}

// reading returns a connection whose queries see every load of the table that this
// process knows to be committed, whatever front end the connection leads to. SYNC waits
// for a front end that lags behind the leader.
// https://docs.starrocks.io/docs/sql-reference/sql-statements/cluster-management/nodes_processes/SYNC/
func (s *Sink) reading(ctx context.Context, table string) (*sql.Conn, error) {
	if err := s.published(ctx, table); err != nil {
		return nil, err
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return nil, sqlError(err)
	}
	_, err = conn.ExecContext(ctx, "SYNC")
	var my *mysql.MySQLError
	if err != nil && (!errors.As(err, &my) || my.Number != codeSyntax) {
		return nil, errors.Join(sqlError(err), conn.Close())
	}
	return conn, nil
}

// notDeleted is true in SQL for rows that are not marked as deleted, and empty where
// deletes remove rows.
func (s *Sink) notDeleted(l *layout) string {
	if s.config.DeleteMode != DeleteSoft {
		return ""
	}
	deleted := quoteName(l.audit[atDeleted])
	return " AND (" + deleted + " = false OR " + deleted + " IS NULL)"
}

// upTo is true in SQL for rows whose version is not greater. Rows without one were
// there before dbmazz.
func (l *layout) upTo(commit cdc.LSN) string {
	version := quoteName(l.audit[atVersion])
	return fmt.Sprintf("(%s <= %d OR %s IS NULL)", version, uint64(commit), version)
}

// from is true in SQL for rows whose version is not lower.
func (l *layout) from(commit cdc.LSN) string {
	return fmt.Sprintf("%s >= %d", quoteName(l.audit[atVersion]), uint64(commit))
}

// countRows counts the rows with the keys of the tuples for which the extra condition,
// which begins with AND or is empty, is true.
func (s *Sink) countRows(ctx context.Context, conn *sql.Conn, l *layout, keys []cdc.Tuple, extra string) (int, error) {
	condition, err := l.keyCondition(keys)
	if err != nil {
		return 0, err
	}
	return s.countWhere(ctx, conn, l, "("+condition+")"+extra)
}

func (s *Sink) countWhere(ctx context.Context, conn *sql.Conn, l *layout, condition string) (n int, err error) {
	query := "SELECT COUNT(*) FROM " + s.tableName(l.table) + " WHERE " + condition
	return n, sqlError(conn.QueryRowContext(ctx, query).Scan(&n))
}

// missingRows returns which of the keys have no row for which the extra condition is
// true, in order.
func (s *Sink) missingRows(ctx context.Context, conn *sql.Conn, l *layout, keys []cdc.Tuple, extra string) ([]int, error) {
	step := keysAsked
	if len(l.key) > 1 {
		step = keysAskedTogether
	}
	return uncounted(len(keys), step, func(from, to int) (int, error) {
		return s.countRows(ctx, conn, l, keys[from:to], extra)
	})
}

// uncounted returns which of so many keys have no row, in order, given how many rows those
// from one up to another have. It asks for a step of them at a time, and halves what does
// not add up: a key need not be read back, since some versions of StarRocks show less of a
// DATETIME than they store.
func uncounted(keys, step int, count func(from, to int) (int, error)) ([]int, error) {
	var missing []int
	var search func(from, to int) error
	search = func(from, to int) error {
		n, err := count(from, to)
		switch {
		case err != nil:
			return err
		case n > to-from:
			return fmt.Errorf("%d rows for %d keys: two rows have one key", n, to-from)
		case n == 0:
			for i := from; i < to; i++ {
				missing = append(missing, i)
			}
			return nil
		case n == to-from:
			return nil
		}
		middle := (from + to) / 2
		if err := search(from, middle); err != nil {
			return err
		}
		return search(middle, to)
	}
	for from := 0; from < keys; from += step {
		if err := search(from, min(from+step, keys)); err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// mayAppear tells whether rows that a query does not show may still become visible: a
// process before this one may have committed them. Once a later load was seen to be
// visible, or some time has passed since rows were missed first, nothing is outstanding.
func (s *Sink) mayAppear(table string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[table] {
		return false
	}
	since, ok := s.missed[table]
	if !ok {
		since = time.Now()
		s.missed[table] = since
	}
	s.seen[table] = time.Since(since) >= s.retry.appear
	return !s.seen[table]
}
