package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// refusedChange is a row of docs/schema-changes.md that stops the pipeline. Its table t has
// the columns id, k and v.
type refusedChange struct {
	name  string
	ddl   string
	fresh string // statements after it
	want  []string
	// then removes the cause as the message says, in the sink or in the source.
	sink, source string
}

const again = "ALTER TABLE t RENAME t_before"

var refusedChanges = []refusedChange{
	{
		name: "another key", ddl: "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (k)", fresh: "INSERT INTO t VALUES (9, 'nine', true, 9)",
		want: []string{"its key is (id) but that of the source is (k)", "dbmazz snapshot --tables public.t"}, sink: again,
	},
	{
		name: "the type of a key column, if StarRocks has another for it", ddl: "ALTER TABLE t ALTER COLUMN id TYPE bigint", fresh: "INSERT INTO t VALUES (5000000000, 'nine', true, 9)",
		want: []string{`key column "id"`, "BIGINT", "cannot change a key column"}, sink: again,
	},
	{
		name: "RENAME COLUMN of a key column", ddl: "ALTER TABLE t RENAME COLUMN id TO t_id", fresh: "INSERT INTO t VALUES (9, 'nine', true, 9)",
		want: []string{"its key is (id) but that of the source is (t_id)"}, sink: again,
	},
	{
		name: "boolean, date or timestamp to a type that does not fit", ddl: "ALTER TABLE t ALTER COLUMN b TYPE int USING b::int", fresh: "INSERT INTO t VALUES (9, 'nine', 5, 9)",
		want: []string{`column "b"`, "DROP COLUMN `b`, and dbmazz adds it as INT"}, sink: "ALTER TABLE t DROP COLUMN b",
	},
	{
		name: "integer to numeric", ddl: "ALTER TABLE t ALTER COLUMN n TYPE numeric(12,2)", fresh: "INSERT INTO t VALUES (9, 'nine', true, 9.5)",
		want: []string{`column "n"`, "dbmazz adds it as DECIMAL(12,2)"}, sink: "ALTER TABLE t DROP COLUMN n",
	},
	{
		name: "ALTER TABLE RENAME", ddl: "ALTER TABLE t RENAME TO u", fresh: "INSERT INTO u VALUES (9, 'nine', true, 9)",
		want: []string{"Table 'public.t' is called 'public.u'", `ALTER TABLE "public"."u" RENAME TO "t"`}, source: `ALTER TABLE "public"."u" RENAME TO "t"`,
	},
	{
		name: "SET SCHEMA", ddl: "CREATE SCHEMA other; ALTER TABLE t SET SCHEMA other", fresh: "INSERT INTO other.t VALUES (9, 'nine', true, 9)",
		want: []string{"is called 'other.t'"}, source: `ALTER TABLE "other"."t" SET SCHEMA "public"`,
	},
	{
		name: "the key is dropped", ddl: "ALTER TABLE t DROP CONSTRAINT t_pkey", fresh: "INSERT INTO t VALUES (9, 'nine', true, 9)",
		want: []string{"no usable key", "ADD PRIMARY KEY"}, source: "ALTER TABLE t ADD PRIMARY KEY (id)",
	},
}

func TestSchemaChangesThatAreRefusedGoOnOnceTheCauseIsGone(t *testing.T) {
	t.Parallel()
	for _, c := range refusedChanges {
		for _, stopped := range []bool{false, true} {
			t.Run(c.name+map[bool]string{false: "/running", true: "/stopped"}[stopped], func(t *testing.T) {
				t.Parallel()
				r := setupOn(t, pgtest.Database(t), starrockstest.Options{},
					"CREATE TABLE t (id int PRIMARY KEY, k text NOT NULL, b boolean, n int); INSERT INTO t SELECT i, i, true, i FROM generate_series(1, 5) i;", "t")
				s := r.set("SNAPSHOT", "initial").start()
				r.settle(s)
				r.becomeEqual("t")
				if stopped {
					s.kill()
				}
				// Rows of before, which must get there although the table is refused.
				r.db.Exec("INSERT INTO t VALUES (6, 'six', false, 6); UPDATE t SET n = 0 WHERE id = 1")
				r.db.Exec("BEGIN; " + c.ddl + "; " + c.fresh + "; COMMIT")
				if stopped {
					s = r.up()
				}
				s.complains(c.want...)
				if c.sink != "" {
					// Now that it is asked for nothing must be to come that the target of
					// before is needed for.
					r.sinkHolds("SELECT id, n FROM "+sinkDatabase+".t WHERE n = 0 OR id > 5 ORDER BY id", "[[1 0] [6 6]]")
					if err := r.sink.Exec(strings.Replace(c.sink, "TABLE t", "TABLE "+sinkDatabase+".t", 1)); err != nil {
						t.Fatal(err)
					}
				}
				if c.source != "" {
					r.db.Exec(c.source)
				}
				r.agree(s, []string{"t"})
			})
		}
	}
}

// sinkHolds checks what a query of the sink answers.
func (r *rig) sinkHolds(query, want string) {
	r.t.Helper()
	answer, err := r.sink.Query(query)
	if err != nil {
		r.t.Fatalf("query the sink: %v", err)
	}
	var rows [][]string
	for _, row := range answer.Rows {
		var values []string
		for _, cell := range row {
			values = append(values, cell.Text)
		}
		rows = append(rows, values)
	}
	if got := fmt.Sprint(rows); got != want {
		r.t.Errorf("the sink answers %s to %s, want %s", got, query, want)
	}
}

// Rows of a table with REPLICA IDENTITY FULL do not say what the key was, so those of before
// a stop are taken for rows with the key of after it. One that cannot have it is refused, and
// nothing is lost: with the rule for dead letters the rest goes on.
func TestNullInAKeyOfLaterIsRefusedUnderFullIdentity(t *testing.T) {
	t.Parallel()
	r := setupOn(t, pgtest.Database(t), starrockstest.Options{},
		"CREATE TABLE t (id int PRIMARY KEY, k text, b boolean, n int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t SELECT i, i, true, i FROM generate_series(1, 5) i;", "t")
	s := r.set("SNAPSHOT", "initial").start()
	r.settle(s)
	s.kill()
	r.db.Exec("INSERT INTO t VALUES (6, NULL, false, 6), (7, 'seven', false, 7)")
	r.db.Exec("UPDATE t SET k = 'six' WHERE id = 6; ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (k)")
	s = r.up()
	s.complains("its key is (id) but that of the source is (k)")
	if err := r.sink.Exec("ALTER TABLE " + sinkDatabase + ".t RENAME t_before"); err != nil {
		t.Fatal(err)
	}
	s.complains("k=NULL", "SINK_REFUSED_ROWS=dead-letter")
	s.kill()
	s = r.set("SINK_REFUSED_ROWS", "dead-letter").up()
	r.agree(s, []string{"t"})
}
