package starrockstest

import (
	"strings"
	"unicode/utf8"
)

const (
	primaryKeyMaxBytes = 128
	errorRowsMax       = 50
	opUpsert           = 0
	opDelete           = 1
)

// pendingOp is one row of a load before it meets the table's present rows.
type pendingOp struct {
	key string
	row string
	del bool
}

// loadRows is what a body turned into.
type loadRows struct {
	ops      []pendingOp
	total    int64
	filtered int64
	errors   []string
	hasDel   bool
}

func (l *loadRows) loaded() int64 { return l.total - l.filtered }

// rowErrors collects what is wrong with the current row.
type rowErrors struct {
	plan    *loadPlan
	message string
}

func (e *rowErrors) unconvertible(slot int, source string) {
	if e.message != "" || !e.plan.strict {
		return
	}
	if len(source) > 200 {
		source = source[:200] + "..."
	}
	s := e.plan.slots[slot]
	e.message = "Value '" + strings.Trim(source, `"`) + "' is out of range. The type of '" + s.name + "' is " + s.typ.String()
}

// executor turns a body into operations. It holds the scratch space of one load.
type executor struct {
	plan    *loadPlan
	noStore bool
	vals    []value // by slot
	full    []value // by schema column
	fill    []value // defaults, by schema column
	buf     []byte
	out     loadRows
}

func newExecutor(p *loadPlan, fill []value, noStore bool) *executor {
	return &executor{
		plan: p, noStore: noStore, fill: fill,
		vals: make([]value, len(p.slots)), full: make([]value, len(p.schema.columns)),
	}
}

func (x *executor) run(body string) (*loadRows, error) {
	if x.plan.csv {
		return &x.out, x.runCSV(body)
	}
	return &x.out, x.runJSON(body)
}

func (x *executor) runJSON(body string) error {
	if !utf8.ValidString(body) {
		return refuse("Failed to iterate document stream as object. error: The input is not valid UTF-8")
	}
	rows, err := newJSONRows(body, x.plan)
	if err != nil {
		return err
	}
	for {
		errs := rowErrors{plan: x.plan}
		raw, done, err := rows.next(x.vals, &errs)
		if err != nil {
			return err
		}
		if done {
			return nil
		}
		x.out.total++
		if err := x.row(raw, errs.message); err != nil {
			return err
		}
	}
}

// row checks one row and keeps it as an operation, or counts it as filtered.
func (x *executor) row(raw, message string) error {
	p := x.plan
	op, message := x.operation(message)
	for i := range p.schema.columns {
		if src := p.source[i]; src >= 0 {
			x.full[i] = x.vals[src]
		} else {
			x.full[i] = x.fill[i]
		}
		if message == "" && x.full[i].kind == kindNull && !p.schema.columns[i].nullable && (p.source[i] >= 0 || !p.partial) {
			message = "NULL value in non-nullable column '" + p.schema.columns[i].name + "'"
		}
	}
	if message != "" {
		x.filter(message, raw)
		return nil
	}
	if op != opUpsert && op != opDelete {
		return refuse("unsupported by the stand-in: __op=%d, send 0 for upsert or 1 for delete", op)
	}
	return x.keep(op == opDelete)
}

func (x *executor) operation(message string) (int64, string) {
	p := x.plan
	switch {
	case p.opSlot >= 0:
		v := x.vals[p.opSlot]
		if v.kind == kindNull {
			if message == "" {
				message = "NULL value in non-nullable column '__op'"
			}
			return opUpsert, message
		}
		return v.num, message
	case p.constOp >= 0:
		return int64(p.constOp), message
	default:
		return opUpsert, message
	}
}

func (x *executor) filter(message, raw string) {
	x.out.filtered++
	if len(x.out.errors) < errorRowsMax {
		x.out.errors = append(x.out.errors, "Error: "+message+". Row: "+raw)
	}
}

// keep encodes a good row. Without a store it only checks the key's size.
func (x *executor) keep(del bool) error {
	p := x.plan
	x.out.hasDel = x.out.hasDel || del
	var op pendingOp
	if p.tbl.model == modelPrimary {
		x.buf = p.schema.appendKey(x.buf[:0], x.full)
		if len(x.buf) > primaryKeyMaxBytes {
			return refuse("primary key size exceed the limit.")
		}
		if x.noStore {
			return nil
		}
		op.key, op.del = string(x.buf), del
	}
	if x.noStore {
		return nil
	}
	if !del {
		x.buf = x.encode(x.buf[:0])
		op.row = string(x.buf)
	}
	x.out.ops = append(x.out.ops, op)
	return nil
}

// encode writes the row, of a partial update only the columns that the load carries.
func (x *executor) encode(buf []byte) []byte {
	p := x.plan
	if !p.partial {
		return p.schema.encodeRow(buf, x.full)
	}
	for i, c := range p.schema.columns {
		if p.source[i] >= 0 {
			buf = appendCell(buf, c.id, x.full[i])
		}
	}
	return buf
}
