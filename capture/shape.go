package capture

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// shape is what the catalog said of a table when capture looked last. The stream tells of
// rows that change, not of what ALTER TABLE does to those that are there, so two shapes
// are compared to find out whether the sink's rows are still those of the source.
type shape struct {
	// OID tells the table from another one that has got its name.
	OID     uint32        `json:"oid"`
	Columns []shapeColumn `json:"columns"`
	Key     []string      `json:"key,omitempty"` // in no particular order
	// Gone has names of columns that the sink may still have, with old values.
	Gone []string `json:"gone,omitempty"`
	// Files has the relfilenode of the table or of each of its partitions. Another
	// one means that every row was written anew.
	Files map[uint32]uint32 `json:"files,omitempty"`
	// Parts has the transaction that made each table beneath a partitioned one a part of
	// it, and the partitioned table itself. It is empty if the table is not partitioned,
	// or was looked at by a version that did not keep it.
	Parts map[uint32]uint32 `json:"parts,omitempty"`
	parts []part
}

type shapeColumn struct {
	Num  int16  `json:"num"` // pg_attribute.attnum, which a column keeps for life
	Name string `json:"name"`
	OID  uint32 `json:"type"`
	Mod  int32  `json:"mod"`
	// Missing tells that rows from before the column had a value that was not written in
	// them, see cdc.Column.Missing, and Value which, unless it is long. They are kept when
	// the catalog forgets them, which it does as soon as the table is written anew for
	// any reason: the stream may still have to come to the column then.
	Missing bool   `json:"missing,omitempty"`
	Value   string `json:"value,omitempty"`
	// document tells that the column is json or jsonb.
	document bool
}

// missingMax is how long a value is that is remembered.
const missingMax = 8 << 10

// missing returns the value that rows from before a column had, nil if that is none.
func (s *shape) missing(column string) *string {
	if s == nil {
		return nil
	}
	for i := range s.Columns {
		if c := &s.Columns[i]; c.Name == column && c.Missing && len(c.Value) <= missingMax {
			return &c.Value
		}
	}
	return nil
}

// readShape reads the shape of a table whose relation was read from the catalog. It is
// called in a transaction with one snapshot, and asks for nothing that shows the present
// in spite of it, as pg_relation_filenode does.
func readShape(ctx context.Context, conn *pgx.Conn, r *relation) (*shape, error) {
	s := &shape{OID: r.oid, Files: map[uint32]uint32{}}
	names := make([]string, len(r.columns))
	for i, c := range r.columns {
		names[i] = c.name
	}
	rows, err := conn.Query(ctx, `SELECT attnum, attname::text, atttypid, atttypmod, atthasmissing, COALESCE(CASE WHEN atthasmissing THEN left((attmissingval::text::text[])[1], $3) END, ''), COALESCE(NULLIF(y.typbasetype, 0), y.oid) IN (114, 3802)
FROM pg_attribute JOIN pg_type y ON y.oid = atttypid WHERE attrelid = $1 AND attname = ANY ($2) AND attnum > 0 AND NOT attisdropped ORDER BY attnum`, r.oid, names, missingMax+1)
	if err != nil {
		return nil, fmt.Errorf("look up the shape of %s: %w", r.table, err)
	}
	s.Columns, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c shapeColumn, err error) {
		return c, row.Scan(&c.Num, &c.Name, &c.OID, &c.Mod, &c.Missing, &c.Value, &c.document)
	})
	if err != nil {
		return nil, fmt.Errorf("look up the shape of %s: %w", r.table, err)
	}
	if s.Key, err = readKey(ctx, conn, r.oid, r.identity); err != nil {
		return nil, err
	}
	slices.Sort(s.Key)
	rows, err = conn.Query(ctx, `SELECT c.oid, c.relfilenode FROM pg_class c
WHERE (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_partition_tree($1::oid::regclass))) AND c.relkind = 'r'`, r.oid)
	if err != nil {
		return nil, fmt.Errorf("look up the files of %s: %w", r.table, err)
	}
	var oid, file uint32
	_, err = pgx.ForEachRow(rows, []any{&oid, &file}, func() error {
		s.Files[oid] = file
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up the files of %s: %w", r.table, err)
	}
	return s, s.readParts(ctx, conn, r.table)
}

// equal reports whether there is nothing to remember.
func (s *shape) equal(o *shape) bool {
	same := func(a, b shapeColumn) bool {
		a.document, b.document = false, false
		return a == b
	}
	return s.OID == o.OID && slices.EqualFunc(s.Columns, o.Columns, same) && slices.Equal(s.Key, o.Key) &&
		slices.Equal(s.Gone, o.Gone) && maps.Equal(s.Files, o.Files) && maps.Equal(s.Parts, o.Parts)
}

// follow takes over what only the shape before knows.
func (s *shape) follow(before *shape) {
	if before.OID != s.OID {
		return
	}
	s.Gone = slices.Clone(before.Gone)
	for _, c := range before.Columns {
		if !s.has(c.Name) {
			s.Gone = append(s.Gone, c.Name)
		}
	}
	slices.Sort(s.Gone)
	s.Gone = slices.Compact(s.Gone)
	for i := range s.Columns {
		c := &s.Columns[i]
		at := slices.IndexFunc(before.Columns, func(b shapeColumn) bool { return b.Num == c.Num })
		if at >= 0 && !c.Missing {
			c.Missing, c.Value = before.Columns[at].Missing, before.Columns[at].Value
		}
	}
}

func (s *shape) has(name string) bool {
	return slices.ContainsFunc(s.Columns, func(c shapeColumn) bool { return c.Name == name })
}

// staleRows says why rows that have not changed may differ from what the stream has said
// of them, empty if they do not.
func (s *shape) staleRows(before *shape) string {
	rewritten := false
	for oid, file := range s.Files {
		was, known := before.Files[oid]
		rewritten = rewritten || known && was != file
	}
	for i := range s.Columns {
		c := &s.Columns[i]
		at := slices.IndexFunc(before.Columns, func(b shapeColumn) bool { return b.Num == c.Num })
		if at < 0 {
			switch {
			case before.has(c.Name), slices.Contains(before.Gone, c.Name):
				return fmt.Sprintf("column %s has the name of one that was dropped or renamed", c.Name)
			case c.Missing && (c.document || len(c.Value) > missingMax):
				return fmt.Sprintf("column %s was added with a default that no sink can set for rows that exist", c.Name)
			case rewritten && !c.Missing:
				return fmt.Sprintf("column %s was added with values in the rows that exist", c.Name)
			}
			continue
		}
		b := &before.Columns[at]
		switch {
		case b.Name != c.Name:
			return fmt.Sprintf("column %s is called %s", b.Name, c.Name)
		case b.OID != c.OID && slices.Contains(s.Key, c.Name):
			// Its values are the same maybe, but the sink may need another table.
			return fmt.Sprintf("the type of key column %s was changed", c.Name)
		case rewritten && (b.OID != c.OID || b.Mod != c.Mod) && !sameText(b.OID, c.OID):
			return fmt.Sprintf("the type of column %s was changed", c.Name)
		}
	}
	if !slices.Equal(s.Key, before.Key) {
		return "the key was changed"
	}
	return s.attached(before)
}

// sameText tells that a value of one type, cast to the other, is the same value and is
// printed the same.
func sameText(from, to uint32) bool {
	wider := map[cdc.Type]int{cdc.TypeInt2: 1, cdc.TypeInt4: 2, cdc.TypeInt8: 3}
	a, b := wider[logical[from]], wider[logical[to]]
	return a > 0 && b > 0
}

// recopy is a table whose rows must be copied again.
type recopy struct {
	table Table
	// fresh tells that it is another table of the same name.
	fresh bool
	why   string
	// held keeps the copy from beginning until the table joins.
	held bool
}

// findings are what was found out about tables by comparing their shapes.
type findings struct {
	shapes map[string]*shape // to remember, by table
	again  []recopy
	// notes tell what is not made up for.
	notes []note
	// moved tells that partitions were attached or detached.
	moved bool
}

// observe compares what a table looks like with what is remembered of it, nil if that is
// nothing.
func (f *findings) observe(t *tableInfo, now, before *shape) {
	if before == nil {
		f.shapes[t.table.String()] = now
		return
	}
	now.follow(before)
	if now.equal(before) {
		return
	}
	f.shapes[t.table.String()] = now
	f.moved = f.moved || now.moved(before)
	// A row of a table without a key is a change as it was then.
	if t.appends() {
		f.noteAttached(t.table, now, before)
		return
	}
	if before.OID != now.OID {
		f.again = append(f.again, recopy{table: t.table, fresh: true, why: "the table was dropped and created again"})
	} else if why := now.staleRows(before); why != "" {
		f.again = append(f.again, recopy{table: t.table, why: why})
	}
}

// shape returns what is remembered of a table, nil if that is nothing.
func (id *identity) shape(table string) *shape {
	if id == nil {
		return nil
	}
	return id.Shapes[table]
}

// setShapes replaces those of some tables. The map is replaced, never edited.
func (id *identity) setShapes(shapes map[string]*shape) {
	all := maps.Clone(id.Shapes)
	if all == nil {
		all = map[string]*shape{}
	}
	maps.Copy(all, shapes)
	id.Shapes = all
}

// act has tables copied again as was found, and then remembers the shapes: after a crash
// in between they are found, and copied, once more.
func (c *Capture) act(ctx context.Context, rec *record, f *findings) error {
	if len(f.shapes) == 0 {
		return nil
	}
	f.say(ctx, c.log)
	if err := c.snapshots.renew(ctx, f.again, rec.get().Published); err != nil {
		return err
	}
	return rec.update(ctx, func(id *identity) { id.setShapes(f.shapes) })
}

// replaced tells that a table has taken the name of one that was dropped or renamed. If it
// has a key it is copied as a whole, and the rows of the other one are removed, so that
// nothing of it must be in the stream.
func (id *identity) replaced(infos []tableInfo, t Table) bool {
	at := slices.IndexFunc(infos, func(i tableInfo) bool { return i.table == t })
	before := id.shape(t.String())
	return at >= 0 && before != nil && infos[at].oid != 0 && infos[at].oid != before.OID && !infos[at].appends()
}

// renamed says which of the tables that are missing have another name by now.
func (id *identity) renamed(ctx context.Context, conn *pgx.Conn, infos []tableInfo, out *problems) error {
	for i := range infos {
		before := id.shape(infos[i].table.String())
		if infos[i].oid != 0 || before == nil {
			continue
		}
		rows, err := conn.Query(ctx, "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1", before.OID)
		if err != nil {
			return fmt.Errorf("look for table %s: %w", infos[i].table, err)
		}
		found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Table])
		if err != nil {
			return fmt.Errorf("look for table %s: %w", infos[i].table, err)
		}
		if len(found) == 0 {
			continue
		}
		now := found[0]
		undo := fmt.Sprintf("ALTER TABLE %s RENAME TO %s", now.sqlName(), quote(infos[i].table.Name))
		if now.Schema != infos[i].table.Schema {
			undo = fmt.Sprintf("ALTER TABLE %s SET SCHEMA %s", now.sqlName(), quote(infos[i].table.Schema))
		}
		out.add("Table '%s' is called '%s' since it was captured last. Put the new name into TABLES, and it is copied into a table of that name; or run: %s", infos[i].table, now, undo)
	}
	return nil
}
