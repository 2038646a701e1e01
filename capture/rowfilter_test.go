package capture_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// filterMajors are those whose publications can have row filters and column lists.
var filterMajors = []int{15, 16, 17, 18}

// What a publication leaves out does not exist for the sink, whether a row was there
// before or came as a change: the rows of a copy and those of the stream are the same.
func TestRowFilterAndColumnListHoldForCopyAndStreamAlike(t *testing.T) {
	t.Parallel()
	pgtest.ForMajors(t, filterMajors, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		const columns = " (id int PRIMARY KEY, shown bool, v text, secret text)"
		db.Exec("CREATE TABLE before" + columns + "; CREATE TABLE after" + columns + "; CREATE TABLE other (id int PRIMARY KEY)")
		r := following(t, db, "public.*")
		db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLE before (id, shown, v) WHERE (shown AND id < 90), after (id, shown, v) WHERE (shown AND id < 90)`)
		db.Exec("ALTER TABLE before REPLICA IDENTITY FULL; ALTER TABLE after REPLICA IDENTITY FULL")
		// An identity of all columns does not go with a list; the filter needs its columns in it.
		db.Exec("ALTER TABLE before REPLICA IDENTITY DEFAULT; ALTER TABLE after REPLICA IDENTITY DEFAULT")
		for _, name := range []string{"before", "after"} {
			db.Exec(`ALTER TABLE ` + name + ` DROP CONSTRAINT ` + name + `_pkey, ADD PRIMARY KEY (id, shown)`)
		}
		fill := func(name string) {
			db.Exec("INSERT INTO " + name + " SELECT i, i % 3 > 0, 'v' || i, 'secret' FROM generate_series(1, 100) i")
		}
		fill("before")
		r.start()
		r.captures("after", "before", "other")
		fill("after")
		for _, name := range []string{"before", "after"} {
			db.Exec("UPDATE " + name + " SET shown = false WHERE id IN (1, 2)") // They leave.
			db.Exec("UPDATE " + name + " SET shown = true WHERE id IN (3, 6)")  // They enter.
			db.Exec("UPDATE " + name + " SET v = 'x', secret = 'y' WHERE id IN (3, 4, 9); DELETE FROM " + name + " WHERE id IN (5, 12)")
		}
		r.drain()
		want := db.Connect().PgConn().ExecParams(t.Context(), "SELECT id || ',' || CASE WHEN shown THEN 't' ELSE 'f' END || ',' || v FROM after WHERE shown AND id < 90 ORDER BY 1", nil, nil, nil, nil).Read()
		if want.Err != nil {
			t.Fatal(want.Err)
		}
		var rows []string
		for _, row := range want.Rows {
			rows = append(rows, string(row[0]))
		}
		for _, name := range []string{"public.before", "public.after"} {
			var got []string
			for _, row := range r.sink()[name] {
				got = append(got, strings.Join(row, ","))
			}
			slices.Sort(got)
			if diff := cmp.Diff(rows, got); diff != "" {
				t.Errorf("%s (-source +sink):\n%s", name, diff)
			}
		}
		for _, s := range r.stream.Tables() {
			if s.Table != "other" && len(s.Columns) != 3 {
				t.Errorf("%s is announced with %d columns", s.Name(), len(s.Columns))
			}
		}
	})
}

// A table whose list lacks its key cannot be captured. Under a pattern it is left out.
func TestColumnListWithoutTheKeyIsRefused(t *testing.T) {
	t.Parallel()
	pgtest.ForMajors(t, filterMajors, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)")
		r := following(t, db, "public.*")
		db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLE t (v)`)
		r.start()
		r.captures("u")
		r.leftOut("public.t", "no usable key")
		r.stop()
		r.cfg.Tables = []capture.Table{table("t")}
		if s := r.refused(); !strings.Contains(s.LastError, "'public.t' has no usable key") {
			t.Errorf("%s", s.LastError)
		}
	})
}

// The filter of the root counts where the root is published.
func TestRowFilterOfAPartitionedTable(t *testing.T) {
	t.Parallel()
	pgtest.ForMajors(t, filterMajors, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(partitioned)
		r := following(t, db, "public.*")
		db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLE orders WHERE (region = 'eu') WITH (publish_via_partition_root = true)`)
		r.start()
		r.captures("orders")
		db.Exec(busy)
		r.drain()
		want := pgtest.Value[int](db, "SELECT count(*)::int FROM orders WHERE region = 'eu'")
		if got := len(r.sink()["public.orders"]); got != want {
			t.Errorf("%d rows, want %d", got, want)
		}
	})
}

// PostgreSQL passes a row filter over where the schema of the table is in the publication
// too, so a copy does.
func TestRowFilterBesideTheSchemaOfItsTableFiltersNothing(t *testing.T) {
	t.Parallel()
	pgtest.ForMajors(t, filterMajors, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int, shown bool, PRIMARY KEY (id, shown)); INSERT INTO t SELECT i, i % 2 = 0 FROM generate_series(1, 10) i")
		r := following(t, db, "public.*")
		db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLES IN SCHEMA public, TABLE t WHERE (shown) WITH (publish_via_partition_root = true)`)
		r.start()
		r.captures("t")
		r.same("t", "id")
		db.Exec("INSERT INTO t VALUES (11, false), (12, true); UPDATE t SET shown = NOT shown WHERE id < 3; DELETE FROM t WHERE id = 5")
		r.drain()
		r.same("t", "id")
	})
}
