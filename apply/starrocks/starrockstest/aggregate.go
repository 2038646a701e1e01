package starrockstest

import (
	"math/big"
	"strings"
)

// aggregate is one aggregate call of a query.
type aggregate struct {
	name     string
	arg      *compiled // nil for COUNT(*)
	distinct bool
	typ      colType
}

func (c *compiler) aggregateCall(e callExpr) (compiled, error) {
	if c.aggs == nil || c.inside {
		return compiled{}, sqlError(1111, "HY000", "Invalid use of group function")
	}
	a := &aggregate{name: e.name, distinct: e.distinct, typ: typBigint}
	if !e.star {
		if len(e.args) != 1 {
			return compiled{}, unsupported("%s with %d arguments", e.name, len(e.args))
		}
		c.inside = true
		x, err := c.compile(e.args[0])
		c.inside = false
		if err != nil {
			return compiled{}, err
		}
		a.arg = &x
		a.typ = aggregateType(e.name, x.typ)
	} else if e.name != "count" {
		return compiled{}, analysisError("'*' can only be used in conjunction with COUNT")
	}
	i := len(*c.aggs)
	*c.aggs = append(*c.aggs, a)
	return compiled{typ: a.typ, eval: func(n *env) (value, error) { return n.aggs[i], nil }}, nil
}

func aggregateType(name string, arg colType) colType {
	switch name {
	case "count":
		return typBigint
	case "min", "max":
		return arg
	case "avg":
		if arg.kind == typeDecimal {
			return colType{kind: typeDecimal, precision: 38, scale: min(arg.scale+6, 18)}
		}
		return typDouble
	default: // sum
		switch {
		case arg.intBits() > 0 && arg.kind != typeBigint, arg.kind == typeBoolean:
			return typBigint
		case arg.kind == typeBigint:
			return typBigint
		case arg.kind == typeDecimal:
			return colType{kind: typeDecimal, precision: 38, scale: arg.scale}
		case arg.kind == typeLargeint:
			return arg
		default:
			return typDouble
		}
	}
}

// accumulator is the running state of an aggregate over one group.
type accumulator struct {
	agg   *aggregate
	seen  map[string]bool
	count int64
	exact *big.Rat
	float float64
	best  value
	isInt bool
	sum   int64
}

func newAccumulator(a *aggregate) *accumulator {
	acc := &accumulator{agg: a, isInt: true}
	if a.distinct {
		acc.seen = make(map[string]bool)
	}
	return acc
}

func (a *accumulator) add(n *env) error {
	if a.agg.arg == nil {
		a.count++
		return nil
	}
	v, err := a.agg.arg.eval(n)
	if err != nil || v.isNull() {
		return err
	}
	if a.seen != nil {
		key := string(rune(v.kind)) + v.plain()
		if a.seen[key] {
			return nil
		}
		a.seen[key] = true
	}
	a.count++
	switch a.agg.name {
	case "sum", "avg":
		a.addNumber(v)
	case "min", "max":
		order, ok := compareValues(v, a.best)
		if a.best.isNull() || (ok && order != 0 && (order < 0) == (a.agg.name == "min")) {
			// The row's buffer may be used again, the text may not.
			v.text = strings.Clone(v.text)
			a.best = v
		}
	}
	return nil
}

func (a *accumulator) addNumber(v value) {
	if a.isInt && (v.kind == kindInt || v.kind == kindBool) {
		if s := a.sum + v.num; (s > a.sum) == (v.num > 0) {
			a.sum = s
			return
		}
	}
	a.isInt = false
	if a.exact == nil {
		a.exact = new(big.Rat)
	}
	if r := v.asRat(); r != nil {
		a.exact.Add(a.exact, r)
		return
	}
	f, _ := v.asFloat() // A text that is no number counts as zero.
	a.float += f
}

func (a *accumulator) result() value {
	switch a.agg.name {
	case "count":
		return intValue(a.count)
	case "min", "max":
		return a.best
	}
	if a.count == 0 {
		return null
	}
	total := new(big.Rat).SetInt64(a.sum)
	if a.exact != nil {
		total.Add(total, a.exact)
	}
	f, _ := total.Float64()
	f += a.float
	t := a.agg.typ
	if a.agg.name == "avg" {
		if t.kind == typeDecimal {
			return value{kind: kindDecimal, text: decimalText(total.Quo(total, new(big.Rat).SetInt64(a.count)), t.scale)}
		}
		return floatValue(f / float64(a.count))
	}
	switch t.kind {
	case typeBigint:
		if total.IsInt() && total.Num().IsInt64() {
			return intValue(total.Num().Int64())
		}
		return null
	case typeDecimal, typeLargeint:
		return value{kind: kindDecimal, text: decimalText(total, t.scale)}
	default:
		return floatValue(f)
	}
}
