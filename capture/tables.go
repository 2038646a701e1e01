package capture

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// SetTables changes which tables are captured: it adds those that are missing to the
// publication and takes those that are no longer wanted out of it, unless it publishes
// everything. Changes of an added table are captured from the moment it is in the
// publication. It needs a server that capture has reached.
//
// keep makes the list durable. It is called when all tables of the list are captured, and
// before any other is not captured any more: a capture that starts with the list of
// before, because this one died or keep has failed, must not have missed anything.
func (c *Capture) SetTables(ctx context.Context, tables []Table, keep func(context.Context) error) error {
	if len(tables) == 0 {
		return setupProblem("set tables: there must be at least one")
	}
	if err := validateTables(tables); err != nil {
		return fmt.Errorf("set tables: %w", err)
	}
	if err := c.fence(); err != nil {
		return fmt.Errorf("set tables: %w", err)
	}
	c.altering.Lock()
	defer c.altering.Unlock()
	c.mu.Lock()
	rec, before := c.record, c.tables
	c.mu.Unlock()
	if rec == nil {
		return fmt.Errorf("set tables: %w", errNotReady)
	}
	var removed []Table
	for _, t := range before {
		if !slices.Contains(tables, t) {
			removed = append(removed, t)
		}
	}
	return c.source.with(ctx, func(conn *pgx.Conn) error {
		if err := c.addTables(ctx, conn, rec, slices.Clone(tables), removed); err != nil {
			return err
		}
		if err := keep(ctx); err != nil {
			c.want(before)
			return fmt.Errorf("keep the list of tables: %w", err)
		}
		c.want(slices.Clone(tables))
		if err := c.snapshots.join(ctx); err != nil {
			return err
		}
		if err := c.removeTables(ctx, conn, removed); err != nil {
			return err
		}
		if err := rec.update(ctx, func(id *identity) { id.Published = slices.Clone(tables) }); err != nil {
			return fmt.Errorf("set tables: %w", err)
		}
		return nil
	})
}

// addTables makes the tables count before they are in the publication, so that not one
// of their changes is passed over. Those that are to be removed count until then.
func (c *Capture) addTables(ctx context.Context, conn *pgx.Conn, rec *record, tables, removed []Table) error {
	srv, err := checkServer(ctx, conn)
	if err != nil {
		return err
	}
	infos, err := readTables(ctx, conn, tables)
	if err != nil {
		return err
	}
	var out problems
	for i := range infos {
		infos[i].check(&out)
	}
	pub, err := readPublication(ctx, conn, srv.version, c.cfg.Publication, infos)
	if err != nil {
		return err
	}
	if err := pub.check(infos, rec.get(), &out); err != nil {
		return err
	}
	if err := out.err(); err != nil {
		return err
	}
	before, all := c.Tables(), slices.Concat(tables, removed)
	c.want(all)
	if err := pub.ensure(ctx, conn, infos); err != nil {
		c.want(before)
		return err
	}
	if err := rec.update(ctx, func(id *identity) { id.Published = all }); err != nil {
		return fmt.Errorf("set tables: %w", err)
	}
	var schemas []*cdc.Schema
	if schemas, err = c.describeTables(ctx, conn, srv.version, infos); err != nil {
		return err
	}
	if err := c.stream.PutTables(ctx, schemas); err != nil {
		return fmt.Errorf("store the schemas of the tables: %w", err)
	}
	return nil
}

func (c *Capture) removeTables(ctx context.Context, conn *pgx.Conn, removed []Table) error {
	if len(removed) == 0 {
		return nil
	}
	infos, err := readTables(ctx, conn, removed)
	if err != nil {
		return err
	}
	pub, err := readPublication(ctx, conn, minVersion, c.cfg.Publication, infos)
	if err != nil {
		return err
	}
	return pub.remove(ctx, conn, infos)
}

func (c *Capture) want(tables []Table) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tables = tables
	c.tablesVersion++
}
