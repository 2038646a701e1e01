package starrocks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// OverridePolicy is how the values of a column are stored.
type OverridePolicy string

// The policies.
const (
	// OverrideText stores the text that PostgreSQL prints, in a VARCHAR column.
	OverrideText OverridePolicy = "text"
	// OverrideNull stores NULL for a value that the column cannot hold, and counts it.
	OverrideNull OverridePolicy = "null"
	// OverrideRefuse refuses such a value, as without an override.
	OverrideRefuse OverridePolicy = "refuse"
)

// Override is the policy for one column of the source, by its exact names.
type Override struct {
	Namespace, Table, Column string
	Policy                   OverridePolicy
}

func (o *Override) table() string { return o.Namespace + "." + o.Table }

const overrideVariable = "SINK_TYPE_OVERRIDES"

var _ apply.TableChecker = (*Sink)(nil)

// CheckConfig implements [apply.ConfigChecker]: every override must name a column of the
// table. A table that is not replicated at present is only logged, because the list of
// tables can be changed while overrides cannot.
func (s *Sink) CheckConfig(tables []*cdc.Schema) error {
	s.mu.Lock()
	first := !s.checked // A later list may be a part.
	s.checked = true
	s.mu.Unlock()
	var problems []string
	for i := range s.config.Overrides {
		o := &s.config.Overrides[i]
		at := slices.IndexFunc(tables, func(t *cdc.Schema) bool { return t.Namespace == o.Namespace && t.Table == o.Table })
		if at < 0 && first {
			s.config.Logger.Warn("an override is for a table that is not replicated", slog.String("table", o.table()), slog.String("column", o.Column))
		}
		if at >= 0 && columnOf(tables[at], o.Column) < 0 {
			problems = append(problems, fmt.Sprintf("%s names column %q of table %s, which has no such column: %s",
				overrideVariable, o.Column, o.table(), strings.Join(columnNames(tables[at]), ", ")))
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return permanent(errors.New(strings.Join(problems, "; ")))
}

func columnOf(schema *cdc.Schema, name string) int {
	return slices.IndexFunc(schema.Columns, func(c cdc.Column) bool { return c.Name == name })
}

func columnNames(schema *cdc.Schema) []string {
	names := make([]string, len(schema.Columns))
	for i := range schema.Columns {
		names[i] = schema.Columns[i].Name
	}
	return names
}

// overridden returns the schema as its table has to be made and written: a column that
// is stored as text has a type then that has no other form. nulls are the columns that
// may become NULL. A schema of the past may lack a column that an override names.
func (c *Config) overridden(schema *cdc.Schema) (nulls []int, shaped *cdc.Schema, err error) {
	shaped = schema
	isKey := keySet(schema)
	for i := range c.Overrides {
		o := &c.Overrides[i]
		at := columnOf(schema, o.Column)
		if o.Namespace != schema.Namespace || o.Table != schema.Table || at < 0 {
			continue
		}
		switch {
		case o.Policy == OverrideNull && isKey[at]:
			return nil, nil, fmt.Errorf("%s allows NULL for column %q of %s, which is part of the key: want text or refuse", overrideVariable, o.Column, o.table())
		case o.Policy == OverrideNull:
			nulls = append(nulls, at)
		case o.Policy == OverrideText && (!isKey[at] || createTarget(&schema.Columns[at], true).kind != targetVarchar):
			if shaped == schema {
				copied := *schema
				copied.Columns = slices.Clone(schema.Columns)
				shaped = &copied
			}
			column := &shaped.Columns[at]
			column.Type, column.TypeName = cdc.TypeOther, column.TypeName+asText
		}
	}
	return nulls, shaped, nil
}

// asText ends the names of the types of columns that are text because of an override.
const asText = " as text"

// checkOverridden refuses to make a text of a column that has another type: what it
// holds would be StarRocks's text of it.
func checkOverridden(shaped *cdc.Schema, table string, found *existing) error {
	var problems []string
	isKey := keySet(shaped)
	for i := range shaped.Columns {
		c := &shaped.Columns[i]
		have := found.find(c.Name)
		if !strings.HasSuffix(c.TypeName, asText) || have == nil || have.target.kind == targetVarchar {
			continue
		}
		remedy := fmt.Sprintf("ALTER TABLE %s MODIFY COLUMN %s %s NULL, where StarRocks's text of the values that it holds will do; or ", table, quoteName(have.name), createTarget(c, false))
		if !modifiable(have.target, createTarget(c, false)) {
			remedy = ""
		}
		remedy += fmt.Sprintf("ALTER TABLE %s DROP COLUMN %s, and dbmazz adds it; then copy the rows anew", table, quoteName(have.name))
		if isKey[i] {
			remedy = "StarRocks cannot change a key column: rename or drop the table, and let dbmazz create it and copy the rows anew"
		}
		problems = append(problems, fmt.Sprintf("%s wants column %q of %s, %s, and it is %s there: %s; or take the override back",
			overrideVariable, c.Name, shaped.Name(), c.TypeName, have.ddl(), remedy))
	}
	if len(problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(problems, "; "))
}

// allowNull marks the columns in which a value that does not fit becomes NULL.
func (l *layout) allowNull(nulls []int, found *existing) error {
	for _, i := range nulls {
		c := &l.columns[i]
		if have := found.find(c.name); have != nil && !have.nullable {
			return fmt.Errorf("%s allows NULL for column %q of %s, which is NOT NULL in StarRocks: ALTER TABLE %s MODIFY COLUMN %s %s NULL",
				overrideVariable, c.source.Name, l.schema.Name(), quoteName(l.table), quoteName(c.name), have.ddl())
		}
		c.nulls = true
	}
	return nil
}

// ofValue tells that the refusal is about what the value is, not about what is wrong
// with the stream.
func (r *refusal) ofValue() bool { return r != refuseSyntax && r != refuseUTC }

// settled returns the completed tuple of a row with NULL for the values that were sent
// and do not fit their column, as the writer of sent values has it: the one of values
// that were read from StarRocks takes more.
func (l *layout) settled(sent, completed cdc.Tuple, scratch *jsonScratch) cdc.Tuple {
	if !slices.ContainsFunc(l.columns, func(c column) bool { return c.nulls }) {
		return completed
	}
	var out cdc.Tuple
	for i := range l.columns {
		s, restSent, _ := sent.Next()
		v, rest, ok := completed.Next()
		if !ok {
			return out
		}
		sent, completed = restSent, rest
		if l.columns[i].nulls && s.Kind == cdc.Text {
			if _, r := l.columns[i].appendValue(nil, s.Bytes, scratch); r != nil {
				v = cdc.Value{Kind: cdc.Null}
			}
		}
		out = out.AppendValue(v)
	}
	return out
}

// countNulls puts the number of values that became NULL into the result. The first ones
// of a table are logged.
func (a *applyRun) countNulls(ctx context.Context) {
	a.result.Nulled = a.writer.nulled
	if a.result.Nulled == 0 {
		return
	}
	s := a.sink
	s.mu.Lock()
	told := s.toldNulls[a.layout.table]
	s.toldNulls[a.layout.table] = true
	s.mu.Unlock()
	if !told {
		s.config.Logger.WarnContext(ctx, "values that do not fit their column become NULL, as "+overrideVariable+" allows; they are counted from here on",
			slog.String("table", a.layout.schema.Name()), slog.Int64("values", a.result.Nulled))
	}
}
