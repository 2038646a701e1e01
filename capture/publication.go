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
	filtered  []string // tables with a row filter or column list
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
	oids := make([]uint32, len(tables))
	for i := range tables {
		oids[i] = tables[i].oid
	}
	rows, err := conn.Query(ctx, `
SELECT c.oid, r.oid IS NOT NULL, $3 OR r.oid IS NOT NULL OR `+schemas+`, `+filters+`
FROM pg_class c LEFT JOIN pg_publication_rel r ON r.prrelid = c.oid AND r.prpubid = $1
WHERE c.oid = ANY ($2::oid[])`, oid, oids, p.allTables)
	if err != nil {
		return nil, fmt.Errorf("look up publication %q: %w", name, err)
	}
	defer rows.Close()
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

// missing returns the tables that are not in the publication.
func (p *publication) missing(tables []tableInfo) []Table {
	var missing []Table
	for _, t := range tables {
		if t.oid != 0 && !slices.Contains(p.covered, t.oid) {
			missing = append(missing, t.table)
		}
	}
	return missing
}

// check refuses a publication that leaves changes out. known are tables that were
// seen in it earlier; resuming tells that the slot has been streamed from before.
func (p *publication) check(tables []tableInfo, id *identity, out *problems) error {
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
	for _, t := range tables {
		if t.kind == "p" && !p.viaRoot {
			out.add("Failed to setup publication '%s': table '%s' is partitioned. Run: ALTER PUBLICATION %s SET (publish_via_partition_root = true)",
				p.name, t.table, quote(p.name))
		}
		if t.partitionOf != "" && p.viaRoot && p.allTables {
			out.add("Failed to setup publication '%s': table '%s' is a partition and published as part of %s. List that table instead", p.name, t.table, t.partitionOf)
		}
	}
	if id == nil {
		return nil
	}
	for _, t := range p.missing(tables) {
		if slices.Contains(id.Published, t) && !id.replaced(tables, t) {
			return &IdentityError{
				Reason: fmt.Sprintf("table %q was taken out of publication %q, or dropped and created again; changes made while it was missing are not in the stream", t, p.name),
				Recovery: fmt.Sprintf("to go on without those changes, run: ALTER PUBLICATION %s ADD TABLE %s; to have all rows again, copy the table anew",
					quote(p.name), t.sqlName()),
			}
		}
	}
	return nil
}

const publicationOptions = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"

// ensure creates the publication or adds the tables that are missing. It never takes
// anything away. Once a table is published PostgreSQL refuses updates and deletes of it
// that have no replica identity, so it is looked at again while the lock of the DDL keeps
// everybody from changing that, and before anybody sees the publication.
func (p *publication) ensure(ctx context.Context, conn *pgx.Conn, tables []tableInfo) error {
	missing := p.missing(tables)
	var sql string
	switch {
	case !p.exists:
		all := make([]Table, len(tables))
		for i := range tables {
			all[i] = tables[i].table
		}
		sql = "CREATE PUBLICATION " + quote(p.name) + " FOR TABLE " + sqlNames(all) + " WITH (" + publicationOptions + ")"
	case len(missing) > 0:
		sql = "ALTER PUBLICATION " + quote(p.name) + " ADD TABLE " + sqlNames(missing)
	default:
		return nil
	}
	wanted := make([]Table, len(tables))
	for i := range tables {
		wanted[i] = tables[i].table
	}
	return pgx.BeginFunc(ctx, conn, func(pgx.Tx) error {
		if err := p.run(ctx, conn, sql); err != nil {
			return err
		}
		infos, err := readTables(ctx, conn, wanted)
		if err != nil {
			return err
		}
		var out problems
		for i := range infos {
			infos[i].check(&out)
		}
		return out.err()
	})
}

// remove takes tables out of the publication as far as they are listed in it.
func (p *publication) remove(ctx context.Context, conn *pgx.Conn, tables []tableInfo) error {
	var listed []Table
	for _, t := range tables {
		if slices.Contains(p.listed, t.oid) {
			listed = append(listed, t.table)
		}
	}
	if len(listed) == 0 {
		return nil
	}
	return p.run(ctx, conn, "ALTER PUBLICATION "+quote(p.name)+" DROP TABLE "+sqlNames(listed))
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
