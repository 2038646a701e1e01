package starrockstest

import (
	"strings"
)

// namedColumns reads the columns header: names, and of expressions only those for __op.
func (p *loadPlan) namedColumns(header string) error {
	toks, err := lexSQL(header)
	if err != nil {
		return refuse("failed to parse columns header: %v", err)
	}
	var opSource string
	for pos := 0; toks[pos].kind != tokEnd; {
		name := toks[pos]
		if name.kind != tokIdent && name.kind != tokQuoted {
			return refuse("unsupported by the stand-in: columns header near '%s'", name.text)
		}
		pos++
		if toks[pos].is("=") {
			source, err := p.opExpression(name.text, toks[pos+1])
			if err != nil {
				return err
			}
			if source != "" {
				opSource = source
			}
			pos += 2
		} else if err := p.nameColumn(name.text); err != nil {
			return err
		}
		if toks[pos].is(",") {
			pos++
		} else if toks[pos].kind != tokEnd {
			return refuse("unsupported by the stand-in: expression in columns header near '%s'", toks[pos].text)
		}
	}
	return p.bindOpSource(opSource)
}

// nameColumn adds a listed name: a table column without regard to case, __op, or a name for expressions only.
func (p *loadPlan) nameColumn(name string) error {
	if strings.EqualFold(name, opColumn) {
		if p.tbl.model != modelPrimary {
			return refuse("load op type column: __op is only supported in primary key table")
		}
		p.addSlot(opColumn, -1)
		p.opSlot = len(p.slots) - 1
		return nil
	}
	i := p.schema.find(name)
	if i >= 0 && p.source[i] >= 0 {
		return refuse("Duplicate column: %s", name)
	}
	p.addSlot(name, i)
	return nil
}

// opExpression handles __op='delete', __op='upsert', __op=0, __op=1 and __op=name.
func (p *loadPlan) opExpression(name string, tok token) (source string, err error) {
	if !strings.EqualFold(name, opColumn) {
		return "", refuse("unsupported by the stand-in: expression for column %s in columns header", name)
	}
	if p.tbl.model != modelPrimary {
		return "", refuse("load op type column: __op is only supported in primary key table")
	}
	switch {
	case tok.kind == tokString && strings.EqualFold(tok.text, "upsert"), tok.kind == tokNumber && tok.text == "0":
		p.constOp = 0
	case tok.kind == tokString && strings.EqualFold(tok.text, "delete"), tok.kind == tokNumber && tok.text == "1":
		p.constOp = 1
	case tok.kind == tokIdent || tok.kind == tokQuoted:
		return tok.text, nil
	default:
		return "", refuse("load op type column expression is invalid: __op=%s", tok.text)
	}
	return "", nil
}

func (p *loadPlan) bindOpSource(source string) error {
	if source == "" {
		return nil
	}
	i, ok := p.byName[source]
	if !ok || p.slots[i].col >= 0 {
		return refuse("unsupported by the stand-in: __op=%s, name a column of the load that is not in the table", source)
	}
	p.slots[i].typ = colType{kind: typeTinyint}
	p.opSlot = i
	return nil
}
