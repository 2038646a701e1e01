package oracle_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// refusals are values that docs/types.md says are refused, with a part of the reason.
var refusals = []struct{ typ, sql, because string }{
	{"real", "'NaN'", "NaN"},
	{"real", "'-Infinity'", "NaN"},
	{"double precision", "'Infinity'", "NaN"},
	{"numeric(10,2)", "'NaN'", "NaN"},
	{"date", "'infinity'", "years 1 to 9999"},
	{"date", "'0001-12-31 BC'", "years 1 to 9999"},
	{"date", "'10000-01-01'", "years 1 to 9999"},
	{"date", "'5874897-12-31'", "years 1 to 9999"},
	{"timestamp", "'-infinity'", "years 1 to 9999"},
	{"timestamp", "'4714-11-24 00:00:00 BC'", "years 1 to 9999"},
	{"timestamp", "'9999-12-31 24:00:00'", "years 1 to 9999"},
	{"timestamp(0)", "'9999-12-31 23:59:59.5'", "years 1 to 9999"},
	{"timestamptz", "'294276-12-31 23:59:59.999999+00'", "years 1 to 9999"},
	{"timestamptz", "'9999-12-31 23:00:00-02'", "years 1 to 9999"},
	{"timestamptz", "'0001-01-01 00:00:00+01'", "years 1 to 9999"},
	{"jsonb", "'null'", "SQL NULL"},
	{"json", "' null '", "SQL NULL"},
	{"jsonb", "'[18446744073709551616]'", "number"},
	{"jsonb", "'0.1000000000000000000001'", "number"},
	{"jsonb", "'{\"a\": 1e400}'", "number"},
	{"json", "'{\"a\": 1, \"a\": 2}'", "same key twice"},
	{"json", "'{\"a\": 1, \"\\u0061\": 2}'", "same key twice"},
	{"json", "'\"\\ud800\"'", "escape"},
	{"jsonb", "('\"' || repeat('x', 16 << 20) || '\"')::jsonb", "16 MiB"},
	{"jsonb", "(repeat('[', 501) || repeat(']', 501))::jsonb", "deeper than 500"},
	{"text", "repeat('x', 1048577)", "longer than the column"},
	{"text", "repeat('€', 349526)", "longer than the column"},
	{"bytea", "decode(repeat('00', 524288), 'hex')", "longer than the column"},
	{"int[]", "array_fill(1234567, ARRAY[131073])", "longer than the column"},
	{"tsvector", "(SELECT string_agg('w' || n || ':10001,10002,10003,10004,10005,10006,10007,10008', ' ')::tsvector FROM generate_series(1, 40000) n)", "longer than the column"},
}

// TestRefusalStopsTheBatch tries every refusal alone: the pipeline must say what is wrong with which row, hold its
// position and write nothing of the row. When the row is set aside, the pipeline goes on.
func TestRefusalStopsTheBatch(t *testing.T) {
	forMajors(t, func(t *testing.T, major int, db *pgtest.DB) {
		r := newRig(t, db.URL(), starrocks.DeleteSoft)
		var tables []string
		for i, value := range refusals {
			tables = append(tables, fmt.Sprintf("no_%d", i))
			r.exec(r.writer, fmt.Sprintf("CREATE TABLE %s (id int PRIMARY KEY, v %s)", tables[i], value.typ))
		}
		r.start(tables)
		for i, value := range refusals {
			r.sink.setStrict(true)
			r.exec(r.writer, fmt.Sprintf("INSERT INTO %s VALUES (7001, %s)", tables[i], value.sql))
			r.refusedRow(tables[i], value.typ, value.because)
			r.sink.setStrict(false)
			r.settle()
			sink, err := r.server.Rows(sinkDatabase, tables[i])
			r.must(err)
			if taken := r.sink.taken(tables[i]); len(taken) != 1 || taken["id=7001"] == nil || len(sink.Rows) != 0 {
				t.Errorf("%s %s: set aside %v, the sink has %d rows, want the row id=7001 set aside and none in the sink", value.typ, value.sql, taken, len(sink.Rows))
			}
		}
	})
}

// refusedRow waits until the pipeline complains about the row and checks that it has stopped there.
func (r *rig) refusedRow(table, typ, because string) {
	r.t.Helper()
	goal := r.mark()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(settleWithin); ; <-ticker.C {
		text := r.apply.Status().Err
		if r.reached(goal) || time.Now().After(deadline) {
			r.t.Fatalf("a value of type %s was not refused (status %q)", typ, text)
		}
		if !strings.Contains(text, "cannot be stored") {
			continue
		}
		for _, part := range []string{"row of table public." + table + " with key id=7001 cannot be stored", "column v (", because} {
			if !strings.Contains(text, part) {
				r.t.Errorf("type %s is refused with %q, want %q in it", typ, text, part)
			}
		}
		return
	}
}
