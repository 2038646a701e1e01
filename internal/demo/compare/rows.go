package compare

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Rows are rows in key order. Values are texts, nil for NULL.
type Rows interface {
	// Next returns the next row, nil after the last one. The row is valid until the call after.
	Next() ([][]byte, error)
	// Close ends the reading.
	Close() error
}

// sourceSettings give every value one text, whatever the database's defaults are.
const sourceSettings = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 3; SET bytea_output = 'hex'"

// Source reads a table from PostgreSQL.
func Source(ctx context.Context, conn *pgx.Conn, t *Table) (Rows, error) {
	if _, err := conn.Exec(ctx, sourceSettings); err != nil {
		return nil, fmt.Errorf("prepare to read %s: %w", t, err)
	}
	// No result formats means text for all.
	return &sourceRows{reader: conn.PgConn().ExecParams(ctx, t.sourceQuery(), nil, nil, nil, nil)}, nil
}

type sourceRows struct {
	reader *pgconn.ResultReader
}

func (r *sourceRows) Next() ([][]byte, error) {
	if r.reader.NextRow() {
		return r.reader.Values(), nil
	}
	_, err := r.reader.Close()
	return nil, err
}

func (r *sourceRows) Close() error {
	_, err := r.reader.Close()
	return err
}

// Sink reads a table from the sink, with the audit columns behind its own.
func Sink(ctx context.Context, db *sql.DB, database string, t *Table) (Rows, error) {
	rows, err := db.QueryContext(ctx, t.sinkQuery(database))
	if err != nil {
		return nil, fmt.Errorf("read table %s of the sink: %w", t.Sink, err)
	}
	r := &sinkRows{rows: rows, raw: make([]sql.RawBytes, len(t.Columns)+len(auditColumns))}
	for i := range r.raw {
		r.into = append(r.into, &r.raw[i])
		r.row = append(r.row, nil)
	}
	return r, nil
}

type sinkRows struct {
	rows *sql.Rows
	raw  []sql.RawBytes
	into []any
	row  [][]byte
}

func (r *sinkRows) Next() ([][]byte, error) {
	if !r.rows.Next() {
		return nil, r.rows.Err()
	}
	if err := r.rows.Scan(r.into...); err != nil {
		return nil, err
	}
	for i, raw := range r.raw {
		r.row[i] = raw
	}
	return r.row, nil
}

func (r *sinkRows) Close() error { return r.rows.Close() }
