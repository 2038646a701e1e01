package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Config says where the target is.
type Config struct {
	// URL is a connection URL of the target database.
	URL string
	// Schema is where the tables are; it must exist. Defaults to public.
	Schema string
}

// Sink writes to one schema of a PostgreSQL database. Every call has a connection of
// its own, so calls may be concurrent.
type Sink struct {
	config *pgx.ConnConfig
	schema string
}

var _ apply.Sink = (*Sink)(nil)

// New returns a sink. It connects to nothing.
func New(config Config) (*Sink, error) {
	parsed, err := pgx.ParseConfig(config.URL)
	if err != nil {
		return nil, errors.New("the URL of the target database is not a connection URL") // pgx's error shows it.
	}
	// Values are text with a cast to the column's type, which depends on these.
	maps.Copy(parsed.RuntimeParams, map[string]string{
		"client_encoding": "UTF8", "DateStyle": "ISO, YMD", "IntervalStyle": "postgres", "TimeZone": "UTC", "lc_monetary": "C",
	})
	schema := config.Schema
	if schema == "" {
		schema = "public"
	}
	return &Sink{config: parsed, schema: schema}, nil
}

// with runs f on a connection.
func (s *Sink) with(ctx context.Context, f func(*pgx.Conn) error) error {
	conn, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return fmt.Errorf("connect to the target database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(conn)
}

// Check implements [apply.Sink].
func (s *Sink) Check(ctx context.Context) error {
	return s.with(ctx, func(conn *pgx.Conn) error {
		var exists bool
		if err := conn.QueryRow(ctx, "SELECT to_regnamespace($1) IS NOT NULL", pgx.Identifier{s.schema}.Sanitize()).Scan(&exists); err != nil {
			return fmt.Errorf("look for schema %q: %w", s.schema, err)
		}
		if !exists {
			return fmt.Errorf("schema %q does not exist in the target database: run CREATE SCHEMA %s", s.schema, pgx.Identifier{s.schema}.Sanitize())
		}
		return nil
	})
}

func (s *Sink) table(schema *cdc.Schema) string { return s.qualified(schema.Table) }

func (s *Sink) qualified(name string) string { return pgx.Identifier{s.schema, name}.Sanitize() }

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// typeOf is the type of a column in the target. Types that may not exist there are text.
func typeOf(c *cdc.Column) string {
	switch c.Type {
	case cdc.TypeOther, cdc.TypeEnum, cdc.TypeArray:
		return "text"
	default:
		return c.TypeName
	}
}

// Prepare implements [apply.Sink]. It creates the table and adds columns; the key of a
// table that exists must be that of the source.
func (s *Sink) Prepare(ctx context.Context, schema *cdc.Schema) error {
	columns := make([]string, len(schema.Columns))
	adds := make([]string, len(schema.Columns))
	for i := range schema.Columns {
		c := &schema.Columns[i]
		columns[i] = quote(c.Name) + " " + typeOf(c)
		adds[i] = "ADD COLUMN IF NOT EXISTS " + columns[i]
	}
	keys := keyNames(schema)
	create := fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (%s, PRIMARY KEY (%s))", s.table(schema), strings.Join(columns, ", "), strings.Join(keys, ", "))
	if isAppend(schema) {
		create = createAppend(schema, s.table(schema))
	}
	adds = append(adds, "ADD COLUMN IF NOT EXISTS "+versionColumn+" bigint")
	ddl := []string{
		fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s (id text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())", s.qualified("dbmazz_batches")),
		create,
		fmt.Sprintf("ALTER TABLE %s %s", s.table(schema), strings.Join(adds, ", ")),
	}
	if err := apply.Allowed(ctx); err != nil {
		return err
	}
	return s.with(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			// Two tables prepared at once must not both create the table of batches.
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('dbmazz'))"); err != nil {
				return fmt.Errorf("prepare table %s: %w", schema.Name(), err)
			}
			for _, statement := range ddl {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return fmt.Errorf("prepare table %s: %w", schema.Name(), err)
				}
			}
			return s.checkKey(ctx, tx, schema)
		})
	})
}

func (s *Sink) checkKey(ctx context.Context, tx pgx.Tx, schema *cdc.Schema) error {
	var have []string
	err := tx.QueryRow(ctx, `SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, n), pg_attribute a
		WHERE i.indrelid = $1::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.attnum`, s.table(schema)).Scan(&have)
	if err != nil {
		return fmt.Errorf("read the key of table %s: %w", s.table(schema), err)
	}
	want := keyNames(schema)
	if isAppend(schema) {
		want = []string{quote(versionColumn), quote(ordinalColumn)}
	}
	for i := range have {
		have[i] = quote(have[i])
	}
	if strings.Join(have, ", ") != strings.Join(want, ", ") {
		return fmt.Errorf("table %s has the key (%s), the source has (%s): rename or drop it", s.table(schema), strings.Join(have, ", "), strings.Join(want, ", "))
	}
	return nil
}

func keyNames(schema *cdc.Schema) []string {
	names := make([]string, len(schema.Key))
	for i, k := range schema.Key {
		names[i] = quote(schema.Columns[k].Name)
	}
	return names
}

// once runs f in a transaction unless one with this ID was committed before.
func (s *Sink) once(ctx context.Context, id string, f func(pgx.Tx) error) error {
	return s.with(ctx, func(conn *pgx.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, fmt.Sprintf("INSERT INTO %s (id) VALUES ($1) ON CONFLICT DO NOTHING", s.qualified("dbmazz_batches")), id)
			if err != nil {
				return fmt.Errorf("note batch %s: %w", id, err)
			}
			if tag.RowsAffected() == 0 {
				return nil // Done before, and the answer was lost.
			}
			if err := f(tx); err != nil {
				return err
			}
			return apply.Allowed(ctx) // Right before the commit.
		})
	})
}

// Truncate implements [apply.Sink].
func (s *Sink) Truncate(ctx context.Context, t *apply.TableTruncate) error {
	return s.once(ctx, t.ID, func(tx pgx.Tx) error {
		statement := "TRUNCATE " + s.table(t.Schema)
		commit, ordinal := uint64(t.Position.Commit), t.Position.Ordinal
		switch {
		case t.Guarded && isAppend(t.Schema):
			statement = fmt.Sprintf("DELETE FROM %s WHERE (%s, %s) <= (%d, %d)", s.table(t.Schema), versionColumn, ordinalColumn, commit, ordinal)
		case t.Guarded:
			statement = fmt.Sprintf("DELETE FROM %s WHERE coalesce(%s, 0) <= %d", s.table(t.Schema), versionColumn, commit)
		}
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("truncate table %s: %w", t.Schema.Name(), err)
		}
		return nil
	})
}
