package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// The columns that the sink adds: version to every table, the others to those of
// sources without a key, where every change is a row and its position is the key.
const (
	versionColumn = "dbmazz_cdc_version"
	ordinalColumn = "dbmazz_cdc_ordinal"
	opColumn      = "dbmazz_op_type"
)

func isAppend(schema *cdc.Schema) bool { return len(schema.Key) == 0 }

// createAppend returns the statement that creates the table of a source without a key.
func createAppend(schema *cdc.Schema, table string) string {
	columns := []string{versionColumn + " bigint NOT NULL", ordinalColumn + " bigint NOT NULL", opColumn + " smallint NOT NULL"}
	for i := range schema.Columns {
		c := &schema.Columns[i]
		columns = append(columns, quote(c.Name)+" "+typeOf(c))
	}
	return fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (%s, PRIMARY KEY (%s, %s))", table, strings.Join(columns, ", "), versionColumn, ordinalColumn)
}

// append stores a change unless the table has it. It tells whether it was stored.
func (w *writer) append(ctx context.Context, row *apply.Row) (bool, error) {
	values, present, err := w.values(row.Tuple)
	if err != nil {
		return false, err
	}
	columns := []string{versionColumn, ordinalColumn, opColumn}
	args := []any{int64(row.Position.Commit), int64(row.Position.Ordinal), int16(row.Op)} //nolint:gosec // The columns are signed; both are below 2^63.
	parameters := []string{"$1", "$2", "$3"}
	for i := range values {
		if !present[i] || row.KeyOnly {
			return false, &apply.RowError{
				Table: w.schema.Name(), Column: w.schema.Columns[i].Name, Type: w.schema.Columns[i].TypeName,
				Reason: "the table has no key, so every change must carry the whole row, and this one does not",
				Hint:   "ALTER TABLE ... REPLICA IDENTITY FULL in PostgreSQL",
			}
		}
		args = append(args, values[i])
		columns, parameters = append(columns, quote(w.schema.Columns[i].Name)), append(parameters, w.parameter(i, len(args)))
	}
	n, err := w.exec(ctx, values, fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s) ON CONFLICT (%s, %s) DO NOTHING",
		w.table, strings.Join(columns, ", "), strings.Join(parameters, ", "), versionColumn, ordinalColumn), args)
	return n > 0, err
}

// movedFrom returns the row that has the values which a move left out. ok is false if a
// guarded move comes too late, or nobody has them and the row is optional or the batch
// guarded.
func (w *writer) movedFrom(ctx context.Context, row *apply.Row) (values []*string, ok bool, err error) {
	from, fromVersion, err := w.read(ctx, row.MovedFrom)
	if err != nil {
		return nil, false, err
	}
	if !w.guarded {
		if from == nil && row.Optional {
			return nil, false, nil
		}
		if from == nil {
			key, _, err := w.values(row.MovedFrom)
			return nil, false, errors.Join(err, &apply.RowError{
				Table: w.schema.Name(), Key: w.key(key), Reason: "the row moved to another key, and the target does not have the old one",
				Hint: "copy the table anew",
			})
		}
		return from, true, nil
	}
	own, ownVersion, err := w.read(ctx, row.Tuple)
	commit := int64(row.Position.Commit) //nolint:gosec // The column is signed; LSNs are below 2^63.
	switch {
	case err != nil:
		return nil, false, err
	case own != nil && ownVersion > commit:
		return nil, false, nil
	case from != nil && fromVersion < int64(row.MovedBefore): //nolint:gosec // As above.
		return from, true, nil
	case own != nil && ownVersion == commit:
		return own, true, nil
	}
	return nil, false, nil
}

// read returns the row with the key of a tuple, nil if there is none, and its version.
func (w *writer) read(ctx context.Context, tuple cdc.Tuple) (values []*string, version int64, err error) {
	key, _, err := w.values(tuple)
	if err != nil {
		return nil, 0, err
	}
	where, args := w.condition(key, 1)
	columns := []string{"coalesce(" + versionColumn + ", 0)"}
	values = make([]*string, len(w.schema.Columns))
	targets := []any{&version}
	for i := range values {
		columns = append(columns, quote(w.schema.Columns[i].Name)+"::text")
		targets = append(targets, &values[i])
	}
	err = w.tx.QueryRow(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(columns, ", "), w.table, where), args...).Scan(targets...)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read row of %s: %w", w.schema.Name(), err)
	}
	return values, version, nil
}
