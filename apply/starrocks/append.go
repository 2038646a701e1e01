package starrocks

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// appendBytesMax is at what size a load of an append table is cut, in wire bytes of its
// rows. It is no setting and has nothing to do with the bytes of the body, so that a
// label stands for the same changes for ever.
const appendBytesMax = 32 << 20

// appendRows delivers a batch of a table without a key, where every change is a row and
// a row that is sent twice is there twice.
//
// The label is the first defence. It stands for a range of the batch's changes, so at
// most one load of them commits, whatever its bytes. Where the label may not know - it
// was evicted, a front end lost it, the changes came under another batch's ID before -
// the changes are looked up in the table by their positions, and the load holds those
// that are missing. It has the same label again: a request of before that is still
// under way finds the label taken, or takes it, and then this one is refused.
//
// Nothing is looked up while a load of before may still commit: the label's state is
// waited for, an open transaction is cancelled, and what is committed becomes visible.
// Changes that come after all that the table has, and were not tried before, are not
// looked up, which is the usual case.
func (a *applyRun) appendRows(ctx context.Context, buffer *[]byte) error {
	rows := a.batch.Rows
	if len(rows) == 0 {
		return nil
	}
	look, err := a.mayBeStored(ctx, rows[0].Position, rows[len(rows)-1].Position)
	if err != nil {
		return err
	}
	for n, from := 0, 0; from < len(rows); n++ {
		to, size := from, 0
		for to < len(rows) && (to == from || size+len(rows[to].Tuple) <= a.sink.appendBytes) {
			size += len(rows[to].Tuple)
			to++
		}
		load := &appendLoad{applyRun: a, from: from, rows: rows[from:to], buffer: buffer}
		if err := load.deliver(ctx, a.batch.ID+"_a_"+strconv.Itoa(n), look); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// mayBeStored tells whether the table may have changes of the range: it has later ones,
// or this process has tried to store some. It notes that they are tried now.
func (a *applyRun) mayBeStored(ctx context.Context, first, last cdc.Position) (bool, error) {
	if a.batch.Guarded {
		return true, nil
	}
	s, table := a.sink, a.layout.table
	s.mu.Lock()
	before, ok := s.attempted[table]
	s.mu.Unlock()
	if !ok {
		var err error
		if before, err = a.highest(ctx); err != nil {
			return false, fmt.Errorf("look for changes in table %s: %w", table, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempted[table] = before
	if last.After(before) {
		s.attempted[table] = last
	}
	return !first.After(before), nil
}

// highest returns the position of the last change that the table has.
func (a *applyRun) highest(ctx context.Context) (p cdc.Position, err error) {
	l := a.layout
	conn, err := a.sink.reading(ctx, l.table)
	if err != nil {
		return p, err
	}
	defer conn.Close()
	if err := a.allVisible(ctx, conn); err != nil {
		return p, err
	}
	version, ordinal, table := quoteName(l.audit[atVersion]), quoteName(l.audit[atOrdinal]), a.sink.tableName(l.table)
	var commit, n sql.NullInt64
	if err := conn.QueryRowContext(ctx, fmt.Sprintf("SELECT MAX(%s) FROM %s", version, table)).Scan(&commit); err != nil {
		return p, sqlError(err)
	}
	if err := conn.QueryRowContext(ctx, fmt.Sprintf("SELECT MAX(%s) FROM %s WHERE %s = %d", ordinal, table, version, commit.Int64)).Scan(&n); err != nil {
		return p, sqlError(err)
	}
	return cdc.Position{Commit: cdc.LSN(commit.Int64), Ordinal: uint64(n.Int64)}, nil //nolint:gosec // As they were written.
}

// allVisible returns once queries see everything that was committed before it was
// called, by whomever and under whatever label: a statement that writes, although it
// finds nothing to change, becomes visible after it.
func (a *applyRun) allVisible(ctx context.Context, conn *sql.Conn) error {
	if err := apply.Allowed(ctx); err != nil {
		return err
	}
	_, err := conn.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s WHERE %s = -1", a.sink.tableName(a.layout.table), quoteName(a.layout.audit[atVersion])))
	return sqlError(err)
}

// appendLoad is one load of an append table.
type appendLoad struct {
	*applyRun
	from   int // of the first row in the batch
	rows   []apply.Row
	buffer *[]byte
	nulled int64 // values of the body that became NULL
}

func (a *appendLoad) deliver(ctx context.Context, label string, look bool) error {
	if err := checkLabel(label); err != nil {
		return err
	}
	l := a.layout
	r := &request{table: l.table, label: label, missing: a.renew, once: true}
	if l.foreign {
		r.columns = l.list("", false)
	}
	if !look {
		if err := a.body(r, nil); err != nil {
			return err
		}
		return a.finish(ctx, r)
	}
	state, err := a.sink.settle(ctx, l.table, label)
	if err != nil {
		return fmt.Errorf("look for changes of table %s: %w", l.table, err)
	}
	a.sink.noteState(l.table, label, state)
	missing, err := a.renew(ctx, r)
	if err != nil {
		return err
	}
	if a.batch.Guarded {
		a.result.Left += int64(len(a.rows)) - missing
	}
	switch {
	case missing == 0:
		a.committed(int64(len(a.rows)), 0)
		return nil
	case state.committed():
		return incomplete(r, missing)
	}
	return a.finish(ctx, r)
}

func (a *appendLoad) finish(ctx context.Context, r *request) error {
	retries, err := a.sink.deliver(ctx, a.layout, r)
	a.result.Retries += retries
	if err != nil {
		return a.locate(err)
	}
	a.committed(r.rows, len(r.body))
	return nil
}

// renew makes the request one of the changes that the table does not have, and counts
// them.
func (a *appendLoad) renew(ctx context.Context, r *request) (int64, error) {
	stored, err := a.stored(ctx)
	if err != nil {
		return 0, fmt.Errorf("look for changes in table %s: %w", a.layout.table, err)
	}
	return int64(len(a.rows) - len(stored)), a.body(r, stored)
}

// stored returns which of the changes the table has.
func (a *appendLoad) stored(ctx context.Context) (map[cdc.Position]bool, error) {
	conn, err := a.sink.reading(ctx, a.layout.table)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stored, err := a.lookUp(ctx, conn)
	if err != nil || len(stored) == len(a.rows) {
		return stored, err
	}
	if err := a.allVisible(ctx, conn); err != nil {
		return nil, err
	}
	return a.lookUp(ctx, conn)
}

// lookUp reads the positions that are in the table of the load's changes.
func (a *appendLoad) lookUp(ctx context.Context, conn *sql.Conn) (map[cdc.Position]bool, error) {
	wanted := make(map[cdc.Position]bool, len(a.rows))
	for i := range a.rows {
		wanted[a.rows[i].Position] = true
	}
	first, last := a.rows[0].Position, a.rows[len(a.rows)-1].Position
	l := a.layout
	version, ordinal := quoteName(l.audit[atVersion]), quoteName(l.audit[atOrdinal])
	query := fmt.Sprintf("SELECT %[1]s, %[2]s FROM %[3]s WHERE %[1]s >= %[4]d AND %[1]s <= %[6]d AND (%[1]s > %[4]d OR %[2]s >= %[5]d) AND (%[1]s < %[6]d OR %[2]s <= %[7]d)",
		version, ordinal, a.sink.tableName(l.table), uint64(first.Commit), first.Ordinal, uint64(last.Commit), last.Ordinal)
	result, err := conn.QueryContext(ctx, query)
	if err != nil {
		return nil, sqlError(err)
	}
	defer result.Close()
	stored := map[cdc.Position]bool{}
	for result.Next() {
		var commit, n uint64
		if err := result.Scan(&commit, &n); err != nil {
			return nil, sqlError(err)
		}
		if p := (cdc.Position{Commit: cdc.LSN(commit), Ordinal: n}); wanted[p] {
			stored[p] = true
		}
	}
	return stored, sqlError(errors.Join(result.Err(), result.Close()))
}

// body makes the body of the changes that are not in stored.
func (a *appendLoad) body(r *request, stored map[cdc.Position]bool) error {
	body := append((*a.buffer)[:0], '[')
	r.rows = 0
	a.writer.nulled -= a.nulled // Of a body that was made before.
	before := a.writer.nulled
	defer func() { a.nulled = a.writer.nulled - before }()
	for i := range a.rows {
		row := &a.rows[i]
		if stored[row.Position] {
			continue
		}
		if r.rows > 0 {
			body = append(body, ',')
		}
		refused := columnRefusal{refusePart, -1}
		if !row.KeyOnly && len(row.MovedFrom) == 0 {
			body, refused = a.writer.append(body, row, row.Tuple, formFull)
		}
		if refused.refusal != nil {
			return a.refused(a.from+i, refused)
		}
		r.rows++
	}
	r.body = append(body, ']')
	*a.buffer = r.body
	return nil
}

// locate adds the row's number to an error that StarRocks's log of refused rows led to.
func (a *appendLoad) locate(err error) error {
	row, ok := errors.AsType[*apply.RowError](err)
	if !ok || row.Key == "" {
		return err
	}
	for i := range a.rows {
		if positionText(a.rows[i].Position) == row.Key {
			row.Row = a.from + i + 1
		}
	}
	return err
}

// positionOfLine takes the position from a line of StarRocks's error log.
func (l *layout) positionOfLine(values map[string]json.RawMessage) string {
	commit, err := strconv.ParseUint(string(values[l.audit[atVersion]]), 10, 64)
	ordinal, err2 := strconv.ParseUint(string(values[l.audit[atOrdinal]]), 10, 64)
	if err != nil || err2 != nil {
		return ""
	}
	return positionText(cdc.Position{Commit: cdc.LSN(commit), Ordinal: ordinal})
}

// truncateAppended removes the rows of the changes before the truncate. What came later
// stays, so it may be done again at any time, and even come late.
func (s *Sink) truncateAppended(ctx context.Context, l *layout, t *apply.TableTruncate) error {
	version, ordinal := quoteName(l.audit[atVersion]), quoteName(l.audit[atOrdinal])
	// A DELETE on a table of this model knows AND, but no OR.
	conditions := []string{
		fmt.Sprintf("%s < %d", version, uint64(t.Position.Commit)),
		fmt.Sprintf("%s = %d AND %s <= %d", version, uint64(t.Position.Commit), ordinal, t.Position.Ordinal),
	}
	if !t.Guarded {
		conditions = append(conditions, version+" IS NULL") // There before dbmazz.
	}
	for _, condition := range conditions {
		if err := s.exec(ctx, strings.Join([]string{"DELETE FROM", s.tableName(l.table), "WHERE", condition}, " ")); err != nil {
			return err
		}
	}
	return nil
}
