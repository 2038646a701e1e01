package oracle_test

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

func textKinds() []kind {
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	return []kind{
		{name: "text", sql: "text", key: keyText, tame: anyText(3000)},
		{name: "varchar", sql: "varchar", key: keyText, tame: anyText(300)},
		{name: "varchar10", sql: "varchar(10)", auto: "VARCHAR(40)", key: "VARCHAR(40)", tame: anyText(10)},
		{name: "varchar1", sql: "varchar(1)", auto: "VARCHAR(4)", key: "VARCHAR(4)", tame: anyText(1)},
		{name: "varchar262144", sql: "varchar(262144)", key: keyText, tame: anyText(100)},
		{name: "varchar300000", sql: "varchar(300000)", key: keyText, tame: anyText(100)},
		{name: "char", sql: "char", auto: "VARCHAR(4)", key: "VARCHAR(4)", tame: anyText(1)},
		{name: "char7", sql: "char(7)", auto: "VARCHAR(28)", key: "VARCHAR(28)", tame: anyText(7)},
		{name: "bpchar", sql: "bpchar", key: keyText, tame: anyText(20)},
		{name: "name", sql: "name", key: keyText, tame: anyText(15)},
		{
			name: "byte", sql: `"char"`, key: keyText, tame: texts([]string{"", " ", "a", `"`, "'", "{", ",", "\x01", "\t", "\n", "\x7f"}),
			// Bytes above 127 are no UTF-8; PostgreSQL prints them in octal from version 16 on.
			wild: func(r rnd) value { return expr(fmt.Sprintf("(%d)::int::\"char\"", r.between(-128, 127))) },
		},
		{name: "citext", sql: "citext", key: keyText, needs: "citext", tame: anyText(40)},
		{name: "xml", sql: "xml", needs: "libxml", tame: xmls},
		{name: "bytea", sql: "bytea", key: keyText, tame: texts([]string{"", `\x`, `\x00`, `\x5c4e`, `\\x`, "abc", `\001\377`, `\x` + hex.EncodeToString(everyByte)},
			func(r rnd) value { return lit(`\x` + hex.EncodeToString(randomBytes(r, r.IntN(20)))) },
			func(r rnd) value { return lit(`\x` + hex.EncodeToString(randomBytes(r, r.IntN(1500)))) })},
	}
}

func randomBytes(r rnd, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// oddTexts are texts that some part of a pipeline may take for something else.
var oddTexts = []string{
	"", " ", "  ", `\N`, `\\N`, `\`, `\\`, "NULL", "null", `""`, `"`, "'", "''", `'"'`, "{}", "{", "}", "[]", ",", ", ", ";", ":", "=", "=>", "a=1, b=2",
	"\t", "\n", "\r", "\r\n", "\x01", "\x08", "\x0b", "\x0c", "\x1b", "\x1f", "\x7f", "\u0080", "\u0085", "\u00a0", "\u00ad", "\u200b", "\u200d", "\u200e", "\u202e", "\u2028",
	"\u2029", "\ufeff", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "e\u0301", "é", "ß", "İ", "ı", "ǅ", "日本語",
	"true", "false", "t", "f", "0", "-0", "1e5", "0x10", "NaN", "Infinity", "{\"a\":1}", "{1,NULL}", "<a/>", "--", "/*", "$1", "%s", "%00", "\\u0000", "\\x00", `\n`, "__op", "`",
	" x", "x ", "\tx\t", "x\n", "$$", "2024-01-01", "0001-01-01 BC", "infinity",
}

// anyText draws up to n characters: odd texts, blanks at the ends, and code points of all planes.
func anyText(n int) gen {
	return func(r rnd) value {
		var runes []rune
		wanted := r.IntN(n + 1)
		if n > 40 && !r.in(10) {
			wanted = r.IntN(40)
		}
		if n == 1 || r.in(20) {
			runes = []rune(pick(r, oddTexts...))
		}
		for len(runes) < wanted {
			switch r.IntN(4) {
			case 0:
				runes = append(runes, []rune(pick(r, oddTexts...))...)
			case 1:
				runes = append(runes, anyRune(r))
			case 2:
				runes = append(runes, slices.Repeat([]rune{rune(r.between(' ', '~'))}, r.between(1, 20))...)
			default:
				runes = append(runes, rune(r.between(' ', '~')))
			}
		}
		return lit(string(runes[:min(len(runes), n)]))
	}
}

// anyRune draws a code point that PostgreSQL takes: none but zero and the surrogates is refused.
func anyRune(r rnd) rune {
	for {
		limit := pick(r, 0x80, 0x100, 0x800, 0x10000, int(unicode.MaxRune)+1)
		if c := rune(r.between(1, limit-1)); utf8.ValidRune(c) {
			return c
		}
	}
}

// plainText draws printable text for where control characters are not allowed.
func plainText(r rnd, n int) string {
	return r.repeat(r.IntN(n), "", func() string {
		return pick(r, "a", "B", "7", " ", "_", "é", "日", "😀", "-", ".")
	})
}

var escapeXML = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

func xmls(r rnd) value {
	inside := escapeXML.Replace(plainText(r, 30))
	switch r.IntN(6) {
	case 0:
		return lit(pick(r, "", "text only", "<a/>", "<a></a>", "<!-- c --><a/>", "<a/><b/>", "<?xml version=\"1.0\"?><a/>", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a>é</a>",
			"<?xml version=\"1.0\" standalone=\"yes\"?><a/>", "<![CDATA[<x>&]]>", "&#x20ac;&lt;", "  <a/>  ", "<a b='\"'/>\n"))
	case 1:
		return lit("<r>" + inside + "<c x=\"" + strings.ReplaceAll(inside, `"`, "&quot;") + "\"/>\r\n\t</r>")
	case 2:
		return expr("xmlelement(name e, xmlattributes(" + quoteText(plainText(r, 10)) + " AS k), " + quoteText("<"+plainText(r, 20)+"&") + ")")
	}
	return lit("<t>" + inside + "</t>")
}
