package oracle_test

import (
	"fmt"
	"slices"
	"strings"
)

// ownDDL makes the types that a database of the tests has for itself.
func ownDDL(major int, has map[string]bool) string {
	ddl := `CREATE SCHEMA s2; CREATE TABLE s2."Odd Table" (a int);
CREATE FUNCTION s2.oracle_twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1';
CREATE TYPE mood AS ENUM ('', 'sad', 'so so', 'very "happy"', E'back\\slash', '{a,b}', 'it''s', 'NULL', 'ünï', '` + strings.Repeat("x", 63) + `');
CREATE TYPE s2.mood AS ENUM ('other', 'sad', '1');
CREATE DOMAIN positive AS int CHECK (VALUE > 0); CREATE DOMAIN price AS numeric(12,3); CREATE DOMAIN short AS varchar(5); CREATE DOMAIN shorter AS short CHECK (length(VALUE) < 4);
CREATE DOMAIN feeling AS mood; CREATE DOMAIN ids AS int[]; CREATE DOMAIN day AS date; CREATE DOMAIN instant AS timestamptz; CREATE DOMAIN doc AS jsonb; CREATE DOMAIN blob AS bytea;
CREATE DOMAIN ratio AS float8; CREATE DOMAIN fixed AS char(3);
CREATE TYPE "Inner Pair" AS (x float8, "y z" text); CREATE TYPE pair AS (a int, b text, c numeric(10,2)[], d "Inner Pair", e mood, f timestamptz, g bytea);
CREATE DOMAIN pairs AS pair; CREATE DOMAIN span AS int4range;
CREATE TYPE strange; CREATE FUNCTION strange_in(cstring) RETURNS strange IMMUTABLE STRICT LANGUAGE internal AS 'textin';
CREATE FUNCTION strange_out(strange) RETURNS cstring IMMUTABLE STRICT LANGUAGE internal AS 'textout'; CREATE TYPE strange (INPUT = strange_in, OUTPUT = strange_out);
CREATE TYPE textrange AS RANGE (subtype = text, collation = "C"); CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);`
	extensions := []string{"citext", "hstore", "ltree", "cube", "seg", "isn", "lo", "postgis", "vector"}
	for _, name := range extensions {
		if has[name] {
			ddl += "CREATE EXTENSION " + name + ";"
		}
	}
	return ddl
}

func ownKinds() []kind {
	moods := texts([]string{"", "sad", "so so", `very "happy"`, `back\slash`, "{a,b}", "it's", "NULL", "ünï", strings.Repeat("x", 63)})
	pairText := func(r rnd) value { return lit(row(r, pairFields(moods)...)) }
	dates := func(r rnd) value { return lit(dateText(r, 1, 9999)) }
	return []kind{
		{name: "mood", sql: "mood", auto: "VARCHAR(255)", key: "VARCHAR(255)", tame: moods},
		{name: "mood2", sql: "s2.mood", auto: "VARCHAR(255)", key: "VARCHAR(255)", tame: texts([]string{"other", "sad", "1"})},
		{name: "positive", sql: "positive", auto: "INT", key: "INT", tame: func(r rnd) value { return lit(fmt.Sprint(r.between(1, 1<<31-1))) }},
		{name: "price", sql: "price", auto: "DECIMAL(12,3)", key: "VARCHAR", tame: decimals(12, 3), wild: nan},
		{name: "short", sql: "short", auto: "VARCHAR(20)", key: "VARCHAR(20)", tame: anyText(5)},
		{name: "shorter", sql: "shorter", auto: "VARCHAR(20)", key: "VARCHAR(20)", tame: anyText(3)},
		{name: "feeling", sql: "feeling", auto: "VARCHAR(255)", key: "VARCHAR(255)", tame: moods},
		{name: "ids", sql: "ids", key: keyText, tame: func(r rnd) value { return lit(array(r, integers(32), ",")) }},
		{name: "day", sql: "day", auto: "DATE", key: "DATE", tame: dates, wild: texts([]string{"infinity", "10000-01-01", "0001-12-31 BC"})},
		{name: "instant", sql: "instant", auto: "DATETIME", key: "DATETIME", tame: zonedStamps, wild: texts([]string{"infinity", "-infinity", "10000-01-01 00:00:00Z"})},
		{name: "doc", sql: "doc", auto: "JSON", key: keyText, tame: documents(true), wild: wildJSONB},
		{name: "blob", sql: "blob", key: keyText, tame: texts([]string{`\x`, `\x00ff`, `\xdeadbeef`})},
		{name: "ratio", sql: "ratio", auto: "DOUBLE", key: keyText, tame: floats(64), wild: texts([]string{"NaN", "Infinity"})},
		{name: "fixed", sql: "fixed", auto: "VARCHAR(12)", key: "VARCHAR(12)", tame: anyText(3)},
		{name: "pair", sql: "pair", key: keyText, tame: pairText},
		{name: "pairs", sql: "pairs", key: keyText, tame: pairText},
		{name: "strange", sql: "strange", tame: anyText(30)}, // A base type that nobody knows.
		{name: "span", sql: "span", key: keyText, tame: texts([]string{"empty", "[1,5)", "(,)", "[,0]"})},
	}
}

// pairFields draws the fields of the composite type pair.
func pairFields(moods gen) []gen {
	inner := func(r rnd) value { return lit(row(r, floats(64), anyText(10))) }
	amounts := func(r rnd) value { return lit(array(r, decimals(10, 2), ",")) }
	moment := func(r rnd) value { return lit(pick(r, zonedStamps(r).text, "infinity", "0044-03-15 12:00:00 BC")) }
	bytes := texts([]string{`\x`, `\x00ff5c22`})
	return []gen{integers(32), anyText(20), amounts, inner, moods, moment, bytes}
}

// row writes a composite value; NULL fields are empty, all others quoted.
func row(r rnd, fields ...gen) string {
	parts := make([]string, len(fields))
	for i, field := range fields {
		if !r.in(15) {
			parts[i] = `"` + strings.NewReplacer(`"`, `""`, `\`, `\\`).Replace(literal(r, field)) + `"`
		}
	}
	return "(" + strings.Join(parts, ",") + ")"
}

// array writes an array of up to three dimensions, with bounds and NULL elements.
func array(r rnd, element gen, delimiter string) string {
	if r.in(8) {
		return "{}"
	}
	sizes := []int{r.between(1, 6)}
	for r.in(25) && len(sizes) < 3 {
		sizes = append(sizes, r.between(1, 3))
	}
	text := ""
	if r.in(20) {
		for _, size := range sizes {
			low := r.between(-3, 5)
			text += fmt.Sprintf("[%d:%d]", low, low+size-1)
		}
		text += "="
	}
	return text + dimension(r, element, delimiter, sizes)
}

func dimension(r rnd, element gen, delimiter string, sizes []int) string {
	return "{" + r.repeat(sizes[0], delimiter, func() string {
		switch {
		case len(sizes) > 1:
			return dimension(r, element, delimiter, sizes[1:])
		case r.in(15):
			return pick(r, "NULL", "null")
		}
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(literal(r, element)) + `"`
	}) + "}"
}

// arrayKinds makes an array type of every type that can be an element.
func arrayKinds(kinds []kind) []kind {
	var arrays []kind
	for _, k := range kinds {
		if slices.Contains([]string{"varchar262144", "varchar300000", "num39_1", "num1000"}, k.name) {
			continue
		}
		delimiter := ","
		switch k.name {
		case "box":
			delimiter = ";"
		case "geometry", "geopoint", "geography":
			delimiter = ":"
		}
		if k.name == "byte" {
			k.wild = nil // Its wild values have no literal.
		}
		arrays = append(arrays, kind{
			name: "a_" + k.name, sql: k.sql + "[]", key: keyText, since: k.since, needs: k.needs,
			tame: func(r rnd) value { return lit(array(r, k.any, delimiter)) },
		})
		if k.key == "" {
			arrays[len(arrays)-1].key = ""
		}
	}
	return arrays
}

func rangeKinds() []kind {
	subtypes := []struct {
		name  string
		sql   string
		bound gen
	}{
		{"int4", "int4", func(r rnd) value { return lit(fmt.Sprint(r.between(-1<<31, 1<<31-2))) }},
		{"int8", "int8", integers(60)},
		{"num", "numeric", numerics},
		{"ts", "timestamp", func(r rnd) value { return lit(pick(r, literal(r, stamps(6)), "infinity", "0044-01-01 00:00 BC")) }},
		{"tstz", "timestamptz", func(r rnd) value { return lit(pick(r, literal(r, zonedStamps), "-infinity", "0044-01-01 00:00 BC")) }},
		{"date", "date", func(r rnd) value { return lit(pick(r, dateText(r, 1, 9999), "infinity", "10000-01-01")) }},
		{"text", "text", anyText(10)},
		{"float", "float8", floats(64)},
	}
	var kinds []kind
	for _, s := range subtypes {
		name := s.name + "range"
		one := func(r rnd) string {
			if r.in(10) {
				return "'empty'::" + name
			}
			low, high := s.bound(r).sql(s.sql), s.bound(r).sql(s.sql)
			if s.sql == "text" {
				low += ` COLLATE "C"` // The order that the range has.
			}
			from, to := "least("+low+","+high+")", "greatest("+low+","+high+")"
			if r.in(15) {
				from = "NULL"
			}
			if r.in(15) {
				to = "NULL"
			}
			return name + "(" + from + "," + to + "," + pick(r, "'[]'", "'[)'", "'(]'", "'()'") + ")"
		}
		kinds = append(kinds, kind{name: "r_" + s.name, sql: name, key: keyText, tame: texts([]string{"empty", "(,)"}, func(r rnd) value { return expr(one(r)) })})
		multi := s.name + "multirange"
		kinds = append(kinds, kind{name: "m_" + s.name, sql: multi, key: keyText, since: 14, tame: texts([]string{"{}", "{(,)}"}, func(r rnd) value {
			return expr(multi + "(" + r.repeat(r.IntN(4), ",", func() string { return one(r) }) + ")")
		})})
	}
	return kinds
}
