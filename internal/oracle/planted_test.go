package oracle_test

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// alterations are what a pipeline may do to a value. Each is made to what the sink holds, as far as it can be, and the
// comparison must see it. An alteration that does not apply returns the text as it is.
var alterations = []struct {
	name string
	make func(p place, text string) string
}{
	{"NULL for a value", func(place, string) string { return nullText }},
	{"an empty text for NULL", func(_ place, text string) string { return strings.TrimPrefix(text, nullText) }},
	{"blanks trimmed", onText(strings.TrimSpace)},
	{"a blank more", onText(func(text string) string { return text + " " })},
	{"a quote lost", onText(func(text string) string { return strings.Replace(text, `"`, "", 1) })},
	{"a backslash lost", onText(func(text string) string { return strings.Replace(text, `\`, "", 1) })},
	{"a line end changed", onText(func(text string) string { return strings.Replace(text, "\r\n", "\n", 1) })},
	{"letters folded", onText(strings.ToUpper)},
	{"a character decomposed", onText(func(text string) string { return strings.Replace(text, "é", "e\u0301", 1) })},
	{"cut at the last character", onText(func(text string) string { return text[:max(0, len(text)-1)] })},
	{"bounds of an array lost", onText(func(text string) string { return arrayBounds.ReplaceAllString(text, "") })},
	{"NULL of an array quoted", onText(func(text string) string { return strings.Replace(text, "{NULL", `{"NULL"`, 1) })},
	{"a digit less", func(p place, text string) string {
		mantissa, exponent := text, ""
		if at := strings.Index(text, "e"); at > 0 {
			mantissa, exponent = text[:at], text[at:]
		}
		zero := strings.Contains(mantissa, ".") && strings.HasSuffix(mantissa, "0") // Says nothing at the end of a fraction.
		if !p.isNumber() || text == nullText || zero {
			return text
		}
		return mantissa[:len(mantissa)-1] + exponent
	}},
	{"a sign lost", func(p place, text string) string {
		if p.isNumber() && (strings.ContainsAny(text, "123456789") || p.isFloat()) {
			return strings.TrimPrefix(text, "-")
		}
		return text
	}},
	{"a boolean flipped", func(p place, text string) string {
		if p.target == "BOOLEAN" {
			return map[string]string{"0": "1", "1": "0"}[text]
		}
		return text
	}},
	{"an hour later", onTime("DATETIME", "2006-01-02 15:04:05.999999", time.Hour)},
	{"a microsecond later", onTime("DATETIME", "2006-01-02 15:04:05.999999", time.Microsecond)},
	{"a fraction of a second lost", func(p place, text string) string {
		if p.target == "DATETIME" {
			text, _, _ = strings.Cut(text, ".")
		}
		return text
	}},
	{"a day later", onTime("DATE", "2006-01-02", 24*time.Hour)},
	{"a digit in a document changed", onDocument("1", "2")},
	{"a letter in a document changed", onDocument("a", "b")},
	{"null in a document changed", onDocument("null", "0")},
	{"true in a document as a text", onDocument("true", `"true"`)},
	{"an object as a list", onDocument("{}", "[]")},
	{"an escape in a document lost", onDocument(`\\`, "")},
}

var arrayBounds = regexp.MustCompile(`^(\[-?\d+:-?\d+\])+=`)

func (p place) isFloat() bool { return p.target == "FLOAT" || p.target == "DOUBLE" }

func (p place) isNumber() bool {
	name, _, _ := p.split()
	return p.isFloat() || name == "DECIMAL" || strings.HasSuffix(name, "INT")
}

func onText(change func(string) string) func(place, string) string {
	return func(p place, text string) string {
		if name, _, _ := p.split(); name != "VARCHAR" || text == nullText {
			return text
		}
		return change(text)
	}
}

func onTime(target, layout string, later time.Duration) func(place, string) string {
	return func(p place, text string) string {
		at, err := time.Parse(layout, text)
		if p.target != target || err != nil {
			return text
		}
		return at.Add(later).Format(layout)
	}
}

func onDocument(from, to string) func(place, string) string {
	return func(p place, text string) string {
		if p.target != "JSON" {
			return text
		}
		return strings.Replace(text, from, to, 1)
	}
}

// plant makes every alteration to every value that the sink holds, and lists those that the comparison does not see.
// made counts how often each could be made.
func (o *oracle) plant(made map[string]int) (unseen []string) {
	o.t.Helper()
	for _, t := range o.tables {
		for id, row := range o.held(t) {
			for i, c := range t.columns {
				text := t.expected[id][i]
				for _, alteration := range alterations {
					altered := alteration.make(c.place, row[i])
					if altered == row[i] {
						continue
					}
					made[alteration.name]++
					if c.place.same(text, altered) {
						unseen = append(unseen, fmt.Sprintf("%s: %s %s -> %s: %s for %s", alteration.name, c.name, c.kind.sql, c.place.target, short(altered), short(text)))
					}
				}
			}
		}
	}
	return unseen
}
