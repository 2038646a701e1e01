package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// schemaChange is a row of docs/schema-changes.md. Its table has the columns id and v,
// and rows that are older than the change.
type schemaChange struct {
	name string // as in the document
	v    string // type of v
	// old and fresh are values of v before and after the change; no fresh value is
	// given if there is no such column then.
	old, fresh string
	// ddl has the table's name for $t.
	ddl string
	// alone tells that the change does not go into one transaction with rows.
	alone bool
}

var appliedChanges = []schemaChange{
	{name: "ADD COLUMN", v: "text", old: "'a'", fresh: "'b'", ddl: "ALTER TABLE $t ADD COLUMN w int"},
	{name: "ADD COLUMN with a constant default", v: "text", old: "'a'", fresh: "'b'", ddl: "ALTER TABLE $t ADD COLUMN w int NOT NULL DEFAULT 7, ADD COLUMN x text DEFAULT ''"},
	{name: "ADD COLUMN with a volatile default", v: "text", old: "'a'", fresh: "'b'", ddl: "ALTER TABLE $t ADD COLUMN w float8 DEFAULT random()"},
	{name: "ADD COLUMN with a default of json or jsonb", v: "text", old: "'a'", fresh: "'b'", ddl: `ALTER TABLE $t ADD COLUMN w jsonb DEFAULT '{"a": 1}'`},
	{name: "ADD COLUMN that is generated", v: "int", old: "1", fresh: "2", ddl: "ALTER TABLE $t ADD COLUMN w int GENERATED ALWAYS AS (v + 1) STORED"},
	{name: "ADD COLUMN of a type made in the same transaction", v: "int", old: "1", fresh: "2", ddl: "CREATE TYPE $t_type AS ENUM ('x'); ALTER TABLE $t ADD COLUMN w $t_type DEFAULT 'x'"},
	{name: "several changes in one transaction", v: "int", old: "1", ddl: "ALTER TABLE $t ADD COLUMN a int; INSERT INTO $t (id, a) VALUES (21, 1); ALTER TABLE $t ADD COLUMN b text DEFAULT 'b', DROP COLUMN v; INSERT INTO $t (id, a) VALUES (22, 2); ALTER TABLE $t ALTER COLUMN a TYPE bigint"},
	{name: "DROP COLUMN", v: "int", old: "1", ddl: "ALTER TABLE $t DROP COLUMN v"},
	{name: "DROP COLUMN, then ADD COLUMN of the same name", v: "int", old: "1", fresh: "2", ddl: "ALTER TABLE $t DROP COLUMN v; ALTER TABLE $t ADD COLUMN v int"},
	{name: "DROP COLUMN, then ADD COLUMN of the same name with another type", v: "int", old: "1", fresh: "'b'", ddl: "ALTER TABLE $t DROP COLUMN v; ALTER TABLE $t ADD COLUMN v text DEFAULT 'new'"},
	{name: "RENAME COLUMN", v: "int", old: "1", ddl: "ALTER TABLE $t RENAME COLUMN v TO w"},
	{name: "RENAME COLUMN, then ADD COLUMN of the old name", v: "int", old: "1", fresh: "2", ddl: "ALTER TABLE $t RENAME COLUMN v TO w; ALTER TABLE $t ADD COLUMN v int"},
	{name: "integer to a wider integer", v: "smallint", old: "1", fresh: "5000000000", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE bigint"},
	{name: "integer to a narrower integer", v: "bigint", old: "1", fresh: "2", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE int"},
	{name: "integer or real to text", v: "int", old: "1", fresh: "'b'", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE text"},
	{name: "real to double precision", v: "real", old: "1.1", fresh: "1.1", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE float8"},
	{name: "varchar(n) or character(n) to a longer one or text", v: "varchar(2)", old: "'ab'", fresh: "repeat('b', 100)", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE varchar(10); ALTER TABLE $t ALTER COLUMN v TYPE text"},
	{name: "text or varchar to a shorter one", v: "text", old: "'abc'", fresh: "'b'", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE varchar(2) USING left(v, 2)"},
	{name: "text to another type", v: "text", old: "'007'", fresh: "8", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE int USING v::int"},
	{name: "numeric(p,s) with more digits or another scale", v: "numeric(6,3)", old: "1.234", fresh: "12345678.9", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE numeric(12,1)"},
	{name: "date to timestamp", v: "date", old: "'2020-02-29'", fresh: "'2021-01-01 10:11:12'", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE timestamp"},
	{name: "timestamp to date", v: "timestamp", old: "'2020-02-29 10:11:12'", fresh: "'2021-01-01'", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE date"},
	{name: "timestamp to timestamp with time zone, and back", v: "timestamp", old: "'2020-02-29 10:11:12'", fresh: "'2021-01-01 00:00+00'", ddl: "SET LOCAL TimeZone = 'Asia/Tokyo'; ALTER TABLE $t ALTER COLUMN v TYPE timestamptz"},
	{name: "json or jsonb to text", v: "jsonb", old: "'[1]'", fresh: "'b'", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE text"},
	{name: "enumeration to text", v: "$t_mood", old: "'sad'", fresh: "'anything'", ddl: "ALTER TABLE $t ALTER COLUMN v TYPE text"},
	{name: "SET or DROP NOT NULL", v: "int", old: "1", fresh: "2", ddl: "ALTER TABLE $t ALTER COLUMN v SET NOT NULL; ALTER TABLE $t ALTER COLUMN v DROP NOT NULL"},
	{name: "SET or DROP DEFAULT", v: "int", old: "1", fresh: "2", ddl: "ALTER TABLE $t ALTER COLUMN v SET DEFAULT 9"},
	{name: "REPLICA IDENTITY FULL or USING INDEX over the same columns", v: "int", old: "1", fresh: "2", ddl: "ALTER TABLE $t REPLICA IDENTITY FULL"},
	{name: "TRUNCATE", v: "int", old: "1", fresh: "2", ddl: "TRUNCATE $t"},
	{name: "DROP TABLE, then CREATE TABLE of the same name", v: "int", old: "1", ddl: "DROP TABLE $t; CREATE TABLE $t (id bigint PRIMARY KEY, other text); INSERT INTO $t VALUES (2, 'two'), (77, 'seventy-seven')", alone: true},
	{name: "another table takes the name", v: "int", old: "1", fresh: "2", ddl: "ALTER TABLE $t RENAME TO $t_old; CREATE TABLE $t (id bigint PRIMARY KEY, v int, w text DEFAULT 'w'); INSERT INTO $t SELECT id, v * 10 FROM $t_old WHERE id > 2", alone: true},
}

func (c schemaChange) sql(n int, text string) string {
	return strings.ReplaceAll(text, "$t", c.table(n))
}

func (schemaChange) table(n int) string { return fmt.Sprintf("change%02d", n) }

// rows is how many there are before the change.
const rowsBefore = 12

func (c schemaChange) create(n int) string {
	return c.sql(n, "CREATE TYPE $t_mood AS ENUM ('sad', 'happy'); CREATE TABLE $t (id bigint PRIMARY KEY, v "+c.v+");"+
		fmt.Sprintf("INSERT INTO $t SELECT i, %s FROM generate_series(1, %d) i;", c.old, rowsBefore))
}

// change returns the statements of the change, with rows before and after it in the same
// transaction.
func (c schemaChange) change(n int) string {
	if c.alone {
		return c.sql(n, "BEGIN; "+c.ddl+"; COMMIT;")
	}
	return c.sql(n, fmt.Sprintf("BEGIN; INSERT INTO $t (id, v) VALUES (13, %s); DELETE FROM $t WHERE id = 3; %s; %s COMMIT;", c.old, c.ddl, c.fill(14)))
}

// fill inserts a row and updates another.
func (c schemaChange) fill(id int) string {
	if c.fresh == "" {
		return fmt.Sprintf("INSERT INTO $t (id) VALUES (%d);", id)
	}
	return fmt.Sprintf("INSERT INTO $t (id, v) VALUES (%d, %s); UPDATE $t SET v = %s WHERE id = %d;", id, c.fresh, c.fresh, id-10)
}

// schemaRig has a table for each change.
func schemaRig(t *testing.T, o starrockstest.Options) (*rig, []string) {
	t.Helper()
	var ddl strings.Builder
	var tables []string
	for n, c := range appliedChanges {
		ddl.WriteString(c.create(n))
		tables = append(tables, c.table(n))
	}
	r := setupOn(t, pgtest.Database(t), o, ddl.String(), tables...)
	return r.set("SNAPSHOT", "initial"), tables
}

// alter makes all changes, and rows afterwards.
func (r *rig) alter() {
	r.t.Helper()
	for n, c := range appliedChanges {
		r.db.Exec(c.change(n))
	}
	for n, c := range appliedChanges {
		r.db.Exec(c.sql(n, c.fill(15)))
	}
}

// agree waits until every change is as the document says: equal rows.
func (r *rig) agree(s *service, tables []string) {
	r.t.Helper()
	r.settle(s)
	eventually(r.t, "source and sink are equal and nothing is copied", func() (bool, string) {
		if now := s.look(); now.GetSnapshotActive() {
			return false, s.check().String()
		}
		found := r.compare(tables...)
		return len(found) == 0, strings.Join(found, "\n")
	})
}

func TestSchemaChangesWhileRunning(t *testing.T) {
	t.Parallel()
	r, tables := schemaRig(t, starrockstest.Options{})
	s := r.start()
	r.agree(s, tables)
	r.alter()
	r.agree(s, tables)
}

func TestSchemaChangesWhileStopped(t *testing.T) {
	t.Parallel()
	// The oldest version: every schema change is a job.
	r, tables := schemaRig(t, starrockstest.Options{Version: "3.1.10"})
	s := r.start()
	r.agree(s, tables)
	s.kill()
	r.alter()
	r.agree(r.begin(), tables)
}

func TestSchemaChangesWhileRowsAreCopied(t *testing.T) {
	t.Parallel()
	r, tables := schemaRig(t, starrockstest.Options{})
	s := r.set("SNAPSHOT_RATE", "20").set("SNAPSHOT_WORKERS", "8").begin()
	s.copies("rows are being copied", begun)
	r.alter()
	if !s.look().GetSnapshotActive() {
		t.Error("the copy was over before the changes were")
	}
	r.agree(s, tables)
}

func TestSchemaChangesAreInTheDocument(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/schema-changes.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for line := range strings.Lines(string(data)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 && !strings.Contains(line, "---") {
			documented = append(documented, strings.TrimSpace(cells[1]))
		}
	}
	var tested []string
	for _, c := range appliedChanges {
		tested = append(tested, c.name)
	}
	for _, c := range refusedChanges {
		tested = append(tested, c.name)
	}
	for _, name := range tested {
		if !slices.Contains(documented, name) {
			t.Errorf("%q is tested and not in the document", name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(tested, name) && name != "change" {
			t.Errorf("%q is in the document and not tested", name)
		}
	}
}
