package config

import (
	"errors"
	"fmt"
	"strings"
)

// Selection says which tables are replicated: those that are named, and every other one
// that a pattern takes in and no exclusion leaves out.
type Selection struct {
	Tables []Table
	// Patterns and Except match names exactly as the catalog has them. Except has
	// none that matches one of Tables, and none at all without Patterns.
	Patterns, Except []Pattern
}

// IsZero tells whether nothing can be selected.
func (s Selection) IsZero() bool { return len(s.Tables) == 0 && len(s.Patterns) == 0 }

// List returns the elements as TABLES takes them, the named ones first.
func (s Selection) List() []string {
	list := make([]string, 0, len(s.Tables)+len(s.Patterns)+len(s.Except))
	for _, t := range s.Tables {
		list = append(list, t.String())
	}
	for _, p := range s.Patterns {
		list = append(list, p.String())
	}
	for _, p := range s.Except {
		list = append(list, exclusion+p.String())
	}
	return list
}

// String returns the selection as TABLES takes it.
func (s Selection) String() string { return strings.Join(s.List(), ",") }

// exclusion begins an element that leaves tables out.
const exclusion = "!"

// Pattern matches names of tables.
type Pattern struct{ schema, name glob }

// Match tells whether a table has such a name.
func (p Pattern) Match(schema, name string) bool { return p.schema.match(schema) && p.name.match(name) }

// String returns the pattern as TABLES takes it, without the mark of an exclusion.
func (p Pattern) String() string { return p.schema.String() + "." + p.name.String() }

// glob is a name, or with wild a pattern in which * stands for any characters, none
// included, and ? for one.
type glob struct {
	text string
	wild bool
}

// String returns the part as TABLES takes it.
func (g glob) String() string {
	if g.wild {
		return g.text
	}
	return quoteIdentifier(g.text)
}

func (g glob) match(name string) bool {
	if !g.wild {
		return g.text == name
	}
	pattern, text := []rune(g.text), []rune(name)
	// After a * that took too little, the text behind it is tried one further on.
	star, from, i := -1, 0, 0
	for at := 0; at < len(text); {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, from = i, at
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == text[at]):
			i++
			at++
		case star >= 0:
			from++
			i, at = star+1, from
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}

// ParseSelection reads what TABLES holds: the tables of [ParseTables]; patterns, which
// have * or ? outside of double quotes; and, behind a !, tables or patterns to leave out.
// A pattern needs its schema: whether audit_* means those of one schema or of all is not
// guessed.
func ParseSelection(list ...string) (Selection, error) {
	var (
		s        Selection
		problems []error
		seen     = map[string]bool{}
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
			text, except := strings.CutPrefix(element, exclusion)
			p, err := parsePattern(strings.TrimSpace(text))
			switch {
			case err != nil:
				problems = append(problems, err)
			case except && seen[exclusion+p.String()], !except && seen[p.String()]:
				problems = append(problems, fmt.Errorf("%s is listed twice", element))
			case except:
				seen[exclusion+p.String()] = true
				s.Except = append(s.Except, p)
			default:
				seen[p.String()] = true
				s.add(p)
			}
		}
	}
	if len(problems) == 0 {
		problems = s.check()
	}
	if err := joinLine(problems); err != nil {
		return Selection{}, err
	}
	return s, nil
}

func (s *Selection) add(p Pattern) {
	if p.schema.wild || p.name.wild {
		s.Patterns = append(s.Patterns, p)
		return
	}
	s.Tables = append(s.Tables, Table{Schema: p.schema.text, Name: p.name.text})
}

// check refuses exclusions that say nothing or the opposite of something else.
func (s *Selection) check() (problems []error) {
	for _, e := range s.Except {
		if len(s.Patterns) == 0 {
			problems = append(problems, fmt.Errorf("!%s has nothing to leave out: no pattern such as public.* takes tables in", e))
			continue
		}
		for _, t := range s.Tables {
			if e.Match(t.Schema, t.Name) {
				problems = append(problems, fmt.Errorf("%s is listed, and left out by !%s: remove one of the two", t, e))
			}
		}
		for _, p := range s.Patterns {
			if p == e {
				problems = append(problems, fmt.Errorf("%s is listed, and left out by !%s: remove one of the two", p, e))
			}
		}
	}
	return problems
}

// parsePattern reads one table, schema.table or pattern.
func parsePattern(text string) (Pattern, error) {
	parts, err := splitParts(text)
	if err != nil {
		return Pattern{}, err
	}
	globs := make([]glob, len(parts))
	for i, part := range parts {
		if globs[i], err = parseGlob(strings.TrimSpace(part)); err != nil {
			return Pattern{}, fmt.Errorf("%s: %w", show(text), err)
		}
	}
	if len(globs) == 2 {
		return Pattern{globs[0], globs[1]}, nil
	}
	if globs[0].wild {
		return Pattern{}, fmt.Errorf("%s: a pattern needs its schema: write public.%s for the tables of schema public or *.%s for those of every schema",
			show(text), text, text)
	}
	return Pattern{glob{text: "public"}, globs[0]}, nil
}

func parseGlob(text string) (glob, error) {
	if strings.HasPrefix(text, `"`) || !strings.ContainsAny(text, "*?") {
		name, err := parseIdentifier(text)
		return glob{text: name}, err
	}
	// What is left without the wildcards must be able to follow a letter.
	plain := "a" + strings.NewReplacer("*", "", "?", "").Replace(text)
	switch {
	case len(text) > 2*identifierMax:
		return glob{}, fmt.Errorf("a pattern is longer than %d bytes", 2*identifierMax)
	case isPlain(plain):
		return glob{text: text, wild: true}, nil
	case isPlain(strings.ToLower(plain)):
		return glob{}, errors.New("a pattern must be lower case, which * matches in any case: PostgreSQL folds names without double quotes")
	}
	return glob{}, errors.New("a pattern can have letters, digits, _, $, * and ?, and no double quotes: a name in quotes stands for itself")
}
