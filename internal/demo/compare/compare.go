package compare

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// History knows which rows there ever were. Keys are the texts of the key's columns.
type History interface {
	// Left tells whether there ever was a row of the key, and whether it is left.
	Left(key []string) (left, ever bool)
	// Gone calls yield with every key whose row was deleted, until it returns false.
	Gone(yield func(key []string) bool)
}

// Difference is one row that is not in the sink as it should be.
type Difference struct {
	Table  string
	Key    string // The key's columns with their values: id=7.
	What   string // What is wrong, for people.
	Column []string
}

// String is one line.
func (d Difference) String() string {
	line := d.Table + " " + d.Key + ": " + d.What
	if len(d.Column) > 0 {
		line += " " + strings.Join(d.Column, ", ")
	}
	return line
}

// Result counts what was compared.
type Result struct {
	Rows    int // Rows of the source.
	Deleted int // Rows that the sink keeps as deleted.
	Count   int // Differences.
	// First are the first differences.
	First []Difference
}

// firstMax bounds how many differences are kept.
const firstMax = 20

// Add adds another table's result.
func (r *Result) Add(other Result) {
	r.Rows += other.Rows
	r.Deleted += other.Deleted
	r.Count += other.Count
	r.First = append(r.First, other.First[:min(len(other.First), firstMax-len(r.First))]...)
}

// comparison is one table while it is compared.
type comparison struct {
	table   *Table
	history History
	result  Result
	seen    map[string]bool // Keys that only the sink has.
}

// Compare reads both sides to the end. Differences are no error; the error is a side that cannot be read.
func Compare(t *Table, source, sink Rows, history History) (Result, error) {
	c := &comparison{table: t, history: history, seen: map[string]bool{}}
	a, b := &cursor{rows: source, table: t, side: "source"}, &cursor{rows: sink, table: t, side: "sink"}
	if err := a.advance(); err != nil {
		return c.result, err
	}
	if err := b.advance(); err != nil {
		return c.result, err
	}
	for a.row != nil || b.row != nil {
		side, err := t.merge(a.row, b.row)
		if err != nil {
			return c.result, err
		}
		c.row(side, a.row, b.row)
		if side <= 0 {
			if err := a.advance(); err != nil {
				return c.result, err
			}
		}
		if side >= 0 {
			if err := b.advance(); err != nil {
				return c.result, err
			}
		}
	}
	if !t.Hard {
		c.lostDeletes()
	}
	return c.result, nil
}

// merge tells which row comes first: below zero the source's, above zero the sink's, zero for one key.
func (t *Table) merge(source, sink [][]byte) (int, error) {
	switch {
	case source == nil:
		return 1, nil
	case sink == nil:
		return -1, nil
	}
	return t.order(source, sink)
}

func (t *Table) order(a, b [][]byte) (int, error) {
	for _, i := range t.Key {
		by, err := order(t.Columns[i].kind, a[i], b[i])
		if by != 0 || err != nil {
			return by, err
		}
	}
	return 0, nil
}

// row judges one key.
func (c *comparison) row(side int, source, sink [][]byte) {
	if side > 0 {
		c.sinkOnly(sink)
		return
	}
	c.result.Rows++
	if left, _ := c.history.Left(c.table.key(source)); !left {
		c.differ(source, "is in the source, but the load did not leave it there")
	}
	switch {
	case side < 0:
		c.differ(source, "is missing in the sink")
	case c.isDeleted(sink):
		c.result.Deleted++
		c.differ(source, "is marked as deleted in the sink, but not deleted in the source")
	default:
		c.values(source, sink)
	}
}

func (c *comparison) sinkOnly(sink [][]byte) {
	left, ever := c.history.Left(c.table.key(sink))
	c.seen[joined(c.table.key(sink))] = true
	if !c.isDeleted(sink) {
		if ever {
			c.differ(sink, "is deleted in the source, but not in the sink")
		} else {
			c.differ(sink, "is in the sink, but never was in the source")
		}
		return
	}
	c.result.Deleted++
	switch {
	case c.table.Hard:
		c.differ(sink, "is marked as deleted in the sink, which must not keep it")
	case !ever:
		c.differ(sink, "is marked as deleted in the sink, but never was in the source")
	case left:
		c.differ(sink, "is marked as deleted in the sink, but the load left it in the source")
	case string(c.audit(sink, 0)) != "2":
		c.differ(sink, "is deleted, but its audit column says otherwise:", auditColumns[0])
	}
}

// values compares a row that both sides have.
func (c *comparison) values(source, sink [][]byte) {
	var wrong []string
	for i, column := range c.table.Columns {
		same, err := equal(column.kind, source[i], sink[i])
		switch {
		case err != nil:
			wrong = append(wrong, column.Name+" ("+err.Error()+")")
		case !same:
			wrong = append(wrong, column.Name)
		}
	}
	if op := string(c.audit(sink, 0)); op != "0" && op != "1" {
		wrong = append(wrong, auditColumns[0])
	}
	if c.audit(sink, 2) == nil {
		wrong = append(wrong, auditColumns[2])
	}
	if version, err := strconv.ParseInt(string(c.audit(sink, 3)), 10, 64); err != nil || version <= 0 {
		wrong = append(wrong, auditColumns[3])
	}
	if len(wrong) > 0 {
		c.differ(source, "differs in", wrong...)
	}
}

// lostDeletes finds rows that were deleted and are not in the sink at all.
func (c *comparison) lostDeletes() {
	c.history.Gone(func(key []string) bool {
		if !c.seen[joined(key)] {
			c.note(c.table.keyText(key), "was deleted in the source, and the sink has no row that says so")
		}
		return true
	})
}

func (c *comparison) audit(sink [][]byte, which int) []byte { return sink[len(c.table.Columns)+which] }

func (c *comparison) isDeleted(sink [][]byte) bool { return bytes.Equal(c.audit(sink, 1), []byte("1")) }

func (c *comparison) differ(row [][]byte, what string, columns ...string) {
	c.note(c.table.keyText(c.table.key(row)), what, columns...)
}

func (c *comparison) note(key, what string, columns ...string) {
	c.result.Count++
	if len(c.result.First) < firstMax {
		c.result.First = append(c.result.First, Difference{Table: c.table.String(), Key: key, What: what, Column: columns})
	}
}

func (t *Table) key(row [][]byte) []string {
	key := make([]string, len(t.Key))
	for n, i := range t.Key {
		key[n] = string(row[i])
	}
	return key
}

func (t *Table) keyText(key []string) string {
	parts := make([]string, len(key))
	for n, i := range t.Key {
		parts[n] = t.Columns[i].Name + "=" + strconv.Quote(key[n])
		if t.Columns[i].kind == kindInt {
			parts[n] = t.Columns[i].Name + "=" + key[n]
		}
	}
	return strings.Join(parts, " ")
}

func joined(key []string) string { return strings.Join(key, "\x1f") }

// cursor walks over one side and makes sure that keys only go up: a merge of rows in disorder proves nothing.
type cursor struct {
	rows  Rows
	table *Table
	side  string
	row   [][]byte
	last  [][]byte
}

func (c *cursor) advance() error {
	if c.row != nil {
		c.last = slices.Grow(c.last[:0], len(c.row))
		for _, value := range c.row {
			c.last = append(c.last, slices.Clone(value))
		}
	}
	var err error
	if c.row, err = c.rows.Next(); err != nil {
		return fmt.Errorf("read table %s of the %s: %w", c.table, c.side, err)
	}
	if c.row == nil || len(c.last) == 0 {
		return nil
	}
	by, err := c.table.order(c.last, c.row)
	if err != nil {
		return fmt.Errorf("read table %s of the %s: %w", c.table, c.side, err)
	}
	if by >= 0 {
		return fmt.Errorf("read table %s of the %s: its keys are not in order at %s", c.table, c.side, c.table.keyText(c.table.key(c.row)))
	}
	return nil
}
