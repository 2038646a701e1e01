package capture

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// renew copies tables again from the start. Where nothing is to be copied unasked it says
// what to do instead, except for a table that was made anew: what the sink has is that of
// another one.
//
// Of a pipeline that has never copied anything only those are copied; published are its
// tables.
func (n *snapshots) renew(ctx context.Context, again []recopy, published []Table) error {
	var wanted []recopy
	for _, a := range again {
		name := a.table.String()
		if n.c.cfg.SnapshotStore == nil || n.c.cfg.Snapshot == SnapshotNever && !a.fresh {
			n.c.log.WarnContext(ctx, "rows in the sink may differ from those of the source until they change",
				"table", name, "because", a.why, "run", "dbmazz snapshot --tables "+name)
			continue
		}
		n.c.log.InfoContext(ctx, "existing rows are copied again", "table", name, "because", a.why)
		wanted = append(wanted, a)
	}
	if len(wanted) == 0 {
		return nil
	}
	tables := n.c.Tables()
	n.mu.Lock()
	known := n.state != nil
	n.mu.Unlock()
	return n.update(ctx, func(s *snapshotState) {
		if !known {
			s.join(published, joining{state: CopyNone})
		}
		for _, a := range wanted {
			fresh := &tableCopy{Table: a.table, State: CopyWaiting, Joined: true, Empty: a.fresh, held: a.held}
			i := slices.IndexFunc(s.Tables, func(c *tableCopy) bool { return c.Table == a.table })
			switch {
			case i >= 0:
				// A worker that has the one before notices, and leaves it.
				fresh.Empty = fresh.Empty || s.Tables[i].Empty
				s.Tables[i] = fresh
			case slices.Contains(tables, a.table):
				s.Tables = append(s.Tables, fresh)
			}
		}
	})
}

// renewed takes in that tables are copied again, before the next change of them: updates
// that leave values out may be passed over from here on, since the sink may lack the row.
func (d *desk) renewed(again []recopy) {
	if d == nil {
		return
	}
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	if d.n.state == nil {
		return
	}
	for _, a := range again {
		c := d.n.state.find(a.table)
		if c == nil || !c.open() {
			continue
		}
		t := d.tables[a.table]
		if t == nil {
			t = &deskTable{}
			d.tables[a.table] = t
		}
		t.copied = c
		d.version++
	}
}

// clear has the sink remove the rows of the table that had the name before. All that the
// log has of that one must be in the stream first; it was dropped before the catalog had
// the present one.
func (w *worker) clear(ctx context.Context) error {
	w.n.mu.Lock()
	empty := w.t.Empty
	w.n.mu.Unlock()
	if !empty {
		return nil
	}
	c := &chunk{table: w.t}
	var err error
	if c.relation, err = catalogRelation(ctx, w.conn, w.major, w.c.cfg.Publication, &w.info); err != nil {
		return err
	}
	if c.schema, _, err = describe(ctx, w.conn, c.relation, nil, w.d.s.record.get().shape(w.t.Table.String())); err != nil {
		return err
	}
	if err := w.head(ctx, c); err != nil {
		return err
	}
	stop := w.c.flushWhile(ctx)
	err = w.d.do(ctx, func(ctx context.Context) (bool, error) { return w.d.empty(ctx, c) })
	stop()
	if err != nil {
		return err
	}
	return w.n.update(ctx, func(*snapshotState) {
		w.t.Empty, w.t.Emptied = false, c.at
		w.t.restart()
	})
}

// empty writes the truncate. It reports false if the time has not come.
func (d *desk) empty(ctx context.Context, c *chunk) (bool, error) {
	if d.s.view.clear < c.end || d.s.view.clear < d.ready {
		return false, nil
	}
	var err error
	if c.schema, err = d.c.keepSchema(ctx, c.schema); err != nil {
		return false, err
	}
	if !d.wanted(c.table) {
		return true, nil // The copy that replaces it sees to that.
	}
	d.s.starting()
	if !d.s.out.BeginSnapshot(d.after, d.time) {
		return false, nil
	}
	d.s.out.Truncate(0, []*cdc.Schema{c.schema})
	d.s.out.EndSnapshot()
	c.at = d.s.out.Last()
	for _, w := range d.windowsOf(c.table.Table) {
		w.empty()
	}
	return true, nil
}

func (d *desk) windowsOf(t Table) []*window {
	if c := d.tables[t]; c != nil {
		return c.windows
	}
	return nil
}

// shapeOf reads the shape of a table, all of it as of one moment. Otherwise a change that is
// committed meanwhile is in one half of it, and is no difference in the other half next
// time: a type of before with the files of after would pass for rows that were rewritten
// with the same type.
func (c *Capture) shapeOf(ctx context.Context, conn *pgx.Conn, version int, t *tableInfo) (now *shape, err error) {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, options, func(pgx.Tx) error {
		r, err := catalogRelation(ctx, conn, version, c.cfg.Publication, t)
		if err != nil {
			return err
		}
		now, err = readShape(ctx, conn, r)
		return err
	})
	return now, err
}

// compareShapes compares the tables with what is remembered of them.
func (c *Capture) compareShapes(ctx context.Context, conn *pgx.Conn, version int, infos []tableInfo, id *identity) (*findings, error) {
	f := &findings{shapes: map[string]*shape{}}
	for i := range infos {
		if infos[i].oid == 0 {
			continue
		}
		now, err := c.shapeOf(ctx, conn, version, &infos[i])
		if err != nil {
			return nil, err
		}
		before := id.shape(infos[i].table.String())
		f.observe(&infos[i], now, before)
		if err := f.noteDetached(ctx, conn, infos[i].table, now, before); err != nil {
			return nil, err
		}
	}
	return f, nil
}
