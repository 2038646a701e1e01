package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// TestAThousandColumnsArrive, also where an update leaves large values out. PostgreSQL
// allows 1,600 columns, and as many as fit into 8 kB of a row.
func TestAThousandColumnsArrive(t *testing.T) {
	t.Parallel()
	types := []string{"int", "text", "numeric(10,2)", "boolean", "date", "timestamptz", "jsonb", "uuid", "float8", "varchar(20)"}
	values := []string{"7", "'t'", "1.50", "true", "'2024-02-29'", "'2024-02-29 12:00:00+02'", `'{"a":1}'`, "'00000000-0000-0000-0000-000000000001'", "0.1", "'v'"}
	var columns, all, some []string
	for i := 1; i < 1000; i++ {
		columns = append(columns, fmt.Sprintf("c%d %s", i, types[i%len(types)]))
		value := values[i%len(values)]
		if i%7 == 0 {
			value = "NULL"
		}
		all = append(all, value)
		if i%97 == 0 {
			some = append(some, fmt.Sprintf("c%d = %s", i, values[i%len(values)]))
		}
	}
	var flags, bits []string
	for i := 1; i < 1600; i++ {
		flags = append(flags, fmt.Sprintf("this_is_a_column_whose_name_is_as_long_as_they_are_in_a_%d bool", i))
		bits = append(bits, "true")
	}
	r := setup(t, "CREATE TABLE wide (id int PRIMARY KEY, "+strings.Join(columns, ", ")+"); CREATE TABLE widest (id int PRIMARY KEY, "+strings.Join(flags, ", ")+")", "wide", "widest")
	// Large values, among the last columns too, that are stored outside of the row.
	r.db.Exec("ALTER TABLE wide ALTER c1 SET STORAGE PLAIN, ALTER c11 SET STORAGE EXTERNAL, ALTER c501 SET STORAGE EXTERNAL, ALTER c991 SET STORAGE EXTERNAL")
	insert := func(id int) string {
		return fmt.Sprintf("INSERT INTO wide VALUES (%d, %s); UPDATE wide SET c11 = repeat('x', 9000), c501 = repeat('y', 9000), c991 = repeat('z', 9000) WHERE id = %d", id, strings.Join(all, ", "), id)
	}
	r.db.Exec(insert(1) + ";" + insert(2) + "; INSERT INTO widest VALUES (1, " + strings.Join(bits, ", ") + ")")
	s := r.start()
	r.same(s, "wide", "widest")
	r.inBatches(s, false, insert(3), "UPDATE wide SET "+strings.Join(some, ", ")+" WHERE id < 3", "UPDATE wide SET c501 = 'short' WHERE id = 2", "UPDATE wide SET id = 20 WHERE id = 2",
		"INSERT INTO widest (id) VALUES (2); UPDATE widest SET "+strings.Fields(flags[1598])[0]+" = false WHERE id = 1", "DELETE FROM wide WHERE id = 3")
	r.same(s, "wide", "widest")
}

// TestAttachedPartitionArrivesAndDetachedRowsStay, with one table for all partitions and
// with one for each. Kills in between make no difference.
func TestAttachedPartitionArrivesAndDetachedRowsStay(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"root", "leaf"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := setup(t, `CREATE TABLE t (id int PRIMARY KEY, v text, big text) PARTITION BY RANGE (id); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (1000); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i; CREATE TABLE loose (LIKE t INCLUDING ALL);
INSERT INTO loose SELECT i, 'old', repeat('x', 9000) FROM generate_series(1000, 1049) i`, "t")
			s := r.set("SOURCE_PARTITIONS", mode).set("TABLES_INTERVAL_S", "1").start()
			tables, first, second := []string{"t"}, "t", "t"
			if mode == "leaf" {
				tables, first, second = []string{"t_1", "loose"}, "t_1", "loose"
			}
			r.same(s, tables[0])
			r.db.Exec("ALTER TABLE t ATTACH PARTITION loose FOR VALUES FROM (1000) TO (2000)")
			// These leave big out.
			r.db.Exec("UPDATE t SET v = 'new' WHERE id % 10 = 0; INSERT INTO t VALUES (1100, 'new')")
			s.kill()
			s = r.up()
			r.arrives(s, second, pgtest.Value[int](r.db, "SELECT count(*) FROM "+second))
			s.copied()
			r.same(s, tables...)
			r.db.Exec("ALTER TABLE t DETACH PARTITION t_1")
			if mode == "root" { // The change of t shows that the partition is gone.
				r.db.Exec("DELETE FROM t_1 WHERE id < 50; UPDATE t SET v = 'last'")
			}
			eventually(t, "it is seen", func() (bool, string) {
				if mode == "leaf" {
					return !slices.Contains(s.look().GetTables(), "public.t_1"), s.look().String()
				}
				return strings.Contains(s.out.String(), "detached or dropped: public.t_1"), s.out.String()
			})
			r.db.Exec("DELETE FROM t_1 WHERE id < 60; UPDATE t SET v = 'last'")
			r.settle(s)
			if n := r.count(first, "id < 1000 AND dbmazz_is_deleted = false"); n != 100 {
				t.Errorf("%d of 100 rows of the partition that was detached are there", n)
			}
			if n, want := r.count(second, "v = 'last'"), pgtest.Value[int](r.db, "SELECT count(*) FROM t"); n != want {
				t.Errorf("%d of %d rows have the last change", n, want)
			}
		})
	}
}
