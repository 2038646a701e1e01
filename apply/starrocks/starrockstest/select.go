package starrockstest

import (
	"slices"
	"sort"
	"strings"
	"time"
)

// result is what a statement gives back. columns is nil for statements without rows.
type result struct {
	columns  []outColumn
	rows     [][]value
	affected uint64
}

// relation is a table, a view of information_schema, or the single row of a SELECT without FROM.
type relation struct {
	columns []outColumn
	alias   string
	// each calls f for every row; the slice may be reused, the texts stay valid.
	each func(f func(row []value) error) error
	// count, where set, is how many rows each would give.
	count func() int64
	now   time.Time
}

func rowsRelation(columns []outColumn, rows [][]value) *relation {
	return &relation{columns: columns, each: func(f func([]value) error) error {
		for _, r := range rows {
			if err := f(r); err != nil {
				return err
			}
		}
		return nil
	}}
}

// relation gives the rows that the condition, which may be nil, can be true for.
func (t *table) relation(where expr) *relation {
	r := &relation{alias: t.name, columns: t.outColumns()}
	// Schema and rows never change in place, so that what follows needs no lock.
	sc, rows, count := t.schema, t.named(where), t.rowCount()
	r.count = func() int64 { return count }
	r.each = func(f func([]value) error) error {
		vals := make([]value, len(sc.columns))
		for _, row := range rows {
			if err := sc.decodeRow(row, vals); err != nil {
				return err
			}
			if err := f(vals); err != nil {
				return err
			}
		}
		return nil
	}
	return r
}

func (t *table) outColumns() []outColumn {
	var cols []outColumn
	for _, c := range t.schema.columns {
		cols = append(cols, outColumn{name: c.name, typ: c.typ})
	}
	return cols
}

// query is a SELECT bound to its relation.
type query struct {
	rel    *relation
	where  *compiled
	items  []compiled
	names  []outColumn
	having *compiled
	order  []compiled
	desc   []bool
	group  []int
	aggs   []*aggregate
	limit  int
	offset int
	unique bool
}

// sortedRow is an output row with its sort keys.
type sortedRow struct{ out, keys []value }

func (s *store) selectFrom(ses *session, sel *selectRows, rel *relation) (*result, error) {
	q, err := s.bindQuery(ses, sel, rel)
	if err != nil {
		return nil, err
	}
	rows, err := q.collect()
	if err != nil {
		return nil, err
	}
	if q.unique {
		rows = distinctRows(rows)
	}
	if len(q.order) > 0 {
		sort.SliceStable(rows, func(i, j int) bool { return q.less(rows[i].keys, rows[j].keys) })
	}
	if q.offset > 0 {
		rows = rows[min(q.offset, len(rows)):]
	}
	if q.limit >= 0 {
		rows = rows[:min(q.limit, len(rows))]
	}
	res := &result{columns: q.names, rows: make([][]value, len(rows))}
	for i, r := range rows {
		res.rows[i] = r.out
	}
	return res, nil
}

func (s *store) bindQuery(ses *session, sel *selectRows, rel *relation) (*query, error) {
	q := &query{rel: rel, limit: sel.limit, offset: sel.offset, unique: sel.distinct}
	c := &compiler{store: s, session: ses, columns: rel.columns, alias: rel.alias, now: rel.now}
	if sel.alias != "" {
		c.alias = sel.alias
	}
	if sel.where != nil {
		x, err := c.compile(sel.where)
		if err != nil {
			return nil, err
		}
		q.where = &x
	}
	if err := q.bindGroups(c, sel); err != nil {
		return nil, err
	}
	c.aggs = &q.aggs
	if err := q.bindItems(c, sel.items); err != nil {
		return nil, err
	}
	if sel.having != nil {
		x, err := c.compile(sel.having)
		if err != nil {
			return nil, err
		}
		q.having = &x
	}
	for _, o := range sel.orderBy {
		x, err := q.bindOrder(c, o.e)
		if err != nil {
			return nil, err
		}
		q.order, q.desc = append(q.order, x), append(q.desc, o.desc)
	}
	return q, nil
}

// bindGroups finds the columns of GROUP BY. A query with aggregates and without GROUP BY is one group.
func (q *query) bindGroups(c *compiler, sel *selectRows) error {
	aggregated := len(sel.groupBy) > 0 || hasAggregate(sel.having)
	for _, item := range sel.items {
		aggregated = aggregated || hasAggregate(item.e)
	}
	for _, o := range sel.orderBy {
		aggregated = aggregated || hasAggregate(o.e)
	}
	if !aggregated {
		return nil
	}
	c.grouped = make(map[int]bool)
	for _, e := range sel.groupBy {
		if l, ok := e.(literal); ok && l.v.kind == kindInt && l.v.num >= 1 && int(l.v.num) <= len(sel.items) {
			e = sel.items[l.v.num-1].e
		}
		for _, item := range sel.items {
			if ref, ok := e.(columnRef); ok && item.alias != "" && strings.EqualFold(ref.name, item.alias) {
				e = item.e
			}
		}
		ref, ok := e.(columnRef)
		if !ok {
			return unsupported("GROUP BY an expression")
		}
		i := -1
		for j, col := range c.columns {
			if strings.EqualFold(col.name, ref.name) {
				i = j
			}
		}
		if i < 0 {
			return analysisError("Column '%s' cannot be resolved", ref.name)
		}
		c.grouped[i] = true
		q.group = append(q.group, i)
	}
	if q.group == nil {
		q.group = []int{}
	}
	return nil
}

func hasAggregate(e expr) bool {
	switch e := e.(type) {
	case callExpr:
		switch e.name {
		case "count", "sum", "min", "max", "avg":
			return true
		}
		return slices.ContainsFunc(e.args, hasAggregate)
	case binaryExpr:
		return hasAggregate(e.l) || hasAggregate(e.r)
	case unaryExpr:
		return hasAggregate(e.e)
	case castExpr:
		return hasAggregate(e.e)
	case isNullExpr:
		return hasAggregate(e.e)
	case inExpr:
		return hasAggregate(e.e)
	case betweenExpr:
		return hasAggregate(e.e)
	}
	return false
}

func (q *query) bindItems(c *compiler, items []selectItem) error {
	aliases := make(map[string]compiled)
	for _, item := range items {
		if item.star {
			for i, col := range c.columns {
				if c.grouped != nil && !c.grouped[i] {
					return analysisError("'%s' must be an aggregate expression or appear in GROUP BY clause", col.name)
				}
				q.items = append(q.items, compiled{typ: col.typ, eval: func(n *env) (value, error) { return n.row[i], nil }})
				q.names = append(q.names, col)
			}
			continue
		}
		x, err := c.compile(item.e)
		if err != nil {
			return err
		}
		name := item.text
		if ref, ok := item.e.(columnRef); ok {
			name = ref.name
		}
		if item.alias != "" {
			name = item.alias
			aliases[strings.ToLower(item.alias)] = x
		}
		q.items = append(q.items, x)
		q.names = append(q.names, outColumn{name: name, typ: x.typ})
	}
	c.aliases = aliases
	return nil
}

// bindOrder takes an expression, an alias or the number of a select item.
func (q *query) bindOrder(c *compiler, e expr) (compiled, error) {
	if l, ok := e.(literal); ok && l.v.kind == kindInt {
		if l.v.num < 1 || int(l.v.num) > len(q.items) {
			return compiled{}, analysisError("ORDER BY position %d is not in select list", l.v.num)
		}
		return q.items[l.v.num-1], nil
	}
	return c.compile(e)
}

func (q *query) collect() ([]sortedRow, error) {
	if q.group != nil {
		return q.collectGroups()
	}
	var out []sortedRow
	// Without ORDER BY and DISTINCT the scan may stop at LIMIT.
	stop := -1
	if len(q.order) == 0 && !q.unique && q.limit >= 0 {
		stop = q.offset + q.limit
	}
	n := &env{}
	err := q.rel.each(func(row []value) error {
		if stop >= 0 && len(out) >= stop {
			return nil
		}
		n.row = row
		r, keep, err := q.output(n)
		if err == nil && keep {
			out = append(out, r)
		}
		return err
	})
	return out, err
}

// output evaluates one row of the result.
func (q *query) output(n *env) (r sortedRow, keep bool, err error) {
	for _, cond := range []*compiled{q.where, q.having} {
		if cond == nil || (cond == q.where && q.group != nil) {
			continue
		}
		v, err := cond.eval(n)
		if err != nil || !v.truth() {
			return r, false, err
		}
	}
	r.out = make([]value, len(q.items))
	for i, item := range q.items {
		if r.out[i], err = item.eval(n); err != nil {
			return r, false, err
		}
	}
	for _, o := range q.order {
		v, err := o.eval(n)
		if err != nil {
			return r, false, err
		}
		r.keys = append(r.keys, v)
	}
	return r, true, nil
}

type rowGroup struct {
	row  []value
	accs []*accumulator
}

// onlyCounts tells whether the number of rows answers the query.
func (q *query) onlyCounts() bool {
	if q.where != nil || len(q.group) > 0 || q.rel.count == nil {
		return false
	}
	for _, a := range q.aggs {
		if a.arg != nil {
			return false
		}
	}
	return true
}

func (q *query) collectGroups() ([]sortedRow, error) {
	if q.onlyCounts() {
		g := q.newGroup(make([]value, len(q.rel.columns)))
		for _, a := range g.accs {
			a.count = q.rel.count()
		}
		return q.outputGroups([]*rowGroup{g})
	}
	groups := make(map[string]*rowGroup)
	var order []*rowGroup
	n := &env{}
	err := q.rel.each(func(row []value) error {
		n.row = row
		if q.where != nil {
			v, err := q.where.eval(n)
			if err != nil || !v.truth() {
				return err
			}
		}
		key := q.groupKey(row)
		g := groups[key]
		if g == nil {
			g = q.newGroup(row)
			groups[key] = g
			order = append(order, g)
		}
		for _, a := range g.accs {
			if err := a.add(n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(order) == 0 && len(q.group) == 0 {
		order = append(order, q.newGroup(make([]value, len(q.rel.columns))))
	}
	return q.outputGroups(order)
}

func (q *query) outputGroups(groups []*rowGroup) ([]sortedRow, error) {
	var out []sortedRow
	for _, g := range groups {
		n := &env{row: g.row}
		for _, a := range g.accs {
			n.aggs = append(n.aggs, a.result())
		}
		r, keep, err := q.output(n)
		if err != nil {
			return nil, err
		}
		if keep {
			out = append(out, r)
		}
	}
	return out, nil
}

func (q *query) newGroup(row []value) *rowGroup {
	g := &rowGroup{row: append([]value(nil), row...)}
	for _, a := range q.aggs {
		g.accs = append(g.accs, newAccumulator(a))
	}
	return g
}

func (q *query) groupKey(row []value) string {
	var b []byte
	for _, i := range q.group {
		b = appendCell(b, uint64(i), row[i])
	}
	return string(b)
}

func distinctRows(rows []sortedRow) []sortedRow {
	seen := make(map[string]bool)
	var out []sortedRow
	for _, r := range rows {
		var b []byte
		for i, v := range r.out {
			b = appendCell(b, uint64(i), v)
		}
		if !seen[string(b)] {
			seen[string(b)] = true
			out = append(out, r)
		}
	}
	return out
}

// less orders by the sort keys; NULL comes first in ascending order.
func (q *query) less(a, b []value) bool {
	for i := range a {
		order := compareForSort(a[i], b[i])
		if order == 0 {
			continue
		}
		return (order < 0) != q.desc[i]
	}
	return false
}

func compareForSort(a, b value) int {
	switch {
	case a.isNull() && b.isNull():
		return 0
	case a.isNull():
		return -1
	case b.isNull():
		return 1
	}
	order, _ := compareValues(a, b)
	return order
}
