package starrockstest

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"strings"
)

// errUnconvertible marks a value that does not fit its column: NULL without strict mode, a filtered row with it.
var errUnconvertible = errors.New("value is out of range")

// convertOptions says where a text comes from, as the rules differ.
type convertOptions struct {
	csv bool
	// varbinaryHex is the CSV form of VARBINARY before 3.2.
	varbinaryHex bool
}

// convertText converts a text (CSV field, JSON string, SQL literal) to a column's type.
func convertText(t colType, s string, opt convertOptions) (value, error) {
	switch t.kind {
	case typeBoolean:
		return convertBool(s)
	case typeTinyint, typeSmallint, typeInt, typeBigint:
		return convertInt(t, s, opt)
	case typeLargeint:
		if n, ok := parseLargeint(s); ok {
			return value{kind: kindDecimal, text: n}, nil
		}
		return null, errUnconvertible
	case typeFloat, typeDouble:
		return convertFloat(t, s)
	case typeDecimal:
		if d, ok := parseDecimal(s, t.precision, t.scale); ok {
			return value{kind: kindDecimal, text: d}, nil
		}
		return null, errUnconvertible
	case typeDate:
		if days, ok := parseDate(s); ok && !hasEra(s) {
			return value{kind: kindDate, num: days}, nil
		}
		return null, errUnconvertible
	case typeDatetime:
		if micros, ok := parseDatetime(s); ok && !hasEra(s) {
			return value{kind: kindDatetime, num: micros}, nil
		}
		return null, errUnconvertible
	case typeJSON:
		return convertJSONText(s)
	case typeVarbinary:
		return convertVarbinary(t, s, opt)
	case typeArray:
		return convertArrayText(t, s)
	default:
		if len(s) > t.length {
			return null, errUnconvertible
		}
		return stringValue(s), nil
	}
}

// hasEra finds PostgreSQL's era suffix, which is an error and not one of the ignored trailers.
func hasEra(s string) bool { return strings.HasSuffix(s, "BC") }

func convertBool(s string) (value, error) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 10, 32); err == nil {
		return boolValue(n != 0), nil
	}
	switch strings.ToLower(s) {
	case "true":
		return boolValue(true), nil
	case "false":
		return boolValue(false), nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && isPlainNumber(s) {
		return boolValue(f != 0), nil
	}
	return null, errUnconvertible
}

// isPlainNumber refuses the forms that Go's parser takes beyond decimal ones, such as hex and underscores.
func isPlainNumber(s string) bool { return strings.Trim(s, "0123456789+-.eE") == "" && s != "" }

// convertInt reads decimal text. A fraction is cut where StarRocks cuts it: in JSON strings always, in CSV up to INT.
func convertInt(t colType, s string, opt convertOptions) (value, error) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if !fitsInt(n, t.intBits()) {
			return null, errUnconvertible
		}
		return intValue(n), nil
	}
	if !isPlainNumber(s) || (opt.csv && (t.kind == typeBigint || strings.ContainsAny(s, "eE"))) {
		return null, errUnconvertible
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return null, errUnconvertible
	}
	return intFromFloat(t, f)
}

func fitsInt(n int64, bits int) bool {
	if bits == 64 {
		return true
	}
	limit := int64(1) << (bits - 1)
	return n >= -limit && n < limit
}

func intFromFloat(t colType, f float64) (value, error) {
	limit := math.Ldexp(1, t.intBits()-1)
	f = math.Trunc(f)
	if math.IsNaN(f) || f < -limit || f >= limit {
		return null, errUnconvertible
	}
	return intValue(int64(f)), nil
}

// convertFloat takes inf, infinity and nan as StarRocks does, and stores them.
func convertFloat(t colType, s string) (value, error) {
	s = strings.TrimSpace(s)
	body := strings.ToLower(strings.TrimLeft(s, "+-"))
	if body != "inf" && body != "infinity" && body != "nan" {
		if !isPlainNumber(s) {
			return null, errUnconvertible
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && body != "nan" {
		return null, errUnconvertible
	}
	if body == "nan" {
		f = math.NaN()
	}
	return floatOfType(t, f)
}

func floatOfType(t colType, f float64) (value, error) {
	if t.kind == typeFloat {
		if !math.IsInf(f, 0) && math.Abs(f) > math.MaxFloat32 {
			return null, errUnconvertible
		}
		f = float64(float32(f))
	}
	return floatValue(f), nil
}

// convertVarbinary keeps the raw bytes of a JSON string or SQL literal. A CSV field is base64, and bytes that do not
// decode are stored as they came; before 3.2 it is hex.
func convertVarbinary(t colType, s string, opt convertOptions) (value, error) {
	if opt.csv {
		if opt.varbinaryHex {
			b, err := hex.DecodeString(s)
			if err != nil {
				return null, errUnconvertible
			}
			s = string(b)
		} else if b, err := base64.StdEncoding.DecodeString(s); err == nil {
			s = string(b)
		}
	}
	if len(s) > varbinaryLimit(t) {
		return null, errUnconvertible
	}
	return value{kind: kindBytes, text: s}, nil
}

func varbinaryLimit(t colType) int {
	if t.length > 0 {
		return t.length
	}
	return varbinaryMaxBytes
}

// castValue converts between column types, for schema changes and SQL assignments.
func castValue(v value, from, to colType) (value, error) {
	if v.isNull() || from.equal(to) {
		return v, nil
	}
	switch {
	case to.kind == typeDatetime && v.kind == kindDate:
		return value{kind: kindDatetime, num: v.num * microsPerDay}, nil
	case to.kind == typeDate && v.kind == kindDatetime:
		days, _ := floorDiv(v.num, microsPerDay)
		return value{kind: kindDate, num: days}, nil
	case (to.kind == typeFloat || to.kind == typeDouble) && v.isNumber():
		f, ok := v.asFloat()
		if !ok {
			return null, errUnconvertible
		}
		return floatOfType(to, f)
	case to.kind == typeJSON && v.kind == kindString:
		return convertJSONText(v.text)
	case to.intBits() > 0 && v.kind == kindFloat:
		return intFromFloat(to, v.float())
	}
	return convertText(to, v.render(from, true), convertOptions{})
}
