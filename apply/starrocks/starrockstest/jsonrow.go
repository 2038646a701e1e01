package starrockstest

import (
	"math"
	"strconv"
	"strings"
)

// convertToken converts one JSON token, its syntax known to be good, to a column's type.
func convertToken(t colType, token string) (value, error) {
	if token == "null" {
		return null, nil
	}
	if t.kind == typeJSON {
		return convertJSONToken(token)
	}
	if t.kind == typeArray {
		return convertArrayToken(t, token)
	}
	switch token[0] {
	case '"':
		text := token[1 : len(token)-1]
		if strings.IndexByte(text, '\\') >= 0 {
			text = unescape(text)
		}
		return convertText(t, text, convertOptions{})
	case 't', 'f':
		return convertTokenBool(t, token == "true")
	case '{', '[':
		return convertTokenNested(t, token)
	default:
		return convertTokenNumber(t, token)
	}
}

// convertTokenBool shows a trap: true and false reach text columns as "1" and "0".
func convertTokenBool(t colType, b bool) (value, error) {
	switch t.kind {
	case typeBoolean:
		return boolValue(b), nil
	case typeTinyint, typeSmallint, typeInt, typeBigint, typeFloat, typeDouble:
		return null, errUnconvertible
	default:
		if b {
			return convertText(t, "1", convertOptions{})
		}
		return convertText(t, "0", convertOptions{})
	}
}

// convertTokenNested stores arrays and objects in text columns as minified JSON text.
func convertTokenNested(t colType, token string) (value, error) {
	switch t.kind {
	case typeChar, typeVarchar, typeVarbinary:
		return convertText(t, minify(token), convertOptions{})
	default:
		return null, errUnconvertible
	}
}

func minify(token string) string {
	b := make([]byte, 0, len(token))
	inString := false
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch {
		case inString && c == '\\':
			b = append(b, c, token[i+1])
			i++
			continue
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			continue
		}
		b = append(b, c)
	}
	return string(b)
}

func convertTokenNumber(t colType, token string) (value, error) {
	switch t.kind {
	case typeTinyint, typeSmallint, typeInt, typeBigint:
		if n, ok := smallInt(token); ok {
			if !fitsInt(n, t.intBits()) {
				return null, errUnconvertible
			}
			return intValue(n), nil
		}
		if !strings.ContainsAny(token, ".eE") {
			return null, errUnconvertible
		}
		f, err := strconv.ParseFloat(token, 64)
		if err != nil {
			return null, errUnconvertible
		}
		return intFromFloat(t, f)
	case typeFloat, typeDouble:
		f, err := strconv.ParseFloat(token, 64)
		if err != nil || math.IsInf(f, 0) {
			return null, errUnconvertible
		}
		return floatOfType(t, f)
	case typeBoolean:
		f, err := strconv.ParseFloat(token, 64)
		if err != nil {
			return null, errUnconvertible
		}
		return boolValue(f != 0), nil
	default:
		// LARGEINT, DECIMAL, dates and texts take the raw token, so no digit is lost.
		return convertText(t, token, convertOptions{})
	}
}

// smallInt is a fast path for plain integers of up to 19 digits.
func smallInt(token string) (int64, bool) {
	n, err := strconv.ParseInt(token, 10, 64)
	return n, err == nil
}

// jsonRows walks over a body's rows and fills a scratch row for each.
type jsonRows struct {
	scanner
	array   bool
	started bool
	plan    *loadPlan
	// seen marks the slots that the current row has filled; it holds the row's number.
	seen []int
	row  int
}

func newJSONRows(body string, plan *loadPlan) (*jsonRows, error) {
	r := &jsonRows{scanner: scanner{buf: body}, plan: plan, seen: make([]int, len(plan.slots))}
	r.space()
	switch c := r.peek(); {
	case r.pos == len(body):
	case c == '[' && plan.stripOuterArray:
		r.array = true
		r.pos++
	case c == '[':
		return nil, refuse("The value is array type in json document stream, you can set strip_outer_array=true " +
			"to parse each element of the array as individual rows")
	case c != '{':
		return nil, refuse("illegal json started with [%c]", c)
	}
	return r, nil
}

// next moves to the next row. It gives the raw text of the row, or done.
func (r *jsonRows) next(vals []value, errs *rowErrors) (raw string, done bool, err error) {
	if done, err := r.between(); done || err != nil {
		return "", done, err
	}
	if r.peek() != '{' {
		return "", false, refuse("json object is expected")
	}
	start := r.pos
	r.row++
	for i := range vals {
		vals[i] = null
	}
	if r.plan.opSlot >= 0 {
		vals[r.plan.opSlot] = intValue(0)
	}
	if err := r.object(vals, errs); err != nil {
		return "", false, refuse("Failed to iterate document stream as object. error: %v", err)
	}
	return r.buf[start:r.pos], false, nil
}

// between passes what stands between two rows.
func (r *jsonRows) between() (done bool, err error) {
	r.space()
	if !r.array {
		return r.pos == len(r.buf), nil
	}
	switch {
	case r.peek() == ']':
		r.pos++
		r.space()
		if r.pos != len(r.buf) {
			return false, errJSONSyntax
		}
		return true, nil
	case !r.started:
		r.started = true
	case r.peek() == ',':
		r.pos++
		r.space()
	default:
		return false, errJSONSyntax
	}
	return false, nil
}

// object reads one row. The next key is expected in the order of the slots, which spares most look-ups.
func (r *jsonRows) object(vals []value, errs *rowErrors) error {
	r.pos++
	r.space()
	if r.peek() == '}' {
		r.pos++
		return nil
	}
	expect := 0
	for {
		slot, err := r.key(&expect)
		if err != nil {
			return err
		}
		start := r.pos
		if err := r.skipValue(0); err != nil {
			return err
		}
		if slot >= 0 && r.seen[slot] != r.row {
			r.seen[slot] = r.row
			token := r.buf[start:r.pos]
			v, err := convertToken(r.plan.slots[slot].typ, token)
			if err != nil {
				errs.unconvertible(slot, token)
			}
			vals[slot] = v
		}
		r.space()
		switch r.peek() {
		case ',':
			r.pos++
			r.space()
		case '}':
			r.pos++
			return nil
		default:
			return errJSONSyntax
		}
	}
}

// key reads a key and its colon and gives the slot of the column, or -1 for a key to ignore.
func (r *jsonRows) key(expect *int) (slot int, err error) {
	if r.peek() != '"' {
		return 0, errJSONSyntax
	}
	start := r.pos + 1
	escaped, err := r.skipString()
	if err != nil {
		return 0, err
	}
	name := r.buf[start : r.pos-1]
	if escaped {
		name = unescape(name)
	}
	if err := r.colon(); err != nil {
		return 0, err
	}
	if *expect < len(r.plan.slots) && r.plan.slots[*expect].name == name {
		slot = *expect
	} else if i, ok := r.plan.byName[name]; ok {
		slot = i
	} else {
		return -1, nil
	}
	*expect = slot + 1
	return slot, nil
}
