package starrockstest

import (
	"strings"
)

func (p *parser) selectStatement() (any, error) {
	if p.accept("(") {
		return nil, unsupported("a query in parentheses")
	}
	p.pos++
	s := &selectRows{limit: -1, distinct: p.accept("distinct")}
	p.accept("all")
	for {
		item, err := p.selectItem()
		if err != nil {
			return nil, err
		}
		s.items = append(s.items, item)
		if !p.accept(",") {
			break
		}
	}
	if p.accept("from") {
		if err := p.from(s); err != nil {
			return nil, err
		}
	}
	if err := p.tail(s); err != nil {
		return nil, err
	}
	if p.peek().is("union") || p.peek().is("intersect") || p.peek().is("except") {
		return nil, unsupported("%s", strings.ToUpper(p.peek().text))
	}
	return s, nil
}

func (p *parser) selectItem() (item selectItem, err error) {
	if p.accept("*") {
		return selectItem{star: true}, nil
	}
	if t := p.peek(); (t.kind == tokIdent || t.kind == tokQuoted) && p.peekAt(1).is(".") && p.peekAt(2).is("*") {
		p.pos += 3
		return selectItem{star: true}, nil
	}
	start := p.peek().pos
	if item.e, err = p.expr(); err != nil {
		return item, err
	}
	item.text = strings.TrimSpace(p.sql[start:p.peek().pos])
	if p.accept("as") {
		if t := p.peek(); t.kind == tokString {
			p.pos++
			item.alias = t.text
			return item, nil
		}
		item.alias, err = p.ident()
		return item, err
	}
	if t := p.peek(); t.kind == tokQuoted || (t.kind == tokIdent && !reserved[strings.ToLower(t.text)] && !clauseWord(t)) {
		item.alias = p.next().text
	}
	return item, nil
}

func clauseWord(t token) bool {
	return t.is("union") || t.is("intersect") || t.is("except") || t.is("offset") || t.is("cross")
}

func (p *parser) from(s *selectRows) error {
	if p.peek().is("(") {
		return unsupported("a subquery in FROM")
	}
	n, err := p.tableName()
	if err != nil {
		return err
	}
	s.from, s.alias = &n, n.name
	p.accept("as")
	if t := p.peek(); t.kind == tokQuoted || (t.kind == tokIdent && !reserved[strings.ToLower(t.text)] && !clauseWord(t)) {
		s.alias = p.next().text
	}
	for _, w := range []string{",", "join", "inner", "left", "right", "full", "cross"} {
		if p.peek().is(w) {
			return unsupported("more than one table in FROM")
		}
	}
	return nil
}

// tail reads WHERE, GROUP BY, HAVING, ORDER BY and LIMIT.
func (p *parser) tail(s *selectRows) (err error) {
	if p.accept("where") {
		if s.where, err = p.expr(); err != nil {
			return err
		}
	}
	if p.accept("group", "by") {
		for {
			e, err := p.expr()
			if err != nil {
				return err
			}
			s.groupBy = append(s.groupBy, e)
			if !p.accept(",") {
				break
			}
		}
	}
	if p.accept("having") {
		if s.having, err = p.expr(); err != nil {
			return err
		}
	}
	if err := p.orderBy(s); err != nil {
		return err
	}
	return p.limitClause(s)
}

func (p *parser) orderBy(s *selectRows) error {
	if !p.accept("order", "by") {
		return nil
	}
	for {
		e, err := p.expr()
		if err != nil {
			return err
		}
		o := orderItem{e: e, desc: p.accept("desc")}
		if !o.desc {
			p.accept("asc")
		}
		s.orderBy = append(s.orderBy, o)
		if !p.accept(",") {
			return nil
		}
	}
}

func (p *parser) limitClause(s *selectRows) (err error) {
	if !p.accept("limit") {
		return nil
	}
	if s.limit, err = p.integer(); err != nil {
		return err
	}
	switch {
	case p.accept("offset"):
		s.offset, err = p.integer()
	case p.accept(","):
		s.offset = s.limit
		s.limit, err = p.integer()
	}
	return err
}

func (p *parser) show() (any, error) {
	s := show{full: p.accept("full"), filter: selectRows{limit: -1}}
	var err error
	switch {
	case p.accept("databases"), p.accept("schemas"):
		s.kind = showDatabases
	case p.accept("tables"):
		s.kind = showTables
		err = p.showFrom(&s)
	case p.accept("columns"), p.accept("fields"):
		s.kind = showColumns
		if err = p.expect("from"); err == nil {
			if s.name, err = p.tableName(); err == nil && p.accept("from") {
				s.name.db, err = p.ident()
			}
		}
	case p.accept("create", "table"):
		s.kind = showCreateTable
		s.name, err = p.tableName()
	case p.accept("frontends"):
		s.kind = showFrontends
	case p.accept("backends"):
		s.kind = showBackends
	case p.accept("compute", "nodes"):
		s.kind = showComputeNodes
	case p.accept("global", "variables"), p.accept("session", "variables"), p.accept("variables"):
		s.kind = showVariables
	case p.accept("alter", "table", "column"):
		s.kind = showAlterColumn
		err = p.showFrom(&s)
	case p.accept("warnings"), p.accept("errors"):
		s.kind = showWarnings
	case p.accept("processlist"):
		s.kind = showProcesslist
	default:
		return nil, unsupported("SHOW %s", strings.ToUpper(p.peek().text))
	}
	if err != nil {
		return nil, err
	}
	if err := p.showFilter(&s); err != nil {
		return nil, err
	}
	return s, nil
}

func (p *parser) showFrom(s *show) (err error) {
	if p.accept("from") || p.accept("in") {
		s.db, err = p.ident()
	}
	return err
}

// showFilter reads LIKE, or WHERE, ORDER BY and LIMIT.
func (p *parser) showFilter(s *show) (err error) {
	if p.accept("like") {
		s.hasLike = true
		s.like, err = p.stringLiteral()
		return err
	}
	return p.tail(&s.filter)
}
