package starrockstest

import (
	"fmt"
	"strings"
	"time"
)

// alterJob is an asynchronous schema change. It waits for the loads that were under way, then takes its time.
type alterJob struct {
	id       int64
	created  time.Time
	started  time.Time
	finished time.Time
	maxTxn   int64
	state    string
	msg      string
	target   *schema
}

func (s *store) alterTable(ses *session, n alterTable) error {
	db, t, err := s.table(ses, n.name)
	if err != nil {
		return err
	}
	if t.job != nil && s.replaying {
		// The log was written under settings that made the change instant.
		if err := s.finishJob(t, t.job); err != nil {
			return err
		}
	}
	if t.job != nil {
		return ddlError("A schema change operation is in progress on the table %s. Please wait until it is finished", t.name)
	}
	first := n.clauses[0]
	if first.kind == alterRenameColumn || first.kind == alterRenameTable || first.kind == alterSet || first.kind == alterComment {
		if len(n.clauses) > 1 {
			return ddlError("Alter operation conflicts: rename, set and comment stand alone in a statement")
		}
		return s.alterSimple(db, t, first)
	}
	draft := &schemaDraft{store: s, t: t, columns: append([]*column(nil), t.schema.columns...), nextID: t.nextID}
	for _, c := range n.clauses {
		if err := draft.apply(c); err != nil {
			return err
		}
	}
	target := newSchema(draft.columns, t.schema.key, t.schema.version+1)
	t.nextID = draft.nextID
	if !draft.rewrite && t.fastEvolution() {
		s.recordJob(t, target, "FINISHED")
		t.schema = target
		return nil
	}
	j := s.recordJob(t, target, "PENDING")
	t.job = j
	return nil
}

func (s *store) recordJob(t *table, target *schema, state string) *alterJob {
	j := &alterJob{id: s.nextJob, created: s.now(), maxTxn: s.nextTxn, state: state, target: target}
	s.nextJob++
	if state == "FINISHED" {
		j.finished = j.created
	}
	t.jobs = append(t.jobs, j)
	return j
}

// advanceJob moves a schema change along with the clock. Callers hold the mutex.
func (s *store) advanceJob(db *database, t *table, now time.Time) error {
	j := t.job
	if j == nil {
		return nil
	}
	for _, x := range db.open {
		if x.tableID == t.id && x.id < j.maxTxn && !x.state.final() {
			j.state = "WAITING_TXN"
			return nil
		}
	}
	if j.started.IsZero() {
		j.started = now
	}
	j.state = "RUNNING"
	if now.Sub(j.started) < s.opts.AlterDuration {
		return nil
	}
	if err := s.persistJobDone(db, t, j); err != nil {
		return err
	}
	return s.finishJob(t, j)
}

// finishJob rewrites the rows into the new schema, or cancels where a value does not convert.
func (s *store) finishJob(t *table, j *alterJob) error {
	j.finished = s.now()
	t.job = nil
	remap := newRemapper(t.schema, j.target)
	rows := make(map[string]string, len(t.rows))
	for k, row := range t.rows {
		r, err := remap.row(row)
		if err != nil {
			j.state, j.msg = "CANCELLED", err.Error()
			return nil //nolint:nilerr // The job carries the error.
		}
		rows[k] = r
	}
	appended := make([]string, 0, len(t.appended))
	for _, row := range t.appended {
		r, err := remap.row(row)
		if err != nil {
			j.state, j.msg = "CANCELLED", err.Error()
			return nil //nolint:nilerr // The job carries the error.
		}
		appended = append(appended, r)
	}
	t.rows, t.appended = rows, appended
	t.schema, j.state = j.target, "FINISHED"
	return nil
}

// alterSimple does the synchronous changes that touch no column's type.
func (s *store) alterSimple(db *database, t *table, c alterClause) error {
	switch c.kind {
	case alterRenameTable:
		if db.tables[c.newName] != nil {
			return ddlError("Table name[%s] is already used", c.newName)
		}
		delete(db.tables, t.name)
		t.name = c.newName
		db.tables[t.name] = t
		return nil
	case alterComment:
		t.comment = c.name
		return nil
	case alterSet:
		for _, p := range c.props {
			if !knownProperties[p.key] {
				return ddlError("Unknown table property: [%s]", p.key)
			}
			if p.key == "replication_num" {
				return unsupported("changing replication_num")
			}
			t.properties[p.key] = p.value
		}
		return nil
	default:
		return s.renameColumn(t, c)
	}
}

func (s *store) renameColumn(t *table, c alterClause) error {
	if !s.ver.renameColumn() {
		return ddlError("Not support rename column before 3.3.2")
	}
	i := t.schema.find(c.name)
	if i < 0 {
		return ddlError("Column[%s] not exists", c.name)
	}
	if j := t.schema.find(c.newName); j >= 0 {
		return ddlError("Column name[%s] is already used", c.newName)
	}
	if t.model == modelPrimary && strings.EqualFold(c.newName, opColumn) {
		return ddlError("Column name '%s' is reserved for primary key table", c.newName)
	}
	renamed := *t.schema.columns[i]
	renamed.name = c.newName
	columns := append([]*column(nil), t.schema.columns...)
	columns[i] = &renamed
	t.schema = newSchema(columns, t.schema.key, t.schema.version+1)
	return nil
}

// schemaDraft is a schema under change.
type schemaDraft struct {
	store   *store
	t       *table
	columns []*column
	nextID  uint64
	// rewrite is set when rows have to be converted, which is never fast.
	rewrite bool
}

func (d *schemaDraft) find(name string) int {
	for i, c := range d.columns {
		if strings.EqualFold(c.name, name) {
			return i
		}
	}
	return -1
}

func (d *schemaDraft) apply(c alterClause) error {
	switch c.kind {
	case alterAdd:
		return d.add(c)
	case alterDrop:
		return d.drop(c)
	case alterModify:
		return d.modify(c)
	default:
		return ddlError("Alter operation conflicts: rename, set and comment stand alone in a statement")
	}
}

func (d *schemaDraft) add(c alterClause) error {
	def := c.column
	if d.find(def.name) >= 0 {
		return ddlError("Can not add column which already exists in base table: %s", def.name)
	}
	if def.key {
		if d.t.model == modelPrimary {
			return ddlError("Can not add key column: %s for primary key table", def.name)
		}
		return unsupported("ADD COLUMN with KEY on a duplicate key table")
	}
	col, err := d.store.makeColumn(&table{model: d.t.model, nextID: d.nextID}, def)
	if err != nil {
		return err
	}
	d.nextID++
	if !col.nullable && !col.hasDefault && !col.defaultNow {
		// Rows that exist read the type's zero value; NOT NULL wants a default to be given.
		return ddlError("Column '%s' is not nullable and has no default value", def.name)
	}
	if v, ok := col.defaultValue(d.store.now()); ok {
		col.initial = v
	}
	at, err := d.position(c, len(d.columns))
	if err != nil {
		return err
	}
	d.columns = append(d.columns[:at:at], append([]*column{col}, d.columns[at:]...)...)
	return nil
}

// position finds where FIRST or AFTER puts a column. Value columns stay behind the key.
func (d *schemaDraft) position(c alterClause, absent int) (int, error) {
	keys := len(d.t.schema.key)
	switch {
	case c.first:
		return 0, ddlError("Can not add value column '%s' before key column", c.column.name)
	case c.after != "":
		i := d.find(c.after)
		if i < 0 {
			return 0, ddlError("Column[%s] does not found", c.after)
		}
		if i+1 < keys {
			return 0, ddlError("Can not add value column '%s' before key column", c.column.name)
		}
		return i + 1, nil
	default:
		return absent, nil
	}
}

func (d *schemaDraft) drop(c alterClause) error {
	i := d.find(c.name)
	if i < 0 {
		return ddlError("Column does not exists: %s", c.name)
	}
	if i < len(d.t.schema.key) {
		if d.t.model == modelPrimary {
			return ddlError("Can not drop key column in primary data model table")
		}
		return unsupported("DROP COLUMN of a key column")
	}
	if containsFold(d.t.sortKey, c.name) {
		return ddlError("Can not drop sort column in primary data model table")
	}
	d.columns = append(d.columns[:i:i], d.columns[i+1:]...)
	return nil
}

func (d *schemaDraft) modify(c alterClause) error {
	i := d.find(c.column.name)
	if i < 0 {
		return ddlError("Column[%s] does not exists", c.column.name)
	}
	if i < len(d.t.schema.key) {
		if d.t.model == modelPrimary {
			return ddlError("Can not modify key column: %s for primary key table", c.column.name)
		}
		return unsupported("MODIFY COLUMN of a key column")
	}
	if c.first || c.after != "" {
		return unsupported("MODIFY COLUMN with a position")
	}
	old := d.columns[i]
	col, err := d.store.makeColumn(&table{model: d.t.model, nextID: old.id}, c.column)
	if err != nil {
		return err
	}
	if old.nullable && !col.nullable {
		return ddlError("Can not change from nullable to non-nullable")
	}
	if old.hasDefault != col.hasDefault || old.defaultNow != col.defaultNow || old.defaultVal != col.defaultVal {
		return ddlError("Can not change default value")
	}
	if err := canChangeType(old.typ, col.typ); err != nil {
		return err
	}
	col.name = old.name
	if col.initial, err = castValue(old.initial, old.typ, col.typ); err != nil {
		return fmt.Errorf("convert default of column %s: %w", old.name, err)
	}
	d.columns[i], d.rewrite = col, true
	return nil
}

// canChangeType is the conversion matrix of MODIFY COLUMN.
func canChangeType(from, to colType) error {
	if from.equal(to) {
		return nil
	}
	ok := false
	switch from.kind {
	case typeTinyint, typeSmallint, typeInt, typeBigint:
		ok = to.intBits() > from.intBits() || to.kind == typeLargeint || to.kind == typeDouble || to.kind == typeVarchar ||
			(from.kind == typeInt && to.kind == typeDate)
	case typeLargeint, typeDouble:
		ok = to.kind == typeVarchar
	case typeFloat:
		ok = to.kind == typeDouble || to.kind == typeVarchar
	case typeDecimal:
		ok = to.kind == typeVarchar ||
			(to.kind == typeDecimal && to.scale >= from.scale && to.precision-to.scale >= from.precision-from.scale)
	case typeChar:
		if to.kind == typeChar || to.kind == typeVarchar {
			return checkLonger(from, to)
		}
	case typeVarchar:
		if to.kind == typeVarchar {
			return checkLonger(from, to)
		}
		ok = to.kind == typeJSON || to.intBits() > 0 || to.kind == typeFloat || to.kind == typeDouble || to.kind == typeDate
	case typeJSON:
		ok = to.kind == typeVarchar
	case typeDate:
		ok = to.kind == typeDatetime
	case typeDatetime:
		ok = to.kind == typeDate
	default:
		// BOOLEAN, VARBINARY and ARRAY change into nothing.
	}
	if !ok {
		return ddlError("Can not change %s to %s", from.primitive(), to.primitive())
	}
	return nil
}

func checkLonger(from, to colType) error {
	if to.length < from.length {
		return ddlError("Cannot shorten string length")
	}
	return nil
}
