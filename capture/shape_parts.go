package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// part is a table of a tree of partitions.
type part struct {
	oid  uint32
	link uint32 // the transaction that made it one, zero of the root
	name string
	// born tells that it was made as a partition: all of its rows came in the log of the
	// root. Others may have had rows when they were attached.
	born bool
}

// treeOf is a recursive query of a partitioned table and all beneath it, nothing if the
// table is not partitioned. It takes no locks. A partition that is being detached does not
// count: PostgreSQL publishes it no more.
func treeOf(oid string) string {
	return `tree(oid, link) AS (SELECT r.oid, '0'::xid FROM pg_class r WHERE r.oid = ` + oid + ` AND r.relkind = 'p'
  UNION ALL SELECT i.inhrelid, i.xmin FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid
  WHERE COALESCE(to_jsonb(i)->>'inhdetachpending', 'false') = 'false')` // From PostgreSQL 14.
}

// partsQuery tells who was made as a partition from who was attached. ATTACH PARTITION
// counts up attinhcount of every column, so that none stays as it was made: by the command
// that made the system columns, or by the next step of CREATE TABLE, which sets defaults.
// To create a table, fill it and attach it takes more commands than that, also in one
// transaction.
var partsQuery = "WITH RECURSIVE " + treeOf("$1") + `
SELECT t.oid, t.link::text::bigint, t.oid::regclass::text, EXISTS (
  SELECT FROM pg_attribute s JOIN pg_attribute a ON a.attrelid = s.attrelid AND a.xmin = s.xmin
  WHERE s.attrelid = t.oid AND s.attname = 'tableoid' AND s.attnum < 0 AND a.attnum > 0 AND NOT a.attisdropped
    AND a.xmax = 0 AND a.cmin::text::bigint <= s.cmin::text::bigint + 1)
FROM tree t ORDER BY t.oid`

// readParts looks up the partitions of a table.
func (s *shape) readParts(ctx context.Context, conn *pgx.Conn, t Table) error {
	rows, err := conn.Query(ctx, partsQuery, s.OID)
	if err != nil {
		return fmt.Errorf("look up the partitions of %s: %w", t, err)
	}
	s.parts, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p part, err error) {
		return p, row.Scan(&p.oid, &p.link, &p.name, &p.born)
	})
	if err != nil {
		return fmt.Errorf("look up the partitions of %s: %w", t, err)
	}
	if len(s.parts) > 0 {
		s.Parts = make(map[uint32]uint32, len(s.parts))
	}
	for _, p := range s.parts {
		s.Parts[p.oid] = p.link
	}
	return nil
}

// errPartitions ends a session. A walsender of PostgreSQL 13 or 14 decides once how a table
// is published: that one which was changed before it was attached is not, and that one which
// was detached is. Another walsender has nothing decided.
var errPartitions = errors.New("partitions were attached or detached: the stream begins anew, so that PostgreSQL sends what belongs to their table now")

// misknown reports whether a partition joins of which the walsender may have decided
// otherwise. That something above it is in the publication does not make it decide again, as
// adding it would.
func (s *survey) misknown(before []Table) bool {
	const fixed = 150000
	return s.version < fixed && slices.ContainsFunc(s.infos, func(t tableInfo) bool {
		return !slices.Contains(before, t.table) && slices.Contains(s.pub.above, t.oid) && !slices.Contains(s.pub.listed, t.oid)
	})
}

// moved reports whether PostgreSQL publishes tables in another way than before.
func (s *shape) moved(before *shape) bool {
	gone := 0
	for oid := range before.Parts {
		if _, there := s.Parts[oid]; !there {
			gone++
		}
	}
	return s.OID == before.OID && (gone > 0 || s.attached(before) != "")
}

// attached says which partitions have come with rows that the log of the table does not
// have, empty if there are none.
func (s *shape) attached(before *shape) string {
	if len(before.Parts) == 0 {
		return ""
	}
	var names []string
	for _, p := range s.parts {
		link, known := before.Parts[p.oid]
		switch {
		case known && link != p.link:
			names = append(names, p.name+" (again; rows that were deleted meanwhile stay in the sink)")
		case !known && !p.born:
			names = append(names, p.name)
		}
	}
	return listOf("attached as a partition: ", names)
}

// listOf prints names, not too many of them; empty if there are none.
func listOf(what string, names []string) string {
	const most = 10
	switch {
	case len(names) == 0:
		return ""
	case len(names) > most:
		return what + strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return what + strings.Join(names, ", ")
}

// note is something about a table that people must know, as nothing is done about it.
type note struct {
	table    Table
	attached bool // or detached
	why      string
}

// noteAttached is for a table without a key, which is not copied unasked.
func (f *findings) noteAttached(t Table, now, before *shape) {
	if why := now.attached(before); why != "" && now.OID == before.OID {
		f.notes = append(f.notes, note{t, true, why})
	}
}

// noteDetached names the partitions that are gone. The log says nothing of their rows.
func (f *findings) noteDetached(ctx context.Context, conn *pgx.Conn, t Table, now, before *shape) error {
	if before == nil || before.OID != now.OID {
		return nil
	}
	gone := slices.DeleteFunc(slices.Sorted(maps.Keys(before.Parts)), func(oid uint32) bool {
		_, there := now.Parts[oid]
		return there
	})
	if len(gone) == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, "SELECT CASE WHEN EXISTS (SELECT FROM pg_class WHERE oid = o) THEN o::regclass::text ELSE 'OID ' || o END FROM unnest($1::oid[]) o", gone)
	if err != nil {
		return fmt.Errorf("look up partitions that are gone: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("look up partitions that are gone: %w", err)
	}
	f.notes = append(f.notes, note{t, false, listOf("detached or dropped: ", names)})
	return nil
}

func (f *findings) say(ctx context.Context, log *slog.Logger) {
	for _, n := range f.notes {
		name := n.table.String()
		if n.attached {
			log.WarnContext(ctx, "rows of a partition that was attached are not in the sink", "table", name, "because", n.why, "run", "dbmazz snapshot --tables "+name)
		} else {
			log.WarnContext(ctx, "rows of a partition that was detached or dropped stay in the sink", "table", name, "because", n.why)
		}
	}
}
