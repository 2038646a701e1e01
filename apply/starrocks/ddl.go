package starrocks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// addMissing adds the columns that the table lacks, audit columns first, and waits until
// rows can be written to them.
func (s *Sink) addMissing(ctx context.Context, schema *cdc.Schema, table string, found *existing) (*existing, error) {
	for n := 1; ; n++ {
		audit, source := missing(schema, found)
		if len(audit)+len(source) == 0 {
			return found, nil
		}
		if n > s.retry.attempts {
			return nil, fmt.Errorf("add columns to StarRocks table %s: %w", table, errAlterTimeout)
		}
		// One statement after another: a table has one schema change at a time.
		columns := audit
		what := fmt.Sprintf("Failed to add audit columns to StarRocks table '%s'", table)
		if len(audit) == 0 {
			columns = source
			what = "add columns to StarRocks table " + table
		}
		if err := s.alter(ctx, table, columns); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		s.config.Logger.InfoContext(ctx, "columns added", slog.String("table", table), slog.Int("columns", len(columns)))
		again, err := s.describe(ctx, table)
		if err != nil {
			return nil, fmt.Errorf("describe table %s in StarRocks: %w", table, err)
		}
		if again == nil {
			return nil, fmt.Errorf("describe table %s in StarRocks: it has gone", table)
		}
		found = again
	}
}

// missing returns the definitions of the columns that the table lacks.
func missing(schema *cdc.Schema, found *existing) (audit, source []string) {
	for _, a := range auditOf(schema) {
		if found.find(a.name) == nil {
			audit = append(audit, a.ddl())
		}
	}
	for i := range schema.Columns {
		if found.find(schema.Columns[i].Name) == nil {
			source = append(source, valueColumn(&schema.Columns[i]))
		}
	}
	return audit, source
}

// alter adds columns. A change that is under way, ours or another's, is waited for.
func (s *Sink) alter(ctx context.Context, table string, columns []string) error {
	statement := "ALTER TABLE " + s.tableName(table) + " ADD COLUMN " + strings.Join(columns, ", ADD COLUMN ")
	for n := 1; ; n++ {
		if err := s.altered(ctx, table); err != nil {
			return err
		}
		err := s.exec(ctx, statement)
		if err == nil {
			return s.altered(ctx, table)
		}
		if strings.Contains(err.Error(), "already exists") {
			// Somebody else has added one; what is missing is looked up again.
			return nil
		}
		if err := ddlError(err); IsPermanent(err) {
			return err
		}
		if n >= s.retry.attempts {
			return err
		}
		if err := s.retry.wait(ctx, n); err != nil {
			return err
		}
	}
}

// altered waits for the end of the last schema change of a table. Unless fast schema
// evolution is on, ALTER TABLE only starts one.
func (s *Sink) altered(ctx context.Context, table string) error {
	query := "SHOW ALTER TABLE COLUMN FROM " + quoteName(s.config.Database) + ` WHERE TableName = ` + quoteText(table) + " ORDER BY CreateTime DESC LIMIT 1"
	for n := 1; ; n++ {
		rows, err := s.show(ctx, query)
		if err != nil {
			return fmt.Errorf("ask for the schema change: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		switch state := rows[0]["state"]; state {
		case "FINISHED":
			return nil
		case "CANCELLED":
			// A change of long ago may be what is shown; if it was this one, the
			// column is still missing and that is noticed.
			s.config.Logger.WarnContext(ctx, "last schema change was cancelled", slog.String("table", table), slog.String("reason", rows[0]["msg"]))
			return nil
		default:
			if n >= alterPollsMax {
				return errors.Join(errAlterTimeout, fmt.Errorf("it is %s, progress %s", state, rows[0]["progress"]))
			}
		}
		if err := s.retry.wait(ctx, n); err != nil {
			return err
		}
	}
}

// alterPollsMax is how often the caller's patience is tried before it hears of it; with
// the default backoff about ten minutes.
const alterPollsMax = 150

var errAlterTimeout = errors.New("the schema change has not ended yet")
