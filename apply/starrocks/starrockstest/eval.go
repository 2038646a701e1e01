package starrockstest

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// env is what a compiled expression reads: a row, and the aggregates of its group.
type env struct {
	row  []value
	aggs []value
}

type evalFunc func(*env) (value, error)

// compiled is an expression bound to a relation.
type compiled struct {
	eval evalFunc
	typ  colType
}

var (
	typBigint  = colType{kind: typeBigint}
	typBool    = colType{kind: typeBoolean}
	typDouble  = colType{kind: typeDouble}
	typText    = colType{kind: typeVarchar, length: varcharMaxBytes}
	typDateVal = colType{kind: typeDate}
	typTime    = colType{kind: typeDatetime}
)

// outColumn is a column of a relation or of a result.
type outColumn struct {
	name string
	typ  colType
}

// compiler binds expressions to the columns of one relation.
type compiler struct {
	store   *store
	session *session
	columns []outColumn
	alias   string
	now     time.Time
	// aggs collects the aggregate calls; nil forbids them. inside is set below an aggregate.
	aggs   *[]*aggregate
	inside bool
	// grouped, where not nil, holds the columns that may stand outside aggregates.
	grouped map[int]bool
	// aliases are the select items that ORDER BY and HAVING may name.
	aliases map[string]compiled
}

func (c *compiler) compile(e expr) (compiled, error) {
	switch e := e.(type) {
	case literal:
		return constant(e.v), nil
	case columnRef:
		return c.column(e)
	case systemVariable:
		return c.variable(e.name)
	case unaryExpr:
		return c.unary(e)
	case binaryExpr:
		return c.binaryExpr(e)
	case inExpr:
		return c.in(e)
	case isNullExpr:
		x, err := c.compile(e.e)
		return compiled{typ: typBool, eval: func(n *env) (value, error) {
			v, err := x.eval(n)
			return boolValue(v.isNull() != e.not), err
		}}, err
	case betweenExpr:
		return c.between(e)
	case likeExpr:
		return c.like(e)
	case callExpr:
		return c.call(e)
	case castExpr:
		return c.castExpr(e)
	default:
		return compiled{}, unsupported("this expression")
	}
}

func constant(v value) compiled {
	return compiled{typ: typeOfValue(v), eval: func(*env) (value, error) { return v, nil }}
}

func typeOfValue(v value) colType {
	switch v.kind {
	case kindBool:
		return typBool
	case kindInt:
		return typBigint
	case kindFloat:
		return typDouble
	case kindDecimal:
		_, frac, _ := strings.Cut(v.text, ".")
		return colType{kind: typeDecimal, precision: 38, scale: len(frac)}
	case kindDate:
		return typDateVal
	case kindDatetime:
		return typTime
	case kindBytes:
		return colType{kind: typeVarbinary}
	default:
		return typText
	}
}

func (c *compiler) column(e columnRef) (compiled, error) {
	if e.table == "" {
		if a, ok := c.aliases[strings.ToLower(e.name)]; ok {
			return a, nil
		}
	}
	if e.table == "" || e.table == c.alias {
		for i, col := range c.columns {
			if !strings.EqualFold(col.name, e.name) {
				continue
			}
			if c.grouped != nil && !c.inside && !c.grouped[i] {
				return compiled{}, analysisError("'%s' must be an aggregate expression or appear in GROUP BY clause", col.name)
			}
			return compiled{typ: col.typ, eval: func(n *env) (value, error) { return n.row[i], nil }}, nil
		}
	}
	return compiled{}, analysisError("Column '%s' cannot be resolved", strings.TrimPrefix(e.table+"."+e.name, "."))
}

func (c *compiler) unary(e unaryExpr) (compiled, error) {
	x, err := c.compile(e.e)
	if err != nil {
		return compiled{}, err
	}
	if e.op == "not" {
		return compiled{typ: typBool, eval: func(n *env) (value, error) {
			v, err := x.eval(n)
			if err != nil || v.isNull() {
				return null, err
			}
			return boolValue(!v.truth()), nil
		}}, nil
	}
	return compiled{typ: x.typ, eval: func(n *env) (value, error) {
		v, err := x.eval(n)
		if err != nil || v.isNull() {
			return null, err
		}
		return arithmetic("-", intValue(0), v)
	}}, nil
}

func (c *compiler) binaryExpr(e binaryExpr) (compiled, error) {
	l, err := c.compile(e.l)
	if err != nil {
		return compiled{}, err
	}
	r, err := c.compile(e.r)
	if err != nil {
		return compiled{}, err
	}
	switch e.op {
	case "and", "or":
		return compiled{typ: typBool, eval: logical(e.op, l, r)}, nil
	case "=", "<>", "<", ">", "<=", ">=", "<=>":
		return compiled{typ: typBool, eval: both(l, r, func(a, b value) (value, error) { return compareOp(e.op, a, b), nil }, e.op == "<=>")}, nil
	case "+", "-", "*", "/", "%", "div", "mod":
		return compiled{typ: arithmeticType(e.op, l.typ, r.typ), eval: both(l, r, func(a, b value) (value, error) {
			return arithmetic(e.op, a, b)
		}, false)}, nil
	default:
		return compiled{}, unsupported("operator %s", e.op)
	}
}

// both evaluates two operands; unless nullSafe, NULL on either side gives NULL.
func both(l, r compiled, f func(a, b value) (value, error), nullSafe bool) evalFunc {
	return func(n *env) (value, error) {
		a, err := l.eval(n)
		if err != nil {
			return null, err
		}
		b, err := r.eval(n)
		if err != nil {
			return null, err
		}
		if a.isNull() || b.isNull() {
			if nullSafe {
				return boolValue(a.isNull() && b.isNull()), nil
			}
			return null, nil
		}
		return f(a, b)
	}
}

func compareOp(op string, a, b value) value {
	order, ok := compareValues(a, b)
	if !ok {
		return null
	}
	switch op {
	case "=", "<=>":
		return boolValue(order == 0)
	case "<>":
		return boolValue(order != 0)
	case "<":
		return boolValue(order < 0)
	case ">":
		return boolValue(order > 0)
	case "<=":
		return boolValue(order <= 0)
	default:
		return boolValue(order >= 0)
	}
}

// logical is AND and OR with three values.
func logical(op string, l, r compiled) evalFunc {
	decisive := op == "or"
	return func(n *env) (value, error) {
		a, err := l.eval(n)
		if err != nil {
			return null, err
		}
		if !a.isNull() && a.truth() == decisive {
			return boolValue(decisive), nil
		}
		b, err := r.eval(n)
		if err != nil {
			return null, err
		}
		if !b.isNull() && b.truth() == decisive {
			return boolValue(decisive), nil
		}
		if a.isNull() || b.isNull() {
			return null, nil
		}
		return boolValue(!decisive), nil
	}
}

func (c *compiler) in(e inExpr) (compiled, error) {
	x, err := c.compile(e.e)
	if err != nil {
		return compiled{}, err
	}
	var list []compiled
	for _, le := range e.list {
		l, err := c.compile(le)
		if err != nil {
			return compiled{}, err
		}
		list = append(list, l)
	}
	return compiled{typ: typBool, eval: func(n *env) (value, error) {
		v, err := x.eval(n)
		if err != nil || v.isNull() {
			return null, err
		}
		sawNull := false
		for _, l := range list {
			w, err := l.eval(n)
			if err != nil {
				return null, err
			}
			if w.isNull() {
				sawNull = true
			} else if order, ok := compareValues(v, w); ok && order == 0 {
				return boolValue(!e.not), nil
			}
		}
		if sawNull {
			return null, nil
		}
		return boolValue(e.not), nil
	}}, nil
}

func (c *compiler) between(e betweenExpr) (compiled, error) {
	x, err := c.compile(binaryExpr{
		op: "and",
		l:  binaryExpr{op: ">=", l: e.e, r: e.low},
		r:  binaryExpr{op: "<=", l: e.e, r: e.high},
	})
	if err != nil || !e.not {
		return x, err
	}
	return compiled{typ: typBool, eval: func(n *env) (value, error) {
		v, err := x.eval(n)
		if err != nil || v.isNull() {
			return null, err
		}
		return boolValue(!v.truth()), nil
	}}, nil
}

func (c *compiler) like(e likeExpr) (compiled, error) {
	x, err := c.compile(e.e)
	if err != nil {
		return compiled{}, err
	}
	pattern, err := c.compile(e.pattern)
	if err != nil {
		return compiled{}, err
	}
	return compiled{typ: typBool, eval: both(x, pattern, func(a, b value) (value, error) {
		re, err := likePattern(b.plain())
		if err != nil {
			return null, err
		}
		return boolValue(re.MatchString(a.plain()) != e.not), nil
	}, false)}, nil
}

// likePattern turns a LIKE pattern into a regular expression.
func likePattern(pattern string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString("(?s)^")
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '\\' && i+1 < len(pattern):
			i++
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		case c == '%':
			b.WriteString(".*")
		case c == '_':
			b.WriteString(".")
		default:
			b.WriteString(regexp.QuoteMeta(pattern[i : i+1]))
		}
	}
	re, err := regexp.Compile(b.String() + "$")
	if err != nil {
		return nil, fmt.Errorf("compile LIKE pattern: %w", err)
	}
	return re, nil
}

// castExpr gives NULL for what does not convert, as CAST does.
func (c *compiler) castExpr(e castExpr) (compiled, error) {
	x, err := c.compile(e.e)
	if err != nil {
		return compiled{}, err
	}
	return compiled{typ: e.typ, eval: func(n *env) (value, error) {
		v, err := x.eval(n)
		if err != nil {
			return null, err
		}
		out, err := castValue(v, x.typ, e.typ)
		if err != nil {
			return null, nil //nolint:nilerr // CAST answers NULL for what does not convert.
		}
		return out, nil
	}}, nil
}
