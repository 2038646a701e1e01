package starrockstest

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

type valueKind uint8

const (
	kindNull valueKind = iota
	kindBool
	kindInt
	kindFloat
	kindDecimal
	kindString
	kindBytes
	kindDate
	kindDatetime
	kindJSON
	kindArray
)

// value is one cell. num holds booleans, integers, days since 1970, microseconds since 1970 and the bits of a
// float64; text holds everything else, decimals and LARGEINT in canonical form.
type value struct {
	kind valueKind
	num  int64
	text string
}

var null = value{}

func (v value) isNull() bool { return v.kind == kindNull }

func intValue(n int64) value { return value{kind: kindInt, num: n} }

func boolValue(b bool) value {
	if b {
		return value{kind: kindBool, num: 1}
	}
	return value{kind: kindBool}
}

func floatValue(f float64) value { return value{kind: kindFloat, num: int64(math.Float64bits(f))} }

func stringValue(s string) value { return value{kind: kindString, text: s} }

func (v value) float() float64 { return math.Float64frombits(uint64(v.num)) }

// render gives the text of a value as the MySQL text protocol shows it.
func (v value) render(t colType, micros bool) string {
	switch v.kind {
	case kindNull:
		return ""
	case kindBool, kindInt:
		return strconv.FormatInt(v.num, 10)
	case kindFloat:
		return renderFloat(v.float(), t.kind == typeFloat)
	case kindDate:
		return renderDate(v.num)
	case kindDatetime:
		return renderDatetime(v.num, micros)
	default:
		return v.text
	}
}

// plain renders without a column type, for expressions and messages.
func (v value) plain() string { return v.render(colType{}, true) }

func renderFloat(f float64, single bool) string {
	bits := 64
	if single {
		bits = 32
	}
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-5 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, bits)
	}
	return strconv.FormatFloat(f, 'f', -1, bits)
}

// isNumber tells whether a value compares as a number.
func (v value) isNumber() bool {
	switch v.kind {
	case kindBool, kindInt, kindFloat, kindDecimal:
		return true
	default:
		return false
	}
}

// asFloat converts to a double; ok is false where the text is not a number.
func (v value) asFloat() (f float64, ok bool) {
	switch v.kind {
	case kindBool, kindInt:
		return float64(v.num), true
	case kindFloat:
		return v.float(), true
	case kindDecimal, kindString, kindBytes:
		f, err := strconv.ParseFloat(strings.TrimSpace(v.text), 64)
		return f, err == nil
	default:
		return 0, false
	}
}

func (v value) asRat() *big.Rat {
	switch v.kind {
	case kindBool, kindInt:
		return new(big.Rat).SetInt64(v.num)
	case kindDecimal:
		if r, ok := new(big.Rat).SetString(v.text); ok {
			return r
		}
		return nil
	default:
		return nil
	}
}

// asMicros reads a temporal value or a text as microseconds since 1970.
func (v value) asMicros() (int64, bool) {
	switch v.kind {
	case kindDate:
		return v.num * microsPerDay, true
	case kindDatetime:
		return v.num, true
	case kindString:
		return parseDatetime(v.text)
	default:
		return 0, false
	}
}

// compareValues orders two values that are not NULL. ok is false where they cannot be compared.
func compareValues(a, b value) (order int, ok bool) {
	switch {
	case (a.kind == kindInt || a.kind == kindBool) && (b.kind == kindInt || b.kind == kindBool):
		return compareInts(a.num, b.num), true
	case a.kind == kindDate && b.kind == kindDate, a.kind == kindDatetime && b.kind == kindDatetime:
		return compareInts(a.num, b.num), true
	case a.kind == kindDate || a.kind == kindDatetime || b.kind == kindDate || b.kind == kindDatetime:
		x, okX := a.asMicros()
		y, okY := b.asMicros()
		return compareInts(x, y), okX && okY
	case a.isNumber() || b.isNumber():
		if x, y := a.asRat(), b.asRat(); x != nil && y != nil {
			return x.Cmp(y), true
		}
		x, okX := a.asFloat()
		y, okY := b.asFloat()
		return compareFloats(x, y), okX && okY
	default:
		return strings.Compare(a.text, b.text), true
	}
}

func compareInts(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

// truth is the WHERE meaning of a value: NULL and zero are not true.
func (v value) truth() bool {
	switch v.kind {
	case kindNull:
		return false
	case kindBool, kindInt:
		return v.num != 0
	case kindString, kindFloat, kindDecimal:
		f, ok := v.asFloat()
		return ok && f != 0
	default:
		return false
	}
}
