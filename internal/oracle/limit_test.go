package oracle_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

type limit struct{ typ, auto, needs, sql string }

// limits are values that just fit, or are large in another way.
var limits = []limit{
	{"text", longText, "", "repeat('x', 1048576)"},
	{"text", longText, "", "repeat('€', 349525)"},
	{"text", longText, "", `repeat('"', 1048576)`},
	{"text", longText, "", `repeat(E'\x01', 1048576)`},
	{"bytea", longText, "", "decode(repeat('5c', 524287), 'hex')"},
	{"varchar(262144)", longText, "", "repeat('😀', 262144)"},
	{"char(200000)", "VARCHAR(800000)", "", "'x'"},
	{"jsonb", "JSON", "", "(repeat('[', 500) || repeat(']', 500))::jsonb"},
	{"json", "JSON", "", "(SELECT '{' || string_agg('\"k' || n || '\": ' || n, ',') || '}' FROM generate_series(1, 5000) n)::json"},
	{"numeric", longText, "", "('1' || repeat('0', 131071) || '.' || repeat('9', 16383))::numeric"},
	{"int[]", longText, "", "array_fill(123456, ARRAY[149795])"},
	{"hstore", longText, "hstore", "(SELECT hstore(array_agg(n::text), array_agg(NULLIF(n, 7)::text)) FROM generate_series(1, 20000) n)"},
	{"xml", longText, "libxml", "('<a>' || repeat('y', 1000000) || '</a>')::xml"},
}

// TestValuesAtTheLimitsArrive covers values that are too large to be random. When their row changes elsewhere, or gets
// another key, PostgreSQL leaves them out, and the sink must still have them. One version will do: the limits are the
// sink's. The largest document takes its time and comes with many values only.
func TestValuesAtTheLimitsArrive(t *testing.T) {
	list := majors(t)
	limits := limits
	if number(t, valuesEnv, valuesDefault) > valuesDefault {
		limits = append(slices.Clone(limits), limit{"jsonb", "JSON", "", "to_jsonb(repeat('x', 16777214))"})
	}
	onMajor(t, list[len(list)-1], func(t *testing.T, major int, db *pgtest.DB) {
		has := available(t, db)
		o := &oracle{rig: newRig(t, db.URL(), starrocks.DeleteHard), r: seeded(t, major)}
		small := &kind{sql: "int", auto: "INT"}
		var fill []string
		for i, value := range limits {
			if value.needs != "" && !has[value.needs] {
				continue
			}
			name := fmt.Sprintf("limit_%d", i)
			o.tables = append(o.tables, &table{name: name, columns: []column{
				{name: "v", kind: &kind{sql: value.typ, auto: value.auto}},
				{name: "n", kind: small},
			}})
			fill = append(fill, fmt.Sprintf("INSERT INTO %s VALUES (1, %s, 1), (2, NULL, 2)", name, value.sql))
		}
		o.setUp(ownDDL(major, has))
		for i, table := range o.tables {
			if table.columns[0].kind.sql != "json" { // Its text has many keys but is short.
				o.exec(o.writer, "ALTER TABLE "+table.name+" ALTER v SET STORAGE EXTERNAL")
			}
			o.exec(o.writer, fill[i])
		}
		o.compare("insert", true)
		for _, table := range o.tables {
			o.exec(o.writer, "UPDATE "+table.name+" SET n = n + 1")
		}
		o.settle()
		o.move()
		o.compare("move", false)
	})
}
