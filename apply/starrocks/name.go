package starrocks

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// publicSchema is the schema whose tables keep their plain name.
const publicSchema = "public"

// DefaultTableName is the name of the table in StarRocks: that of the source table for
// schema public, schema__table for any other. It depends on nothing else, so a table
// that is added later never renames one that is there.
func DefaultTableName(s *cdc.Schema) string {
	if s.Namespace == publicSchema {
		return s.Table
	}
	return s.Namespace + "__" + s.Table
}

// TemplateTableName returns the function that puts the names of a source table in the
// place of {schema} and {table}; [DefaultTableName] where the template is empty.
func TemplateTableName(template string) func(*cdc.Schema) string {
	if template == "" {
		return DefaultTableName
	}
	return func(s *cdc.Schema) string {
		return strings.NewReplacer("{schema}", s.Namespace, "{table}", s.Table).Replace(template)
	}
}

// NameTables returns the name in StarRocks of each table, by [cdc.Schema.Name], as the
// function name gives it; nil is [DefaultTableName]. Two tables with one name, and a
// name that StarRocks does not allow, are errors that say so; all are reported.
func NameTables(tables []*cdc.Schema, name func(*cdc.Schema) string) (map[string]string, error) {
	if name == nil {
		name = DefaultTableName
	}
	names := make(map[string]string, len(tables))
	owners := make(map[string]*cdc.Schema, len(tables))
	var errs []error
	for _, table := range tables {
		target := name(table)
		if err := checkTableName(table, target); err != nil {
			errs = append(errs, err)
			continue
		}
		if owner := owners[target]; owner != nil && !sameTable(owner, table) {
			errs = append(errs, clashError(owner, table, target))
			continue
		}
		owners[target] = table
		names[table.Name()] = target
	}
	return names, errors.Join(errs...)
}

func sameTable(a, b *cdc.Schema) bool { return a.Namespace == b.Namespace && a.Table == b.Table }

func clashError(a, b *cdc.Schema, target string) error {
	return fmt.Errorf("tables %s and %s would both be written to StarRocks table %q: give them other names there (SINK_TABLE_NAME), leave one out of TABLES, or replicate it with a second dbmazz into another database",
		a.Name(), b.Name(), target)
}

func checkTableName(s *cdc.Schema, target string) error {
	if n := utf8.RuneCountInString(target); n == 0 || n > columnNameRunesMax || hasControl(target) || strings.ContainsAny(target, "/\\") || strings.Trim(target, ".") == "" {
		return fmt.Errorf("table %s: StarRocks and its Stream Load address cannot take the name %q: give it another name there", s.Name(), target)
	}
	return nil
}

// checkColumnNames reports columns that StarRocks, whose column names are the same in
// any case, could not keep apart or does not allow.
func checkColumnNames(s *cdc.Schema) []error {
	const forbidden = "=<>!*"
	seen := map[string]string{}
	for _, a := range auditOf(s) {
		seen[a.name] = ""
	}
	var errs []error
	for i := range s.Columns {
		name := s.Columns[i].Name
		folded := strings.ToLower(name)
		other, taken := seen[folded]
		switch {
		case taken && other == "":
			errs = append(errs, fmt.Errorf("column %q has the name of an audit column of dbmazz: rename it, or leave it out of the publication with a column list", name))
		case taken:
			errs = append(errs, fmt.Errorf("columns %q and %q are one name in StarRocks, which does not distinguish case: rename one of them, or leave it out of the publication with a column list", other, name))
		case folded == "__op" || folded == "__row":
			errs = append(errs, fmt.Errorf("column %q has a name that StarRocks reserves: rename it, or leave it out of the publication with a column list", name))
		case name == "" || utf8.RuneCountInString(name) > columnNameRunesMax || strings.ContainsAny(name, forbidden) || hasControl(name):
			errs = append(errs, fmt.Errorf("column %q: StarRocks allows no control characters and none of %s in a name: rename it, or leave it out of the publication with a column list", name, forbidden))
		}
		seen[folded] = name
	}
	return errs
}

func hasControl(name string) bool {
	return !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl)
}

// quoteName quotes an identifier for SQL and for the columns header.
func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

// quoteText quotes a string literal for SQL.
func quoteText(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}
