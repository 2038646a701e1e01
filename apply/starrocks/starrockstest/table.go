package starrockstest

import (
	"slices"
	"strings"
	"time"
)

// column is one column of a table. Columns are immutable; a change makes a new one.
type column struct {
	id         uint64
	name       string
	typ        colType
	nullable   bool
	hasDefault bool
	defaultNow bool
	defaultVal string
	comment    string
	// initial is what rows read that were written before the column existed.
	initial value
}

// defaultValue is what a row gets that does not carry the column. ok is false where there is no default and the
// column is NOT NULL.
func (c *column) defaultValue(now time.Time) (v value, ok bool) {
	switch {
	case c.defaultNow:
		return value{kind: kindDatetime, num: now.UTC().Truncate(time.Second).UnixMicro()}, true
	case c.hasDefault:
		v, err := convertText(c.typ, c.defaultVal, convertOptions{})
		return v, err == nil
	default:
		return null, c.nullable
	}
}

type tableModel uint8

const (
	modelPrimary tableModel = iota + 1
	modelDuplicate
)

// schema is an immutable set of columns.
type schema struct {
	columns []*column
	key     []int
	byID    map[uint64]int
	byLower map[string]int
	exact   map[string]int
	version int
}

func newSchema(columns []*column, key []int, version int) *schema {
	s := &schema{
		columns: columns, key: key, version: version,
		byID: make(map[uint64]int), byLower: make(map[string]int), exact: make(map[string]int),
	}
	for i, c := range columns {
		s.byID[c.id] = i
		s.byLower[strings.ToLower(c.name)] = i
		s.exact[c.name] = i
	}
	return s
}

// find looks a column up as DDL and SQL do: without regard to case. It gives -1 for an unknown one.
func (s *schema) find(name string) int {
	if i, ok := s.byLower[strings.ToLower(name)]; ok {
		return i
	}
	return -1
}

func (s *schema) isKey(i int) bool {
	return slices.Contains(s.key, i)
}

func (s *schema) keyNames() []string {
	var names []string
	for _, k := range s.key {
		names = append(names, s.columns[k].name)
	}
	return names
}

type table struct {
	id       uint64
	db, name string
	model    tableModel
	schema   *schema
	nextID   uint64
	comment  string
	// distributed is empty where the statement had no DISTRIBUTED BY.
	distributed []string
	buckets     int
	sortKey     []string
	properties  map[string]string
	propOrder   []string
	created     time.Time

	rows     map[string]string // primary key tables: encoded key to row
	sorted   []string          // the keys of rows in order; nil where that has to be found out
	appended []string          // duplicate key tables
	versions int               // committed loads and statements
	counted  int64             // rows seen in no-store mode
	job      *alterJob
	jobs     []*alterJob
}

func (t *table) qualified() string { return t.db + "." + t.name }

func (t *table) fastEvolution() bool { return t.properties["fast_schema_evolution"] != "false" }

// snapshot gives the stored rows in key order; duplicate key tables give the order of arrival.
func (t *table) snapshot() []string {
	if t.model == modelDuplicate {
		return append([]string(nil), t.appended...)
	}
	if t.sorted == nil {
		t.sorted = make([]string, 0, len(t.rows))
		for k := range t.rows {
			t.sorted = append(t.sorted, k)
		}
		slices.Sort(t.sorted)
	}
	out := make([]string, len(t.sorted))
	for i, k := range t.sorted {
		out[i] = t.rows[k]
	}
	return out
}

func (t *table) rowCount() int64 {
	if t.model == modelDuplicate {
		return int64(len(t.appended)) + t.counted
	}
	return int64(len(t.rows)) + t.counted
}

// rowOp is one resolved change of a table: a delete where row is empty and del is set, else an upsert.
type rowOp struct {
	key string
	row string
	del bool
}

// apply makes the changes of one committed load visible.
func (t *table) apply(ops []rowOp) {
	for _, op := range ops {
		switch {
		case t.model == modelDuplicate:
			t.appended = append(t.appended, op.row)
		case op.del:
			delete(t.rows, op.key)
		default:
			t.rows[op.key] = op.row
		}
	}
	t.sorted = t.keysIfUnchanged(ops)
}

// keysIfUnchanged keeps the sorted keys where a load only updated rows, which is seen by their number: a delete
// drops them.
func (t *table) keysIfUnchanged(ops []rowOp) []string {
	if len(t.sorted) != len(t.rows) || slices.ContainsFunc(ops, func(op rowOp) bool { return op.del }) {
		return nil
	}
	return t.sorted
}
