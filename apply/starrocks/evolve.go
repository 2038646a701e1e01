package starrocks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// alteration is one ALTER TABLE that a table needs before it takes the rows of a schema.
type alteration struct {
	what    string // for errors
	clauses []string
}

// evolve gives the table the columns and types that it lacks, and waits until rows can be
// written to them. It only ever adds and widens, so the schemas of a table may come in any
// order and any number of times: one that a replay brings again finds all that it needs.
func (s *Sink) evolve(ctx context.Context, schema *cdc.Schema, table string, found *existing) (*existing, error) {
	for n := 1; ; n++ {
		next, err := alterationOf(schema, table, found)
		if err != nil {
			return nil, permanent(fmt.Errorf("prepare table %s: %w", table, err))
		}
		if next == nil {
			return found, nil
		}
		// A table has one schema change at a time. One that is under way may be this, begun
		// by a process that has gone or whose answer was lost.
		if err := s.altered(ctx, table); err != nil {
			return nil, fmt.Errorf("%s: %w", next.what, err)
		}
		if found, err = s.again(ctx, table); err != nil {
			return nil, err
		}
		if next, err = alterationOf(schema, table, found); err != nil || next == nil {
			continue
		}
		if err := s.alter(ctx, table, next); err != nil {
			return nil, fmt.Errorf("%s: %w", next.what, err)
		}
		if found, err = s.again(ctx, table); err != nil {
			return nil, err
		}
		const kinds = 3
		if n >= kinds*s.retry.attempts {
			return nil, fmt.Errorf("%s: %w", next.what, errAlterTimeout)
		}
	}
}

func (s *Sink) again(ctx context.Context, table string) (*existing, error) {
	found, err := s.describe(ctx, table)
	if err == nil && found == nil {
		err = errors.New("it has gone")
	}
	if err != nil {
		return nil, fmt.Errorf("describe table %s in StarRocks: %w", table, err)
	}
	return found, nil
}

// alterationOf returns what the table needs first, nil if it needs nothing: audit columns,
// then the source's, then wider types. New columns are instant with fast schema evolution,
// while a type rewrites the rows, so they are statements of their own.
func alterationOf(schema *cdc.Schema, table string, found *existing) (*alteration, error) {
	audit := &alteration{what: fmt.Sprintf("Failed to add audit columns to StarRocks table '%s'", table)}
	for _, a := range auditOf(schema) {
		if found.find(a.name) == nil {
			audit.clauses = append(audit.clauses, "ADD COLUMN "+a.ddl())
		}
	}
	add := &alteration{what: "add columns to StarRocks table " + table}
	widen := &alteration{what: "widen columns of StarRocks table " + table}
	isKey := keySet(schema)
	for i := range schema.Columns {
		c := &schema.Columns[i]
		have := found.find(c.Name)
		if have == nil {
			definition, err := addedColumn(schema, c)
			if err != nil {
				return nil, err
			}
			add.clauses = append(add.clauses, "ADD COLUMN "+definition)
		} else if to, ok := widened(c, isKey[i], have); ok {
			widen.clauses = append(widen.clauses, "MODIFY COLUMN "+have.modified(c, to))
		}
	}
	for _, a := range []*alteration{audit, add, widen} {
		if len(a.clauses) > 0 {
			return a, nil
		}
	}
	return nil, nil //nolint:nilnil // Nothing is an answer.
}

// addedColumn defines a column that the source has gained. The value that its older rows
// have there becomes the default, which those of StarRocks read too. In an append table a
// row is a change as it was, so that the ones before have none.
func addedColumn(schema *cdc.Schema, c *cdc.Column) (string, error) {
	t := createTarget(c, false)
	if c.Missing == nil || isAppend(schema) || t.kind == targetJSON {
		return valueColumn(c), nil
	}
	how, err := chooseEncoding(c, false, t)
	if err != nil {
		return "", fmt.Errorf("column %q: %w", c.Name, err)
	}
	col := column{source: c, name: c.Name, target: t, how: how}
	out, refused := col.appendValue(nil, []byte(*c.Missing), new(jsonScratch))
	if refused != nil {
		return "", fmt.Errorf("column %q: the value that rows have which are older than the column does not fit %s: %s: add the column to StarRocks yourself, with a type that holds it, and then copy the rows anew: dbmazz snapshot --tables %s",
			c.Name, t, refused.reason, schema.Name())
	}
	text := string(out)
	switch {
	case how == encodeBool:
		text = map[bool]string{true: "1", false: "0"}[text == "true"]
	case strings.HasPrefix(text, `"`):
		if err := json.Unmarshal(out, &text); err != nil {
			return "", fmt.Errorf("column %q: read back its default: %w", c.Name, err)
		}
	}
	return fmt.Sprintf("%s %s NULL DEFAULT %s COMMENT %s", quoteName(c.Name), t, quoteText(text), quoteText(c.TypeName)), nil
}

// modified defines an existing column with a wider type. What is not repeated would be
// taken away, and StarRocks refuses to change a default.
func (c *existingColumn) modified(source *cdc.Column, to target) string {
	null := "NOT NULL"
	if c.nullable {
		null = "NULL"
	}
	fallback := ""
	if c.fallback != nil {
		fallback = " DEFAULT " + quoteText(*c.fallback)
		if strings.EqualFold(*c.fallback, "CURRENT_TIMESTAMP") {
			fallback = " DEFAULT CURRENT_TIMESTAMP"
		}
	}
	return fmt.Sprintf("%s %s %s%s COMMENT %s", quoteName(c.name), to, null, fallback, quoteText(source.TypeName))
}

// widened returns the type that a column must be changed to for the values of the source,
// where StarRocks can do that and nothing is lost by it.
func widened(c *cdc.Column, key bool, have *existingColumn) (target, bool) {
	want := createTarget(c, false)
	switch {
	case key || have.key:
		return target{}, false
	case have.target.kind == targetVarchar:
		return want, want.kind == targetVarchar && want.length > have.target.length && have.ours()
	}
	if _, err := chooseEncoding(c, false, have.target); err == nil {
		return target{}, false
	}
	if have.target.kind == targetDecimal && want.kind == targetDecimal {
		// Rows of the type before may still come, in a replay.
		scale := max(have.target.scale, want.scale)
		want = decimal(max(have.target.precision-have.target.scale, want.precision-want.scale)+scale, scale)
		if want.precision > decimalDigitsMax {
			want = varchar(varcharBytesMax)
		}
	}
	return want, modifiable(have.target, want)
}

// limitedText matches the comments of VARCHAR columns that were made for a source type with
// a bound.
var limitedText = regexp.MustCompile(`^(character varying|character)\([0-9]+\)$|^uuid$|^interval|^time`)

// ours tells that a VARCHAR was made by dbmazz for a type with a bound, and not to the
// wishes of somebody else.
func (c *existingColumn) ours() bool { return limitedText.MatchString(c.comment) }

// alter runs the statement of an alteration and waits for its end. Somebody else's change
// that has come in between is waited for.
func (s *Sink) alter(ctx context.Context, table string, a *alteration) error {
	statement := "ALTER TABLE " + s.tableName(table) + " " + strings.Join(a.clauses, ", ")
	for n := 1; ; n++ {
		err := s.exec(ctx, statement)
		switch {
		case err == nil:
			err = s.altered(ctx, table)
			if err == nil {
				s.config.Logger.InfoContext(ctx, "table altered", slog.String("table", table), slog.String("statement", statement))
			}
			return err
		case strings.Contains(err.Error(), "already exists"):
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
		if err := s.altered(ctx, table); err != nil {
			return err
		}
	}
}

// altered waits for the end of the last schema change of a table. Unless fast schema
// evolution is on, ALTER TABLE only starts one.
func (s *Sink) altered(ctx context.Context, table string) error {
	query := "SHOW ALTER TABLE COLUMN FROM " + quoteName(s.config.Database) + ` WHERE TableName = ` + quoteText(table) + " ORDER BY CreateTime DESC LIMIT 1"
	began := time.Now()
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
			// A change of long ago may be what is shown; if it was this one, what it
			// was for is still missing and that is noticed.
			s.config.Logger.WarnContext(ctx, "last schema change was cancelled", slog.String("table", table), slog.String("reason", rows[0]["msg"]))
			return nil
		default:
			err := fmt.Errorf("%w: it is %s, progress %s", errAlterTimeout, state, rows[0]["progress"])
			if time.Since(began) > alterPatience {
				return err
			}
			apply.Waiting(ctx, fmt.Errorf("StarRocks table %s: %w", table, err))
		}
		if err := s.retry.wait(ctx, n); err != nil {
			return err
		}
	}
}

// alterPatience is how long a schema change is waited for before the caller hears of it, and
// asks again. It can be told to stop or pause in between.
const alterPatience = 10 * time.Second

var errAlterTimeout = errors.New("the schema change has not ended yet")
