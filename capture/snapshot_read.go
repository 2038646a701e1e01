package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// connect opens the worker's connection, with the settings that the stream has.
func (w *worker) connect(ctx context.Context) error {
	if w.conn != nil && !w.conn.IsClosed() {
		return nil
	}
	conn, err := w.c.source.connectCopy(ctx)
	if err != nil {
		return err
	}
	w.conn = conn
	srv, err := checkServer(ctx, conn)
	if err != nil {
		return err
	}
	w.major, w.standby = srv.version, srv.standby
	return nil
}

func (w *worker) hangUp(ctx context.Context) {
	if w.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = w.conn.Close(ctx) // It is given up whatever Close says.
}

// begin starts the transaction of a chunk and returns its snapshot, in which every
// transaction is that the reader passed before the mark. The lock comes before the
// snapshot: a truncate, or a change of a column's type, would else empty the table for
// it in between.
func (w *worker) begin(ctx context.Context, mark int) (*visibility, error) {
	for {
		if _, err := w.conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE "+w.lockName()+" IN ACCESS SHARE MODE"); err != nil {
			return nil, fmt.Errorf("lock %s: %w", w.t.Table, err)
		}
		var text string
		if err := w.conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&text); err != nil {
			return nil, fmt.Errorf("take a snapshot: %w", err)
		}
		seen, err := parseVisibility(text)
		if err != nil {
			return nil, err
		}
		good, err := w.d.judge(ctx, w, seen, mark)
		if err != nil || good {
			return seen, err
		}
		if _, err := w.conn.Exec(ctx, "ROLLBACK"); err != nil {
			return nil, fmt.Errorf("take a snapshot: %w", err)
		}
		if err := w.retry(ctx, snapshotRetry); err != nil {
			return nil, err
		}
	}
}

func (w *worker) lockName() string {
	if w.info.kind == "r" {
		return "ONLY " + w.t.Table.sqlName()
	}
	return w.t.Table.sqlName()
}

// read opens a window and reads a chunk.
func (w *worker) read(ctx context.Context, from copyMark, singles []*singleKey) (_ *chunk, err error) {
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	if err := w.look(ctx); err != nil {
		return nil, err
	}
	c := &chunk{table: w.t, window: &window{}, singles: singles, buffers: w.buffers()}
	mark := 0
	if err := w.d.do(ctx, func(context.Context) (bool, error) {
		if w.d.s.view.clear < w.d.ready {
			return false, nil
		}
		w.d.open(w.t, c.window)
		w.d.mu.Lock()
		mark = w.d.passed.mark()
		w.d.mu.Unlock()
		return true, nil
	}); err != nil {
		return nil, err
	}
	if err := w.fill(ctx, c, mark, from); err != nil {
		w.drop(ctx, c)
		w.hangUp(ctx)
		return nil, err
	}
	w.size(c)
	w.n.pay(len(c.ends))
	return c, nil
}

// buffers returns empty ones for a chunk.
func (w *worker) buffers() (b buffers) {
	if n := len(w.spare); n > 0 {
		b, w.spare = w.spare[n-1], w.spare[:n-1]
	}
	return buffers{data: b.data[:0], ends: b.ends[:0]}
}

// fill reads the rows of a chunk.
func (w *worker) fill(ctx context.Context, c *chunk, mark int, from copyMark) (err error) {
	if c.seen, err = w.begin(ctx, mark); err != nil {
		return err
	}
	q, err := w.query(ctx, c)
	if err != nil {
		return err
	}
	if q.singles = c.singles; q.singles == nil {
		q.after = from.Key
	}
	r := &copyReader{c: c, columns: len(c.relation.columns), limit: chunkBytes}
	if _, err := w.conn.PgConn().CopyTo(ctx, r, q.sql()); err != nil && !c.full {
		return w.readError(c, err)
	}
	if n := len(c.ends); n > 0 {
		c.last = keyTexts(c.row(n-1), c.schema.Key)
	} else {
		c.last = from.Key
	}
	if c.full && c.singles != nil && !c.keepRead() {
		return fmt.Errorf("read %s: the keys of the rows are not those that were asked for", w.t.Table)
	}
	if c.full {
		// The connection has not come to its end of the answer.
		w.hangUp(ctx)
		if err := w.connect(ctx); err != nil {
			return err
		}
	} else if _, err := w.conn.Exec(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("read %s: %w", w.t.Table, err)
	}
	c.ended = c.singles == nil && !c.full && len(c.ends) < q.limit
	return w.head(ctx, c)
}

// readError says what to do about an error of reading that has a known cause.
func (w *worker) readError(c *chunk, err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || !encodingProblem(e) {
		return fmt.Errorf("read %s: %w", w.t.Table, err)
	}
	after := "in the rows that were read next"
	if n := len(c.ends); n > 0 && len(c.schema.Key) > 0 {
		after = fmt.Sprintf("in the rows after the one with key %q", keyTexts(c.row(n-1), c.schema.Key))
	}
	return setupProblem("Table '%s' has a value that cannot be turned into UTF-8, %s: %s. Correct the value; copying goes on by itself", w.t.Table, after, oneLine(err))
}

// head reads H: whatever the chunk has seen was logged before.
func (w *worker) head(ctx context.Context, c *chunk) (err error) {
	c.end, err = walEnd(ctx, w.conn)
	return err
}

// look finds the table, and waits for the transactions that changed it before it was
// published.
func (w *worker) look(ctx context.Context) error {
	infos, err := readTables(ctx, w.conn, []Table{w.t.Table})
	if err != nil {
		return err
	}
	w.info = infos[0]
	switch {
	case w.info.oid == 0:
		return setupProblem("Table '%s' does not exist", w.t.Table)
	case w.t.OID != w.info.oid:
		anew := w.t.OID != 0
		if err := w.n.update(ctx, func(*snapshotState) { w.t.identify(w.info.oid) }); err != nil {
			return err
		}
		if anew {
			return errCopyStop
		}
	}
	if !w.t.Joined || w.joined {
		return nil
	}
	return w.outlive(ctx)
}

// outlive waits for the transactions that changed the table before it was published.
func (w *worker) outlive(ctx context.Context) error {
	if w.standby {
		return w.outliveAll(ctx)
	}
	holders, err := writers(ctx, w.conn, w.info.oid, nil)
	for err == nil && len(holders) > 0 {
		w.say("transactions that changed the table before it was captured must end")
		if err := w.retry(ctx, pollEvery); err != nil {
			return err
		}
		holders, err = writers(ctx, w.conn, w.info.oid, holders)
	}
	w.joined = err == nil
	w.say("")
	return err
}

// outliveAll waits for all transactions that have begun.
func (w *worker) outliveAll(ctx context.Context) error {
	var next int64
	// The age of a number counts up to the next one that will be given out.
	if err := w.conn.QueryRow(ctx, "SELECT (age('3'::xid)::bigint + 3) & 4294967295").Scan(&next); err != nil {
		return fmt.Errorf("look at transactions: %w", err)
	}
	defer w.say("")
	for {
		var text string
		if err := w.conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&text); err != nil {
			return fmt.Errorf("look at transactions: %w", err)
		}
		seen, err := parseVisibility(text)
		if err != nil {
			return err
		}
		if seen.xmin >= seen.widen(uint32(next)) { //nolint:gosec // Masked.
			w.joined = true
			return nil
		}
		w.say("transactions of the primary that may have changed the table before it was captured must end")
		if err := w.retry(ctx, pollEvery); err != nil {
			return err
		}
	}
}

// writers returns the transactions that may have changed a table or a part of it, of
// those given if any are.
func writers(ctx context.Context, conn *pgx.Conn, oid uint32, of []string) ([]string, error) {
	rows, err := conn.Query(ctx, `
SELECT DISTINCT virtualtransaction FROM pg_locks l
WHERE locktype = 'relation' AND granted AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (relation = $1 OR relation IN (SELECT relid FROM pg_partition_tree($1::oid::regclass)))
  AND ($2::text[] IS NULL OR virtualtransaction = ANY ($2))`, oid, of)
	if err != nil {
		return nil, fmt.Errorf("look for transactions that hold %s: %w", "the table", err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// query describes the table inside the transaction of the chunk.
func (w *worker) query(ctx context.Context, c *chunk) (*chunkQuery, error) {
	r, err := catalogRelation(ctx, w.conn, w.major, w.c.cfg.Publication, &w.info)
	if err != nil {
		return nil, err
	}
	schema, _, err := describe(ctx, w.conn, r, nil, w.d.s.record.get().shape(w.t.Table.String()))
	if err != nil {
		return nil, err
	}
	key, err := readKeyColumns(ctx, w.conn, w.info.oid, r.identity)
	if err != nil {
		return nil, err
	}
	if len(key) != len(schema.Key) || slices.ContainsFunc(schema.Key, func(i int) bool {
		return !slices.ContainsFunc(key, func(k keyColumn) bool { return k.name == schema.Columns[i].Name })
	}) {
		return nil, setupProblem("Table '%s' has no usable key", w.t.Table)
	}
	c.relation, c.schema = r, schema
	q := &chunkQuery{table: w.t.Table, only: w.info.kind == "r", columns: r.columns, key: key, limit: w.limit()}
	if q.filter, err = rowFilter(ctx, w.conn, w.major, w.c.cfg.Publication, w.info.oid); err != nil {
		return nil, err
	}
	c.estimate, err = estimateRows(ctx, w.conn, w.info.oid)
	return q, err
}

// rowFilter returns the condition of the publication for rows of a table, as PostgreSQL
// applies it: none where the schema of the table is in the publication as well.
func rowFilter(ctx context.Context, conn *pgx.Conn, version int, publication string, oid uint32) (filter string, err error) {
	if version < 150000 {
		return "", nil
	}
	err = conn.QueryRow(ctx, `
SELECT COALESCE(p.rowfilter, '') FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename WHERE p.pubname = $1 AND c.oid = $2`, publication, oid).Scan(&filter)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("look up the row filter of the publication: %w", err)
	}
	return filter, nil
}

// estimateRows says how many rows a table has about: as many on a page as there were when
// it was looked through last, or 60.
func estimateRows(ctx context.Context, conn *pgx.Conn, oid uint32) (rows uint64, err error) {
	err = conn.QueryRow(ctx, `
SELECT COALESCE(sum(CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples / c.relpages ELSE 60 END
  * pg_relation_size(c.oid) / current_setting('block_size')::int), 0)::bigint FROM pg_class c
WHERE c.relkind = 'r' AND ( c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass) WHERE isleaf))`, oid).Scan(&rows)
	if err != nil {
		return 0, fmt.Errorf("estimate the rows: %w", err)
	}
	return rows, nil
}
