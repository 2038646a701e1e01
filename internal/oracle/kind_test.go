package oracle_test

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// value is one value as it is written.
type value struct {
	// text is what the type's input function reads, or an SQL expression.
	text string
	expr bool
	null bool
}

func lit(text string) value { return value{text: text} }

func expr(sql string) value { return value{text: sql, expr: true} }

// sql prints the value as an expression of the type.
func (v value) sql(typ string) string {
	switch {
	case v.null:
		return "NULL"
	case v.expr:
		return "(" + v.text + ")::" + typ
	}
	return quoteText(v.text) + "::" + typ
}

func quoteText(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// copyText prints the value as a field of COPY's text format.
func (v value) copyText() string {
	if v.null {
		return `\N`
	}
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(v.text)
}

// rnd makes random choices for a major version of PostgreSQL.
type rnd struct {
	*rand.Rand
	major int
}

func (r rnd) in(percent int) bool { return r.IntN(100) < percent }

// between includes both ends.
func (r rnd) between(low, high int) int { return low + r.IntN(high-low+1) }

func pick[T any](r rnd, list ...T) T { return list[r.IntN(len(list))] }

// repeat joins n draws.
func (r rnd) repeat(n int, separator string, draw func() string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = draw()
	}
	return strings.Join(parts, separator)
}

// gen draws a value of a type.
type gen func(r rnd) value

// texts makes a generator that draws from a list and from others. It goes round the list, so that all of it comes soon.
func texts(list []string, others ...gen) gen {
	next := 0
	return func(r rnd) value {
		if len(others) == 0 || r.in(30) {
			next++
			return lit(list[(next-1)%len(list)])
		}
		return pick(r, others...)(r)
	}
}

// literal draws until there is a value that needs no expression.
func literal(r rnd, g gen) string {
	for {
		if v := g(r); !v.expr {
			return v.text
		}
	}
}

// The types of the sink's columns for what has no better type.
const (
	longText = "VARCHAR(1048576)"
	keyText  = "VARCHAR(65533)"
)

// kind is one type of PostgreSQL, with the sink's types that docs/types.md promises for it.
type kind struct {
	name string // of its columns
	sql  string
	auto string // the column that dbmazz creates; longText if empty
	key  string // the same for a key; empty if the type cannot be one
	// also lists the types of existing columns, besides VARCHAR, that values are written to.
	also []string
	// since is the first major version that has the type.
	since int
	// needs names an extension, or libxml.
	needs string
	// tame draws values that every documented column takes, wild those that a column of the sink's own type
	// may refuse.
	tame, wild gen
	// family puts columns of one table together.
	family string
}

func (k *kind) autoTarget() string {
	if k.auto == "" {
		return longText
	}
	return k.auto
}

// draw draws a value; wild is the share of wild ones in percent.
func (k *kind) draw(r rnd, wild int) value {
	const nulls = 4
	switch {
	case r.in(nulls):
		return value{null: true}
	case k.wild != nil && r.in(wild):
		return k.wild(r)
	}
	return k.tame(r)
}

// any draws tame and wild values.
func (k *kind) any(r rnd) value {
	if k.wild != nil && r.in(40) {
		return k.wild(r)
	}
	return k.tame(r)
}

// keyValue draws a value that is short enough for an index.
func (k *kind) keyValue(r rnd) value {
	for n := 0; ; n++ {
		v := k.any(r)
		if limit := 40 + n; len(v.text) <= limit {
			return v
		}
	}
}

func in(family string, kinds ...kind) []kind {
	for i := range kinds {
		kinds[i].family = family
	}
	return kinds
}

// allKinds lists every type that is tested.
func allKinds() []kind {
	kinds := slices.Concat(
		in("number", numberKinds()...), in("text", textKinds()...), in("time", timeKinds()...),
		in("document", documentKinds()...), in("net", netKinds()...), in("geometry", geometryKinds()...),
		in("catalog", catalogKinds()...), in("search", searchKinds()...), in("extension", extensionKinds()...),
		in("ranges", rangeKinds()...), in("own", ownKinds()...),
	)
	return append(kinds, in("array", arrayKinds(kinds)...)...)
}

// kindsOf lists the types that a server has.
func kindsOf(major int, has map[string]bool) (found []*kind, missing []string) {
	kinds := allKinds()
	for i := range kinds {
		k := &kinds[i]
		if k.since > major || (k.needs != "" && !has[k.needs]) {
			missing = append(missing, k.sql)
			continue
		}
		found = append(found, k)
	}
	return found, missing
}
