package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// publication is what the server says about a publication.
type publication struct {
	name      string
	exists    bool
	allTables bool
	schemas   bool // FOR TABLES IN SCHEMA, maybe beside tables
	viaRoot   bool
	publishes []string // those of insert, update, delete, truncate that are missing
	covered   []uint32 // OIDs of the tables that are in it
	listed    []uint32 // of those, the ones that are listed one by one
	above     []uint32 // OIDs of partitions that something above them is in it of
	filtered  []string // tables with a row filter or column list
	leaves    bool     // partitions are wanted, not their roots
}

// readPublication looks up a publication and which of the tables are in it.
func readPublication(ctx context.Context, conn *pgx.Conn, version int, name string, tables []tableInfo) (*publication, error) {
	p := &publication{name: name}
	var oid uint32
	err := conn.QueryRow(ctx, `
SELECT oid, puballtables, pubviaroot, array_remove(ARRAY[
  CASE WHEN NOT pubinsert THEN 'insert' END, CASE WHEN NOT pubupdate THEN 'update' END,
  CASE WHEN NOT pubdelete THEN 'delete' END, CASE WHEN NOT pubtruncate THEN 'truncate' END], NULL)
FROM pg_publication WHERE pubname = $1`, name).Scan(&oid, &p.allTables, &p.viaRoot, &p.publishes)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up publication %q: %w", name, err)
	}
	p.exists = true
	schemas, filters := "false", "NULL::text"
	if version >= 150000 {
		schemas = "EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = $1 AND s.pnnspid = c.relnamespace)"
		filters = "CASE WHEN r.prqual IS NOT NULL OR r.prattrs IS NOT NULL THEN c.oid::regclass::text END"
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_publication_namespace WHERE pnpubid = $1)", oid).Scan(&p.schemas); err != nil {
			return nil, fmt.Errorf("look up publication %q: %w", name, err)
		}
	}
	oids := make([]uint32, 0, len(tables))
	for i := range tables {
		oids = append(append(oids, tables[i].oid), tables[i].ancestors...)
	}
	rows, err := conn.Query(ctx, `
SELECT c.oid, r.oid IS NOT NULL, $3 OR r.oid IS NOT NULL OR `+schemas+`, `+filters+`
FROM pg_class c LEFT JOIN pg_publication_rel r ON r.prrelid = c.oid AND r.prpubid = $1
WHERE c.oid = ANY ($2::oid[])`, oid, oids, p.allTables)
	if err != nil {
		return nil, fmt.Errorf("look up publication %q: %w", name, err)
	}
	defer rows.Close()
	defer p.inherit(tables)
	for rows.Next() {
		var table uint32
		var listed, covered bool
		var filter *string
		if err := rows.Scan(&table, &listed, &covered, &filter); err != nil {
			return nil, fmt.Errorf("look up publication %q: %w", name, err)
		}
		if listed {
			p.listed = append(p.listed, table)
		}
		if covered {
			p.covered = append(p.covered, table)
		}
		if filter != nil {
			p.filtered = append(p.filtered, *filter)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look up publication %q: %w", name, err)
	}
	return p, nil
}

// inherit notes which partitions are in it because something above them is. The server
// publishes those under their own names unless publish_via_partition_root is set.
func (p *publication) inherit(tables []tableInfo) {
	for _, t := range tables {
		if !slices.ContainsFunc(t.ancestors, func(oid uint32) bool { return slices.Contains(p.covered, oid) }) {
			continue
		}
		p.above = append(p.above, t.oid)
		if !p.viaRoot && !slices.Contains(p.covered, t.oid) {
			p.covered = append(p.covered, t.oid)
		}
	}
}

// missing returns the tables that are not in the publication.
func (p *publication) missing(tables []tableInfo) []Table {
	var missing []Table
	if p.allTables {
		return nil
	}
	for _, t := range tables {
		if t.oid != 0 && !slices.Contains(p.covered, t.oid) {
			missing = append(missing, t.table)
		}
	}
	return missing
}

// checkTable refuses a table that the publication publishes under another name, or would
// with the others in it.
func (p *publication) checkTable(t *tableInfo, others []tableInfo, out *problems) {
	const failed = "Failed to setup publication '%s': table '%s' "
	viaRoot := p.viaRoot || !p.exists && !p.leaves
	switch {
	case t.kind == "p" && p.exists && !p.viaRoot:
		out.add(failed+"is partitioned. Run: ALTER PUBLICATION %s SET (publish_via_partition_root = true); or, to have each partition as a table of its own, set SOURCE_PARTITIONS=leaf",
			p.name, t.table, quote(p.name))
	case p.leaves && p.viaRoot && slices.Contains(p.above, t.oid):
		out.add(failed+"is a partition and published as part of %s. Run: ALTER PUBLICATION %s SET (publish_via_partition_root = false); or set SOURCE_PARTITIONS=root",
			p.name, t.table, t.partitionOf, quote(p.name))
	case p.viaRoot && slices.Contains(p.above, t.oid):
		out.add(failed+"is a partition and published as part of %s. List that table instead", p.name, t.table, t.partitionOf)
	case viaRoot && slices.ContainsFunc(others, func(o tableInfo) bool { return o.oid != 0 && slices.Contains(t.ancestors, o.oid) }):
		out.add(failed+"is a partition of %s, which is listed too and has its rows. Take one of the two out of TABLES", p.name, t.table, t.partitionOf)
	}
}

// check refuses a publication that leaves changes out. again are tables whose rows are
// copied anew, so that what was left out of them is no loss.
func (p *publication) check(tables []tableInfo, id *identity, again []Table, out *problems) error {
	for i := range tables {
		p.checkTable(&tables[i], tables, out)
	}
	if !p.exists {
		if id != nil {
			return &IdentityError{
				Reason: fmt.Sprintf("publication %q was dropped; changes made while it was missing are not in the stream", p.name),
				Recovery: fmt.Sprintf("to go on without those changes, run: CREATE PUBLICATION %s FOR TABLE <tables> WITH (%s); to be sure that nothing is missing, start over with a new slot, stream and a full copy of the tables",
					quote(p.name), publicationOptions),
			}
		}
		return nil
	}
	if len(p.publishes) > 0 {
		out.add("Failed to setup publication '%s': it does not publish %s. Run: ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate')",
			p.name, strings.Join(p.publishes, ", "), quote(p.name))
	}
	if id == nil {
		return nil
	}
	for _, t := range p.missing(tables) {
		if slices.Contains(id.Published, t) && !id.replaced(tables, t) && !slices.Contains(again, t) {
			return &IdentityError{
				Reason: fmt.Sprintf("table %q was taken out of publication %q, or dropped and created again; changes made while it was missing are not in the stream", t, p.name),
				Recovery: fmt.Sprintf("to go on without those changes, run: ALTER PUBLICATION %s ADD TABLE %s; to have all rows again, copy the table anew",
					quote(p.name), t.sqlName()),
			}
		}
	}
	return nil
}

const (
	publicationOptions  = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
	publicationOfLeaves = "publish = 'insert, update, delete, truncate', publish_via_partition_root = false"
)

func (p *publication) options() string {
	if p.leaves {
		return publicationOfLeaves
	}
	return publicationOptions
}

// ensure creates the publication or adds the tables that are missing. It never takes
// anything away. Matched tables that cannot be added keep nothing from the others; they
// are answered with the reasons.
func (p *publication) ensure(ctx context.Context, conn *pgx.Conn, tables []tableInfo) (refused []LeftOut, err error) {
	missing := p.missing(tables)
	switch {
	case !p.exists:
		missing = tableNames(tables)
	case len(missing) == 0:
		return nil, nil
	}
	err = p.add(ctx, conn, missing)
	matched := func(t Table) bool {
		return slices.ContainsFunc(tables, func(i tableInfo) bool { return i.table == t && i.matched })
	}
	if err == nil || ctx.Err() != nil || conn.IsClosed() || !slices.ContainsFunc(missing, matched) {
		return nil, err
	}
	// One of them must not keep the others away.
	named := slices.DeleteFunc(slices.Clone(missing), matched)
	if len(named) > 0 || !p.exists {
		if err := p.add(ctx, conn, named); err != nil {
			return nil, err
		}
	}
	for _, t := range missing {
		if !matched(t) {
			continue
		}
		err := p.add(ctx, conn, []Table{t})
		if _, ok := errors.AsType[*SetupError](err); !ok && err != nil {
			return nil, err
		}
		if err != nil {
			refused = append(refused, LeftOut{t.String(), err.Error()})
		}
	}
	return refused, nil
}

func tableNames(tables []tableInfo) []Table {
	names := make([]Table, len(tables))
	for i := range tables {
		names[i] = tables[i].table
	}
	return names
}

// add puts tables into the publication, which it creates if it must. Once a table is
// published PostgreSQL refuses updates and deletes of it that have no replica identity, so
// it is looked at again while the lock of the DDL keeps everybody from changing that, and
// before anybody sees the publication.
func (p *publication) add(ctx context.Context, conn *pgx.Conn, tables []Table) error {
	sql := "ALTER PUBLICATION " + quote(p.name) + " ADD TABLE " + sqlNames(tables)
	switch {
	case !p.exists && len(tables) == 0:
		sql = "CREATE PUBLICATION " + quote(p.name) + " WITH (" + p.options() + ")"
	case !p.exists:
		sql = "CREATE PUBLICATION " + quote(p.name) + " FOR TABLE " + sqlNames(tables) + " WITH (" + p.options() + ")"
	}
	err := pgx.BeginFunc(ctx, conn, func(pgx.Tx) error {
		if err := p.run(ctx, conn, sql); err != nil {
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
		return out.err()
	})
	p.exists = p.exists || err == nil
	return err
}

// publishedAs returns the tables of a publication, as they are listed one by one, that have
// these OIDs.
func publishedAs(ctx context.Context, conn *pgx.Conn, publication string, oids []uint32) ([]Table, error) {
	rows, err := conn.Query(ctx, `
SELECT n.nspname::text, c.relname::text FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = $1 AND c.oid = ANY ($2::oid[])`, publication, oids)
	if err != nil {
		return nil, fmt.Errorf("look up publication %q: %w", publication, err)
	}
	tables, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Table, err error) {
		return t, row.Scan(&t.Schema, &t.Name)
	})
	if err != nil {
		return nil, fmt.Errorf("look up publication %q: %w", publication, err)
	}
	return tables, nil
}

// run runs DDL. The connection has a lock_timeout and a statement_timeout.
func (p *publication) run(ctx context.Context, conn *pgx.Conn, sql string) error {
	if _, err := conn.Exec(ctx, sql); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("set up publication %q: %w", p.name, err)
		}
		return setupProblem("Failed to setup publication '%s': %s. To do it by hand, run as owner of the tables or superuser: %s", p.name, oneLine(err), sql)
	}
	return nil
}
