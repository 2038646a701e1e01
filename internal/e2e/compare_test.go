package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// table is the content of a table in the form that rows are compared in: the values of
// a row by column, rows by key.
type table struct {
	rows map[string]map[string]string
}

const nullText = "\x00NULL"

// sourceColumn is a column as the catalog describes it.
type sourceColumn struct {
	name, typ string
	key       bool
}

// sinkName is the table's name in the sink: schema public is left out.
func sinkName(schema, name string) string {
	if schema == "public" {
		return name
	}
	return schema + "__" + name
}

// split takes "schema.name" or "name" apart; the names are not quoted.
func split(name string) (schema, table string) {
	if schema, table, ok := strings.Cut(name, "."); ok {
		return schema, table
	}
	return "public", name
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// textConn is a connection whose texts are those of a session in UTC.
func (r *rig) textConn() *pgconn.PgConn {
	r.t.Helper()
	conn := r.db.Connect()
	_, err := conn.Exec(r.t.Context(), "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres';"+
		"SET bytea_output = 'hex'; SET extra_float_digits = 3; SET lc_monetary = 'C'")
	if err != nil {
		r.t.Fatal(err)
	}
	return conn.PgConn()
}

// query runs a statement in the simple protocol, whose results are what the types'
// output functions print.
func query(t testing.TB, conn *pgconn.PgConn, sql string) [][][]byte {
	t.Helper()
	results, err := conn.Exec(context.WithoutCancel(t.Context()), sql).ReadAll()
	if err != nil || len(results) != 1 {
		t.Fatalf("query the source: %d results, %v", len(results), err)
	}
	return results[0].Rows
}

// describe reads the columns of a table, with those of its key marked. Generated
// columns are left out: logical replication does not carry them.
func describe(t testing.TB, conn *pgconn.PgConn, schema, name string) []sourceColumn {
	t.Helper()
	literal := "'" + strings.ReplaceAll(quote(schema)+"."+quote(name), "'", "''") + "'::regclass"
	rows := query(t, conn, `SELECT a.attname, COALESCE(bt.typname, y.typname), COALESCE((
		SELECT a.attnum = ANY (i.indkey) FROM pg_index i WHERE i.indrelid = a.attrelid AND (i.indisprimary OR i.indisreplident)
		ORDER BY i.indisreplident DESC LIMIT 1), false)
		FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN pg_type bt ON bt.oid = y.typbasetype
		WHERE a.attrelid = `+literal+` AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum`)
	columns := make([]sourceColumn, len(rows))
	for i, row := range rows {
		columns[i] = sourceColumn{name: string(row[0]), typ: string(row[1]), key: string(row[2]) == "t"}
	}
	return columns
}

// equal compares every row and column of source and sink, and fails with the first
// differences. What the sink marks as deleted must not be in the source.
func (r *rig) equal(tables ...string) {
	r.t.Helper()
	if found := r.compare(tables...); len(found) > 0 {
		r.t.Fatalf("source and sink differ:\n%s", strings.Join(found, "\n"))
	}
}

// becomeEqual is for rows that the sink has committed and shows only later.
func (r *rig) becomeEqual(tables ...string) {
	r.t.Helper()
	eventually(r.t, "source and sink become equal", func() (bool, string) {
		found := r.compare(tables...)
		return len(found) == 0, strings.Join(found, "\n")
	})
}

// compare lists the first differences.
func (r *rig) compare(tables ...string) []string {
	r.t.Helper()
	return r.compareWith(sinkDatabase, tables...)
}

// compareWith lists the first differences with a database of the sink.
func (r *rig) compareWith(database string, tables ...string) (all []string) {
	r.t.Helper()
	conn := r.textConn()
	defer conn.Close(context.WithoutCancel(r.t.Context()))
	for _, name := range tables {
		schema, bare := split(name)
		columns := describe(r.t, conn, schema, bare)
		sink, err := r.sink.Rows(database, sinkName(schema, bare))
		if err != nil {
			r.t.Fatalf("read the sink: %v", err)
		}
		types, missing := sinkTypes(sink, columns)
		if missing != "" {
			all = append(all, name+": "+missing)
			continue
		}
		names := make([]string, len(columns))
		for i, c := range columns {
			names[i] = quote(c.name)
		}
		want := sourceTable(query(r.t, conn, "SELECT "+strings.Join(names, ", ")+" FROM "+quote(schema)+"."+quote(bare)), columns, types)
		got := sinkTable(r.t, sink, columns, types)
		if found := differences(want, got); len(found) > 0 {
			all = append(all, fmt.Sprintf("%s: %d rows in the source, %d in the sink", name, len(want.rows), len(got.rows)))
			all = append(all, found...)
		}
	}
	return all
}

// sinkTypes returns the sink's type of each column, or says which is missing.
func sinkTypes(sink starrockstest.TableData, columns []sourceColumn) (types []string, missing string) {
	types = make([]string, len(columns))
	for i, c := range columns {
		at := slices.Index(sink.Columns, c.name)
		if at < 0 {
			return nil, fmt.Sprintf("the sink has no column %q, only %q", c.name, sink.Columns)
		}
		types[i] = strings.ToUpper(sink.Types[at])
	}
	return types, ""
}

func sourceTable(rows [][][]byte, columns []sourceColumn, types []string) table {
	out := table{rows: make(map[string]map[string]string, len(rows))}
	for _, row := range rows {
		values, key := make(map[string]string, len(columns)), ""
		for i, c := range columns {
			text := nullText
			if row[i] != nil {
				text = canonical(string(row[i]), c, types[i])
			}
			values[c.name] = text
			if c.key {
				key += strconv.Quote(text) + ","
			}
		}
		out.rows[key] = values
	}
	return out
}

func sinkTable(t testing.TB, sink starrockstest.TableData, columns []sourceColumn, types []string) table {
	t.Helper()
	at := make([]int, len(columns))
	for i, c := range columns {
		at[i] = slices.Index(sink.Columns, c.name)
	}
	audit := auditOf(t, sink)
	out := table{rows: make(map[string]map[string]string, len(sink.Rows))}
	for _, row := range sink.Rows {
		if audit.deleted(t, row) {
			continue
		}
		values, key := make(map[string]string, len(columns)), ""
		for i, c := range columns {
			text := nullText
			if cell := row[at[i]]; !cell.Null {
				text = canonicalSink(cell.Text, c, types[i])
			}
			values[c.name] = text
			if c.key {
				key += strconv.Quote(text) + ","
			}
		}
		if _, twice := out.rows[key]; twice {
			t.Errorf("the sink has the key %s twice", key)
		}
		out.rows[key] = values
	}
	return out
}

// audit is where the audit columns are.
type audit struct{ op, isDeleted, synced, version int }

func auditOf(t testing.TB, sink starrockstest.TableData) audit {
	t.Helper()
	find := func(name string) int {
		i := slices.Index(sink.Columns, name)
		if i < 0 {
			t.Fatalf("the sink's table has no column %s", name)
		}
		return i
	}
	return audit{find("dbmazz_op_type"), find("dbmazz_is_deleted"), find("dbmazz_synced_at"), find("dbmazz_cdc_version")}
}

// deleted reads the mark of a soft delete and checks that the audit columns agree.
func (a audit) deleted(t testing.TB, row []starrockstest.Cell) bool {
	t.Helper()
	deleted := row[a.isDeleted].Text == "1"
	if (row[a.op].Text == "2") != deleted || row[a.op].Null || row[a.isDeleted].Null || row[a.synced].Null || row[a.version].Null {
		t.Errorf("audit columns do not fit together: op %v, deleted %v, synced %v, version %v", row[a.op], row[a.isDeleted], row[a.synced], row[a.version])
	}
	return deleted
}

// differences lists the first of them.
func differences(want, got table) []string {
	const shown = 10
	var found []string
	for key, row := range want.rows {
		other, ok := got.rows[key]
		if !ok {
			found = append(found, fmt.Sprintf("key %s is missing in the sink", key))
			continue
		}
		for name, value := range row {
			if other[name] != value {
				found = append(found, fmt.Sprintf("key %s, column %s: source %.80q (%d bytes), sink %.80q (%d bytes)",
					key, name, value, len(value), other[name], len(other[name])))
			}
		}
	}
	for key := range got.rows {
		if _, ok := want.rows[key]; !ok {
			found = append(found, fmt.Sprintf("key %s is in the sink only", key))
		}
	}
	slices.Sort(found)
	return found[:min(len(found), shown)]
}

// canonical turns what PostgreSQL prints into the form of comparison.
func canonical(text string, c sourceColumn, sinkType string) string {
	asText := strings.HasPrefix(sinkType, "VARCHAR")
	switch c.typ {
	case "bool":
		return map[string]string{"t": "1", "f": "0"}[text]
	case "timestamp", "timestamptz":
		if !asText {
			return trimFraction(strings.TrimSuffix(text, "+00"))
		}
	case "date":
		if sinkType == "DATETIME" {
			return text + " 00:00:00"
		}
	case "bpchar":
		if c.key {
			return strings.TrimRight(text, " ")
		}
	}
	return canonicalSink(text, c, sinkType)
}

// canonicalSink turns what the sink shows into the form of comparison.
func canonicalSink(text string, c sourceColumn, sinkType string) string {
	switch {
	case strings.HasPrefix(sinkType, "VARCHAR") && !(c.typ == "numeric" && c.key):
		return text
	case c.typ == "float4" || c.typ == "float8":
		bits := map[string]int{"float4": 32, "float8": 64}[c.typ]
		f, err := strconv.ParseFloat(text, bits)
		if err != nil {
			return "not a float: " + text
		}
		return strconv.FormatFloat(f, 'g', -1, bits)
	case c.typ == "numeric":
		rat, ok := new(big.Rat).SetString(text)
		if !ok {
			return text
		}
		return rat.RatString()
	case c.typ == "json" || c.typ == "jsonb":
		return canonicalJSON(text)
	case c.typ == "timestamp" || c.typ == "timestamptz":
		return trimFraction(text)
	}
	return text
}

func trimFraction(text string) string {
	if !strings.Contains(text, ".") {
		return text
	}
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
}

// canonicalJSON sorts keys and reduces numbers to their value.
func canonicalJSON(text string) string {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var document any
	if err := decoder.Decode(&document); err != nil {
		return "not JSON: " + text
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(reduce(document)); err != nil {
		return "not JSON: " + err.Error()
	}
	return out.String()
}

func reduce(value any) any {
	switch value := value.(type) {
	case json.Number:
		if rat, ok := new(big.Rat).SetString(value.String()); ok {
			return rat.RatString()
		}
	case []any:
		for i := range value {
			value[i] = reduce(value[i])
		}
	case map[string]any:
		for key := range value {
			value[key] = reduce(value[key])
		}
	}
	return value
}
