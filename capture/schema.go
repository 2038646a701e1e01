package capture

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// relation is what the stream says about a table, or what the catalog would.
type relation struct {
	oid      uint32
	table    Table
	identity byte // pg_class.relreplident
	columns  []relationColumn
}

type relationColumn struct {
	name     string
	identity bool
	oid      uint32
	mod      int32
}

// logical maps the built-in types by OID.
var logical = map[uint32]cdc.Type{
	16: cdc.TypeBool, 17: cdc.TypeBytea, 19: cdc.TypeText, 20: cdc.TypeInt8, 21: cdc.TypeInt2, 23: cdc.TypeInt4, 25: cdc.TypeText,
	26: cdc.TypeOID, 114: cdc.TypeJSON, 142: cdc.TypeText, 700: cdc.TypeFloat4, 701: cdc.TypeFloat8, 1042: cdc.TypeChar, 1043: cdc.TypeText,
	1082: cdc.TypeDate, 1083: cdc.TypeTime, 1114: cdc.TypeTimestamp, 1184: cdc.TypeTimestampTZ, 1186: cdc.TypeInterval,
	1266: cdc.TypeTimeTZ, 1700: cdc.TypeNumeric, 2950: cdc.TypeUUID, 3802: cdc.TypeJSONB,
}

// baseType is a type with its domains resolved.
type baseType struct {
	name string // format_type of the type itself
	kind cdc.Type
	mod  int32
	elem uint32 // of an array
}

const typesQuery = `
WITH RECURSIVE wanted AS (
  SELECT o AS oid, m AS mod, ord FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY u(o, m, ord)
), base AS (
  SELECT w.ord, t.oid, w.mod, t.typtype, t.typbasetype, t.typtypmod, t.typname FROM wanted w JOIN pg_type t ON t.oid = w.oid
  UNION ALL
  SELECT b.ord, t.oid, b.typtypmod, t.typtype, t.typbasetype, t.typtypmod, t.typname FROM base b JOIN pg_type t ON t.oid = b.typbasetype
  WHERE b.typtype = 'd'
)
SELECT COALESCE(format_type(w.oid, w.mod), '?'), COALESCE(b.oid, 0), COALESCE(b.mod, w.mod), COALESCE(b.typtype::text, ''), COALESCE(b.typname::text, ''),
       COALESCE((SELECT e.oid FROM pg_type e WHERE e.typarray = b.oid), 0)
FROM wanted w LEFT JOIN base b ON b.ord = w.ord AND b.typtype <> 'd' ORDER BY w.ord`

// resolve looks types up. A type that was dropped in the meantime is TypeOther: its
// values are text like all others.
func resolve(ctx context.Context, conn *pgx.Conn, oids []uint32, mods []int32) ([]baseType, error) {
	rows, err := conn.Query(ctx, typesQuery, oids, mods)
	if err != nil {
		return nil, fmt.Errorf("look up types: %w", err)
	}
	types, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t baseType, err error) {
		var oid uint32
		var class, name string
		err = row.Scan(&t.name, &oid, &t.mod, &class, &name, &t.elem)
		switch {
		case t.elem != 0:
			t.kind = cdc.TypeArray
		case class == "e":
			t.kind = cdc.TypeEnum
		case name == "citext":
			t.kind = cdc.TypeText
		default:
			t.kind = logical[oid]
		}
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("look up types: %w", err)
	}
	return types, nil
}

// attribute is a column as the catalog has it now.
type attribute struct {
	name    string
	oid     uint32
	mod     int32
	notNull bool
	missing *string
}

// catalogTable is a table as the catalog has it now.
type catalogTable struct {
	attributes []attribute
	key        []string // in the order of the index
	identity   byte     // pg_class.relreplident
}

func readCatalogTable(ctx context.Context, conn *pgx.Conn, oid uint32, identity byte) (*catalogTable, error) {
	rows, err := conn.Query(ctx, `
SELECT attname::text, atttypid, atttypmod, attnotnull, CASE WHEN atthasmissing THEN (attmissingval::text::text[])[1] END FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped`, oid)
	if err != nil {
		return nil, fmt.Errorf("look up columns: %w", err)
	}
	var t catalogTable
	t.attributes, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a attribute, err error) {
		return a, row.Scan(&a.name, &a.oid, &a.mod, &a.notNull, &a.missing)
	})
	if err != nil {
		return nil, fmt.Errorf("look up columns: %w", err)
	}
	var now string
	err = conn.QueryRow(ctx, "SELECT COALESCE((SELECT relreplident::text FROM pg_class WHERE oid = $1), 'd')", oid).Scan(&now)
	if err != nil {
		return nil, fmt.Errorf("look up replica identity: %w", err)
	}
	t.identity = now[0]
	t.key, err = readKey(ctx, conn, oid, identity)
	return &t, err
}

// readKey returns the columns of the index that identifies rows: the replica identity
// index if there is one, else the primary key.
func readKey(ctx context.Context, conn *pgx.Conn, oid uint32, identity byte) ([]string, error) {
	rows, err := conn.Query(ctx, `
SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, ord), pg_attribute a
WHERE i.indrelid = $1 AND i.indisvalid AND a.attrelid = $1 AND a.attnum = k.attnum AND k.ord <= i.indnkeyatts
  AND CASE WHEN $2 THEN i.indisreplident ELSE i.indisprimary END
ORDER BY k.ord`, oid, identity == 'i')
	if err != nil {
		return nil, fmt.Errorf("look up key: %w", err)
	}
	key, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look up key: %w", err)
	}
	return key, nil
}

// describe makes the schema of a relation. The relation says which columns there are
// and is always right; the catalog adds what it does not say, the order of the key and
// NOT NULL, and is now, which may be after a change of the table that the stream has
// not reached. Where the two disagree the relation holds. previous is the last schema
// of the table or nil, known what is remembered of it. stale tells that the catalog was of
// no use.
func describe(ctx context.Context, conn *pgx.Conn, r *relation, previous *cdc.Schema, known *shape) (s *cdc.Schema, stale bool, err error) {
	s = &cdc.Schema{OID: r.oid, Namespace: r.table.Schema, Table: r.table.Name, ReplicaIdentity: r.identity}
	oids, mods := make([]uint32, len(r.columns)), make([]int32, len(r.columns))
	for i, c := range r.columns {
		oids[i], mods[i] = c.oid, c.mod
	}
	types, err := resolve(ctx, conn, oids, mods)
	if err != nil {
		return nil, false, err
	}
	elems, err := resolveElems(ctx, conn, types)
	if err != nil {
		return nil, false, err
	}
	for i, c := range r.columns {
		if !utf8.ValidString(c.name) {
			return nil, false, setupProblem("Table '%s' has a column whose name is not UTF-8, %q. Run: ALTER TABLE %s RENAME COLUMN, in a session whose client_encoding is that of the name", r.table, c.name, r.table.sqlName())
		}
		s.Columns = append(s.Columns, cdc.Column{
			Name: c.name, Type: types[i].kind, Elem: elems[i], OID: c.oid, Mod: c.mod, BaseMod: types[i].mod,
			TypeName: strings.ToValidUTF8(types[i].name, "?"), Identity: c.identity,
		})
	}
	cat, err := readCatalogTable(ctx, conn, r.oid, r.identity)
	if err != nil {
		return nil, false, err
	}
	var ok bool
	if s.Key, stale, ok = key(r, cat, previous); !ok {
		return nil, stale, setupProblem("Table '%s' has no usable key any more. Run one of: ALTER TABLE %s ADD PRIMARY KEY (<columns>); or, to have each change appended to the target as a row of its own, ALTER TABLE %s REPLICA IDENTITY FULL",
			r.table, r.table.sqlName(), r.table.sqlName())
	}
	for i := range s.Columns {
		c := &s.Columns[i]
		at := slices.IndexFunc(cat.attributes, func(a attribute) bool { return a.name == c.Name && a.oid == c.OID && a.mod == c.Mod })
		c.NotNull = !stale && at >= 0 && cat.attributes[at].notNull || slices.Contains(s.Key, i)
		if at >= 0 {
			c.Missing = cat.attributes[at].missing
		}
		if c.Missing == nil {
			c.Missing = known.missing(c.Name)
		}
	}
	return s, stale, s.Seal()
}

func resolveElems(ctx context.Context, conn *pgx.Conn, types []baseType) ([]cdc.Type, error) {
	elems := make([]cdc.Type, len(types))
	var oids []uint32
	var mods []int32
	var at []int
	for i, t := range types {
		if t.kind == cdc.TypeArray {
			oids, mods, at = append(oids, t.elem), append(mods, t.mod), append(at, i)
		}
	}
	if len(at) == 0 {
		return elems, nil
	}
	found, err := resolve(ctx, conn, oids, mods)
	if err != nil {
		return nil, err
	}
	for i, t := range found {
		elems[at[i]] = t.kind
	}
	return elems, nil
}

// key returns the indexes of the key columns, none for a table whose changes are appended;
// ok is false if neither will do. stale tells that the catalog does not match the relation,
// so that the order is that of the previous schema or the columns.
func key(r *relation, cat *catalogTable, previous *cdc.Schema) (indexes []int, stale, ok bool) {
	full := r.identity == 'f'
	if matches(r, cat) {
		if full && len(cat.key) == 0 {
			return nil, false, true
		}
		if indexes = r.indexes(cat.key); len(indexes) > 0 && r.isIdentity(indexes) {
			return indexes, false, true
		}
	}
	if !full && !slices.ContainsFunc(r.columns, func(c relationColumn) bool { return c.identity }) {
		return insertKey(r, cat)
	}
	if previous != nil {
		names := make([]string, len(previous.Key))
		for i, k := range previous.Key {
			names[i] = previous.Columns[k].Name
		}
		if full && len(names) == 0 {
			return nil, true, true
		}
		if indexes = r.indexes(names); len(indexes) > 0 && r.isIdentity(indexes) {
			return indexes, true, true
		}
	}
	if full {
		// All columns are marked, so the mark does not tell the key. The primary
		// key is what it was unless that is what changed.
		indexes = r.indexes(cat.key)
		return indexes, true, len(indexes) == len(cat.key)
	}
	indexes = nil // Those above have not matched.
	for i, c := range r.columns {
		if c.identity {
			indexes = append(indexes, i)
		}
	}
	return indexes, true, len(indexes) > 0
}

// insertKey is the key of a relation that has no replica identity. PostgreSQL lets only
// inserts through then, which say nothing about a key, so the one that the table has got
// since will do, or none if its changes are appended since.
func insertKey(r *relation, cat *catalogTable) (indexes []int, stale, ok bool) {
	if len(cat.key) == 0 {
		return nil, true, cat.identity == 'f'
	}
	indexes = r.indexes(cat.key)
	return indexes, true, len(indexes) > 0
}

// matches reports whether each column of the relation is in the catalog as it is.
func matches(r *relation, cat *catalogTable) bool {
	for _, c := range r.columns {
		if !slices.ContainsFunc(cat.attributes, func(a attribute) bool { return a.name == c.name && a.oid == c.oid && a.mod == c.mod }) {
			return false
		}
	}
	return true
}

// indexes finds columns by name, all or none.
func (r *relation) indexes(names []string) []int {
	indexes := make([]int, 0, len(names))
	for _, name := range names {
		i := slices.IndexFunc(r.columns, func(c relationColumn) bool { return c.name == name })
		if i < 0 {
			return nil
		}
		indexes = append(indexes, i)
	}
	return indexes
}

// isIdentity reports whether the columns are exactly those that old keys carry.
func (r *relation) isIdentity(indexes []int) bool {
	if r.identity == 'f' {
		return true
	}
	for i, c := range r.columns {
		if c.identity != slices.Contains(indexes, i) {
			return false
		}
	}
	return true
}

// catalogRelation makes the relation that the stream would send for a table now.
func catalogRelation(ctx context.Context, conn *pgx.Conn, version int, publication string, t *tableInfo) (*relation, error) {
	r := &relation{oid: t.oid, table: t.table, identity: t.identity[0]}
	key, err := readKey(ctx, conn, t.oid, r.identity)
	if err != nil {
		return nil, err
	}
	// Which columns are sent: a publication may list them, and PostgreSQL 18 can
	// publish stored generated columns.
	columns := "attgenerated = ''"
	args := []any{t.oid}
	switch {
	case version >= 180000:
		columns = "true"
		fallthrough
	case version >= 150000:
		columns += " AND attname = ANY (SELECT unnest(p.attnames) FROM pg_publication_tables p WHERE p.pubname = $2 AND p.schemaname = $3 AND p.tablename = $4)"
		args = append(args, publication, t.table.Schema, t.table.Name)
	}
	rows, err := conn.Query(ctx, `SELECT attname::text, atttypid, atttypmod FROM pg_attribute
WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND `+columns+` ORDER BY attnum`, args...)
	if err != nil {
		return nil, fmt.Errorf("look up columns of %s: %w", t.table, err)
	}
	r.columns, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c relationColumn, err error) {
		err = row.Scan(&c.name, &c.oid, &c.mod)
		c.identity = r.identity == 'f' || slices.Contains(key, c.name)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("look up columns of %s: %w", t.table, err)
	}
	return r, nil
}
