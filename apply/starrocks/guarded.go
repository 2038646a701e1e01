package starrocks

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// A guarded batch is for a table that may be ahead of it while another apply writes to
// it. Its loads have a merge_condition: StarRocks compares the version of each row with
// that of the stored one when it makes the load visible, one load after the other, and
// leaves out what is older. A stored row without a version counts as older, one with the
// same version - another change of the same transaction, or the same - is replaced. So
// a load of another apply cannot come in between, and sending one again is harmless.
// https://docs.starrocks.io/docs/loading/Load_to_Primary_Key_tables/#conditional-updates
//
// A load with deletes knows no such condition. Where deletes remove rows they are a
// DELETE with the version in its WHERE, which reads first and commits later: a row that
// another apply writes in between would be lost. Replays in hard mode therefore make live
// apply wait while they delete.

// condition is the merge_condition of the batch's loads.
func (a *applyRun) condition() string {
	if !a.batch.Guarded {
		return ""
	}
	return a.layout.audit[atVersion]
}

// applyMovedGuarded delivers the load of the rows whose key has changed while some of
// their values were not sent. It is one load, so that another try finds all of them
// moved or none.
func (a *applyRun) applyMovedGuarded(ctx context.Context, g *group, buffer *[]byte) error {
	conn, err := a.sink.reading(ctx, a.layout.table)
	if err != nil {
		return fmt.Errorf("read moved rows of %s: %w", a.layout.table, err)
	}
	defer conn.Close()
	body := a.movedWriter(buffer)
	for chunk := range slices.Chunk(g.rows, movedRowsRead) {
		tuples, err := a.fillGuarded(ctx, conn, chunk)
		if err != nil {
			return err
		}
		for n, i := range chunk {
			if tuples[n] == nil {
				a.result.Left++
				continue
			}
			if err := body.addRead(i, tuples[n]); err != nil {
				return err
			}
		}
	}
	if len(body.rows) == 0 {
		return nil
	}
	return a.send(ctx, g, body.end(), body.rows)
}

// fillGuarded returns the tuples of rows with the values that they lack, nil for a row
// that stays out.
func (a *applyRun) fillGuarded(ctx context.Context, conn *sql.Conn, rows []int32) ([]cdc.Tuple, error) {
	l := a.layout
	read, err := a.unchangedColumns(rows)
	if err != nil {
		return nil, err
	}
	keys := make([]cdc.Tuple, 0, 2*len(rows))
	asked := map[string]bool{}
	for _, i := range rows {
		row := &a.batch.Rows[i]
		for _, tuple := range []cdc.Tuple{row.Tuple, row.MovedFrom} {
			key, err := l.sinkKey(tuple)
			if err != nil {
				return nil, a.numbered(int(i), err)
			}
			if !asked[key] {
				asked[key] = true
				keys = append(keys, tuple)
			}
		}
	}
	stored, err := a.readRows(ctx, conn, keys, read, "")
	if err != nil {
		return nil, fmt.Errorf("read moved rows of %s: %w", l.table, err)
	}
	tuples := make([]cdc.Tuple, len(rows))
	for n, i := range rows {
		row := &a.batch.Rows[i]
		key, err := l.sinkKey(row.Tuple)
		if err != nil {
			return nil, err
		}
		from, err := l.sinkKey(row.MovedFrom)
		if err != nil {
			return nil, err
		}
		if source := origin(stored[key], stored[from], row); source != nil {
			tuples[n] = complete(row.Tuple, source.values, len(l.columns))
		}
	}
	return tuples, nil
}

// origin returns the row that has the values which a move left out, nil if the move
// comes too late or nobody has them. own has the new key and from the one before; either
// may be nil.
func origin(own, from *storedRow, row *apply.Row) *storedRow {
	commit := row.Position.Commit
	switch {
	case own != nil && own.version > commit:
		return nil // It has a later state.
	case from != nil && !from.deleted && from.version < row.MovedBefore:
		return from // Not moved yet.
	case own != nil && !own.deleted && own.version == commit:
		return own // Moved before.
	}
	return nil
}

// deleteGuarded removes the rows of the batch's deletes that are not later.
func (a *applyRun) deleteGuarded(ctx context.Context) error {
	if len(a.deletes) == 0 {
		return nil
	}
	l := a.layout
	if err := a.sink.published(ctx, l.table); err != nil {
		return err
	}
	for chunk := range slices.Chunk(a.deletes, keysAskedTogether) {
		condition, err := a.eachWith(chunk, l.upTo)
		if err != nil {
			return err
		}
		if err := a.sink.exec(ctx, "DELETE FROM "+a.sink.tableName(l.table)+" WHERE "+condition); err != nil {
			return fmt.Errorf("delete rows of table %s: %w", l.table, err)
		}
		a.committed(int64(len(chunk)), 0)
	}
	return nil
}

// eachWith is true in SQL for the stored rows with the keys of these rows of the batch, each
// if it meets the condition for the version that its row of the batch has.
func (a *applyRun) eachWith(rows []int32, condition func(cdc.LSN) string) (string, error) {
	conditions := make([]string, len(rows))
	for n, i := range rows {
		row := &a.batch.Rows[i]
		key, err := a.layout.keyCondition([]cdc.Tuple{row.Tuple})
		if err != nil {
			return "", a.numbered(int(i), err)
		}
		conditions[n] = "(" + key + " AND " + condition(row.Position.Commit) + ")"
	}
	return strings.Join(conditions, " OR "), nil
}

// truncatePage is how many rows one load of a guarded truncate marks.
const truncatePage = 10_000

// truncateGuarded empties a table that may have later rows. Where deletes are soft the
// rows that are not later are read page by page and marked by a guarded batch, since an
// UPDATE would also mark a row that gets a later state meanwhile.
func (s *Sink) truncateGuarded(ctx context.Context, l *layout, t *apply.TableTruncate) error {
	if s.config.DeleteMode == DeleteHard {
		return s.exec(ctx, "DELETE FROM "+s.tableName(l.table)+" WHERE "+l.upTo(t.Position.Commit))
	}
	if err := s.showsKeys(ctx, l); err != nil {
		return err
	}
	var before string
	for n := 0; ; n++ {
		keys, err := s.truncateKeys(ctx, l, t)
		if err != nil || len(keys) == 0 {
			return err
		}
		// A page that a try before this one has marked under the same label, or
		// that a load outlived, comes twice; more often nothing moves.
		const triesMax = 3
		if first := string(keys[0]); first != before {
			before = first
		} else if n >= triesMax {
			return fmt.Errorf("mark rows of table %s: row with key %s stays as it is", l.table, l.keyText(keys[0]))
		}
		batch := &apply.TableBatch{ID: fmt.Sprintf("%s-t%d", t.ID, n), Schema: t.Schema, SyncedAt: t.SyncedAt, Guarded: true}
		for _, key := range keys {
			batch.Rows = append(batch.Rows, apply.Row{Op: apply.OpDelete, KeyOnly: true, Tuple: key, Position: t.Position})
		}
		if _, err := s.Apply(ctx, batch); err != nil {
			return err
		}
	}
}

// showsKeys refuses versions that leave the microseconds of a key out of what they show.
func (s *Sink) showsKeys(ctx context.Context, l *layout) error {
	if !slices.ContainsFunc(l.key, func(i int) bool { return l.columns[i].target.kind == targetDateTime }) {
		return nil
	}
	var version string
	if err := s.db.QueryRowContext(ctx, "SELECT current_version()").Scan(&version); err != nil {
		return sqlError(err)
	}
	if isAtLeast(version, versionMicros) {
		return nil
	}
	return permanent(fmt.Errorf("StarRocks %s does not show the microseconds of the key of table %s, so its rows cannot be marked one by one: replay into another database, or with StarRocks %d.%d.%d or newer",
		version, l.table, versionMicros[0], versionMicros[1], versionMicros[2]))
}

// truncateKeys reads a page of the rows that a truncate concerns, as tuples of which the
// key is set.
func (s *Sink) truncateKeys(ctx context.Context, l *layout, t *apply.TableTruncate) ([]cdc.Tuple, error) {
	conn, err := s.reading(ctx, l.table)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	names := make([]string, len(l.key))
	for n, i := range l.key {
		names[n] = quoteName(l.columns[i].name)
	}
	list := strings.Join(names, ", ")
	query := fmt.Sprintf("SELECT %s FROM %s WHERE %s%s ORDER BY %s LIMIT %d", list, s.tableName(l.table), l.upTo(t.Position.Commit), s.notDeleted(l), list, truncatePage)
	result, err := conn.QueryContext(ctx, query)
	if err != nil {
		return nil, sqlError(err)
	}
	defer result.Close()
	var keys []cdc.Tuple
	for result.Next() {
		texts := make([]string, len(l.key))
		into := make([]any, len(l.key))
		for n := range texts {
			into[n] = &texts[n]
		}
		if err := result.Scan(into...); err != nil {
			return nil, sqlError(err)
		}
		keys = append(keys, l.keyTuple(texts))
	}
	return keys, sqlError(result.Err())
}

// keyTuple makes a tuple of the texts of the key's columns, as a query shows them.
func (l *layout) keyTuple(texts []string) cdc.Tuple {
	var tuple cdc.Tuple
	for i := range l.columns {
		n := slices.Index(l.key, i)
		if n < 0 {
			tuple = tuple.AppendValue(cdc.Value{Kind: cdc.Null})
			continue
		}
		tuple = tuple.AppendValue(cdc.Value{Kind: cdc.Text, Bytes: []byte(l.columns[i].sourceText(texts[n]))})
	}
	return tuple
}

// sourceText turns what a query shows of a key's value into what PostgreSQL prints.
func (c *column) sourceText(text string) string {
	switch c.how {
	case encodeBool:
		if text == "1" || strings.EqualFold(text, "true") {
			return "t"
		}
		return "f"
	case encodeUTC:
		return text + "+00"
	default: // Stored as it was printed.
	}
	return text
}
