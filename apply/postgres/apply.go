package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Apply implements [apply.Sink].
func (s *Sink) Apply(ctx context.Context, batch *apply.TableBatch) (apply.Result, error) {
	result := apply.Result{Loads: 1, Rows: int64(len(batch.Rows)), Bytes: int64(batch.Bytes)}
	err := s.once(ctx, batch.ID, func(tx pgx.Tx) error {
		w := &writer{tx: tx, schema: batch.Schema, table: s.table(batch.Schema), guarded: batch.Guarded}
		// Before anything changes: the values that moved rows leave out.
		moved := make([][]*string, len(batch.Rows))
		left := make([]bool, len(batch.Rows))
		for i := range batch.Rows {
			row := &batch.Rows[i]
			if row.MovedFrom == nil || row.Op == apply.OpDelete {
				continue
			}
			values, ok, err := w.movedFrom(ctx, row)
			if err != nil {
				return numbered(i, err)
			}
			moved[i], left[i] = values, !ok
		}
		for i := range batch.Rows {
			if left[i] && !batch.Guarded {
				// The row that the target may have under the new key is gone.
				row := batch.Rows[i]
				row.Op = apply.OpDelete
				if _, err := w.write(ctx, &row, nil); err != nil {
					return numbered(i, err)
				}
			}
			if !left[i] {
				written, err := w.write(ctx, &batch.Rows[i], moved[i])
				if err != nil {
					return numbered(i, err)
				}
				left[i] = !written && (batch.Guarded || batch.Rows[i].Optional)
			}
			if left[i] {
				result.Left++
			}
		}
		return nil
	})
	if err != nil {
		return apply.Result{}, err
	}
	return result, nil
}

// numbered adds the row's number to an error about it.
func numbered(i int, err error) error {
	if e, ok := errors.AsType[*apply.RowError](err); ok {
		e.Row = i + 1
	}
	return err
}

// writer writes the rows of one batch.
type writer struct {
	tx      pgx.Tx
	schema  *cdc.Schema
	table   string
	guarded bool
}

// values returns the tuple's values as text; present tells which are there.
func (w *writer) values(tuple cdc.Tuple) (values []*string, present []bool, err error) {
	for range w.schema.Columns {
		v, rest, ok := tuple.Next()
		if !ok {
			return nil, nil, fmt.Errorf("row of table %s is too short: %w", w.schema.Name(), cdc.ErrCorrupt)
		}
		tuple = rest
		present = append(present, v.Kind != cdc.Unchanged)
		if v.Kind != cdc.Text {
			values = append(values, nil)
			continue
		}
		text := string(v.Bytes)
		values = append(values, &text)
	}
	return values, present, nil
}

// condition returns the WHERE clause for a key, with parameters from n on.
func (w *writer) condition(values []*string, n int) (text string, args []any) {
	parts := make([]string, len(w.schema.Key))
	for i, k := range w.schema.Key {
		parts[i] = fmt.Sprintf("%s = %s", quote(w.schema.Columns[k].Name), w.parameter(k, n+i))
		args = append(args, values[k])
	}
	return strings.Join(parts, " AND "), args
}

// parameter is a value that is sent as text and read as the column's type.
func (w *writer) parameter(column, n int) string {
	return fmt.Sprintf("$%d::text::%s", n, typeOf(&w.schema.Columns[column]))
}

// guard is true for a stored row, named by table, that a guarded batch may touch, and
// for every row if the batch is not guarded.
func (w *writer) guard(table string, commit cdc.LSN) string {
	if !w.guarded {
		return "true"
	}
	return fmt.Sprintf("coalesce(%s.%s, 0) <= %d", table, versionColumn, uint64(commit))
}

// write makes the row the state of its key. It tells whether anything was written.
func (w *writer) write(ctx context.Context, row *apply.Row, old []*string) (bool, error) {
	if isAppend(w.schema) {
		return w.append(ctx, row)
	}
	values, present, err := w.values(row.Tuple)
	if err != nil {
		return false, err
	}
	if row.Op == apply.OpDelete {
		where, args := w.condition(values, 1)
		_, err := w.exec(ctx, values, fmt.Sprintf("DELETE FROM %s t WHERE %s AND %s", w.table, where, w.guard("t", row.Position.Commit)), args)
		return true, err
	}
	partial := -1 // the first column that is not there
	for i := range values {
		switch {
		case present[i]:
		case old != nil:
			values[i], present[i] = old[i], true
		case partial < 0:
			partial = i
		}
	}
	if partial >= 0 {
		return w.update(ctx, row, values, present, partial)
	}
	columns, parameters, sets := []string{versionColumn}, []string{"$1"}, []string{versionColumn + " = EXCLUDED." + versionColumn}
	args := []any{int64(row.Position.Commit)} //nolint:gosec // The column is signed; LSNs are below 2^63.
	for i := range values {
		name := quote(w.schema.Columns[i].Name)
		args = append(args, values[i])
		columns, parameters = append(columns, name), append(parameters, w.parameter(i, len(args)))
		sets = append(sets, name+" = EXCLUDED."+name)
	}
	n, err := w.exec(ctx, values, fmt.Sprintf("INSERT INTO %s AS t (%s) VALUES (%s) ON CONFLICT (%s) DO UPDATE SET %s WHERE %s", w.table,
		strings.Join(columns, ", "), strings.Join(parameters, ", "), strings.Join(keyNames(w.schema), ", "), strings.Join(sets, ", "),
		w.guard("t", row.Position.Commit)), args)
	return n > 0, err
}

// update writes a row of which a part is unchanged. Without the row it is refused, or
// left out if it is optional or the batch is guarded.
func (w *writer) update(ctx context.Context, row *apply.Row, values []*string, present []bool, unchanged int) (bool, error) {
	where, args := w.condition(values, 1)
	sets := []string{fmt.Sprintf("%s = %d", versionColumn, uint64(row.Position.Commit))}
	for i := range values {
		if present[i] {
			args = append(args, values[i])
			sets = append(sets, quote(w.schema.Columns[i].Name)+" = "+w.parameter(i, len(args)))
		}
	}
	n, err := w.exec(ctx, values, fmt.Sprintf("UPDATE %s t SET %s WHERE %s AND %s", w.table, strings.Join(sets, ", "), where, w.guard("t", row.Position.Commit)), args)
	if err == nil && n == 0 && !w.guarded && !row.Optional {
		c := &w.schema.Columns[unchanged]
		err = &apply.RowError{
			Table: w.schema.Name(), Column: c.Name, Type: c.TypeName, Key: w.key(values),
			Reason: "the row is not in the target, so its unchanged columns are unknown",
			Hint:   "copy the table anew, or ALTER TABLE ... REPLICA IDENTITY FULL in the source and touch the row",
		}
	}
	return n > 0, err
}

// exec runs a statement and returns how many rows it has touched. A value that the
// target refuses is the row's fault.
func (w *writer) exec(ctx context.Context, values []*string, statement string, args []any) (int64, error) {
	tag, err := w.tx.Exec(ctx, statement, args...)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23")) {
		// The message of the server may hold values of the row.
		return 0, &apply.RowError{Table: w.schema.Name(), Column: e.ColumnName, Key: w.key(values), Reason: "the target refuses it with SQLSTATE " + e.Code}
	}
	if err != nil {
		return 0, fmt.Errorf("write row of %s: %w", w.schema.Name(), err)
	}
	return tag.RowsAffected(), nil
}

// key prints the key of a row.
func (w *writer) key(values []*string) string {
	parts := make([]string, len(w.schema.Key))
	for i, k := range w.schema.Key {
		parts[i] = w.schema.Columns[k].Name + "="
		if values[k] != nil {
			parts[i] += *values[k]
		}
	}
	return strings.Join(parts, ", ")
}
