package starrockstest

import (
	"slices"
	"strings"
)

// target is a table that a statement writes to, with a scratch row.
type target struct {
	db  *database
	t   *table
	ops []rowOp
}

// commitStatement applies the rows of a statement. The log keeps the statement itself.
func (s *store) commitStatement(w *target) *result {
	w.t.apply(w.ops)
	w.t.versions++
	return &result{affected: uint64(len(w.ops))}
}

func (s *store) openTarget(ses *session, n tableName) (*target, error) {
	db, t, err := s.table(ses, n)
	if err != nil {
		return nil, err
	}
	for _, x := range db.committed() {
		if x.tableID == t.id {
			// A statement reads and writes the published rows only, so order would be lost.
			s.makeVisible(t, x, s.now())
		}
	}
	return &target{db: db, t: t}, nil
}

func (s *store) insertRows(ses *session, n insertRows) (*result, error) {
	w, err := s.openTarget(ses, n.name)
	if err != nil {
		return nil, err
	}
	sc := w.t.schema
	cols, err := insertColumns(sc, n.columns)
	if err != nil {
		return nil, err
	}
	fill := s.fillValues(sc)
	c := &compiler{store: s, session: ses, now: s.now()}
	vals := make([]value, len(sc.columns))
	var key []byte
	for _, row := range n.rows {
		if len(row) != len(cols) {
			return nil, sqlError(1058, "21S01", "Column count doesn't match value count")
		}
		copy(vals, fill)
		for i, e := range row {
			if vals[cols[i]], err = c.assign(e, sc.columns[cols[i]]); err != nil {
				return nil, err
			}
		}
		if err := checkNotNull(sc, vals); err != nil {
			return nil, err
		}
		op := rowOp{row: string(sc.encodeRow(nil, vals))}
		if w.t.model == modelPrimary {
			key = sc.appendKey(key[:0], vals)
			if len(key) > primaryKeyMaxBytes {
				return nil, ddlError("primary key size exceed the limit.")
			}
			op.key = string(key)
		}
		w.ops = append(w.ops, op)
	}
	return s.commitStatement(w), nil
}

func insertColumns(sc *schema, names []string) ([]int, error) {
	var cols []int
	if names == nil {
		for i := range sc.columns {
			cols = append(cols, i)
		}
		return cols, nil
	}
	given := make(map[int]bool)
	for _, name := range names {
		i := sc.find(name)
		if i < 0 {
			return nil, sqlError(1054, "42S22", "Unknown column '%s' in 'field list'", name)
		}
		if given[i] {
			return nil, sqlError(1110, "42000", "Column '%s' specified twice", name)
		}
		given[i] = true
		cols = append(cols, i)
	}
	for i, c := range sc.columns {
		if !given[i] && !c.nullable && !c.hasDefault && !c.defaultNow {
			return nil, sqlError(5002, "HY000", "'%s' must be explicitly mentioned in column permutation", c.name)
		}
	}
	return cols, nil
}

// assign evaluates an expression for a column. A value that does not convert is an error, as in strict inserts.
func (c *compiler) assign(e expr, col *column) (value, error) {
	x, err := c.compile(e)
	if err != nil {
		return null, err
	}
	v, err := x.eval(&env{})
	if err != nil {
		return null, err
	}
	return assignValue(v, x.typ, col)
}

func assignValue(v value, from colType, col *column) (value, error) {
	out, err := castValue(v, from, col.typ)
	if err != nil {
		return null, ddlError("Insert has filtered data in strict mode: value '%s' is out of range. The type of '%s' is %s",
			v.plain(), col.name, col.typ)
	}
	return out, nil
}

func checkNotNull(sc *schema, vals []value) error {
	for i, c := range sc.columns {
		if vals[i].isNull() && !c.nullable {
			return ddlError("NULL value in non-nullable column '%s'", c.name)
		}
	}
	return nil
}

// matching calls f with a copy of every row that the condition holds for.
func (s *store) matching(ses *session, w *target, where expr, f func(n *env, row string) error) error {
	c := s.tableCompiler(ses, w.t)
	var cond *compiled
	if where != nil {
		x, err := c.compile(where)
		if err != nil {
			return err
		}
		cond = &x
	}
	n := &env{row: make([]value, len(w.t.schema.columns))}
	for _, row := range w.t.named(where) {
		if err := w.t.schema.decodeRow(row, n.row); err != nil {
			return err
		}
		if cond != nil {
			v, err := cond.eval(n)
			if err != nil {
				return err
			}
			if !v.truth() {
				continue
			}
		}
		if err := f(n, row); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) tableCompiler(ses *session, t *table) *compiler {
	return &compiler{store: s, session: ses, columns: t.outColumns(), alias: t.name, now: s.now()}
}

func (s *store) updateRows(ses *session, n updateRows) (*result, error) {
	w, err := s.openTarget(ses, n.name)
	if err != nil {
		return nil, err
	}
	sc := w.t.schema
	if w.t.model != modelPrimary {
		return nil, analysisError("only support updating primary key table")
	}
	if n.where == nil {
		return nil, analysisError("must specify where clause to prevent full table update")
	}
	c := s.tableCompiler(ses, w.t)
	cols := make([]int, len(n.set))
	exprs := make([]compiled, len(n.set))
	for i, a := range n.set {
		if cols[i] = sc.find(a.column); cols[i] < 0 {
			return nil, analysisError("table '%s' do not existing column '%s'", w.t.name, a.column)
		}
		if sc.isKey(cols[i]) {
			return nil, analysisError("primary key column cannot be updated: %s", a.column)
		}
		if exprs[i], err = c.compile(a.value); err != nil {
			return nil, err
		}
	}
	err = s.matching(ses, w, n.where, func(n *env, _ string) error {
		vals := append([]value(nil), n.row...)
		for i, x := range exprs {
			v, err := x.eval(n)
			if err != nil {
				return err
			}
			if vals[cols[i]], err = assignValue(v, x.typ, sc.columns[cols[i]]); err != nil {
				return err
			}
		}
		if err := checkNotNull(sc, vals); err != nil {
			return err
		}
		w.ops = append(w.ops, rowOp{key: string(sc.appendKey(nil, vals)), row: string(sc.encodeRow(nil, vals))})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.commitStatement(w), nil
}

func (s *store) deleteRows(ses *session, n deleteRows) (*result, error) {
	w, err := s.openTarget(ses, n.name)
	if err != nil {
		return nil, err
	}
	if n.where == nil {
		return nil, analysisError("Delete must specify where clause to prevent full table delete")
	}
	if w.t.model != modelPrimary {
		if err := checkDelete(w.t.schema, n.where); err != nil {
			return nil, err
		}
		return s.deleteAppended(ses, w, n)
	}
	err = s.matching(ses, w, n.where, func(n *env, _ string) error {
		w.ops = append(w.ops, rowOp{key: string(w.t.schema.appendKey(nil, n.row)), del: true})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.commitStatement(w), nil
}

// checkDelete refuses what a DELETE on a table without a primary key does not know: it is kept as a filter for later
// reads, of comparisons of a column with a value that all hold.
func checkDelete(sc *schema, where expr) error {
	column := func(e expr) error {
		ref, ok := e.(columnRef)
		if !ok {
			return ddlError("Left expr of binary predicate should be column name")
		}
		if sc.find(ref.name) < 0 {
			return sqlError(1054, "42S22", "Unknown column '%s' in 'where clause'", ref.name)
		}
		return nil
	}
	isValue := func(e expr) bool {
		_, ok := e.(literal)
		return ok
	}
	switch e := where.(type) {
	case binaryExpr:
		switch e.op {
		case "and":
			if err := checkDelete(sc, e.l); err != nil {
				return err
			}
			return checkDelete(sc, e.r)
		case "or", "xor":
			return ddlError("Compound predicate's op should be AND")
		case "=", "<>", "<", "<=", ">", ">=":
			if !isValue(e.r) {
				return ddlError("Right expr of binary predicate should be value")
			}
			return column(e.l)
		}
	case isNullExpr:
		return column(e.e)
	case inExpr:
		if !slices.ContainsFunc(e.list, func(e expr) bool { return !isValue(e) }) {
			return column(e.e)
		}
		return ddlError("Child of in predicate should be value")
	}
	return ddlError("Where clause only supports compound predicate, binary predicate, is_null predicate and in predicate")
}

// deleteAppended deletes from a duplicate key table, equal rows together.
func (s *store) deleteAppended(ses *session, w *target, n deleteRows) (*result, error) {
	gone := make(map[string]bool)
	err := s.matching(ses, w, n.where, func(_ *env, row string) error {
		gone[strings.Clone(row)] = true
		return nil
	})
	if err != nil {
		return nil, err
	}
	var kept []string
	for _, row := range w.t.appended {
		if !gone[row] {
			kept = append(kept, row)
		}
	}
	affected := len(w.t.appended) - len(kept)
	w.t.appended = kept
	w.t.versions++
	return &result{affected: uint64(affected)}, nil
}
