package capture

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// describe makes the schema of a table and stores it before it is used. What ALTER TABLE
// has done to rows that exist is found out here as well, before a row in the new schema is
// written.
func (s *session) describe(ctx context.Context, t *table) error {
	c := s.c
	var schema *cdc.Schema
	var stale bool
	err := c.source.with(ctx, func(conn *pgx.Conn) (err error) {
		if err := s.caughtUp(ctx, conn); err != nil {
			return err
		}
		if schema, stale, err = describe(ctx, conn, &t.relation, c.latest[t.relation.oid], s.record.get().shape(t.name.String())); err != nil {
			return err
		}
		return s.look(ctx, conn, []Table{t.name})
	})
	if err != nil {
		return fmt.Errorf("describe table %s: %w", t.name, err)
	}
	if stale {
		c.log.DebugContext(ctx, "the catalog does not match the stream yet or any more; key taken from the stream", "table", t.name.String())
	}
	if schema, err = c.keepSchema(ctx, schema); err != nil {
		return err
	}
	c.latest[schema.OID] = schema
	t.schema, t.isKey = schema, keyMask(schema)
	return nil
}

// catalogPatience bounds the wait for a transaction to become visible.
const catalogPatience = 5 * time.Second

// caughtUp waits until queries see what the open transaction has done. The walsender sends
// a transaction as soon as its commit is in the log; others see it a moment later, or a
// long time if it waits for a synchronous standby. Then the catalog is used as it is: types
// that it does not have are carried as text.
func (s *session) caughtUp(ctx context.Context, conn *pgx.Conn) error {
	for began := time.Now(); ; {
		var text string
		if err := conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&text); err != nil {
			return fmt.Errorf("take a snapshot: %w", err)
		}
		seen, err := parseVisibility(text)
		if err != nil {
			return err
		}
		if seen.sees(s.xid) {
			return nil
		}
		if time.Since(began) > catalogPatience {
			s.c.log.WarnContext(ctx, "a transaction is in the log that others do not see yet; the catalog is used as it is", "xid", s.xid)
			return nil
		}
		if !sleep(ctx, snapshotRetry) {
			return ctx.Err()
		}
	}
}

// look compares tables with what is remembered of them. It belongs to the reader.
func (s *session) look(ctx context.Context, conn *pgx.Conn, tables []Table) error {
	infos, err := readTables(ctx, conn, tables)
	if err != nil {
		return err
	}
	// Another table of the same name may not be published yet. The next session sees to it.
	infos = slices.DeleteFunc(infos, func(i tableInfo) bool { return s.gone(i.table, i.oid) })
	f, err := s.c.compareShapes(ctx, conn, s.server, infos, s.record.get())
	if err != nil {
		return err
	}
	if err := s.c.act(ctx, s.record, f); err != nil {
		return err
	}
	s.desk.renewed(f.again)
	if f.moved {
		return errPartitions
	}
	return nil
}

// watched is what the catalog says of a table in short.
type watched struct {
	oid  uint32
	hash string
}

var watchQuery = `
SELECT COALESCE(c.oid, 0), COALESCE((SELECT md5(string_agg(concat_ws(' ', attnum, attname, atttypid, atttypmod, attnotnull, atthasmissing), ',' ORDER BY attnum))
  FROM pg_attribute a WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped), '')
  || COALESCE((SELECT string_agg(indexrelid::text, ',' ORDER BY indexrelid) FROM pg_index i WHERE i.indrelid = c.oid AND (indisprimary OR indisreplident)), '')
  || COALESCE((WITH RECURSIVE ` + treeOf("c.oid") + ` SELECT md5(string_agg(concat_ws(' ', oid, link), ',' ORDER BY oid)) FROM tree), '')
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(nsp, rel, ord)
LEFT JOIN pg_namespace n ON n.nspname = w.nsp LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.rel ORDER BY w.ord`

// watch looks at the catalog now and then: the stream says nothing of a table that was
// altered, renamed or dropped as long as none of its rows changes.
func (s *session) watch(ctx context.Context) error {
	if s.desk == nil {
		return nil
	}
	before := s.glance
	for sleep(ctx, s.c.cfg.CatalogInterval) {
		tables := s.c.Tables()
		var now []watched
		err := s.c.source.with(ctx, func(conn *pgx.Conn) (err error) {
			now, err = glance(ctx, conn, tables)
			return err
		})
		switch {
		case err != nil && s.c.source.shutsDown(ctx):
			return errShutdown
		case err != nil:
			s.c.log.DebugContext(ctx, "the catalog cannot be looked at", "err", err)
			continue
		}
		var changed []Table
		for i, t := range tables {
			was, known := before[t]
			switch {
			case !s.c.isNamed(t):
				// Those come and go.
				if known && was.oid != now[i].oid {
					notify(s.c.following)
				} else if known && was != now[i] {
					changed = append(changed, t)
				}
			case known && was.oid != now[i].oid || s.gone(t, now[i].oid):
				// What to do about it is decided where a session starts.
				return fmt.Errorf("table %s was renamed, or dropped", t)
			case known && was != now[i]:
				changed = append(changed, t)
			}
			before[t] = now[i]
		}
		if len(changed) == 0 {
			continue
		}
		if err := s.desk.do(ctx, func(ctx context.Context) (bool, error) { return true, s.altered(ctx, changed) }); err != nil {
			return err
		}
	}
	return nil
}

// gone reports whether a table is not the one that the session began with.
func (s *session) gone(t Table, oid uint32) bool {
	for was, name := range s.oids {
		if name == t {
			return was != oid
		}
	}
	return false
}

func glance(ctx context.Context, conn *pgx.Conn, tables []Table) ([]watched, error) {
	namespaces, names := make([]string, len(tables)), make([]string, len(tables))
	for i, t := range tables {
		namespaces[i], names[i] = t.Schema, t.Name
	}
	rows, err := conn.Query(ctx, watchQuery, namespaces, names)
	if err != nil {
		return nil, fmt.Errorf("look at the catalog: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w watched, err error) {
		return w, row.Scan(&w.oid, &w.hash)
	})
	if err == nil && len(all) != len(tables) {
		err = fmt.Errorf("%d rows for %d tables", len(all), len(tables))
	}
	if err != nil {
		return nil, fmt.Errorf("look at the catalog: %w", err)
	}
	return all, nil
}

// altered deals with tables that have changed. The sink prepares itself for them before
// the first row.
func (s *session) altered(ctx context.Context, tables []Table) error {
	err := s.c.source.with(ctx, func(conn *pgx.Conn) error {
		if err := s.look(ctx, conn, tables); err != nil {
			return err
		}
		infos, err := readTables(ctx, conn, s.c.Tables())
		if err != nil {
			return err
		}
		present := &survey{version: s.server}
		for _, i := range infos {
			i.matched = !s.c.isNamed(i.table)
			if i.oid == 0 && !i.matched {
				return nil // The next look finds that.
			}
			if i.oid != 0 {
				present.infos = append(present.infos, i)
			}
		}
		schemas, err := s.c.describeTables(ctx, conn, present, s.record.get())
		if err != nil {
			return err
		}
		return s.c.announce(ctx, conn, schemas)
	})
	if err != nil {
		return fmt.Errorf("look at tables that were altered: %w", err)
	}
	return nil
}
