package config

import (
	"fmt"
	"slices"
	"strings"
)

// TypeOverride says how the values of a column are stored.
type TypeOverride struct {
	Table  Table
	Column string
	// Policy is "text", "null" or "refuse".
	Policy string
}

// overridePolicies are what an override can say.
var overridePolicies = []string{"text", "null", "refuse"}

// setTypeOverrides reads a list such as orders.total=text,"Shop".items.note=null. Names
// are written as in TABLES.
func setTypeOverrides(c *Config, value string) error {
	elements, err := splitQuoted(value, ',')
	if err != nil {
		return err
	}
	var list []TypeOverride
	var problems []error
	for _, element := range elements {
		if element = strings.TrimSpace(element); element == "" {
			continue
		}
		o, err := parseOverride(element)
		if err == nil && slices.ContainsFunc(list, func(l TypeOverride) bool { return l.Table == o.Table && l.Column == o.Column }) {
			err = fmt.Errorf("column %s of %s is listed twice", quoteIdentifier(o.Column), o.Table)
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		list = append(list, o)
	}
	if err := joinLine(problems); err != nil {
		return err
	}
	c.SinkTypeOverrides = list
	return nil
}

func parseOverride(text string) (TypeOverride, error) {
	const want = "want table.column=policy or schema.table.column=policy"
	sides, err := splitQuoted(text, '=')
	if err != nil {
		return TypeOverride{}, err
	}
	if len(sides) != 2 {
		return TypeOverride{}, fmt.Errorf("%s is not an override; %s", show(text), want)
	}
	policy := strings.ToLower(strings.TrimSpace(sides[1]))
	if !slices.Contains(overridePolicies, policy) {
		return TypeOverride{}, fmt.Errorf("%s is not a policy; want %s", show(sides[1]), strings.Join(overridePolicies, ", "))
	}
	parts, err := splitQuoted(sides[0], '.')
	if err != nil {
		return TypeOverride{}, err
	}
	if len(parts) < 2 || len(parts) > 3 {
		return TypeOverride{}, fmt.Errorf("%s does not name a column of a table; %s", show(sides[0]), want)
	}
	names := make([]string, len(parts))
	for i, part := range parts {
		if names[i], err = parseIdentifier(strings.TrimSpace(part)); err != nil {
			return TypeOverride{}, fmt.Errorf("%s: %w", show(text), err)
		}
	}
	if len(names) == 2 {
		names = append([]string{"public"}, names...)
	}
	return TypeOverride{Table: Table{Schema: names[0], Name: names[1]}, Column: names[2], Policy: policy}, nil
}
