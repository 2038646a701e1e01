package starrocks

import (
	"bytes"
	"math"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// refusal is why a value cannot be written, and what the operator can do. Refusals are
// constants, so that the way through the encoder without one allocates nothing.
type refusal struct {
	reason string
	hint   string
}

const textHint = "create the column as VARCHAR in StarRocks, which stores the text that PostgreSQL prints"

// copyAnewHint is for rows that no repetition can complete. The copy comes behind them in the
// stream.
const copyAnewHint = "set SINK_REFUSED_ROWS=dead-letter until the row has passed, and then copy the table anew: dbmazz snapshot; with REPLICA IDENTITY FULL in PostgreSQL updates carry whole rows, and this cannot happen"

var (
	refuseUTF8     = &refusal{"the value is not valid UTF-8", "use a database with encoding UTF8, or correct the row"}
	refuseLong     = &refusal{"the value is longer than the column, in bytes of UTF-8", "widen the column in StarRocks with ALTER TABLE ... MODIFY COLUMN (at most VARCHAR(1048576)), or shorten the value"}
	refuseSyntax   = &refusal{"the text is not of the form that PostgreSQL prints for this type", "report this as a bug"}
	refuseInteger  = &refusal{"the number is not an integer that the column can hold", "widen the column in StarRocks with ALTER TABLE ... MODIFY COLUMN"}
	refuseNaN      = &refusal{"the column cannot hold NaN or Infinity", textHint}
	refuseFloat    = &refusal{"the number is not exact in the column", textHint}
	refuseDecimal  = &refusal{"the number has more digits than the column; it is never rounded", "widen the column, or create it as VARCHAR in StarRocks"}
	refuseDate     = &refusal{"the column holds only the years 1 to 9999, neither BC nor infinity", textHint}
	refuseUTC      = &refusal{"the time is not in UTC", "report this as a bug"}
	refuseNull     = &refusal{"the value belongs to the key or to a NOT NULL column but is missing", "if the row is from before the table got this key, set SINK_REFUSED_ROWS=dead-letter until it has passed, and copy the table: dbmazz snapshot; else check the table's primary key and replica identity"}
	refusePart     = &refusal{"the table has no key, so every change must carry the whole row, and this one does not", "ALTER TABLE ... REPLICA IDENTITY FULL in PostgreSQL"}
	refuseKeyBytes = &refusal{"the encoded primary key is longer than 128 bytes, which is StarRocks's limit", "shorten the key, or give the table a shorter primary key or replica identity index"}
)

// plain marks the ASCII characters that a JSON string has as they are.
var plain = func() (table [utf8.RuneSelf]bool) {
	for c := byte(' '); c < utf8.RuneSelf; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

// appendString appends v as a JSON string; false means that it is not valid UTF-8.
func appendString(dst, v []byte) ([]byte, bool) {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(v); {
		c := v[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(v[i:])
			if r == utf8.RuneError && size == 1 {
				return dst, false
			}
			i += size
			continue
		}
		if plain[c] {
			i++
			continue
		}
		dst = append(dst, v[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, v[start:]...), '"'), true
}

// appendValue appends the JSON form of a text that PostgreSQL printed. The text is
// never trusted: what is written raw has been checked.
func (c *column) appendValue(dst, v []byte, scratch *jsonScratch) ([]byte, *refusal) {
	switch c.how {
	case encodeText:
		return c.appendText(dst, v)
	case encodeNumericKey:
		return c.appendText(dst, canonicalNumeric(v))
	case encodeCharKey:
		return c.appendText(dst, trimBlanks(v))
	case encodeBool:
		return appendBool(dst, v)
	case encodeInt:
		return c.appendInt(dst, v)
	case encodeLargeInt:
		return c.appendLargeInt(dst, v)
	case encodeFloat, encodeDouble:
		return c.appendFloat(dst, v)
	case encodeDecimal:
		return c.appendDecimal(dst, v)
	case encodeJSON:
		return c.appendJSON(dst, v, scratch)
	case encodeDate:
		return appendDate(dst, v)
	case encodeDateTime:
		return appendDateTime(dst, v)
	case encodeUTC:
		utc, ok := bytes.CutSuffix(v, []byte("+00"))
		if !ok {
			if isTimeOutOfRange(v) {
				return dst, refuseDate
			}
			return dst, refuseUTC
		}
		return appendDateTime(dst, utc)
	}
	return dst, refuseSyntax
}

func (c *column) appendText(dst, v []byte) ([]byte, *refusal) {
	if len(v) > c.target.length {
		return dst, refuseLong
	}
	dst, ok := appendString(dst, v)
	if !ok {
		return dst, refuseUTF8
	}
	return dst, nil
}

func appendBool(dst, v []byte) ([]byte, *refusal) {
	if len(v) == 1 {
		switch v[0] {
		case 't':
			return append(dst, "true"...), nil
		case 'f':
			return append(dst, "false"...), nil
		}
	}
	return dst, refuseSyntax
}

// integerDigits returns where the digits of a plain decimal integer start, or -1. A
// leading zero is not plain: PostgreSQL prints none and JSON allows none.
func integerDigits(v []byte) int {
	start := 0
	if len(v) > 0 && v[0] == '-' {
		start = 1
	}
	if len(v) == start || (v[start] == '0' && len(v) > 1) {
		return -1
	}
	for _, c := range v[start:] {
		if c < '0' || c > '9' {
			return -1
		}
	}
	return start
}

func (c *column) appendInt(dst, v []byte) ([]byte, *refusal) {
	start := integerDigits(v)
	if start < 0 {
		return dst, refuseInteger
	}
	const int64Digits = 19
	if len(v)-start > int64Digits {
		return dst, refuseInteger
	}
	limit := uint64(1)<<(c.intBits()-1) - 1
	if start == 1 {
		limit++
	}
	var n uint64
	for _, digit := range v[start:] {
		n = n*10 + uint64(digit-'0')
	}
	if n > limit {
		return dst, refuseInteger
	}
	return append(dst, v...), nil
}

func (c *column) intBits() int {
	switch c.target.kind {
	case targetTinyInt:
		return 8
	case targetSmallInt:
		return 16
	case targetInt:
		return 32
	default:
		return 64
	}
}

// The largest LARGEINT and the magnitude of the smallest.
const (
	largeIntMax = "170141183460469231731687303715884105727"
	largeIntMin = "170141183460469231731687303715884105728"
)

func (c *column) appendLargeInt(dst, v []byte) ([]byte, *refusal) {
	start := integerDigits(v)
	if start < 0 {
		return dst, refuseInteger
	}
	limit := largeIntMax
	if start == 1 {
		limit = largeIntMin
	}
	if digits := v[start:]; len(digits) > len(limit) || (len(digits) == len(limit) && string(digits) > limit) {
		return dst, refuseInteger
	}
	return append(append(append(dst, '"'), v...), '"'), nil
}

// appendFloat writes PostgreSQL's shortest text of a number. StarRocks reads it as a
// double; where the column is a FLOAT the detour must not change the result.
func (c *column) appendFloat(dst, v []byte) ([]byte, *refusal) {
	if isNotFinite(v) {
		return dst, refuseNaN
	}
	if end, _ := scanNumber(v, 0); end != len(v) {
		return dst, refuseSyntax
	}
	text := unsafe.String(unsafe.SliceData(v), len(v)) // Not kept; v is not empty.
	double, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return dst, refuseFloat
	}
	if c.how == encodeFloat {
		single, err := strconv.ParseFloat(text, 32)
		if err != nil || float32(double) != float32(single) {
			return dst, refuseFloat
		}
		if math.Abs(double) > math.MaxFloat32 {
			// PostgreSQL's shortest text of the largest float is a double beyond it.
			return strconv.AppendFloat(dst, single, 'g', -1, 64), nil
		}
	}
	if text == "-0" {
		// Without a point a JSON reader makes an integer of it, which has no sign.
		return append(dst, "-0.0"...), nil
	}
	return append(dst, v...), nil
}

func isNotFinite(v []byte) bool {
	switch string(v) {
	case "NaN", "Infinity", "-Infinity":
		return true
	}
	return false
}

// canonicalNumeric cuts the zeros that end a fraction, so that a key has one text
// whatever scale the column had when the row was written.
func canonicalNumeric(v []byte) []byte {
	if bytes.IndexByte(v, '.') < 0 {
		return v
	}
	return bytes.TrimSuffix(bytes.TrimRight(v, "0"), []byte("."))
}

// appendDecimal writes a number as a JSON string with no more digits than the column
// has. Zeros beyond them are cut; any other digit is a refusal, since StarRocks would
// round.
func (c *column) appendDecimal(dst, v []byte) ([]byte, *refusal) {
	if isNotFinite(v) {
		return dst, refuseNaN
	}
	whole, fraction, point := bytes.Cut(v, []byte("."))
	start := integerDigits(whole)
	if string(whole) == "-0" && point {
		start = 1
	}
	if start < 0 || (point && len(fraction) == 0) {
		return dst, refuseSyntax
	}
	for _, digit := range fraction {
		if digit < '0' || digit > '9' {
			return dst, refuseSyntax
		}
	}
	fraction = bytes.TrimRight(fraction, "0")
	digits := whole[start:]
	if string(digits) == "0" {
		digits = nil
	}
	if len(digits) > c.target.precision-c.target.scale || len(fraction) > c.target.scale {
		return dst, refuseDecimal
	}
	dst = append(append(dst, '"'), whole...)
	if len(fraction) > 0 {
		dst = append(append(dst, '.'), fraction...)
	}
	return append(dst, '"'), nil
}

// isTimeOutOfRange finds what PostgreSQL prints for a date or time that StarRocks has no
// value for.
func isTimeOutOfRange(v []byte) bool {
	return bytes.Equal(v, []byte("infinity")) || bytes.Equal(v, []byte("-infinity")) || bytes.HasSuffix(v, []byte(" BC")) ||
		(len(v) > 4 && v[4] >= '0' && v[4] <= '9')
}

// isDate checks YYYY-MM-DD against the calendar.
func isDate(v []byte) bool {
	if len(v) != len("2006-01-02") || v[4] != '-' || v[7] != '-' {
		return false
	}
	year, month, day := twoDigits(v, 0)*100+twoDigits(v, 2), twoDigits(v, 5), twoDigits(v, 8)
	if year < 1 || month < 1 || month > 12 || day < 1 {
		return false
	}
	last := [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month-1]
	if month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0) {
		last = 29
	}
	return day <= last
}

// twoDigits returns the number at i, and one far out of any range if there is none.
func twoDigits(v []byte, i int) int {
	tens, ones := v[i]-'0', v[i+1]-'0'
	if tens > 9 || ones > 9 {
		return -1 << 20
	}
	return int(tens)*10 + int(ones)
}

func appendDate(dst, v []byte) ([]byte, *refusal) {
	if !isDate(v) {
		if isTimeOutOfRange(v) {
			return dst, refuseDate
		}
		return dst, refuseSyntax
	}
	return append(append(append(dst, '"'), v...), '"'), nil
}

func appendDateTime(dst, v []byte) ([]byte, *refusal) {
	if isTimeOutOfRange(v) {
		return dst, refuseDate
	}
	const seconds = len("2006-01-02 15:04:05")
	if len(v) < seconds || !isDate(v[:10]) || v[10] != ' ' || v[13] != ':' || v[16] != ':' {
		return dst, refuseSyntax
	}
	hour, minute, second := twoDigits(v, 11), twoDigits(v, 14), twoDigits(v, 17)
	if hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 {
		return dst, refuseSyntax
	}
	if fraction := v[seconds:]; len(fraction) > 0 {
		const microseconds = len(".000000")
		if fraction[0] != '.' || len(fraction) < 2 || len(fraction) > microseconds {
			return dst, refuseSyntax
		}
		for _, digit := range fraction[1:] {
			if digit < '0' || digit > '9' {
				return dst, refuseSyntax
			}
		}
	}
	return append(append(append(dst, '"'), v...), '"'), nil
}

func trimBlanks(v []byte) []byte { return bytes.TrimRight(v, " ") }
