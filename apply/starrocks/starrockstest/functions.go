package starrockstest

import (
	"encoding/hex"
	"math"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

func arithmeticType(op string, l, r colType) colType {
	switch {
	case op == "/":
		if l.kind == typeDecimal || r.kind == typeDecimal {
			return colType{kind: typeDecimal, precision: 38, scale: 6}
		}
		return typDouble
	case l.intBits() > 0 && r.intBits() > 0:
		return typBigint
	case isExact(l) && isExact(r):
		return colType{kind: typeDecimal, precision: 38, scale: max(l.scale, r.scale)}
	default:
		return typDouble
	}
}

func isExact(t colType) bool {
	return t.intBits() > 0 || t.kind == typeDecimal || t.kind == typeLargeint || t.kind == typeBoolean
}

// arithmetic computes on exact numbers exactly, on others in doubles. Division by zero gives NULL.
func arithmetic(op string, a, b value) (value, error) {
	if x, y := a.asRat(), b.asRat(); x != nil && y != nil {
		return exactArithmetic(op, a, b, x, y)
	}
	x, okX := a.asFloat()
	y, okY := b.asFloat()
	if !okX || !okY {
		return null, nil
	}
	switch op {
	case "+":
		return floatValue(x + y), nil
	case "-":
		return floatValue(x - y), nil
	case "*":
		return floatValue(x * y), nil
	case "/":
		if y == 0 {
			return null, nil
		}
		return floatValue(x / y), nil
	case "%", "mod":
		if y == 0 {
			return null, nil
		}
		return floatValue(math.Mod(x, y)), nil
	default:
		if y == 0 {
			return null, nil
		}
		return intValue(int64(x / y)), nil
	}
}

func exactArithmetic(op string, a, b value, x, y *big.Rat) (value, error) {
	switch op {
	case "+":
		x.Add(x, y)
	case "-":
		x.Sub(x, y)
	case "*":
		x.Mul(x, y)
	case "/":
		if y.Sign() == 0 {
			return null, nil
		}
		if a.kind != kindDecimal && b.kind != kindDecimal {
			f, _ := x.Quo(x, y).Float64()
			return floatValue(f), nil
		}
		return value{kind: kindDecimal, text: decimalText(x.Quo(x, y), 6)}, nil
	default:
		if y.Sign() == 0 {
			return null, nil
		}
		q := new(big.Rat).SetInt(new(big.Int).Quo(
			new(big.Int).Mul(x.Num(), y.Denom()), new(big.Int).Mul(x.Denom(), y.Num())))
		if op == "div" {
			x = q
		} else {
			x.Sub(x, q.Mul(q, y))
		}
	}
	if x.IsInt() && x.Num().IsInt64() && a.kind != kindDecimal && b.kind != kindDecimal {
		return intValue(x.Num().Int64()), nil
	}
	return value{kind: kindDecimal, text: decimalText(x, max(fraction(a), fraction(b)))}, nil
}

func fraction(v value) int {
	_, frac, _ := strings.Cut(v.text, ".")
	return len(frac)
}

// scalar is a function of plain values.
type scalar struct {
	minArgs, maxArgs int
	typ              colType
	// nulls lets the function see NULL arguments; otherwise one of them makes the result NULL.
	nulls bool
	f     func(args []value) value
}

var scalars = map[string]scalar{
	"length":       {1, 1, typBigint, false, func(a []value) value { return intValue(int64(len(a[0].plain()))) }},
	"octet_length": {1, 1, typBigint, false, func(a []value) value { return intValue(int64(len(a[0].plain()))) }},
	"char_length":  {1, 1, typBigint, false, func(a []value) value { return intValue(int64(utf8.RuneCountInString(a[0].plain()))) }},
	"lower":        {1, 1, typText, false, func(a []value) value { return stringValue(strings.ToLower(a[0].plain())) }},
	"upper":        {1, 1, typText, false, func(a []value) value { return stringValue(strings.ToUpper(a[0].plain())) }},
	"trim":         {1, 1, typText, false, func(a []value) value { return stringValue(strings.Trim(a[0].plain(), " ")) }},
	"hex":          {1, 1, typText, false, func(a []value) value { return stringValue(hexOf(a[0])) }},
	"concat":       {1, 99, typText, false, concat},
	"abs":          {1, 1, typDouble, false, absolute},
	"date":         {1, 1, typDateVal, false, dateOf},
	"left":         {2, 2, typText, false, func(a []value) value { return stringValue(leftRunes(a[0].plain(), a[1].num)) }},
	"replace": {3, 3, typText, false, func(a []value) value {
		return stringValue(strings.ReplaceAll(a[0].plain(), a[1].plain(), a[2].plain()))
	}},
	"coalesce":         {1, 99, typText, true, firstSet},
	"ifnull":           {2, 2, typText, true, firstSet},
	"if":               {3, 3, typText, true, choose},
	"nullif":           {2, 2, typText, true, nullIf},
	"unix_timestamp":   {1, 1, typBigint, false, unixTimestamp},
	"to_json":          {1, 1, typText, false, func(a []value) value { return stringValue(a[0].plain()) }},
	"microseconds_add": {2, 2, typTime, false, func(a []value) value { return value{kind: kindDatetime, num: a[0].num + a[1].num} }},
}

func concat(a []value) value {
	var b strings.Builder
	for _, v := range a {
		b.WriteString(v.plain())
	}
	return stringValue(b.String())
}

func hexOf(v value) string {
	if v.kind == kindInt {
		return strings.ToUpper(strconv.FormatInt(v.num, 16))
	}
	return strings.ToUpper(hex.EncodeToString([]byte(v.plain())))
}

func absolute(a []value) value {
	if order, ok := compareValues(a[0], intValue(0)); ok && order < 0 {
		v, err := arithmetic("-", intValue(0), a[0])
		if err == nil {
			return v
		}
	}
	return a[0]
}

func dateOf(a []value) value {
	micros, ok := a[0].asMicros()
	if !ok {
		return null
	}
	days, _ := floorDiv(micros, microsPerDay)
	return value{kind: kindDate, num: days}
}

func leftRunes(s string, n int64) string {
	r := []rune(s)
	return string(r[:max(0, min(int(n), len(r)))])
}

func firstSet(a []value) value {
	for _, v := range a {
		if !v.isNull() {
			return v
		}
	}
	return null
}

func choose(a []value) value {
	if a[0].truth() {
		return a[1]
	}
	return a[2]
}

func nullIf(a []value) value {
	if a[0].isNull() || a[1].isNull() {
		return a[0]
	}
	if order, ok := compareValues(a[0], a[1]); ok && order == 0 {
		return null
	}
	return a[0]
}

func unixTimestamp(a []value) value {
	micros, ok := a[0].asMicros()
	if !ok {
		return null
	}
	sec, _ := floorDiv(micros, microsPerSecond)
	return intValue(sec)
}

// call compiles functions of the session, aggregates and scalars.
func (c *compiler) call(e callExpr) (compiled, error) {
	switch e.name {
	case "current_version":
		return constant(stringValue(c.store.ver.String() + "-standin")), nil
	case "version":
		return constant(stringValue(mysqlVersion)), nil
	case "database", "schema":
		return constant(stringValue(c.session.db)), nil
	case "user", "current_user", "session_user":
		return constant(stringValue("'" + c.store.opts.User + "'@'%'")), nil
	case "connection_id":
		return constant(intValue(1)), nil
	case "now", "current_timestamp", "utc_timestamp", "localtimestamp":
		return constant(value{kind: kindDatetime, num: c.now.UTC().Unix() * microsPerSecond}), nil
	case "count", "sum", "min", "max", "avg":
		return c.aggregateCall(e)
	}
	f, ok := scalars[e.name]
	if !ok {
		return compiled{}, unsupported("function %s", e.name)
	}
	if e.star || e.distinct || len(e.args) < f.minArgs || len(e.args) > f.maxArgs {
		return compiled{}, analysisError("No matching function with signature: %s", e.name)
	}
	return c.scalarCall(f, e.args)
}

func (c *compiler) scalarCall(f scalar, exprs []expr) (compiled, error) {
	var args []compiled
	for _, a := range exprs {
		x, err := c.compile(a)
		if err != nil {
			return compiled{}, err
		}
		args = append(args, x)
	}
	typ := f.typ
	if f.nulls {
		typ = args[len(args)-1].typ
	}
	return compiled{typ: typ, eval: func(n *env) (value, error) {
		vals := make([]value, len(args))
		for i, a := range args {
			v, err := a.eval(n)
			if err != nil {
				return null, err
			}
			if v.isNull() && !f.nulls {
				return null, nil
			}
			vals[i] = v
		}
		return f.f(vals), nil
	}}, nil
}
