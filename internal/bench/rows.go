package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// sunk is a table of the sink: what a key's row has become, as far as it is checked.
type sunk struct {
	columns []string
	index   map[string]int
	id      int // indexes of the columns that are checked; -1 where there is none
	n, s    int
	deleted int

	rows []kept // by id
	// received counts rows, loads loads.
	received, loads int64
	last            int64 // greatest id
}

// kept is the checked part of a row.
type kept struct {
	n     int64
	bytes int32
	alive bool
}

// The column that marks a deleted row, and the one of a load that removes rows.
const (
	deletedColumn = "dbmazz_is_deleted"
	opColumn      = "__op"
)

func newSunk(columns []string) (*sunk, error) {
	t := &sunk{columns: columns, index: map[string]int{}, id: -1, n: -1, s: -1, deleted: -1}
	for i, name := range columns {
		t.index[name] = i
		switch name {
		case "id":
			t.id = i
		case "n":
			t.n = i
		case "s":
			t.s = i
		case deletedColumn:
			t.deleted = i
		}
	}
	if t.id < 0 || t.n < 0 || t.s < 0 || t.deleted < 0 {
		return nil, fmt.Errorf("a table needs the columns id, n, s and %s; it has %q", deletedColumn, columns)
	}
	return t, nil
}

// sums returns what the table holds.
func (t *sunk) sums() (s sums) {
	for id, row := range t.rows {
		if row.alive {
			s.Rows++
			s.IDs += int64(id)
			s.Numbers += row.n % numberModulus
			s.Bytes += int64(row.bytes)
		}
	}
	return s
}

// arrived is one row of a body.
type arrived struct {
	id, n   int64
	bytes   int32
	deleted bool
	partial bool // it has no n and s
}

// idMax bounds the memory of a table.
const idMax = 1 << 26

// errBody is wrapped by errors about a body.
var errBody = errors.New("body is not an array of rows")

// body is a parser of one load: an array of objects, each with every column of the load, once. Names and numbers are
// checked by byte, strings for their form.
type body struct {
	text    []byte
	at      int
	table   *sunk
	columns []string // of the load, in the order in which they are expected
	index   map[string]int
	known   []int    // by column of the load: that of the table, -1 for none
	seen    []uint32 // by column: the row that had it last
}

// parseBody returns the rows of a load. list is what the load says that its columns are, empty for all.
func (t *sunk) parseBody(text []byte, list []string, into []arrived) ([]arrived, error) {
	b := body{text: text, table: t, columns: t.columns, index: t.index}
	if len(list) > 0 {
		b.columns, b.index = list, make(map[string]int, len(list))
	}
	for i, name := range b.columns {
		column, ok := t.index[name]
		if !ok {
			return nil, fmt.Errorf("%w: the table has no column %q", errBody, name)
		}
		b.index[name], b.known = i, append(b.known, column)
	}
	b.seen = make([]uint32, len(b.columns)+1)
	if !b.skip('[') {
		return nil, b.wrong("no array")
	}
	for n := uint32(1); ; n++ {
		row, err := b.row(n, len(list) > 0)
		if err != nil {
			return nil, err
		}
		into = append(into, row)
		if b.skip(',') {
			continue
		}
		if !b.skip(']') || b.at != len(b.text) {
			return nil, b.wrong("no end of the array")
		}
		return into, nil
	}
}

func (b *body) wrong(what string) error { return fmt.Errorf("%w: %s at byte %d", errBody, what, b.at) }

func (b *body) skip(c byte) bool {
	if b.at < len(b.text) && b.text[b.at] == c {
		b.at++
		return true
	}
	return false
}

// row reads one object. A row that removes has its key only.
func (b *body) row(n uint32, partial bool) (row arrived, err error) {
	if !b.skip('{') {
		return row, b.wrong("no row")
	}
	count, removes := 0, false
	for next := 0; ; next++ {
		column, err := b.name(next)
		if err != nil {
			return row, err
		}
		next = column
		if b.seen[column] == n {
			return row, b.wrong("a column twice")
		}
		b.seen[column] = n
		count++
		if err := b.value(column, &row, &removes); err != nil {
			return row, err
		}
		if b.skip(',') {
			continue
		}
		if !b.skip('}') {
			return row, b.wrong("no end of the row")
		}
		break
	}
	want := len(b.columns)
	if b.seen[want] == n && !removes {
		want++ // __op came besides the columns.
	}
	if row.id < 1 || row.id > idMax || (count != want && !removes) {
		return row, b.wrong(fmt.Sprintf("%d columns of %d, and id %d", count, want, row.id))
	}
	row.partial = partial || removes
	return row, nil
}

// name reads the name of a column and the colon. The columns come in one order as a rule.
func (b *body) name(next int) (int, error) {
	if !b.skip('"') {
		return 0, b.wrong("no name")
	}
	if next < len(b.columns) {
		name := b.columns[next]
		if end := b.at + len(name); end+1 < len(b.text) && string(b.text[b.at:end]) == name && b.text[end] == '"' && b.text[end+1] == ':' {
			b.at = end + 2
			return next, nil
		}
	}
	end := bytes.IndexByte(b.text[b.at:], '"')
	if end < 0 {
		return 0, b.wrong("no end of a name")
	}
	name := string(b.text[b.at : b.at+end])
	b.at += end + 1
	column, ok := b.index[name]
	if !ok && name == opColumn {
		column, ok = len(b.columns), true
	}
	if !ok || !b.skip(':') {
		return 0, b.wrong("no column of the load")
	}
	return column, nil
}

// value reads a value and keeps it if it is one that is checked.
func (b *body) value(column int, row *arrived, removes *bool) error {
	from := b.at
	size, err := b.scan()
	if err != nil {
		return err
	}
	if column == len(b.columns) {
		*removes = b.text[from] == '1'
		row.deleted = row.deleted || *removes
		return nil
	}
	table := b.table
	switch b.known[column] {
	case table.id:
		row.id, err = strconv.ParseInt(string(b.text[from:b.at]), 10, 64)
	case table.n:
		row.n, err = strconv.ParseInt(string(b.text[from:b.at]), 10, 64)
	case table.s:
		row.bytes = size
	case table.deleted:
		row.deleted = b.text[from] == 't'
	}
	if err != nil {
		return b.wrong("no number")
	}
	return nil
}

// scan passes over one value and returns how many bytes of text a string has.
func (b *body) scan() (size int32, err error) {
	if b.at >= len(b.text) {
		return 0, b.wrong("no value")
	}
	switch c := b.text[b.at]; {
	case c == '"':
		return b.str()
	case c == '{' || c == '[':
		return 0, b.document()
	case c == '-' || (c >= '0' && c <= '9'):
		b.at++
		for b.at < len(b.text) && (b.text[b.at] >= '0' && b.text[b.at] <= '9' || bytes.IndexByte([]byte("+-.eE"), b.text[b.at]) >= 0) {
			b.at++
		}
		return 0, nil
	}
	for _, word := range []string{"true", "false", "null"} {
		if end := b.at + len(word); end <= len(b.text) && string(b.text[b.at:end]) == word {
			b.at = end
			return 0, nil
		}
	}
	return 0, b.wrong("no value")
}

func (b *body) str() (size int32, err error) {
	b.at++
	for b.at < len(b.text) {
		switch c := b.text[b.at]; {
		case c == '"':
			b.at++
			return size, nil
		case c == '\\':
			b.at += 2
			if b.at <= len(b.text) && b.text[b.at-1] == 'u' {
				b.at += 4
			}
			size++ // Texts that are checked have no others than those of one byte.
		case c < ' ':
			return 0, b.wrong("a control character")
		case c < utf8.RuneSelf:
			b.at++
			size++
		default:
			r, width := utf8.DecodeRune(b.text[b.at:])
			if r == utf8.RuneError && width == 1 {
				return 0, b.wrong("no UTF-8")
			}
			b.at += width
			size += int32(width) //nolint:gosec // At most four.
		}
	}
	return 0, b.wrong("no end of a text")
}

// document passes over an object or array that is a value.
func (b *body) document() error {
	depth := 0
	for b.at < len(b.text) {
		switch b.text[b.at] {
		case '"':
			if _, err := b.str(); err != nil {
				return err
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		b.at++
		if depth == 0 {
			return nil
		}
	}
	return b.wrong("no end of a document")
}

// apply makes the rows of a load the state of their keys.
func (t *sunk) apply(rows []arrived) {
	for i := range rows {
		row := &rows[i]
		if have := int64(len(t.rows)); row.id >= have {
			t.rows = append(t.rows, make([]kept, max(row.id+1, 2*have)-have)...)
		}
		k := &t.rows[row.id]
		if !row.partial {
			k.n, k.bytes = row.n, row.bytes
		}
		k.alive = !row.deleted
		t.last = max(t.last, row.id)
	}
	t.received += int64(len(rows))
	t.loads++
}
