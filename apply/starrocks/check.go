package starrocks

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// checkExisting compares a table with what the schema needs, and reports everything
// that is in the way, each with the statement that removes it. Columns that are merely
// missing are added later.
func checkExisting(schema *cdc.Schema, table string, found *existing) error {
	var problems []string
	report := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	switch {
	case isAppend(schema) && found.primary:
		report("it is a PRIMARY KEY table, but the source has no key, so every change is to be a row of its own: add a primary key to the source, or rename or drop the table, and dbmazz creates it anew")
	case isAppend(schema) && !found.duplicate:
		report("it is not a DUPLICATE KEY table (its model is %s), which a source without a key needs: rename or drop it, and dbmazz creates it anew", found.model)
	case isAppend(schema):
	case !found.primary:
		report("it is not a PRIMARY KEY table (its model is %s), so changes cannot be applied: rename or drop it, and dbmazz creates it anew, or give this table another name in StarRocks", found.model)
	default:
		checkKey(schema, found, report)
	}
	isKey := keySet(schema)
	for i := range schema.Columns {
		c := &schema.Columns[i]
		have := found.find(c.Name)
		switch {
		case have == nil && isKey[i]:
			continue // checkKey has reported it.
		case have == nil:
			continue
		}
		if _, err := chooseEncoding(c, isKey[i], have.target); err != nil {
			if _, ok := widened(c, isKey[i], have); !ok {
				report("%s", typeProblem(c, isKey[i], have, place{table, schema.Name()}, err))
			}
		}
		if isAppend(schema) && !have.nullable && !c.NotNull {
			report("column %q is NOT NULL there and not in the source: ALTER TABLE %s MODIFY COLUMN %s %s NULL",
				have.name, table, quoteName(have.name), have.ddl())
		}
		if !isAppend(schema) && !isKey[i] && !have.key && !have.nullable {
			report("column %q is NOT NULL there, which the rows of deletes and partial updates cannot satisfy: ALTER TABLE %s MODIFY COLUMN %s %s NULL",
				have.name, table, quoteName(have.name), have.ddl())
		}
	}
	checkForeign(schema, table, found, report)
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("table %s cannot take the rows of %s: %s", table, schema.Name(), strings.Join(problems, "; "))
}

func (c *existingColumn) ddl() string {
	if c.target.kind == targetOther {
		return strings.ToUpper(c.text)
	}
	return c.target.String()
}

// checkKey wants the key's columns to be those of the source, in whatever order.
func checkKey(schema *cdc.Schema, found *existing, report func(string, ...any)) {
	var want, have []string
	for _, i := range schema.Key {
		want = append(want, strings.ToLower(schema.Columns[i].Name))
	}
	for i := range found.columns {
		if found.columns[i].key {
			have = append(have, strings.ToLower(found.columns[i].name))
		}
	}
	if a, b := slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(have)); !slices.Equal(a, b) {
		report("its key is (%s) but that of the source is (%s), and StarRocks cannot change the key of a table: rename or drop it, and dbmazz creates it anew; then copy the rows: dbmazz snapshot --tables %s",
			strings.Join(have, ", "), strings.Join(want, ", "), schema.Name())
	}
}

// place names a table in both databases.
type place struct{ table, source string }

// typeProblem says why the type of an existing column does not do, and what does.
func typeProblem(c *cdc.Column, key bool, have *existingColumn, at place, err error) string {
	want, table, source := createTarget(c, key), at.table, at.source
	if key {
		return fmt.Sprintf("key column %q: %s; it should be %s, and StarRocks cannot change a key column: rename or drop the table, and dbmazz creates it anew; then copy the rows: dbmazz snapshot --tables %s",
			have.name, err, want, source)
	}
	alter := fmt.Sprintf("ALTER TABLE %s MODIFY COLUMN %s %s NULL", table, quoteName(have.name), want)
	if !modifiable(have.target, want) {
		alter = fmt.Sprintf("ALTER TABLE %s DROP COLUMN %s, and dbmazz adds it as %s; then copy the rows anew: dbmazz snapshot --tables %s", table, quoteName(have.name), want, source)
	}
	return fmt.Sprintf("column %q: %s: %s", have.name, err, alter)
}

// modifiable tells whether StarRocks can change the type of a column with rows in it.
func modifiable(from, to target) bool {
	integer := func(t target) bool { return t.kind >= targetTinyInt && t.kind <= targetLargeInt }
	switch {
	case integer(from):
		return (integer(to) && to.kind > from.kind) || to.kind == targetDouble || to.kind == targetVarchar
	case from.kind == targetFloat:
		return to.kind == targetDouble || to.kind == targetVarchar
	case from.kind == targetDecimal:
		return to.kind == targetVarchar || (to.kind == targetDecimal && to.scale >= from.scale && to.precision-to.scale >= from.precision-from.scale)
	case from.kind == targetVarchar:
		return to.kind == targetJSON || (to.kind == targetVarchar && to.length >= from.length)
	case from.kind == targetJSON:
		return to.kind == targetVarchar
	}
	return (from.kind == targetDate && to.kind == targetDateTime) || (from.kind == targetDateTime && to.kind == targetDate)
}

// checkForeign looks at the columns that are not the source's: the audit columns, and
// others, which every load leaves to their default.
func checkForeign(schema *cdc.Schema, table string, found *existing, report func(string, ...any)) {
	ours := map[string]bool{}
	for i := range schema.Columns {
		ours[strings.ToLower(schema.Columns[i].Name)] = true
	}
	for _, audit := range auditOf(schema) {
		ours[audit.name] = true
		have := found.find(audit.name)
		switch {
		case have == nil:
		case isAppend(schema) && auditTakes(have.target.kind, audit.kind): // Every row has a value.
		case have.key || !have.nullable:
			report("audit column %s must be NULL and not part of the key: ALTER TABLE %s MODIFY COLUMN %s %s NULL", have.name, table, quoteName(have.name), simple(audit.kind))
		case !auditTakes(have.target.kind, audit.kind):
			report("audit column %s is %s and should be %s: ALTER TABLE %s DROP COLUMN %s, and dbmazz adds it", have.name, have.ddl(), simple(audit.kind), table, quoteName(have.name))
		}
	}
	for i := range found.columns {
		have := &found.columns[i]
		if !ours[strings.ToLower(have.name)] && !have.key && !have.nullable && have.fallback == nil {
			report("column %q is not in the source, is NOT NULL and has no default: ALTER TABLE %s MODIFY COLUMN %s %s NULL, or drop it",
				have.name, table, quoteName(have.name), have.ddl())
		}
	}
}

// auditTakes allows wider integers than dbmazz would create.
func auditTakes(have, want targetKind) bool {
	return have == want || (want == targetTinyInt && have >= targetTinyInt && have <= targetBigInt)
}
