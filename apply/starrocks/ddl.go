package starrocks

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// createTable returns the statement for the schema's table. Where it has a key that is
// one of the PRIMARY KEY model. The key's columns come first, in the order of the key; all others can be NULL, because deletes
// and partial updates do not carry them. replicas of zero leave the cluster's default.
func createTable(schema *cdc.Schema, table string, replicas int) string {
	if isAppend(schema) {
		return createAppendTable(schema, table, replicas)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s (", table)
	keys := make([]string, len(schema.Key))
	for n, i := range schema.Key {
		c := &schema.Columns[i]
		keys[n] = quoteName(c.Name)
		fmt.Fprintf(&b, "%s %s NOT NULL COMMENT %s, ", keys[n], createTarget(c, true), quoteText(c.TypeName))
	}
	isKey := keySet(schema)
	for i := range schema.Columns {
		if !isKey[i] {
			b.WriteString(valueColumn(&schema.Columns[i]) + ", ")
		}
	}
	for i, a := range auditColumns[:atOrdinal] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(a.ddl())
	}
	key := strings.Join(keys, ", ")
	fmt.Fprintf(&b, ") ENGINE=OLAP PRIMARY KEY(%s) COMMENT %s DISTRIBUTED BY HASH(%s)", key, quoteText(schema.Name()), key)
	return b.String() + replication(replicas)
}

// createAppendTable returns the statement for a table that every change is a row of. It
// is sorted by the position of the changes, which is how they are looked up.
func createAppendTable(schema *cdc.Schema, table string, replicas int) string {
	var b strings.Builder
	key := quoteName(auditVersion) + ", " + quoteName(auditOrdinal)
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s (", table)
	for _, a := range []auditColumn{auditColumns[atVersion], auditColumns[atOrdinal]} {
		fmt.Fprintf(&b, "%s %s NOT NULL COMMENT %s, ", quoteName(a.name), simple(a.kind), quoteText(a.note))
	}
	for i := range schema.Columns {
		b.WriteString(valueColumn(&schema.Columns[i]) + ", ")
	}
	for i, a := range auditColumns[:atVersion] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(a.ddl())
	}
	fmt.Fprintf(&b, ") ENGINE=OLAP DUPLICATE KEY(%s) COMMENT %s DISTRIBUTED BY HASH(%s)", key, quoteText(schema.Name()), key)
	return b.String() + replication(replicas)
}

func replication(replicas int) string {
	if replicas > 0 {
		return ` PROPERTIES("replication_num" = "` + strconv.Itoa(replicas) + `")`
	}
	return ""
}

func valueColumn(c *cdc.Column) string {
	return fmt.Sprintf("%s %s NULL COMMENT %s", quoteName(c.Name), createTarget(c, false), quoteText(c.TypeName))
}

func (a *auditColumn) ddl() string {
	return fmt.Sprintf("%s %s NULL COMMENT %s", quoteName(a.name), simple(a.kind), quoteText(a.note))
}
