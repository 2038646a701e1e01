package starrockstest

import (
	"strconv"
	"strings"
)

// parser is a recursive-descent parser over the tokens of one statement.
type parser struct {
	sql  string
	toks []token
	pos  int
}

// parseSQL parses one statement. A statement of comments alone is ignored.
func parseSQL(sql string) (*statement, error) {
	toks, err := lexSQL(sql)
	if err != nil {
		return nil, err
	}
	p := &parser{sql: sql, toks: toks}
	if p.peek().kind == tokEnd || p.peek().is(";") {
		return &statement{sql: sql, node: ignored{}}, nil
	}
	node, err := p.statement()
	if err != nil {
		return nil, err
	}
	p.accept(";")
	if p.peek().kind != tokEnd {
		return nil, p.unexpected()
	}
	return &statement{sql: sql, node: node}, nil
}

func (p *parser) peek() token { return p.toks[p.pos] }

func (p *parser) peekAt(n int) token { return p.toks[min(p.pos+n, len(p.toks)-1)] }

func (p *parser) next() token {
	t := p.toks[p.pos]
	if t.kind != tokEnd {
		p.pos++
	}
	return t
}

// accept takes a run of keywords or symbols if they all come next.
func (p *parser) accept(words ...string) bool {
	for i, w := range words {
		if !p.peekAt(i).is(w) {
			return false
		}
	}
	p.pos += len(words)
	return true
}

func (p *parser) expect(words ...string) error {
	for _, w := range words {
		if !p.accept(w) {
			return p.unexpected()
		}
	}
	return nil
}

func (p *parser) unexpected() error {
	t := p.peek()
	text := t.text
	if t.kind == tokEnd {
		text = "<EOF>"
	}
	return syntaxError(p.sql, t.pos, "Unexpected input '%s', the most similar input is not known to the stand-in", text)
}

// reserved are words that name a column or table only in backquotes.
var reserved = map[string]bool{}

func init() {
	for w := range strings.FieldsSeq(`add all alter and as asc between bigint by case char column create current_timestamp
		database databases decimal default delete desc describe distinct double drop else exists explain false float for from
		full group having if in index inner insert int integer into is join json key keys kill largeint left like limit load
		not null on or order outer partition primary replace schema select set show smallint table then tinyint to true
		unique update use using values varchar when where with`) {
		reserved[w] = true
	}
}

func (p *parser) ident() (string, error) {
	t := p.peek()
	if t.kind == tokQuoted || (t.kind == tokIdent && !reserved[strings.ToLower(t.text)]) {
		p.pos++
		return t.text, nil
	}
	return "", p.unexpected()
}

func (p *parser) tableName() (n tableName, err error) {
	if n.name, err = p.ident(); err != nil {
		return n, err
	}
	if p.accept(".") {
		n.db = n.name
		if n.name, err = p.ident(); err != nil {
			return n, err
		}
	}
	if p.accept(".") {
		if n.db != "default_catalog" {
			return n, unsupported("catalog %s", n.db)
		}
		n.db = n.name
		n.name, err = p.ident()
	}
	return n, err
}

func (p *parser) stringLiteral() (string, error) {
	if t := p.peek(); t.kind == tokString {
		p.pos++
		return t.text, nil
	}
	return "", p.unexpected()
}

func (p *parser) integer() (int, error) {
	t := p.peek()
	n, err := strconv.Atoi(t.text)
	if t.kind != tokNumber || err != nil {
		return 0, p.unexpected()
	}
	p.pos++
	return n, nil
}

// identList reads (a, b, ...).
func (p *parser) identList() ([]string, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var out []string
	for {
		name, err := p.ident()
		if err != nil {
			return nil, err
		}
		out = append(out, name)
		if !p.accept(",") {
			return out, p.expect(")")
		}
	}
}

func (p *parser) statement() (any, error) {
	switch t := p.peek(); {
	case t.is("select"), t.is("("):
		return p.selectStatement()
	case p.accept("create"):
		return p.create()
	case p.accept("drop"):
		return p.drop()
	case p.accept("truncate", "table"):
		n, err := p.tableName()
		return truncateTable{name: n}, err
	case p.accept("alter", "table"):
		return p.alter()
	case p.accept("insert", "into"):
		return p.insert()
	case p.accept("update"):
		return p.update()
	case p.accept("delete", "from"):
		return p.delete()
	case p.accept("show"):
		return p.show()
	case p.accept("desc"), p.accept("describe"):
		n, err := p.tableName()
		return show{kind: showColumns, name: n, filter: selectRows{limit: -1}}, err
	case p.accept("use"):
		name, err := p.ident()
		return useDatabase{name: name}, err
	case p.accept("sync"): // One front end has nothing to catch up with.
		return ignored{}, nil
	case p.accept("set"):
		p.pos = len(p.toks) - 1
		return ignored{}, nil
	case p.accept("admin"):
		return p.admin()
	default:
		return nil, unsupported("statement starting with '%s'", t.text)
	}
}

func (p *parser) create() (any, error) {
	switch {
	case p.accept("database"), p.accept("schema"):
		c := createDatabase{ifNotExists: p.accept("if", "not", "exists")}
		var err error
		c.name, err = p.ident()
		return c, err
	case p.accept("table"):
		return p.createTable()
	default:
		return nil, unsupported("CREATE %s", strings.ToUpper(p.peek().text))
	}
}

func (p *parser) drop() (any, error) {
	switch {
	case p.accept("database"), p.accept("schema"):
		d := dropDatabase{ifExists: p.accept("if", "exists")}
		var err error
		d.name, err = p.ident()
		p.accept("force")
		return d, err
	case p.accept("table"):
		d := dropTable{ifExists: p.accept("if", "exists")}
		var err error
		d.name, err = p.tableName()
		p.accept("force")
		return d, err
	default:
		return nil, unsupported("DROP %s", strings.ToUpper(p.peek().text))
	}
}

func (p *parser) admin() (any, error) {
	switch {
	case p.accept("set", "frontend", "config"):
		if err := p.expect("("); err != nil {
			return nil, err
		}
		key, err := p.stringLiteral()
		if err != nil {
			return nil, err
		}
		if err := p.expect("="); err != nil {
			return nil, err
		}
		value, err := p.stringLiteral()
		if err != nil {
			return nil, err
		}
		return setConfig{key: key, value: value}, p.expect(")")
	case p.accept("show", "frontend", "config"):
		s := show{kind: showFrontendConfig, filter: selectRows{limit: -1}}
		return s, p.showFilter(&s)
	default:
		return nil, unsupported("ADMIN %s", strings.ToUpper(p.peek().text))
	}
}

func (p *parser) insert() (any, error) {
	p.accept("table")
	n, err := p.tableName()
	if err != nil {
		return nil, err
	}
	ins := insertRows{name: n}
	if p.peek().is("(") {
		if ins.columns, err = p.identList(); err != nil {
			return nil, err
		}
	}
	if !p.accept("values") {
		return nil, unsupported("INSERT without VALUES")
	}
	for {
		row, err := p.exprList()
		if err != nil {
			return nil, err
		}
		ins.rows = append(ins.rows, row)
		if !p.accept(",") {
			return ins, nil
		}
	}
}

// exprList reads (a, b, ...).
func (p *parser) exprList() ([]expr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var out []expr
	for {
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		out = append(out, e)
		if !p.accept(",") {
			return out, p.expect(")")
		}
	}
}

func (p *parser) update() (any, error) {
	n, err := p.tableName()
	if err != nil {
		return nil, err
	}
	if err := p.expect("set"); err != nil {
		return nil, err
	}
	u := updateRows{name: n}
	for {
		name, err := p.ident()
		if err != nil {
			return nil, err
		}
		if err := p.expect("="); err != nil {
			return nil, err
		}
		e, err := p.expr()
		if err != nil {
			return nil, err
		}
		u.set = append(u.set, assignment{column: name, value: e})
		if !p.accept(",") {
			break
		}
	}
	if p.accept("where") {
		u.where, err = p.expr()
	}
	return u, err
}

func (p *parser) delete() (any, error) {
	n, err := p.tableName()
	if err != nil {
		return nil, err
	}
	d := deleteRows{name: n}
	if p.accept("where") {
		d.where, err = p.expr()
	}
	return d, err
}
