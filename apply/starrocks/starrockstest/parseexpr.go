package starrockstest

import (
	"math/big"
	"strconv"
	"strings"
)

func (p *parser) expr() (expr, error) { return p.binary(0) }

// levels are the binary operators from the loosest to the tightest.
var levels = [][]string{{"or", "||"}, {"xor"}, {"and", "&&"}, {"not"}, {"="}, {"+", "-"}, {"*", "/", "%", "div", "mod"}}

const (
	levelNot     = 3
	levelCompare = 4
)

func (p *parser) binary(level int) (expr, error) {
	switch level {
	case levelNot:
		if p.peek().is("not") || p.peek().is("!") {
			p.pos++
			e, err := p.binary(levelNot)
			return unaryExpr{op: "not", e: e}, err
		}
		return p.binary(level + 1)
	case levelCompare:
		return p.comparison()
	case len(levels):
		return p.unary()
	}
	left, err := p.binary(level + 1)
	if err != nil {
		return nil, err
	}
	for {
		op := p.operator(levels[level])
		if op == "" {
			return left, nil
		}
		right, err := p.binary(level + 1)
		if err != nil {
			return nil, err
		}
		left = binaryExpr{op: op, l: left, r: right}
	}
}

func (p *parser) operator(ops []string) string {
	for _, op := range ops {
		if p.accept(op) {
			switch op {
			case "||":
				return "or"
			case "&&":
				return "and"
			}
			return op
		}
	}
	return ""
}

func (p *parser) comparison() (expr, error) {
	left, err := p.binary(levelCompare + 1)
	if err != nil {
		return nil, err
	}
	for {
		if op := p.operator([]string{"=", "<>", "!=", "<=>", "<=", ">=", "<", ">"}); op != "" {
			right, err := p.binary(levelCompare + 1)
			if err != nil {
				return nil, err
			}
			if op == "!=" {
				op = "<>"
			}
			left = binaryExpr{op: op, l: left, r: right}
			continue
		}
		e, found, err := p.predicate(left)
		if err != nil || !found {
			return left, err
		}
		left = e
	}
}

// predicate reads IS NULL, IN, BETWEEN and LIKE after an expression.
func (p *parser) predicate(left expr) (e expr, found bool, err error) {
	if p.accept("is") {
		not := p.accept("not")
		return isNullExpr{e: left, not: not}, true, p.expect("null")
	}
	not := false
	if p.peek().is("not") && (p.peekAt(1).is("in") || p.peekAt(1).is("between") || p.peekAt(1).is("like")) {
		not = p.accept("not")
	}
	switch {
	case p.accept("in"):
		if p.peekAt(1).is("select") {
			return nil, false, unsupported("a subquery in IN")
		}
		list, err := p.exprList()
		return inExpr{e: left, list: list, not: not}, true, err
	case p.accept("between"):
		low, err := p.binary(levelCompare + 1)
		if err != nil {
			return nil, false, err
		}
		if err := p.expect("and"); err != nil {
			return nil, false, err
		}
		high, err := p.binary(levelCompare + 1)
		return betweenExpr{e: left, low: low, high: high, not: not}, true, err
	case p.accept("like"):
		pattern, err := p.binary(levelCompare + 1)
		return likeExpr{e: left, pattern: pattern, not: not}, true, err
	}
	return nil, false, nil
}

func (p *parser) unary() (expr, error) {
	switch {
	case p.accept("-"):
		if t := p.peek(); t.kind == tokNumber {
			p.pos++
			return literal{numberLiteral("-" + t.text)}, nil
		}
		e, err := p.unary()
		return unaryExpr{op: "-", e: e}, err
	case p.accept("+"):
		return p.unary()
	default:
		return p.primary()
	}
}

func numberLiteral(text string) value {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return intValue(n)
	}
	if strings.ContainsAny(text, "eE") {
		f, _ := strconv.ParseFloat(text, 64) // The lexer has checked the form; out of range gives infinity.
		return floatValue(f)
	}
	if _, ok := new(big.Rat).SetString(text); !ok {
		return floatValue(0)
	}
	return value{kind: kindDecimal, text: strings.TrimSuffix(text, ".")}
}

func (p *parser) primary() (expr, error) {
	t := p.peek()
	switch {
	case t.kind == tokNumber:
		p.pos++
		return literal{numberLiteral(t.text)}, nil
	case t.kind == tokString:
		p.pos++
		return literal{stringValue(t.text)}, nil
	case p.accept("null"):
		return literal{null}, nil
	case p.accept("true"):
		return literal{boolValue(true)}, nil
	case p.accept("false"):
		return literal{boolValue(false)}, nil
	case p.accept("@@"):
		return p.systemVariable()
	case p.accept("("):
		if p.peek().is("select") {
			return nil, unsupported("a subquery")
		}
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		return e, p.expect(")")
	case p.accept("cast"):
		return p.cast()
	case t.is("current_timestamp"), t.is("if"), t.is("date"), t.is("left"), t.is("replace"):
		return p.callOrColumn(t)
	case t.kind == tokQuoted, t.kind == tokIdent && !reserved[strings.ToLower(t.text)]:
		return p.callOrColumn(t)
	default:
		return nil, p.unexpected()
	}
}

func (p *parser) systemVariable() (expr, error) {
	if p.peekAt(1).is(".") {
		p.pos += 2
	}
	t := p.next()
	if t.kind != tokIdent && t.kind != tokQuoted {
		p.pos--
		return nil, p.unexpected()
	}
	return systemVariable{name: strings.ToLower(t.text)}, nil
}

func (p *parser) cast() (expr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	e, err := p.expr()
	if err != nil {
		return nil, err
	}
	if err := p.expect("as"); err != nil {
		return nil, err
	}
	typ, err := p.columnType()
	if err != nil {
		return nil, err
	}
	return castExpr{e: e, typ: typ}, p.expect(")")
}

func (p *parser) callOrColumn(t token) (expr, error) {
	p.pos++
	if t.kind == tokIdent && p.peek().is("(") {
		return p.call(strings.ToLower(t.text))
	}
	if t.is("current_timestamp") {
		return callExpr{name: "now"}, nil
	}
	ref := columnRef{name: t.text}
	for p.accept(".") {
		name, err := p.ident()
		if err != nil {
			return nil, err
		}
		ref.table, ref.name = ref.name, name
	}
	return ref, nil
}

func (p *parser) call(name string) (expr, error) {
	p.pos++
	c := callExpr{name: name}
	if p.accept(")") {
		return c, nil
	}
	if p.accept("*") {
		c.star = true
		return c, p.expect(")")
	}
	c.distinct = p.accept("distinct")
	p.pos--
	if c.distinct {
		// exprList wants an opening parenthesis, and DISTINCT stands in its place.
		p.toks[p.pos] = token{kind: tokSymbol, text: "(", pos: p.toks[p.pos].pos}
	}
	var err error
	c.args, err = p.exprList()
	return c, err
}
