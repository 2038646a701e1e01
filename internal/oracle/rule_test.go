package oracle_test

import (
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// verdict is what docs/types.md says about a value and a column of the sink.
type verdict int

const (
	fits    verdict = iota // It must arrive.
	either                 // It may be refused, but if it arrives it is exact.
	refused                // It must be refused.
)

// nullText stands for NULL; no text of PostgreSQL has a zero byte.
const nullText = "\x00NULL"

// place is a column of the sink with what is written to it.
type place struct {
	base   string // typname of the type without its domains
	target string // DECIMAL(10,2)
	key    bool
}

var parameters = regexp.MustCompile(`^([A-Z]+)[0-9]*\((\d+)(?:,\s*(\d+))?\)$`)

// normalTarget takes the width out of the names of decimals: DECIMAL64(10,2) is DECIMAL(10,2).
func normalTarget(shown string) string {
	shown = strings.ToUpper(shown)
	if m := parameters.FindStringSubmatch(shown); m != nil && m[1] == "DECIMAL" {
		return "DECIMAL(" + m[2] + "," + m[3] + ")"
	}
	return shown
}

// split takes the parameters of the target apart.
func (p place) split() (name string, a, b int) {
	m := parameters.FindStringSubmatch(p.target)
	if m == nil {
		return p.target, 0, 0
	}
	a, _ = strconv.Atoi(m[2]) // The pattern allows only digits.
	b, _ = strconv.Atoi(m[3])
	return m[1], a, b
}

// keyForm is the text of a value in a key: numbers without the zeros that end a fraction, characters without the
// blanks that end them.
func (p place) keyForm(text string) string {
	if !p.key {
		return text
	}
	switch p.base {
	case "numeric":
		if strings.Contains(text, ".") {
			return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
		}
	case "bpchar":
		return strings.TrimRight(text, " ")
	}
	return text
}

// judge says what must become of a value that PostgreSQL prints like this.
func (p place) judge(text string) verdict {
	if text == nullText {
		return fits
	}
	name, a, b := p.split()
	switch name {
	case "VARCHAR":
		return refusedIf(!utf8.ValidString(text) || len(p.keyForm(text)) > a)
	case "BOOLEAN":
		return fits
	case "SMALLINT":
		return judgeInteger(text, 16)
	case "INT":
		return judgeInteger(text, 32)
	case "BIGINT":
		return judgeInteger(text, 64)
	case "LARGEINT":
		return judgeInteger(text, 128)
	case "FLOAT", "DOUBLE":
		return refusedIf(isSpecial(text))
	case "DECIMAL":
		return judgeDecimal(text, a, b)
	case "DATE", "DATETIME":
		return refusedIf(!fourDigitYear.MatchString(text))
	case "JSON":
		return judgeJSON(text, p.base == "json")
	}
	panic("no rule for " + p.target)
}

func refusedIf(is bool) verdict {
	if is {
		return refused
	}
	return fits
}

var fourDigitYear = regexp.MustCompile(`^\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d(\.\d{1,6})?(\+00)?)?$`)

func isSpecial(text string) bool {
	return slices.Contains([]string{"NaN", "Infinity", "-Infinity"}, text)
}

func judgeInteger(text string, bits uint) verdict {
	whole, fraction, point := strings.Cut(text, ".")
	n, ok := new(big.Int).SetString(whole, 10)
	if !ok || strings.Trim(fraction, "0") != "" {
		return refused
	}
	limit := new(big.Int).Lsh(big.NewInt(1), bits-1)
	if n.Cmp(limit) >= 0 || n.Cmp(new(big.Int).Neg(limit)) < 0 {
		return refused
	}
	if point {
		return either // A whole number with a scale.
	}
	return fits
}

func judgeDecimal(text string, precision, scale int) verdict {
	if isSpecial(text) {
		return refused
	}
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(text, "-"), ".")
	return refusedIf(len(strings.TrimLeft(whole, "0")) > precision-scale || len(strings.TrimRight(fraction, "0")) > scale)
}

// same tells whether the sink holds the value that PostgreSQL prints.
func (p place) same(text, sink string) bool {
	if text == nullText || sink == nullText {
		return text == sink
	}
	name, _, _ := p.split()
	switch name {
	case "VARCHAR":
		return p.keyForm(text) == sink
	case "BOOLEAN":
		return (text == "t" && sink == "1") || (text == "f" && sink == "0")
	case "FLOAT":
		return sameBits(text, sink, 32, 32)
	case "DOUBLE":
		if p.base == "float4" {
			return sameBits(text, sink, 32, 64)
		}
		return sameBits(text, sink, 64, 64)
	case "SMALLINT", "INT", "BIGINT", "LARGEINT", "DECIMAL":
		a, okA := new(big.Rat).SetString(text)
		b, okB := new(big.Rat).SetString(sink)
		return okA && okB && a.Cmp(b) == 0
	case "DATETIME":
		a, errA := time.Parse("2006-01-02 15:04:05", strings.TrimSuffix(text, "+00"))
		b, errB := time.Parse("2006-01-02 15:04:05", sink)
		return errA == nil && errB == nil && a.Equal(b)
	case "JSON":
		return sameJSON(text, sink)
	}
	return text == sink // DATE.
}

// sameBits compares two numbers as floats of so many bits, the sign of zero included. A real in a DOUBLE column is the
// double of its text, which must be the same real.
func sameBits(text, sink string, bits, sinkBits int) bool {
	a, errA := strconv.ParseFloat(text, bits)
	b, errB := strconv.ParseFloat(sink, sinkBits)
	if errA != nil || errB != nil {
		return false
	}
	if bits == 32 {
		return math.Float32bits(float32(a)) == math.Float32bits(float32(b))
	}
	return math.Float64bits(a) == math.Float64bits(b)
}

// encodedKey is what a value takes in the sink's encoded key, which may have keyBytesMax bytes.
func (p place) encodedKey(text string, last bool) int {
	switch name, _, _ := p.split(); name {
	case "BOOLEAN":
		return 1
	case "SMALLINT":
		return 2
	case "INT", "DATE":
		return 4
	case "BIGINT", "DATETIME":
		return 8
	}
	n := len(p.keyForm(text))
	if !last {
		n += 2 // What separates it from the next one.
	}
	return n
}

const keyBytesMax = 128
