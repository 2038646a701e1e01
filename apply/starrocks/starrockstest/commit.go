package starrockstest

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// publishMode says when a commit becomes visible.
type publishMode struct {
	later bool
	after time.Duration // with later: zero waits for a release
}

// commitLoad makes a load durable and, unless later, visible. It is atomic: all rows or none.
func (s *store) commitLoad(dbName string, x *txn, p *loadPlan, rows *loadRows, mode publishMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.advance(); err != nil {
		return err
	}
	if x.state != statePrepare {
		return txnFailure(x)
	}
	db, t := s.findTable(dbName, p.tbl.id)
	if t == nil {
		return refuse("unknown table \"%s\"", p.tbl.qualified())
	}
	if p.condition >= 0 && rows.hasDel {
		return refuse("Internal error: memtable of tablet %d delete with condition column %s",
			t.id+1, p.schema.columns[p.condition].name)
	}
	view := newTableView(db, t)
	ops, err := s.resolve(view, p, rows)
	if err != nil {
		return err
	}
	if err := s.persistLoad(db, t, x, ops); err != nil {
		return err
	}
	pub := &publication{ops: ops, byKey: view.own}
	if s.opts.NoStore {
		pub.counted = rows.loaded()
	}
	s.commits++
	x.state, x.publish, x.commitSeq = stateCommitted, pub, s.commits
	now := s.now()
	switch {
	case mode.later && mode.after > 0:
		x.visibleAt = now.Add(mode.after)
	case !mode.later:
		x.visibleAt = now
	}
	s.publishDue(db, now)
	return nil
}

func (s *store) findTable(dbName string, id uint64) (*database, *table) {
	db := s.dbs[dbName]
	if db == nil {
		return nil, nil
	}
	for _, t := range db.tables {
		if t.id == id {
			return db, t
		}
	}
	return db, nil
}

// tableView reads the newest committed row of a key, published or not, with the own changes on top.
type tableView struct {
	t       *table
	pending []map[string]rowOp
	own     map[string]rowOp
}

func newTableView(db *database, t *table) *tableView {
	v := &tableView{t: t, own: make(map[string]rowOp)}
	for _, x := range db.committed() {
		if x.tableID == t.id && x.publish != nil {
			v.pending = append(v.pending, x.publish.byKey)
		}
	}
	return v
}

func (v *tableView) get(key string) (row string, ok bool) {
	if op, hit := v.own[key]; hit {
		return op.row, !op.del
	}
	for _, p := range slices.Backward(v.pending) {
		if op, hit := p[key]; hit {
			return op.row, !op.del
		}
	}
	row, ok = v.t.rows[key]
	return row, ok
}

// resolve turns the rows of a load into final changes: partial rows are merged into the present ones, a merge
// condition drops older ones, and of several changes of one key the last in order wins.
func (s *store) resolve(view *tableView, p *loadPlan, rows *loadRows) ([]rowOp, error) {
	t := view.t
	ops := make([]rowOp, 0, len(rows.ops))
	remap := newRemapper(p.schema, t.schema)
	if p.partial && len(remap.changed) > 0 {
		return nil, refuse("schema of table %s changed during the partial update, retry", t.name)
	}
	plain := t.model != modelPrimary || (!p.partial && p.condition < 0)
	merge := &merger{
		plan: p, schema: t.schema, fill: s.fillValues(t.schema),
		vals: make([]value, len(t.schema.columns)), old: make([]value, len(t.schema.columns)),
	}
	for _, in := range rows.ops {
		row, err := remap.row(in.row)
		if err != nil {
			return nil, err
		}
		op := rowOp{key: in.key, row: row, del: in.del}
		if !plain && !op.del {
			keep, err := merge.merge(view, &op)
			if err != nil {
				return nil, err
			}
			if !keep {
				continue
			}
		}
		if t.model == modelPrimary {
			view.own[op.key] = op
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// fillValues gives the defaults of all columns, NULL where there is none.
func (s *store) fillValues(sc *schema) []value {
	now := s.now()
	fill := make([]value, len(sc.columns))
	for i, c := range sc.columns {
		v, ok := c.defaultValue(now)
		if !ok {
			v = null
		}
		fill[i] = v
	}
	return fill
}

// merger applies partial rows and merge conditions.
type merger struct {
	plan   *loadPlan
	schema *schema
	fill   []value
	vals   []value
	old    []value
}

func (m *merger) merge(view *tableView, op *rowOp) (keep bool, err error) {
	present, exists := view.get(op.key)
	if exists {
		if err := m.schema.decodeRow(present, m.vals); err != nil {
			return false, err
		}
		copy(m.old, m.vals)
	} else {
		copy(m.vals, m.fill)
	}
	if !m.plan.partial && !exists {
		return true, nil
	}
	if err := m.schema.overlayRow(op.row, m.vals); err != nil {
		return false, err
	}
	if !exists {
		for i, c := range m.schema.columns {
			if m.vals[i].isNull() && !c.nullable {
				return false, refuse("Column has no default value. column: %s", c.name)
			}
		}
	}
	if exists && m.plan.condition >= 0 && m.older() {
		return false, nil
	}
	op.row = string(m.schema.encodeRow(nil, m.vals))
	return true, nil
}

// older tells whether the merge condition drops the new row: NULL counts as smallest.
func (m *merger) older() bool {
	i := m.schema.find(m.plan.schema.columns[m.plan.condition].name)
	if i < 0 {
		return false
	}
	now, was := m.vals[i], m.old[i]
	if was.isNull() {
		return false
	}
	if now.isNull() {
		return true
	}
	if now.kind == kindFloat && math.IsNaN(now.float()) {
		return false
	}
	order, ok := compareValues(now, was)
	return ok && order < 0
}

// remapper converts rows that were encoded before a MODIFY COLUMN took effect.
type remapper struct {
	from, to *schema
	changed  []int // columns of from whose type differs
	vals     []value
}

func newRemapper(from, to *schema) *remapper {
	r := &remapper{from: from, to: to}
	if from == to {
		return r
	}
	for i, c := range from.columns {
		if j, ok := to.byID[c.id]; ok && !to.columns[j].typ.equal(c.typ) {
			r.changed = append(r.changed, i)
		}
	}
	r.vals = make([]value, len(from.columns))
	return r
}

func (r *remapper) row(row string) (string, error) {
	if len(r.changed) == 0 || row == "" {
		return row, nil
	}
	if err := r.from.decodeRow(row, r.vals); err != nil {
		return "", err
	}
	for _, i := range r.changed {
		c := r.from.columns[i]
		to := r.to.columns[r.to.byID[c.id]]
		v, err := castValue(r.vals[i], c.typ, to.typ)
		if err != nil {
			return "", fmt.Errorf("convert column %s after schema change: %w", c.name, err)
		}
		r.vals[i] = v
	}
	return string(r.from.encodeRow(nil, r.vals)), nil
}
