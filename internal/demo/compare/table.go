package compare

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Column is a column of a source table.
type Column struct {
	Name string
	kind kind
}

// Table is a table of the source and its counterpart in the sink.
type Table struct {
	Schema, Name string
	// Sink is the table's name in the sink.
	Sink    string
	Columns []Column
	// Hard tells that the sink must not keep deleted rows at all.
	Hard bool
	// Key lists the places of the primary key's columns.
	Key []int
}

// String is the table's name for people.
func (t *Table) String() string { return t.Schema + "." + t.Name }

// SinkName is the name that dbmazz gives a table: its own in schema public, else schema__table.
func SinkName(schema, name string) string {
	if schema == "public" {
		return name
	}
	return schema + "__" + name
}

const describe = `SELECT a.attname, t.typname, t.typtype::text, coalesce(array_position(i.indkey::int2[], a.attnum), -1)
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum`

// Describe reads a table's columns and primary key from the source.
func Describe(ctx context.Context, conn *pgx.Conn, schema, name string) (*Table, error) {
	t := &Table{Schema: schema, Name: name, Sink: SinkName(schema, name)}
	rows, err := conn.Query(ctx, describe, schema, name)
	if err != nil {
		return nil, fmt.Errorf("describe table %s: %w", t, err)
	}
	defer rows.Close()
	places := map[int]int{}
	for rows.Next() {
		var column, typeName, typeKind string
		var keyAt int
		if err := rows.Scan(&column, &typeName, &typeKind, &keyAt); err != nil {
			return nil, fmt.Errorf("describe table %s: %w", t, err)
		}
		if keyAt >= 0 {
			places[keyAt] = len(t.Columns)
		}
		t.Columns = append(t.Columns, Column{Name: column, kind: kindOf(typeName, typeKind)})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("describe table %s: %w", t, err)
	}
	for at := range len(places) {
		t.Key = append(t.Key, places[at])
	}
	if len(t.Key) == 0 {
		return nil, fmt.Errorf("describe table %s: it has no primary key", t)
	}
	return t, nil
}

// sourceQuery reads the table in key order, texts in the order of their bytes.
func (t *Table) sourceQuery() string {
	names, order := make([]string, len(t.Columns)), make([]string, len(t.Key))
	for i, c := range t.Columns {
		names[i] = pgx.Identifier{c.Name}.Sanitize()
	}
	for n, i := range t.Key {
		order[n] = names[i]
		if t.Columns[i].kind == kindText {
			order[n] += `::text COLLATE "C"`
		}
	}
	return "SELECT " + strings.Join(names, ", ") + " FROM " + pgx.Identifier{t.Schema, t.Name}.Sanitize() +
		" ORDER BY " + strings.Join(order, ", ")
}

// The audit columns, which the sink has behind the table's own.
var auditColumns = []string{"dbmazz_op_type", "dbmazz_is_deleted", "dbmazz_synced_at", "dbmazz_cdc_version"}

// sinkQuery reads everything that the sink has of the table, deleted rows included.
func (t *Table) sinkQuery(database string) string {
	var names, order []string
	for _, c := range t.Columns {
		names = append(names, quote(c.Name))
	}
	for _, i := range t.Key {
		order = append(order, names[i])
	}
	for _, name := range auditColumns {
		names = append(names, quote(name))
	}
	return "SELECT " + strings.Join(names, ", ") + " FROM " + quote(database) + "." + quote(t.Sink) + " ORDER BY " + strings.Join(order, ", ")
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }
