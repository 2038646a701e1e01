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
	err := s.once(ctx, batch.ID, func(tx pgx.Tx) error {
		w := &writer{tx: tx, schema: batch.Schema, table: s.table(batch.Schema)}
		// Before anything changes: the values that moved rows leave out.
		moved := make([][]*string, len(batch.Rows))
		for i := range batch.Rows {
			row := &batch.Rows[i]
			if row.MovedFrom == nil || row.Op == apply.OpDelete {
				continue
			}
			var err error
			if moved[i], err = w.old(ctx, row); err != nil {
				return err
			}
		}
		for i := range batch.Rows {
			if err := w.write(ctx, &batch.Rows[i], moved[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return apply.Result{}, err
	}
	return apply.Result{Loads: 1, Rows: int64(len(batch.Rows)), Bytes: int64(batch.Bytes)}, nil
}

// writer writes the rows of one batch.
type writer struct {
	tx     pgx.Tx
	schema *cdc.Schema
	table  string
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

// old reads the row that a moved row was before.
func (w *writer) old(ctx context.Context, row *apply.Row) ([]*string, error) {
	key, _, err := w.values(row.MovedFrom)
	if err != nil {
		return nil, err
	}
	where, args := w.condition(key, 1)
	columns := make([]string, len(w.schema.Columns))
	values := make([]*string, len(columns))
	targets := make([]any, len(columns))
	for i := range columns {
		columns[i] = quote(w.schema.Columns[i].Name) + "::text"
		targets[i] = &values[i]
	}
	err = w.tx.QueryRow(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(columns, ", "), w.table, where), args...).Scan(targets...)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, &apply.RowError{
			Table: w.schema.Name(), Key: w.key(key), Reason: "the row moved to another key, and the target does not have the old one",
			Hint: "copy the table anew",
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read moved row of %s: %w", w.schema.Name(), err)
	}
	return values, nil
}

// write makes the row the state of its key.
func (w *writer) write(ctx context.Context, row *apply.Row, old []*string) error {
	values, present, err := w.values(row.Tuple)
	if err != nil {
		return err
	}
	if row.Op == apply.OpDelete {
		where, args := w.condition(values, 1)
		return w.exec(ctx, values, fmt.Sprintf("DELETE FROM %s WHERE %s", w.table, where), args)
	}
	if old != nil {
		for i := range values {
			if !present[i] {
				values[i], present[i] = old[i], true
			}
		}
	}
	var columns, parameters, sets []string
	var args []any
	for i := range values {
		if !present[i] {
			continue
		}
		name := quote(w.schema.Columns[i].Name)
		args = append(args, values[i])
		columns, parameters = append(columns, name), append(parameters, w.parameter(i, len(args)))
		sets = append(sets, name+" = EXCLUDED."+name)
	}
	return w.exec(ctx, values, fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s) DO UPDATE SET %s", w.table,
		strings.Join(columns, ", "), strings.Join(parameters, ", "), strings.Join(keyNames(w.schema), ", "), strings.Join(sets, ", ")), args)
}

// exec runs a statement. A value that the target refuses is the row's fault.
func (w *writer) exec(ctx context.Context, values []*string, statement string, args []any) error {
	_, err := w.tx.Exec(ctx, statement, args...)
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (strings.HasPrefix(e.Code, "22") || strings.HasPrefix(e.Code, "23")) {
		// The message of the server may hold values of the row.
		return &apply.RowError{Table: w.schema.Name(), Column: e.ColumnName, Key: w.key(values), Reason: "the target refuses it with SQLSTATE " + e.Code}
	}
	if err != nil {
		return fmt.Errorf("write row of %s: %w", w.schema.Name(), err)
	}
	return nil
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
