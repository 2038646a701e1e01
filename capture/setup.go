package capture

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// problems collects what prevents streaming.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &SetupError{Problems: p}
}

// minVersion is the oldest server: publish_via_partition_root and wal_status came
// with it.
const minVersion = 130000

// server is what preflight learns about the server as a whole.
type server struct {
	version     int
	standby     bool
	database    string
	databaseOID uint32
	replication bool // the role may replicate
	role        string
	walLevel    string
	slotsFree   int
	sendersFree int
}

const serverQuery = `
SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), d.datname::text, d.oid,
       current_user::text, current_setting('wal_level'),
       COALESCE((SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), false)
         OR COALESCE((SELECT bool_or(pg_has_role(current_user, oid, 'member')) FROM pg_roles WHERE rolname = 'rds_replication'), false),
       current_setting('max_replication_slots')::int - (SELECT count(*)::int FROM pg_replication_slots),
       current_setting('max_wal_senders')::int - (SELECT count(*)::int FROM pg_stat_replication)
FROM pg_database d WHERE d.datname = current_database()`

// checkServer refuses a server that cannot stream at all.
func checkServer(ctx context.Context, conn *pgx.Conn) (*server, error) {
	var s server
	err := conn.QueryRow(ctx, serverQuery).Scan(&s.version, &s.standby, &s.database, &s.databaseOID,
		&s.role, &s.walLevel, &s.replication, &s.slotsFree, &s.sendersFree)
	if err != nil {
		return nil, fmt.Errorf("read server settings: %w", err)
	}
	var p problems
	if s.version < minVersion {
		p.add("PostgreSQL %d is too old: version 13 or newer is needed", s.version/10000)
	}
	if s.walLevel != "logical" {
		p.add("wal_level is '%s', 'logical' is needed. Run as superuser: ALTER SYSTEM SET wal_level = 'logical'; then restart PostgreSQL", s.walLevel)
	}
	if !s.replication {
		p.add("Role '%s' must not replicate. Run as superuser: ALTER ROLE %s REPLICATION (on Amazon RDS: GRANT rds_replication TO %s)",
			s.role, quote(s.role), quote(s.role))
	}
	return &s, p.err()
}

// failoverSlots reports whether a slot that is created here can be marked for failover.
func (s *server) failoverSlots() bool { return s.version >= 170000 && !s.standby }

// quote quotes an identifier; several parts become a qualified name.
func quote(parts ...string) string { return pgx.Identifier(parts).Sanitize() }

// sqlName is the quoted, qualified name of the table.
func (t Table) sqlName() string { return quote(t.Schema, t.Name) }

// sqlNames lists tables for SQL, each without what inherits from it. A partitioned table
// means its partitions nevertheless.
func sqlNames(tables []Table) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = "ONLY " + t.sqlName()
	}
	return strings.Join(names, ", ")
}

// tableInfo is what preflight learns about one table.
type tableInfo struct {
	table       Table
	oid         uint32
	kind        string // pg_class.relkind
	persistence string
	identity    string // pg_class.relreplident
	partitionOf string // the topmost ancestor, quoted, "" if it is no partition
	readable    bool
	primary     bool // has a primary key that can serve as identity
	deferrable  bool // has a primary key that cannot
	index       bool // has a usable replica identity index
	candidate   string
	toast       bool
	empty       bool     // has no columns
	unseen      string   // a partition whose changes are not in the WAL, quoted, "" if there is none
	owned       bool     // the role may do what an owner may
	ancestors   []uint32 // of a partition
	// matched tells that the table is not named but matches a pattern.
	matched bool
}

var tablesQuery = `
SELECT w.nsp, w.rel, COALESCE(c.oid, 0), COALESCE(c.relkind::text, ''), COALESCE(c.relpersistence::text, ''),
       COALESCE(c.relreplident::text, ''),
       COALESCE((SELECT a.relid::regclass::text FROM pg_partition_ancestors(c.oid) WITH ORDINALITY a(relid, depth)
                 WHERE c.relispartition ORDER BY a.depth DESC LIMIT 1), ''),
       COALESCE(has_table_privilege(c.oid, 'SELECT'), false),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND (i.indimmediate OR c.relreplident = 'f')),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND NOT i.indimmediate),
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid),
       COALESCE((SELECT quote_ident(x.relname) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                 WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND NOT i.indisprimary
                   AND i.indpred IS NULL AND i.indexprs IS NULL
                   AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)
                 ORDER BY i.indnkeyatts, x.relname LIMIT 1), ''),
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage IN ('x', 'e')),
       NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       COALESCE((WITH RECURSIVE ` + treeOf("c.oid") + ` SELECT min(x.oid::regclass::text) FROM tree JOIN pg_class x ON x.oid = tree.oid
                 WHERE x.relkind = 'f' OR x.relpersistence <> 'p'), ''),
       COALESCE(pg_has_role(c.relowner, 'USAGE'), false),
       CASE WHEN c.relispartition THEN ARRAY(SELECT a.relid::oid FROM pg_partition_ancestors(c.oid) a WHERE a.relid <> c.oid) ELSE '{}' END
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w(nsp, rel, ord)
LEFT JOIN pg_namespace n ON n.nspname = w.nsp
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.rel
ORDER BY w.ord`

// readTables looks the tables up.
func readTables(ctx context.Context, conn *pgx.Conn, tables []Table) ([]tableInfo, error) {
	namespaces, names := make([]string, len(tables)), make([]string, len(tables))
	for i, t := range tables {
		namespaces[i], names[i] = t.Schema, t.Name
	}
	rows, err := conn.Query(ctx, tablesQuery, namespaces, names)
	if err != nil {
		return nil, fmt.Errorf("look up tables: %w", err)
	}
	infos, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (i tableInfo, err error) {
		return i, row.Scan(&i.table.Schema, &i.table.Name, &i.oid, &i.kind, &i.persistence, &i.identity, &i.partitionOf,
			&i.readable, &i.primary, &i.deferrable, &i.index, &i.candidate, &i.toast, &i.empty, &i.unseen, &i.owned, &i.ancestors)
	})
	if err != nil {
		return nil, fmt.Errorf("look up tables: %w", err)
	}
	return infos, nil
}

// check refuses a table whose changes cannot be captured row by row.
func (i *tableInfo) check(p *problems) {
	t, sql := i.table, i.table.sqlName()
	switch {
	case i.oid == 0:
		p.add("Table '%s' not found in PostgreSQL. Verify the table exists and is accessible.", t)
		return
	case i.kind != "r" && i.kind != "p":
		p.add("Table '%s' is not an ordinary or partitioned table (relkind '%s'): logical replication does not carry it. List the tables beneath it", t, i.kind)
		return
	case i.empty:
		p.add("Table '%s' has no columns, so that its rows hold nothing. Run: ALTER TABLE %s ADD COLUMN <column> <type> PRIMARY KEY; or leave it out of TABLES", t, sql)
		return
	case i.persistence != "p":
		p.add("Table '%s' is unlogged or temporary: its changes are not in the WAL. Run: ALTER TABLE %s SET LOGGED", t, sql)
		return
	case i.unseen != "":
		p.add("Table '%s' has a partition whose changes are not in the WAL, as it is unlogged or a foreign table: %s. Run one of: ALTER TABLE %s SET LOGGED; ALTER TABLE %s DETACH PARTITION %s; or set SOURCE_PARTITIONS=leaf, which leaves it out",
			t, i.unseen, i.unseen, sql, i.unseen)
		return
	}
	i.checkIdentity(p)
}

// appends reports whether the table has no key, so that each change of it is a row of its
// own in the target.
func (i *tableInfo) appends() bool { return i.identity == "f" && !i.primary }

// checkIdentity refuses a table whose updates and deletes would not say which row they
// are about. PostgreSQL itself refuses those once such a table is published, so it must
// not get into the publication.
func (i *tableInfo) checkIdentity(p *problems) {
	t, sql := i.table, i.table.sqlName()
	const refuses = "PostgreSQL refuses every UPDATE and DELETE of such a table once it is published"
	full := fmt.Sprintf("to have each change appended to the target as a row of its own, ALTER TABLE %s REPLICA IDENTITY FULL", sql)
	switch {
	case i.identity == "n" && i.primary:
		p.add("Table '%s' has REPLICA IDENTITY NOTHING: updates and deletes would not say which row, and %s. Run: ALTER TABLE %s REPLICA IDENTITY DEFAULT", t, refuses, sql)
	case i.identity == "n":
		p.add("Table '%s' has REPLICA IDENTITY NOTHING and no primary key: updates and deletes would not say which row, and %s. Run one of: ALTER TABLE %s ADD PRIMARY KEY (<columns>), REPLICA IDENTITY DEFAULT; or, %s",
			t, refuses, sql, full)
	case i.identity == "f", i.identity == "i" && i.index, i.identity == "d" && i.primary:
	case i.identity == "i":
		p.add("Table '%s' has lost its replica identity index. %s. Run one of: ALTER TABLE %s REPLICA IDENTITY DEFAULT (needs a primary key); ALTER TABLE %s REPLICA IDENTITY USING INDEX <unique index>; or, %s",
			t, refuses, sql, sql, full)
	case i.deferrable:
		p.add("Table '%s' has a DEFERRABLE primary key, which cannot identify rows in the WAL. Run: ALTER TABLE %s REPLICA IDENTITY FULL", t, sql)
	default:
		index := i.candidate
		if index == "" {
			index = "<unique index over NOT NULL columns>"
		}
		p.add("Table '%s' has no usable key. %s. Run one of: ALTER TABLE %s ADD PRIMARY KEY (<columns>); ALTER TABLE %s REPLICA IDENTITY USING INDEX %s; or, %s",
			t, refuses, sql, sql, index, full)
	}
}
