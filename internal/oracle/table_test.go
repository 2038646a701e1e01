package oracle_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// layout says which columns of a table are its key.
type layout int

const (
	keyID   layout = iota // id
	keyBoth               // k, id
	keyLast               // id, k
	keyOnly               // k
)

// column is a column of a table besides id.
type column struct {
	name string
	kind *kind
	// existing is the type that the sink's column has before dbmazz comes; empty if dbmazz makes the table.
	existing string

	place place // as found out when the pipeline has started
	last  bool  // of the key
}

// table is a table of the source with what the test knows about it.
type table struct {
	name    string
	layout  layout
	columns []column // the key's first
	wild    int      // percent of wild values
	full    bool     // REPLICA IDENTITY FULL
	rows    int

	// written holds what was written last, by row and column, for reports.
	written map[int][]value
	// expected is what the sink must hold of each row, as PostgreSQL printed it.
	expected map[int][]string
	// refused are the keys of the rows of the source that the sink did not take at the last comparison.
	refused map[string]bool
	// source is what the source held then.
	source   map[int][]string
	keyNames []string
}

// moved is added to the ids of rows that get another one.
const moved = 1_000_000

func quoteName(name string) string { return pgx.Identifier{name}.Sanitize() }

// ddl makes the table in the source. A dropped column shows that positions are not what counts.
func (t *table) ddl() string {
	parts := []string{"id bigint NOT NULL", "gone int"}
	for _, c := range t.columns {
		part := quoteName(c.name) + " " + c.kind.sql
		if t.layout != keyID && c.name == t.columns[0].name {
			part += " NOT NULL"
		}
		parts = append(parts, part)
	}
	key := map[layout]string{keyID: "id", keyBoth: "k, id", keyLast: "id, k", keyOnly: "k"}[t.layout]
	parts = append(parts, "PRIMARY KEY ("+key+")")
	ddl := "CREATE TABLE " + t.name + " (" + strings.Join(parts, ", ") + "); ALTER TABLE " + t.name + " DROP COLUMN gone;"
	if t.full {
		ddl += "ALTER TABLE " + t.name + " REPLICA IDENTITY FULL;"
	}
	return ddl
}

// sinkDDL makes the table in the sink, empty if dbmazz does.
func (t *table) sinkDDL() string {
	if t.columns[0].existing == "" {
		return ""
	}
	parts := []string{"id BIGINT NOT NULL"}
	for _, c := range t.columns {
		parts = append(parts, "`"+c.name+"` "+c.existing)
	}
	return "CREATE TABLE " + sinkDatabase + "." + t.name + " (" + strings.Join(parts, ", ") + ") PRIMARY KEY (id) DISTRIBUTED BY HASH (id)" +
		` PROPERTIES ("replication_num" = "1")`
}

func (t *table) names() []string {
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = quoteName(c.name)
	}
	return names
}

// draw makes a value for a column.
func (t *table) draw(r rnd, c *column) value {
	if t.layout != keyID && c == &t.columns[0] {
		return c.kind.keyValue(r)
	}
	return c.kind.draw(r, t.wild)
}

// fresh draws all values of a row and remembers them.
func (t *table) fresh(r rnd, id int, plain bool) []value {
	values := make([]value, len(t.columns))
	for i := range values {
		for {
			if values[i] = t.draw(r, &t.columns[i]); !plain || !values[i].expr {
				break
			}
		}
	}
	t.written[id] = values
	return values
}

// tuple prints a row for VALUES.
func (t *table) tuple(id int, values []value) string {
	parts := []string{strconv.Itoa(id)}
	for i, v := range values {
		parts = append(parts, v.sql(t.columns[i].kind.sql))
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

func (t *table) into() string {
	return t.name + " (id, " + strings.Join(t.names(), ", ") + ")"
}

// insert prints one statement for some rows.
func (t *table) insert(r rnd, ids []int) string {
	tuples := make([]string, len(ids))
	for i, id := range ids {
		tuples[i] = t.tuple(id, t.fresh(r, id, false))
	}
	statement := "INSERT INTO " + t.into() + " VALUES " + strings.Join(tuples, ", ")
	if t.layout == keyOnly {
		statement += " ON CONFLICT DO NOTHING"
	}
	return statement + ";"
}

// copyRows prints rows for COPY.
func (t *table) copyRows(r rnd, ids []int) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(strconv.Itoa(id))
		for _, v := range t.fresh(r, id, true) {
			b.WriteString("\t" + v.copyText())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// update prints a statement that changes one row: all of its columns, or some.
func (t *table) update(r rnd, id int, some bool) string {
	old := t.written[id]
	values := t.fresh(r, id, false)
	var sets []string
	for i, name := range t.names() {
		keeps := t.layout == keyOnly && i == 0 // Another key might be taken.
		if keeps || (some && len(values) > 1 && r.in(50)) {
			values[i] = old[i]
			continue
		}
		sets = append(sets, name+" = "+values[i].sql(t.columns[i].kind.sql))
	}
	if len(sets) == 0 {
		return ""
	}
	return "UPDATE " + t.name + " SET " + strings.Join(sets, ", ") + " WHERE id = " + strconv.Itoa(id) + ";"
}

// shortKeys are types, without a sink's type of their own, whose texts are short. A refusal shows the first 100 bytes of
// a key, which must tell rows apart.
var shortKeys = []string{"float4", "float8", "money", "byte", "inet", "cidr", "macaddr", "macaddr8", "bit37", "lsn", "xid8", "tid", "regclass", "span"}

// tableSet makes the tables for a server's types; keys is the share of the types without a rule of their own
// for keys, in percent, that get a table with such a key.
func tableSet(kinds []*kind, keys int, r rnd) []*table {
	var tables []*table
	byFamily := func(prefix, existing string, wild int) {
		for group := range slices.Chunk(kinds, 14) {
			t := &table{name: fmt.Sprintf("%s_%d", prefix, len(tables)), wild: wild}
			for _, k := range group {
				t.columns = append(t.columns, column{name: k.name, kind: k, existing: existing})
			}
			tables = append(tables, t)
		}
	}
	byFamily("auto", "", 0)
	byFamily("text", longText, 40)
	for _, k := range kinds {
		alone := func(prefix, existing string, wild int) {
			tables = append(tables, &table{
				name: fmt.Sprintf("%s_%s_%d", prefix, k.name, len(tables)), wild: wild,
				columns: []column{{name: "v", kind: k, existing: existing}},
			})
		}
		if k.wild != nil && k.auto != "" {
			alone("strict", "", 30)
		}
		for _, target := range k.also {
			alone("other", target, 20)
		}
		if k.key == "" || (!slices.Contains([]string{"number", "text", "time"}, k.family) && !r.in(keys)) {
			continue
		}
		layouts := []layout{keyBoth, keyLast}
		if k.key != keyText || slices.Contains(shortKeys, k.name) {
			layouts = append(layouts, keyOnly)
		}
		body := column{name: "body", kind: kinds[r.IntN(len(kinds))]}
		tables = append(tables, &table{
			name: fmt.Sprintf("key_%s_%d", k.name, len(tables)), layout: pick(r, layouts...), columns: []column{{name: "k", kind: k}, body},
		})
	}
	for _, t := range tables {
		t.full = t.wild == 0 && r.in(25)
		t.written, t.expected = map[int][]value{}, map[int][]string{}
	}
	return tables
}
