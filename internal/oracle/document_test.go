package oracle_test

import (
	"fmt"
	"strconv"
	"strings"
)

func documentKinds() []kind {
	return []kind{
		{name: "json", sql: "json", auto: "JSON", tame: documents(false), wild: wildJSON},
		{name: "jsonb", sql: "jsonb", auto: "JSON", key: keyText, tame: documents(true), wild: wildJSONB},
		{name: "jsonpath", sql: "jsonpath", tame: texts([]string{
			"$", "strict $", "lax $.a[*].b", `$."a b"[0 to last]`, "$.a[*] ? (@.b > 1 && @.c == \"x\\\"y\")", "$.* ? (exists (@.x))", "$.a.type()", "-$.x + 1.50e3",
			`$ ? (@ like_regex "^a.*\\d" flag "i")`, "$.é", "$[1, 2, 3 to 5]", "$.a.**{2 to 3}", "null", "true", `"\u00e9\n"`,
		})},
	}
}

// document writes JSON with the freedom that the syntax gives: blanks, escapes, order.
type document struct {
	rnd
	// binary tells that it is for jsonb, which refuses \u0000.
	binary bool
}

func documents(binary bool) gen {
	edges := []string{
		"{}", "[]", `""`, "0", "-1", "true", "false", `[null]`, `{"a": null}`, `{"": ""}`, "9223372036854775807", "-9223372036854775808", "0.1", "1.50", "1e3", "100.0",
		`{"a": {"b": {"c": [[[{}]]]}}}`, `"\u00e9\ud83d\ude00\\\"\/\b\f\n\r\t"`, `" "`, `"null"`, `"\u001f\u007f\u2028"`, `{"dbmazz_op_type": 1, "__op": 2}`, `[1,2.0,"3",true,null]`,
		strings.Repeat("[", 500) + strings.Repeat("]", 500), strings.Repeat(`{"a":`, 499) + "[]" + strings.Repeat("}", 499),
	}
	if !binary {
		edges = append(edges, " \t\n\r{ \n\"b\" : 1 ,\t\"a\" : 2 } ", "-0", "-0.0", "1E+2", "0e0", "1e-300", `{"a":1,"A":2,"\u0061 ":3}`)
	}
	return texts(edges,
		func(r rnd) value { return lit(document{r, binary}.value(3)) },
		func(r rnd) value { return lit(document{r, binary}.value(5)) },
		func(r rnd) value {
			cast := pick(r, "::json", "::jsonb")
			if binary {
				cast = "::jsonb"
			}
			return expr("to_jsonb(ROW(" + quoteText(anyText(30)(r).text) + "::text, " + strconv.Itoa(r.IntN(1000)) + ", ARRAY[true, NULL], 2.50))" + cast)
		})
}

func (d document) blank() string {
	if d.in(80) {
		return ""
	}
	return pick(d.rnd, " ", "  ", "\n", "\t", "\r\n")
}

func (d document) value(depth int) string {
	n := d.IntN(10)
	switch {
	case depth > 0 && n < 3:
		return d.object(depth - 1)
	case depth > 0 && n < 5:
		return "[" + d.blank() + d.repeat(d.IntN(5), ",", func() string { return d.blank() + d.value(depth-1) }) + "]"
	case n < 7:
		return d.text()
	case n < 9:
		return d.number()
	}
	return pick(d.rnd, "true", "false", `"null"`, "[null]")
}

// object has keys that differ, also after their escapes are read.
func (d document) object(depth int) string {
	seen := map[string]bool{}
	var members []string
	for range d.IntN(6) {
		name := plainText(d.rnd, 8)
		if seen[name] {
			continue
		}
		seen[name] = true
		members = append(members, d.blank()+d.quoted(name)+d.blank()+":"+d.blank()+pick(d.rnd, d.value(depth), "null"))
	}
	return "{" + strings.Join(members, ",") + d.blank() + "}"
}

func (d document) text() string { return d.quoted(anyText(60)(d.rnd).text) }

func (d document) quoted(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b.WriteString(`\` + string(c))
		case c < ' ' || d.in(10):
			if c >= 0x10000 {
				c -= 0x10000
				fmt.Fprintf(&b, `\u%04x\u%04X`, 0xd800+c>>10, 0xdc00+c&0x3ff)
			} else {
				fmt.Fprintf(&b, `\u%04x`, c)
			}
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// number is one that a 64-bit integer or a double holds.
func (d document) number() string {
	switch d.IntN(4) {
	case 0:
		return integers(64)(d.rnd).text
	case 1:
		return strconv.Itoa(d.between(-9, 999))
	case 2:
		return strconv.FormatFloat(d.Float64()*pick(d.rnd, 1.0, -1.0, 1e3, 1e-7), 'g', -1, 64)
	}
	return fmt.Sprintf("%d.%s", d.between(-99, 99), digits(d.rnd, d.between(1, 6))) + pick(d.rnd, "", "", "0", "00", "e2", "E-5")
}

var wildBoth = []string{
	"null", " null", "9223372036854775808", "-9223372036854775809", "18446744073709551615", "100000000000000000000", "1e20", "1e22", "1e300", "1.5e300", "0.1000000000000000000001",
	"123456789.123456789123456789", "[1, 99999999999999999999]", `{"a": 1e400}`, "1e-400", "-1.7976931348623157e308", "1.8e308", "5e-324", "4e-324", "2.4703282292062327e-324",
	strings.Repeat("[", 501) + strings.Repeat("]", 501), strings.Repeat(`{"a":`, 501) + "1" + strings.Repeat("}", 501), strings.Repeat("[", 500) + "null" + strings.Repeat("]", 500),
	"9007199254740993.5", "0.30000000000000004", "0.300000000000000041",
}

func wildJSONB(r rnd) value {
	if r.in(30) {
		return lit(fmt.Sprintf("%s.%s", strconv.Itoa(r.IntN(1000)), digits(r, r.between(10, 40))))
	}
	return lit(pick(r, wildBoth...))
}

func wildJSON(r rnd) value {
	only := []string{
		`{"a": 1, "a": 2}`, `{"a": 1, "a": 1}`, `{"a": 1, "\u0061": 1}`, `[{"x": {"k": 0, "j": 1, "k": 2}}]`, `"\ud800"`, `"\udc00"`, `"\ud800x"`, `"\ud800\ud800"`, `"\udc00\ud800"`, `{"\ud83d": 1}`,
		`"\u0000"`, `"a\u0000b"`, "1e999999", "1e-999999", "1E400", "-0e999", "1e20", "1.0e19", "null\n", `{"a":1,"b":{"a":1}}`, `{"":1,"":1}`, `{"é":1,"\u00e9":2}`, `{"é":1,"é":2}`, manyKeys(40, false), manyKeys(40, true),
	}
	if r.in(50) {
		return lit(pick(r, only...))
	}
	return wildJSONB(r)
}

// manyKeys makes an object of n keys, the last one twice if asked for.
func manyKeys(n int, twice bool) string {
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprintf(`"k%d": %d`, i, i)
	}
	if twice {
		members = append(members, fmt.Sprintf(`"k%d": 0`, n-1))
	}
	return "{" + strings.Join(members, ", ") + "}"
}
