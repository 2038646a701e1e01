package starrocks

import (
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// The audit columns, in the order in which they are written.
const (
	auditOp      = "dbmazz_op_type"
	auditDeleted = "dbmazz_is_deleted"
	auditSynced  = "dbmazz_synced_at"
	auditVersion = "dbmazz_cdc_version"
	auditOrdinal = "dbmazz_cdc_ordinal" // append tables only
)

// The places of audit columns in layout.audit.
const (
	atOp = iota
	atDeleted
	atSynced
	atVersion
	atOrdinal
)

// auditColumn is an audit column with its type.
type auditColumn struct {
	name string
	kind targetKind
	note string
}

var auditColumns = []auditColumn{
	{auditOp, targetTinyInt, "0 insert, 1 update, 2 delete"},
	{auditDeleted, targetBoolean, "true if the row is deleted in the source"},
	{auditSynced, targetDateTime, "when the batch was planned, UTC"},
	{auditVersion, targetBigInt, "commit LSN of the change"},
	{auditOrdinal, targetBigInt, "number of the change in its transaction"},
}

// isAppend tells that every change of the table is a row of its own.
func isAppend(schema *cdc.Schema) bool { return len(schema.Key) == 0 }

// auditOf returns the audit columns of the schema's table.
func auditOf(schema *cdc.Schema) []auditColumn {
	if isAppend(schema) {
		return auditColumns
	}
	return auditColumns[:atOrdinal]
}

// encodingVersion must change whenever the bytes of a load's body may change for the
// same rows, so that a label never stands for two bodies.
const encodingVersion = 1

// keyBytesMax is StarRocks's limit of the encoded primary key (primary_key_limit_size).
const keyBytesMax = 128

// column is a column of the target, with what the encoder needs to write it.
type column struct {
	source *cdc.Column
	name   string // in StarRocks, in its case
	prefix []byte // "name":
	target target
	how    encoding
	key    bool
	// keySize is what the column adds to the encoded key; zero: its text's length.
	keySize int
	// stored tells that values come from StarRocks; see Sink.fill.
	stored bool
	// nulls tells that a value which does not fit becomes NULL.
	nulls bool
}

// layout is how rows of one schema are written to one table. It does not change.
type layout struct {
	schema  *cdc.Schema
	table   string
	columns []column // as Schema.Columns
	key     []int
	// appends tells that every change is a row; see [Sink.Apply] in append.go.
	appends bool
	// audit holds the names of the audit columns as the table spells them.
	audit []string
	// foreign tells that the table has columns that the source has not; loads then
	// list theirs, so that the others get their default and not NULL.
	foreign bool
	// foldsKeys tells that two keys of the source may be one in the sink.
	foldsKeys bool
	// shape is part of every label; see fingerprint.
	shape string
	// rowBytes is about what a row takes as JSON beyond its wire bytes.
	rowBytes int
}

func (l *layout) seal(mode DeleteMode, bodyBytesMax int) {
	for i := range l.columns {
		c := &l.columns[i]
		c.prefix = append(appendName(nil, c.name), ':')
		c.keySize = c.target.keySize()
	}
	for n, i := range l.key {
		c := &l.columns[i]
		c.key = true
		const varcharSeparator = 2
		if c.keySize == 0 && n < len(l.key)-1 {
			c.keySize = -varcharSeparator
		}
		_, _, fixed := c.source.NumericPrecision()
		l.foldsKeys = l.foldsKeys || (c.how == encodeNumericKey && !fixed)
		_, fixed = c.source.Length()
		l.foldsKeys = l.foldsKeys || (c.how == encodeCharKey && !fixed)
	}
	l.shape = l.fingerprint(mode, bodyBytesMax)
	const quotesAndComma, numbers = 3, 2 * 20 // The version, and what else the end of a row may have.
	for i := range l.columns {
		l.rowBytes += len(l.columns[i].prefix) + quotesAndComma
	}
	for _, name := range l.audit {
		l.rowBytes += len(name) + len(`"":,`)
	}
	l.rowBytes += len(synced) + numbers
}

// fingerprint is a short text that differs whenever the same batch would be cut or
// written differently. As part of the label it keeps a load that was committed under
// another configuration from being taken for one of this.
func (l *layout) fingerprint(mode DeleteMode, bodyBytesMax int) string {
	h := fnv.New32a()
	add := func(parts ...string) {
		for _, p := range parts {
			_ = binary.Write(h, binary.BigEndian, uint32(len(p))) //nolint:gosec // Names; a hash takes everything.
			_, _ = h.Write([]byte(p))
		}
	}
	add(strconv.Itoa(encodingVersion), string(mode), strconv.Itoa(bodyBytesMax), l.table, strconv.FormatBool(l.foreign))
	for i := range l.columns {
		c := &l.columns[i]
		add(c.name, c.target.String(), strconv.Itoa(int(c.how)), strconv.FormatBool(c.key), strconv.Itoa(int(c.source.Type)))
		if c.nulls {
			add(string(OverrideNull))
		}
	}
	add(l.audit...)
	return strconv.FormatUint(uint64(h.Sum32()), 36)
}

func appendName(dst []byte, name string) []byte {
	dst, _ = appendString(dst, []byte(name))
	return dst
}

// list returns the columns header for the columns that are not in absent, a set of
// column positions made by rowSet; the audit columns are always there.
func (l *layout) list(absent string, op bool) string {
	var b strings.Builder
	for i := range l.columns {
		if len(absent) > 0 && absent[i/8]&(1<<(i%8)) != 0 {
			continue
		}
		b.WriteString(quoteName(l.columns[i].name))
		b.WriteByte(',')
	}
	for i, name := range l.audit {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(quoteName(name))
	}
	if op {
		b.WriteString(",__op")
	}
	return b.String()
}

// writer appends the rows of one batch to bodies.
type writer struct {
	layout *layout
	hard   bool
	// tails are the audit columns up to the version, for each op.
	tails   [3][]byte
	scratch jsonScratch
	// nulled counts values that became NULL because they did not fit.
	nulled int64
}

func newWriter(l *layout, mode DeleteMode, synced string) *writer {
	w := &writer{layout: l, hard: mode == DeleteHard && !l.appends}
	for op := range w.tails {
		tail := append(appendName([]byte{','}, l.audit[atOp]), ':', byte('0'+op), ',')
		tail = append(appendName(tail, l.audit[atDeleted]), ':')
		tail = strconv.AppendBool(tail, op == int(apply.OpDelete))
		tail = append(appendName(append(tail, ','), l.audit[atSynced]), ':')
		tail = append(appendName(tail, synced), ',')
		w.tails[op] = append(appendName(tail, l.audit[atVersion]), ':')
	}
	return w
}

// columnRefusal is a refusal and the column it is about; -1 is the whole key.
type columnRefusal struct {
	*refusal
	column int
}

// form is which columns of a row are written.
type form uint8

const (
	formFull    form = iota // all, NULL where the tuple is short of a value
	formPresent             // those that are not unchanged
	formKey                 // those of the key, and the audit columns
)

// append appends row as a JSON object; tuple is the row's, or the completed one of a
// row that moved. It allocates nothing but room for dst.
func (w *writer) append(dst []byte, row *apply.Row, tuple cdc.Tuple, as form) ([]byte, columnRefusal) {
	l := w.layout
	hardDelete := w.hard && row.Op == apply.OpDelete
	dst = append(dst, '{')
	first, keyBytes := true, 0
	for i := range l.columns {
		c := &l.columns[i]
		v, rest, ok := tuple.Next()
		if !ok {
			return dst, columnRefusal{refuseSyntax, i}
		}
		tuple = rest
		if v.Kind == cdc.Unchanged && (c.key || (as == formFull && !hardDelete)) {
			if l.appends {
				return dst, columnRefusal{refusePart, i}
			}
			return dst, columnRefusal{refuseNull, i}
		}
		if v.Kind == cdc.Unchanged || (!c.key && (as == formKey || hardDelete)) {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, c.prefix...)
		if v.Kind == cdc.Null {
			if c.key {
				return dst, columnRefusal{refuseNull, i}
			}
			dst = append(dst, "null"...)
			continue
		}
		var r *refusal
		at := len(dst)
		if dst, r = c.appendValue(dst, v.Bytes, &w.scratch); r != nil {
			if !c.nulls || !r.ofValue() {
				return dst, columnRefusal{r, i}
			}
			dst = append(dst[:at], "null"...)
			w.nulled++
		}
		if c.key {
			keyBytes += c.encodedKeySize(v.Bytes)
		}
	}
	if keyBytes > keyBytesMax {
		return dst, columnRefusal{refuseKeyBytes, -1}
	}
	return w.finish(dst, row, as), columnRefusal{}
}

// encodedKeySize returns what a value of the key takes in StarRocks's encoding of it.
func (c *column) encodedKeySize(v []byte) int {
	if c.keySize > 0 {
		return c.keySize
	}
	switch c.how {
	case encodeNumericKey:
		v = canonicalNumeric(v)
	case encodeCharKey:
		v = trimBlanks(v)
	default: // Sent as it is.
	}
	return len(v) - c.keySize
}

func (w *writer) finish(dst []byte, row *apply.Row, as form) []byte {
	if w.hard && row.Op == apply.OpDelete {
		return append(dst, `,"__op":1}`...)
	}
	dst = append(dst, w.tails[row.Op]...)
	dst = strconv.AppendInt(dst, int64(row.Position.Commit), 10) //nolint:gosec // The column is signed; LSNs are below 2^63.
	if w.layout.appends {
		dst = append(appendName(append(dst, ','), w.layout.audit[atOrdinal]), ':')
		return append(strconv.AppendUint(dst, row.Position.Ordinal, 10), '}')
	}
	if w.hard && as == formFull {
		dst = append(dst, `,"__op":0`...)
	}
	return append(dst, '}')
}

// refused makes the error that stops the batch.
func (l *layout) refused(row *apply.Row, r columnRefusal) *apply.RowError {
	e := &apply.RowError{Table: l.schema.Name(), Key: l.rowText(row), Reason: r.reason, Hint: r.hint}
	if r.column >= 0 {
		c := &l.columns[r.column]
		e.Column, e.Type, e.Target = c.source.Name, c.source.TypeName, c.target.String()
	}
	return e
}

// rowText names a row for people: by its key, or by its position where there is none.
func (l *layout) rowText(row *apply.Row) string {
	if l.appends {
		return positionText(row.Position)
	}
	return l.keyText(row.Tuple)
}

func positionText(p cdc.Position) string {
	return auditVersion + "=" + strconv.FormatUint(uint64(p.Commit), 10) + ", " + auditOrdinal + "=" + strconv.FormatUint(p.Ordinal, 10)
}

// keyText prints the key of a row for people: a=1, b=x.
func (l *layout) keyText(tuple cdc.Tuple) string {
	const valueBytesMax = 100
	values := make([]string, len(l.columns))
	for i := range l.columns {
		v, rest, ok := tuple.Next()
		if !ok {
			break
		}
		tuple = rest
		switch text := v.Bytes; {
		case v.Kind != cdc.Text:
			values[i] = "NULL"
		case len(text) > valueBytesMax:
			values[i] = printable(text[:valueBytesMax]) + "..."
		default:
			values[i] = printable(text)
		}
	}
	var parts []string
	for _, i := range l.key {
		parts = append(parts, l.columns[i].source.Name+"="+values[i])
	}
	return strings.Join(parts, ", ")
}

// printable keeps a value from breaking a line of the log.
func printable(text []byte) string {
	quoted := strconv.Quote(string(text))
	return quoted[1 : len(quoted)-1]
}
