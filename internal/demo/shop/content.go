package shop

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// content makes values. Equal generators make equal values.
type content struct {
	rng *rand.Rand
}

// Fragments that have broken one data format or another.
var fragments = []string{
	"O'Brien", `say "hi"`, `\N`, `\\N`, `C:\new\table`, "two\nlines", "tab\there", "dos\r\nline", "comma, semi; pipe|",
	"NULL", "null", "", " padded ", "naïve café", "Grüße", "日本語", "🎸🚀", "👩‍👩‍👧‍👦", "مرحبا", "a\u0301", "\u2028", "\u00a0",
	`{"not":"json"`, "[1,2", "<b>&amp;</b>", "'; DROP TABLE orders; --", "100%", "$1", "?", "\x01\x02\x1f", "\x7f", "`tick`", "0x41",
	"true", "-0", "1e400", "infinity", "2024-02-30", "\ufeffbom", "\ufffd", "%s%d", "\\", "\"", "\\u0041", "{}",
}

var firstNames = []string{"Ada", "Björn", "Chloé", "Dmitri", "Eko", "Fatima", "Grace", "Håkon", "Ines", "José", "Kenji", "Łucja", "Mei", "Noor"}

func (c content) chance(percent int) bool { return c.rng.IntN(100) < percent }

func (c content) text() string {
	n := 1 + c.rng.IntN(4)
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fragments[c.rng.IntN(len(fragments))]
	}
	return strings.Join(parts, " ")
}

// maybeText is nil now and then.
func (c content) maybeText() *string {
	if c.chance(25) {
		return nil
	}
	text := c.text()
	return &text
}

func (c content) name() string {
	return fmt.Sprintf("%s %s", firstNames[c.rng.IntN(len(firstNames))], fragments[c.rng.IntN(len(fragments))])
}

// noise is text that does not compress, so that PostgreSQL stores it out of line.
func (c content) noise(size int) string {
	raw := make([]byte, (size*3+3)/4)
	for i := 0; i < len(raw); i += 8 {
		word := c.rng.Uint64()
		for j := i; j < min(i+8, len(raw)); j++ {
			raw[j] = byte(word)
			word >>= 8
		}
	}
	return base64.StdEncoding.EncodeToString(raw)[:size]
}

func (c content) uuid() string {
	a, b := c.rng.Uint64(), c.rng.Uint64()
	return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, 0x8000|b>>48&0x3fff, b&0xffffffffffff)
}

// decimal has up to that many digits before and exactly scale digits after the point.
func (c content) decimal(digits, scale int) string {
	sign := ""
	if c.chance(8) {
		sign = "-"
	}
	limit := int64(1)
	for range 1 + c.rng.IntN(digits) {
		limit *= 10
	}
	if scale == 0 {
		return fmt.Sprintf("%s%d", sign, c.rng.Int64N(limit))
	}
	fraction := make([]byte, scale)
	for i := range fraction {
		fraction[i] = byte('0' + c.rng.IntN(10))
	}
	return fmt.Sprintf("%s%d.%s", sign, c.rng.Int64N(limit), fraction)
}

var zones = []string{"+00", "-08", "+05:30", "+13:45", "-03:30"}

// moment is a timestamp with microseconds and some zone.
func (c content) moment() string {
	seconds := c.rng.Int64N(130*365*24*3600) - 20*365*24*3600 // 1950 to 2080.
	t := time.Unix(seconds, c.rng.Int64N(1_000_000)*1000).UTC()
	layout := "2006-01-02 15:04:05.000000"
	if c.chance(20) {
		layout = "2006-01-02 15:04:05"
	}
	return t.Format(layout) + zones[c.rng.IntN(len(zones))]
}

func (c content) date() string {
	return time.Unix(c.rng.Int64N(80*365*24*3600), 0).UTC().Format(time.DateOnly)
}

// profileBytes makes the document larger than a page of PostgreSQL keeps in the row.
const profileBytes = 2600

// profile is a document that is stored out of line.
func (c content) profile() string {
	return c.document(profileBytes + c.rng.IntN(1200))
}

func (c content) document(noise int) string {
	keys := map[string]any{
		"bio":       c.text(),
		"née":       nil,
		c.text():    c.text(),
		"limits":    []any{0, -1, 9007199254740993, int64(9223372036854775807), 0.5, 19.99, 1e-7, true, false, nil},
		"visits":    c.rng.Int64N(1 << 40),
		"nested":    map[string]any{"empty": map[string]any{}, "list": []any{[]any{}, []any{c.text()}}},
		"signature": c.noise(noise),
	}
	out, err := json.Marshal(keys)
	if err != nil {
		panic(err) // Strings, numbers and maps of them always marshal.
	}
	return string(out)
}

// photo is a large text stored out of line and uncompressed, or nothing.
func (c content) photo() *string {
	if c.chance(70) {
		return nil
	}
	text := "data:;base64," + c.noise(2500+c.rng.IntN(3000))
	return &text
}
