package capture

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// SetTables changes which tables are captured: it adds those that are missing to the
// publication and takes those that are no longer wanted out of it, unless it publishes
// everything. Changes of an added table are captured from the moment it is in the
// publication. It needs a server that capture has reached.
//
// keep makes the selection durable. It is called when all its tables are captured, and
// before any other is not captured any more: a capture that starts with the selection of
// before, because this one died or keep has failed, must not have missed anything.
func (c *Capture) SetTables(ctx context.Context, selection Selection, keep func(context.Context) error) error {
	if selection.isZero() {
		return setupProblem("set tables: there must be at least one")
	}
	if err := selection.validate(); err != nil {
		return fmt.Errorf("set tables: %w", err)
	}
	if err := c.fence(); err != nil {
		return fmt.Errorf("set tables: %w", err)
	}
	c.altering.Lock()
	defer c.altering.Unlock()
	rec, before := c.captured()
	if rec == nil {
		return fmt.Errorf("set tables: %w", errNotReady)
	}
	selection = selection.clone()
	return c.source.with(ctx, func(conn *pgx.Conn) error {
		srv, err := checkServer(ctx, conn)
		if err != nil {
			return err
		}
		found, err := c.survey(ctx, conn, srv.version, &selection, rec.get())
		if err != nil {
			return err
		}
		if err := found.problems.err(); err != nil {
			return err
		}
		if len(found.infos) == 0 {
			return nothingMatches()
		}
		if found.misknown(before) {
			defer c.ask(wants{anew: true})
		}
		return c.alter(ctx, conn, &alteration{
			found: found, removed: difference(before, found.tables()), record: rec,
			keep: func(ctx context.Context) error {
				if err := keep(ctx); err != nil {
					return fmt.Errorf("keep the list of tables: %w", err)
				}
				c.mu.Lock()
				defer c.mu.Unlock()
				c.selection, c.leaving = selection, nil
				return nil
			},
		})
	})
}

func nothingMatches() error {
	return setupProblem("No table of the source matches TABLES. Create one, or correct TABLES")
}

// captured returns the record of the session, nil if there is none, and the tables.
func (c *Capture) captured() (*record, []Table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record, c.tables
}

// alteration is a change of the tables while capture runs.
type alteration struct {
	record *record
	found  *survey
	// leaving count until the reader has passed what they can have changed, removed
	// until keep has been called.
	leaving, removed []Table
	keep             func(context.Context) error
}

// alter carries it out. c.altering is held.
func (c *Capture) alter(ctx context.Context, conn *pgx.Conn, a *alteration) error {
	before := c.Tables()
	if err := c.addTables(ctx, conn, a); err != nil {
		return err
	}
	if err := a.keep(ctx); err != nil {
		c.want(before)
		return err
	}
	tables := slices.Concat(a.found.tables(), a.leaving)
	c.want(tables)
	c.leftOut(ctx, a.found.left)
	if err := c.snapshots.join(ctx, a.record.get()); err != nil {
		return err
	}
	if err := c.removeTables(ctx, conn, a); err != nil {
		return err
	}
	if err := a.record.update(ctx, func(id *identity) { id.publish(tables) }); err != nil {
		return fmt.Errorf("set tables: %w", err)
	}
	return nil
}

// addTables makes the tables count before they are in the publication, so that not one
// of their changes is passed over. Those that are to be removed count until then.
func (c *Capture) addTables(ctx context.Context, conn *pgx.Conn, a *alteration) error {
	var out problems
	for i := range a.found.infos {
		a.found.infos[i].check(&out)
	}
	id := a.record.get()
	again := c.copyAgain(id, a.found)
	if err := a.found.pub.check(a.found.infos, id, tablesOf(again), &out); err != nil {
		return err
	}
	if err := out.err(); err != nil {
		return err
	}
	// That they were missing does not show afterwards.
	if err := c.snapshots.renew(ctx, again, id.Published); err != nil {
		return err
	}
	before := c.Tables()
	others := slices.Concat(a.leaving, a.removed)
	c.want(slices.Concat(a.found.tables(), others))
	schemas, shapes, err := c.publishTables(ctx, conn, a.found, id)
	if err != nil {
		c.want(before)
		return err
	}
	all := slices.Concat(a.found.tables(), others)
	c.want(all)
	if err := a.record.update(ctx, func(id *identity) { id.publish(all); id.setShapes(shapes) }); err != nil {
		return fmt.Errorf("set tables: %w", err)
	}
	return c.announce(ctx, conn, schemas)
}

// publishTables puts the tables into the publication, and returns the schemas of all and
// the shapes of those that came.
func (c *Capture) publishTables(ctx context.Context, conn *pgx.Conn, found *survey, id *identity) ([]*cdc.Schema, map[string]*shape, error) {
	refused, err := found.pub.ensure(ctx, conn, found.infos)
	if err != nil {
		return nil, nil, err
	}
	c.refused(found, refused)
	schemas, err := c.describeTables(ctx, conn, found, id)
	if err != nil {
		return nil, nil, err
	}
	var fresh []tableInfo
	for i := range found.infos {
		if s := id.shape(found.infos[i].table.String()); s == nil || s.OID != found.infos[i].oid {
			fresh = append(fresh, found.infos[i])
		}
	}
	f, err := c.compareShapes(ctx, conn, found.version, fresh, id)
	if err != nil {
		return nil, nil, err
	}
	return schemas, f.shapes, nil
}

// copyAgain returns the tables that must be copied anew for the sink to have all.
func (c *Capture) copyAgain(id *identity, found *survey) []recopy {
	if c.cfg.SnapshotStore == nil {
		return nil
	}
	return id.again(found.infos, found.pub.missing(found.infos))
}

func tablesOf(again []recopy) []Table {
	tables := make([]Table, len(again))
	for i := range again {
		tables[i] = again[i].table
	}
	return tables
}

// removeTables takes tables out of the publication, under whatever name they go by now, as
// far as nobody wants them.
func (c *Capture) removeTables(ctx context.Context, conn *pgx.Conn, a *alteration) error {
	if len(a.removed) == 0 {
		return nil
	}
	infos, err := readTables(ctx, conn, a.removed)
	if err != nil {
		return err
	}
	id := a.record.get()
	var oids []uint32
	for i := range infos {
		known := []uint32{infos[i].oid}
		if before := id.shape(infos[i].table.String()); before != nil {
			known = append(known, before.OID)
		}
		for _, oid := range known {
			wanted := slices.ContainsFunc(a.found.infos, func(t tableInfo) bool { return t.oid == oid })
			if oid != 0 && !wanted {
				oids = append(oids, oid)
			}
		}
	}
	listed, err := publishedAs(ctx, conn, c.cfg.Publication, oids)
	if err != nil || len(listed) == 0 {
		return err
	}
	return a.found.pub.run(ctx, conn, "ALTER PUBLICATION "+quote(c.cfg.Publication)+" DROP TABLE "+sqlNames(listed))
}

func (c *Capture) want(tables []Table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tables = tables
	c.tablesVersion++
}

// refusal is a matched table that could not be put into the publication.
type refusal struct {
	oid    uint32
	reason string
	tries  int
	until  time.Time
}

// unaddable says why it is not tried to put a table into the publication, empty if it is.
func (c *Capture) unaddable(t *tableInfo) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.unfit[t.table]; r != nil && r.oid == t.oid && time.Now().Before(r.until) {
		return r.reason
	}
	return ""
}

// refused leaves tables out that could not be put into the publication. They are tried
// again after a pause that grows.
func (c *Capture) refused(found *survey, refused []LeftOut) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range refused {
		for i := range found.infos {
			t := &found.infos[i]
			if t.table.String() != l.Name || !t.matched {
				continue
			}
			r := c.unfit[t.table]
			if r == nil || r.oid != t.oid {
				r = &refusal{oid: t.oid}
				c.unfit[t.table] = r
			}
			r.reason, r.until = l.Reason, time.Now().Add(c.cfg.TablesInterval<<min(r.tries, 6))
			r.tries++
			found.leave(t.table, l.Reason)
			break
		}
	}
}

// leftOut shows which tables are not captured although they match, and says so once.
func (c *Capture) leftOut(ctx context.Context, left []LeftOut) {
	c.mu.Lock()
	before := c.status.LeftOut
	c.status.LeftOut = slices.Clone(left)
	c.mu.Unlock()
	for _, l := range left {
		if !slices.Contains(before, l) {
			c.log.WarnContext(ctx, "left out of the capture", "name", l.Name, "reason", l.Reason)
		}
	}
}

// through is up to where everything that the server has sent is stored.
func (c *Capture) through() cdc.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flow.through
}
