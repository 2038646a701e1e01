package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/postgres"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Tests(m)) }

type reader struct{ db *pgtest.DB }

// Rows implements sinktest.Reader.
func (r reader) Rows(t *testing.T, schema *cdc.Schema) [][]string {
	t.Helper()
	columns := make([]string, len(schema.Columns))
	for i, c := range schema.Columns {
		columns[i] = pgx.Identifier{c.Name}.Sanitize() + "::text"
	}
	conn := r.db.Connect()
	rows, err := conn.Query(context.Background(), fmt.Sprintf("SELECT %s FROM %s ORDER BY 1", strings.Join(columns, ", "), pgx.Identifier{"public", schema.Table}.Sanitize()))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out [][]string
	for rows.Next() {
		values := make([]*string, len(columns))
		targets := make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			t.Fatal(err)
		}
		row := make([]string, len(values))
		for i, v := range values {
			row[i] = sinktest.Null
			if v != nil {
				row[i] = *v
			}
		}
		out = append(out, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSinkKeepsItsContractOnARealServer(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) (apply.Sink, sinktest.Reader) { return open(t) })
}

// Changes implements sinktest.AppendReader.
func (r reader) Changes(t *testing.T, schema *cdc.Schema) []sinktest.Change {
	t.Helper()
	numbers := *schema
	for _, name := range []string{"dbmazz_cdc_version", "dbmazz_cdc_ordinal", "dbmazz_op_type"} {
		numbers.Columns = append(slices.Clone(numbers.Columns), cdc.Column{Name: name})
	}
	var changes []sinktest.Change
	for _, row := range r.Rows(t, &numbers) {
		at := len(schema.Columns)
		var n [3]uint64
		for i := range n {
			var err error
			if n[i], err = strconv.ParseUint(row[at+i], 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		changes = append(changes, sinktest.Change{Op: apply.Op(n[2]), Position: cdc.Position{Commit: cdc.LSN(n[0]), Ordinal: n[1]}, Values: row[:at]})
	}
	return changes
}

func open(t *testing.T) (*postgres.Sink, reader) {
	t.Helper()
	db := pgtest.Database(t)
	sink, err := postgres.New(postgres.Config{URL: db.URL()})
	if err != nil {
		t.Fatal(err)
	}
	return sink, reader{db}
}

func TestAppendTablesKeepTheirContractOnARealServer(t *testing.T) {
	t.Parallel()
	sinktest.RunAppend(t, func(t *testing.T) (apply.Sink, sinktest.AppendReader) { return open(t) })
}

func TestGuardedBatchesKeepTheirContractOnARealServer(t *testing.T) {
	t.Parallel()
	sinktest.RunGuarded(t, func(t *testing.T) (apply.Sink, sinktest.Reader) { return open(t) })
}

func TestOptionalRowsKeepTheirContractOnARealServer(t *testing.T) {
	t.Parallel()
	sinktest.RunOptional(t, func(t *testing.T) (apply.Sink, sinktest.Reader) { return open(t) })
}

func TestAMissingSchemaIsNamedWithItsRemedy(t *testing.T) {
	t.Parallel()
	sink, err := postgres.New(postgres.Config{URL: pgtest.Database(t).URL(), Schema: "Mart"})
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Check(t.Context()); err == nil || !strings.Contains(err.Error(), `CREATE SCHEMA "Mart"`) {
		t.Error(err)
	}
}
