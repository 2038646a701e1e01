package starrockstest

import (
	"strings"
)

func (p *parser) createTable() (any, error) {
	c := createTable{ifNotExists: p.accept("if", "not", "exists")}
	var err error
	if c.name, err = p.tableName(); err != nil {
		return nil, err
	}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	for {
		if p.peek().is("index") {
			return nil, unsupported("INDEX in CREATE TABLE")
		}
		col, err := p.columnDef()
		if err != nil {
			return nil, err
		}
		c.columns = append(c.columns, col)
		if !p.accept(",") {
			break
		}
	}
	if err := p.expect(")"); err != nil {
		return nil, err
	}
	return &c, p.tableOptions(&c)
}

// tableOptions reads what follows the columns, in the order of StarRocks' grammar.
func (p *parser) tableOptions(c *createTable) (err error) {
	if p.accept("engine") {
		if err := p.expect("="); err != nil {
			return err
		}
		if t := p.next(); !t.is("olap") {
			return unsupported("ENGINE=%s", t.text)
		}
	}
	if err := p.tableKeys(c); err != nil {
		return err
	}
	if p.accept("comment") {
		if c.comment, err = p.stringLiteral(); err != nil {
			return err
		}
	}
	if p.peek().is("partition") {
		return unsupported("PARTITION BY")
	}
	if err := p.distribution(c); err != nil {
		return err
	}
	if p.accept("order", "by") {
		if c.sortKey, err = p.identList(); err != nil {
			return err
		}
	}
	if p.accept("properties") {
		c.properties, err = p.properties()
	}
	return err
}

func (p *parser) tableKeys(c *createTable) (err error) {
	switch {
	case p.accept("primary", "key"):
		c.model = modelPrimary
	case p.accept("duplicate", "key"):
		c.model = modelDuplicate
	case p.peek().is("unique"), p.peek().is("aggregate"):
		return unsupported("%s KEY tables", strings.ToUpper(p.peek().text))
	default:
		return nil
	}
	c.keys, err = p.identList()
	return err
}

func (p *parser) distribution(c *createTable) (err error) {
	if !p.accept("distributed", "by") {
		return nil
	}
	switch {
	case p.accept("hash"):
		if c.distributed, err = p.identList(); err != nil {
			return err
		}
	case p.accept("random"):
		if c.model == modelPrimary {
			return ddlError("PRIMARY KEY must use hash distribution")
		}
	default:
		return p.unexpected()
	}
	if p.accept("buckets") {
		c.buckets, err = p.integer()
	}
	return err
}

func (p *parser) properties() ([]property, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	var out []property
	for {
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
		out = append(out, property{key: key, value: value})
		if !p.accept(",") {
			return out, p.expect(")")
		}
	}
}

// columnDef reads name, type and attributes. PRIMARY KEY after a column is a syntax error in StarRocks.
func (p *parser) columnDef() (c columnDef, err error) {
	if c.name, err = p.ident(); err != nil {
		return c, err
	}
	if c.typ, err = p.columnType(); err != nil {
		return c, err
	}
	c.key = p.accept("key")
	for _, agg := range []string{"sum", "max", "min", "replace", "replace_if_not_null", "auto_increment"} {
		if p.peek().is(agg) {
			return c, unsupported("column attribute %s", strings.ToUpper(agg))
		}
	}
	switch {
	case p.accept("not", "null"):
		c.nullable = new(bool)
	case p.accept("null"):
		yes := true
		c.nullable = &yes
	}
	if p.accept("default") {
		if err := p.columnDefault(&c); err != nil {
			return c, err
		}
	}
	if p.accept("comment") {
		c.comment, err = p.stringLiteral()
	}
	return c, err
}

// columnDefault takes what the grammar takes: a string, NULL or CURRENT_TIMESTAMP; a bare number is a syntax error.
func (p *parser) columnDefault(c *columnDef) (err error) {
	c.hasDefault = true
	switch {
	case p.accept("null"):
		c.defaultNull = true
	case p.accept("current_timestamp"):
		c.defaultNow = true
		if p.accept("(") {
			if !p.peek().is(")") {
				return unsupported("CURRENT_TIMESTAMP with a precision")
			}
			return p.expect(")")
		}
	case p.peek().is("("):
		return unsupported("function as DEFAULT")
	default:
		c.defaultVal, err = p.stringLiteral()
	}
	return err
}

var plainTypes = map[string]typeKind{
	"boolean": typeBoolean, "bool": typeBoolean, "float": typeFloat, "double": typeDouble, "date": typeDate,
	"datetime": typeDatetime, "json": typeJSON, "tinyint": typeTinyint, "smallint": typeSmallint, "int": typeInt,
	"integer": typeInt, "bigint": typeBigint, "largeint": typeLargeint,
}

func (p *parser) columnType() (t colType, err error) {
	tok := p.next()
	if tok.kind != tokIdent {
		p.pos--
		return t, p.unexpected()
	}
	name := strings.ToLower(tok.text)
	if kind, ok := plainTypes[name]; ok {
		if kind >= typeTinyint && kind <= typeLargeint {
			// A display width is read and forgotten.
			_, _, err = p.typeLengths(0)
		}
		return colType{kind: kind}, err
	}
	switch name {
	case "string", "text":
		return colType{kind: typeVarchar, length: stringTypeBytes}, nil
	case "char":
		n, _, err := p.typeLengths(1)
		if err == nil && (n < 1 || n > charMaxBytes) {
			err = ddlError("Char size must be <= 255: %d", n)
		}
		return colType{kind: typeChar, length: n}, err
	case "varchar":
		n, _, err := p.typeLengths(1)
		if err == nil && (n < 1 || n > varcharMaxBytes) {
			err = ddlError("Varchar size must be <= %d: %d", varcharMaxBytes, n)
		}
		return colType{kind: typeVarchar, length: n}, err
	case "varbinary", "binary":
		n, _, err := p.typeLengths(varbinaryMaxBytes)
		if err == nil && (n < 1 || n > varbinaryMaxBytes) {
			err = ddlError("Varbinary size must be <= %d: %d", varbinaryMaxBytes, n)
		}
		return colType{kind: typeVarbinary, length: n}, err
	case "decimal", "numeric", "decimalv3", "decimal32", "decimal64", "decimal128", "decimal256":
		return p.decimalType(name)
	case "array":
		return p.arrayType()
	case "map", "struct", "bitmap", "hll", "percentile", "variant":
		return t, unsupported("type %s", strings.ToUpper(name))
	}
	p.pos--
	return t, p.unexpected()
}

// typeLengths reads (n) or (n, m).
func (p *parser) typeLengths(absent int) (n, m int, err error) {
	n = absent
	if !p.accept("(") {
		return n, 0, nil
	}
	if n, err = p.integer(); err != nil {
		return 0, 0, err
	}
	if p.accept(",") {
		if m, err = p.integer(); err != nil {
			return 0, 0, err
		}
	}
	return n, m, p.expect(")")
}

func (p *parser) decimalType(name string) (colType, error) {
	limits := map[string]int{"decimal32": 9, "decimal64": 18, "decimal128": 38, "decimal256": 76}
	precision, scale, err := p.typeLengths(10)
	if err != nil {
		return colType{}, err
	}
	limit := limits[name]
	if limit == 0 {
		limit = 76 // The version's own limit is checked when the column is made.
	}
	if precision < 1 || precision > limit {
		return colType{}, ddlError("DECIMAL's precision should range from 1 to %d: %d", limit, precision)
	}
	if scale < 0 || scale > precision {
		return colType{}, ddlError("DECIMAL's scale should be less than or equal to precision: %d, %d", precision, scale)
	}
	return colType{kind: typeDecimal, precision: precision, scale: scale}, nil
}

func (p *parser) arrayType() (colType, error) {
	if err := p.expect("<"); err != nil {
		return colType{}, err
	}
	elem, err := p.columnType()
	if err != nil {
		return colType{}, err
	}
	return colType{kind: typeArray, elem: &elem}, p.expect(">")
}

func (p *parser) alter() (any, error) {
	n, err := p.tableName()
	if err != nil {
		return nil, err
	}
	a := alterTable{name: n}
	for {
		clauses, err := p.alterClause()
		if err != nil {
			return nil, err
		}
		a.clauses = append(a.clauses, clauses...)
		if !p.accept(",") {
			return a, nil
		}
	}
}

func (p *parser) alterClause() ([]alterClause, error) {
	switch {
	case p.accept("add", "column"):
		return p.addColumns()
	case p.accept("drop", "column"):
		name, err := p.ident()
		return []alterClause{{kind: alterDrop, name: name}}, err
	case p.accept("modify", "column"):
		c, err := p.positionedColumn(alterModify)
		return []alterClause{c}, err
	case p.accept("rename", "column"):
		c := alterClause{kind: alterRenameColumn}
		var err error
		if c.name, err = p.ident(); err != nil {
			return nil, err
		}
		if err := p.expect("to"); err != nil {
			return nil, err
		}
		c.newName, err = p.ident()
		return []alterClause{c}, err
	case p.accept("rename"):
		name, err := p.ident()
		return []alterClause{{kind: alterRenameTable, newName: name}}, err
	case p.accept("set"):
		props, err := p.properties()
		return []alterClause{{kind: alterSet, props: props}}, err
	case p.accept("comment"):
		p.accept("=")
		text, err := p.stringLiteral()
		return []alterClause{{kind: alterComment, name: text}}, err
	default:
		return nil, unsupported("ALTER TABLE %s", strings.ToUpper(p.peek().text))
	}
}

// addColumns reads ADD COLUMN c ... and ADD COLUMN (c ..., d ...).
func (p *parser) addColumns() ([]alterClause, error) {
	if !p.accept("(") {
		c, err := p.positionedColumn(alterAdd)
		return []alterClause{c}, err
	}
	var out []alterClause
	for {
		def, err := p.columnDef()
		if err != nil {
			return nil, err
		}
		out = append(out, alterClause{kind: alterAdd, column: def})
		if !p.accept(",") {
			return out, p.expect(")")
		}
	}
}

func (p *parser) positionedColumn(kind alterKind) (c alterClause, err error) {
	c.kind = kind
	if c.column, err = p.columnDef(); err != nil {
		return c, err
	}
	switch {
	case p.accept("first"):
		c.first = true
	case p.accept("after"):
		c.after, err = p.ident()
	}
	return c, err
}
