package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// identifierMax is the length in bytes at which PostgreSQL cuts names (NAMEDATALEN - 1).
const identifierMax = 63

// ParseTables reads a list of tables as TABLES holds it: table or schema.table, separated
// by commas; names in double quotes may hold anything. Empty elements are skipped and
// the schema is public where none is given.
//
// A name without quotes must be lower case: PostgreSQL would fold Orders to orders, other
// tools would not, and guessing would replicate the wrong table.
func ParseTables(list ...string) ([]Table, error) {
	var (
		tables   []Table
		problems []error
		seen     = map[Table]bool{}
	)
	for _, text := range list {
		elements, err := splitQuoted(text, ',')
		if err != nil {
			problems = append(problems, err)
		}
		for _, element := range elements {
			element = strings.TrimSpace(element)
			if element == "" {
				continue
			}
			table, err := parseTable(element)
			switch {
			case err != nil:
				problems = append(problems, err)
			case seen[table]:
				problems = append(problems, fmt.Errorf("%s is listed twice", table))
			default:
				seen[table] = true
				tables = append(tables, table)
			}
		}
	}
	if err := joinLine(problems); err != nil {
		return nil, err
	}
	return tables, nil
}

// parseTable reads one table or schema.table.
func parseTable(text string) (Table, error) {
	parts, err := splitParts(text)
	if err != nil {
		return Table{}, err
	}
	names := make([]string, len(parts))
	for i, part := range parts {
		if names[i], err = parseIdentifier(strings.TrimSpace(part)); err != nil {
			return Table{}, fmt.Errorf("%s: %w", show(text), err)
		}
	}
	if len(names) == 1 {
		return Table{Schema: "public", Name: names[0]}, nil
	}
	return Table{Schema: names[0], Name: names[1]}, nil
}

// splitParts splits table or schema.table.
func splitParts(text string) ([]string, error) {
	parts, err := splitQuoted(text, '.')
	if err != nil {
		return nil, err
	}
	if len(parts) > 2 {
		return nil, fmt.Errorf("%s has more than two parts; want table or schema.table, "+
			"with double quotes around a name that holds a dot", show(text))
	}
	return parts, nil
}

func parseIdentifier(text string) (string, error) {
	name, quoted := text, false
	if strings.HasPrefix(text, `"`) {
		if len(text) < 2 || !strings.HasSuffix(text, `"`) {
			return "", errors.New("there is text after the closing double quote")
		}
		inner := text[1 : len(text)-1]
		if strings.Contains(strings.ReplaceAll(inner, `""`, ""), `"`) {
			return "", errors.New("a double quote inside a quoted name must be doubled")
		}
		name, quoted = strings.ReplaceAll(inner, `""`, `"`), true
	}
	switch {
	case name == "":
		return "", errors.New("a name is empty")
	case len(name) > identifierMax:
		return "", fmt.Errorf("a name is longer than %d bytes", identifierMax)
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return "", errors.New("a name is not valid UTF-8 text")
	case quoted || isPlain(name):
		return name, nil
	case strings.ToLower(name) != name && isPlain(strings.ToLower(name)):
		return "", fmt.Errorf(`write "%s" with double quotes for the mixed-case name or %s for the lower-case one`,
			name, strings.ToLower(name))
	}
	return "", fmt.Errorf("%s needs double quotes around it", show(name))
}

// isPlain tells whether a name means itself in SQL without quotes; key words aside.
func isPlain(name string) bool {
	for i, r := range name {
		letter := r == '_' || (unicode.IsLetter(r) && !unicode.IsUpper(r) && !unicode.IsTitle(r))
		inside := i > 0 && (unicode.IsDigit(r) || r == '$')
		if !letter && !inside {
			return false
		}
	}
	return name != ""
}

// splitQuoted splits at a separator outside double quotes.
func splitQuoted(text string, separator byte) ([]string, error) {
	var (
		parts  []string
		start  int
		quoted bool
	)
	for i := range len(text) {
		switch {
		case text[i] == '"':
			quoted = !quoted
		case text[i] == separator && !quoted:
			parts = append(parts, text[start:i])
			start = i + 1
		}
	}
	if quoted {
		return nil, fmt.Errorf("%s has no closing double quote", show(text))
	}
	return append(parts, text[start:]), nil
}

func quoteIdentifier(name string) string {
	if isPlain(name) {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
