package capture_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// attaching are ways in which rows get into a partitioned table that the log of the table
// does not have. big is left out of updates that do not change it.
var attaching = map[string]string{
	"a table that was there": `INSERT INTO loose SELECT i, 'a', repeat('x', 9000) FROM generate_series(1000, 1010) i;
ALTER TABLE t ATTACH PARTITION loose FOR VALUES FROM (1000) TO (2000)`,
	"a table of the same transaction": `BEGIN; CREATE TABLE one (LIKE t INCLUDING ALL); INSERT INTO one VALUES (2000, 'a', repeat('x', 9000));
ALTER TABLE t ATTACH PARTITION one FOR VALUES FROM (2000) TO (3000); COMMIT`,
	"the least table of the same transaction": `BEGIN; CREATE TABLE two AS SELECT 3000 AS id, 'a'::text AS v, repeat('x', 9000) AS big; ALTER TABLE two ALTER id SET NOT NULL;
ALTER TABLE t ATTACH PARTITION two FOR VALUES FROM (3000) TO (4000); COMMIT`,
	"by a function": `DO $$ BEGIN CREATE TABLE three (id int NOT NULL DEFAULT 0, v text DEFAULT 'v', big text DEFAULT 'b'); INSERT INTO three VALUES (4000, 'a', repeat('x', 9000));
BEGIN ALTER TABLE t ATTACH PARTITION three FOR VALUES FROM (4000) TO (5000); EXCEPTION WHEN division_by_zero THEN END; END $$`,
	"a partitioned table with its partitions": `CREATE TABLE four (LIKE t INCLUDING ALL) PARTITION BY RANGE (id); CREATE TABLE four_1 PARTITION OF four FOR VALUES FROM (5000) TO (5500);
INSERT INTO four VALUES (5001, 'a', repeat('x', 9000)); ALTER TABLE t ATTACH PARTITION four FOR VALUES FROM (5000) TO (6000)`,
	"a partition that was away for a moment": `ALTER TABLE t DETACH PARTITION t_1; UPDATE t_1 SET v = 'not in the log' WHERE id = 1; INSERT INTO t_1 VALUES (50, 'a', repeat('x', 9000));
ALTER TABLE t ATTACH PARTITION t_1 FOR VALUES FROM (0) TO (1000)`,
}

const attachable = `CREATE TABLE t (id int PRIMARY KEY, v text, big text) PARTITION BY RANGE (id); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (1000); INSERT INTO t SELECT i, 'v', repeat('y', 3000) FROM generate_series(1, 20) i; CREATE TABLE loose (LIKE t INCLUDING ALL)`

// TestRowsOfAnAttachedPartitionAreCopied by itself, whoever finds out first: the look at
// the catalog, the first change in the log, an update that leaves values out among them, or
// the next start.
func TestRowsOfAnAttachedPartitionAreCopied(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		for _, how := range []string{"look", "change", "start"} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				db := server.Database(t)
				db.Exec(attachable)
				r := copying(t, db, "t")
				r.cfg.CatalogInterval = 50 * time.Millisecond
				if how == "change" && server.Major() >= 15 { // Older ones may not send it before somebody looks.
					r.cfg.CatalogInterval = time.Hour
				}
				r.startStreaming()
				r.copied()
				for _, name := range slices.Sorted(maps.Keys(attaching)) {
					r.attaches(how, name)
				}
			})
		}
	})
}

// attaches brings rows in, and waits until they are copied.
func (r *rig) attaches(how, name string) {
	r.t.Helper()
	if how == "start" {
		r.stop()
	}
	r.db.Exec(attaching[name])
	if how != "look" {
		r.db.Exec("UPDATE t SET v = v || '!' WHERE id % 10 < 5")
	}
	if how == "start" {
		r.startStreaming()
	}
	rows := pgtest.Value[int](r.db, "SELECT count(*) FROM t")
	r.await(name+": copied again", func(s capture.Status) bool { return s.Snapshot.Done && len(r.sink()["public.t"]) == rows })
	r.copied()
	r.same("t", "id")
}

// snapshotRows counts the rows that were copied.
func (r *rig) snapshotRows() int {
	n := 0
	for _, rec := range r.records() {
		if rec.Kind == cdc.KindSnapshot {
			n++
		}
	}
	return n
}

// TestNewPartitionsAreNoReasonToCopy: all of their rows are in the log. The table may be
// large, and gets one every day.
func TestNewPartitionsAreNoReasonToCopy(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(`CREATE SEQUENCE s; CREATE TABLE t (id int NOT NULL DEFAULT nextval('s') CHECK (id > 0), v text NOT NULL DEFAULT 'v', PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE INDEX ON t (v); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (1000); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20) i`)
		r := copying(t, db, "t")
		r.cfg.CatalogInterval = 20 * time.Millisecond
		r.startStreaming()
		r.copied()
		for _, sql := range []string{
			"CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (1000) TO (2000); INSERT INTO t VALUES (1001)",
			"BEGIN; CREATE TABLE t_3 PARTITION OF t (CHECK (v <> ''), v DEFAULT 'w') FOR VALUES FROM (2000) TO (3000) PARTITION BY RANGE (id); CREATE TABLE t_3_1 PARTITION OF t_3 DEFAULT; INSERT INTO t VALUES (2001); COMMIT",
			"CREATE TABLE t_rest PARTITION OF t DEFAULT; INSERT INTO t VALUES (9000)",
			"BEGIN; SAVEPOINT a; CREATE TABLE t_4 PARTITION OF t FOR VALUES FROM (3000) TO (4000); RELEASE a; INSERT INTO t VALUES (3001); COMMIT",
			"ALTER TABLE t_2 RENAME TO t_two; ALTER TABLE t_two ALTER v SET STATISTICS 10",
			"VACUUM FULL pg_attribute", "VACUUM (FULL, FREEZE) pg_inherits", "GRANT SELECT (v) ON t_rest TO pg_monitor",
		} {
			db.Exec(sql)
			r.drain()
			pause(60 * time.Millisecond)
			r.drain()
		}
		r.stop()
		db.Exec("CREATE TABLE t_5 PARTITION OF t FOR VALUES FROM (5000) TO (6000); INSERT INTO t VALUES (5001)")
		r.startStreaming()
		r.copied()
		r.same("t", "id")
		if n := r.snapshotRows(); n != 20 {
			t.Errorf("%d rows were copied, 20 were there at the first start", n)
		}
	})
}

// TestDetachedPartitionIsNamedAndItsRowsStay, since the log says nothing of it.
func TestDetachedPartitionIsNamedAndItsRowsStay(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(attachable + "; CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (1000) TO (2000); INSERT INTO t VALUES (1001, 'v'); CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM (2000) TO (3000); INSERT INTO t VALUES (2001, 'v')")
		r := copying(t, db, "t")
		var log strings.Builder
		r.logTo(&log)
		r.cfg.CatalogInterval = time.Hour
		r.startStreaming()
		r.copied()
		detach := "ALTER TABLE t DETACH PARTITION t_2"
		if server.Major() >= 14 {
			detach += " CONCURRENTLY"
		}
		db.Exec(detach)
		db.Exec("DROP TABLE t_3; DELETE FROM t_2; INSERT INTO t VALUES (21, 'v')")
		r.drain()
		r.stop()
		// It is said once.
		r.startStreaming()
		r.drain()
		if rows := r.sink()["public.t"]; len(rows) != 23 || rows["1001"] == nil || rows["2001"] == nil || r.snapshotRows() != 22 {
			t.Errorf("the sink has %d rows, %d were copied", len(rows), r.snapshotRows())
		}
		r.stop()
		if n := strings.Count(log.String(), "rows of a partition that was detached or dropped stay in the sink"); n != 1 || !strings.Contains(log.String(), "detached or dropped: public.t_2, OID ") {
			t.Errorf("said %d times:\n%s", n, log.String())
		}
	})
}

// TestAttachedPartitionIsNamedWhereNothingIsCopied, with what to run.
func TestAttachedPartitionIsNamedWhereNothingIsCopied(t *testing.T) {
	t.Parallel()
	for name, noKey := range map[string]bool{"never": false, "table without a key": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			db.Exec(attachable)
			r := copying(t, db, "t")
			if noKey {
				db.Exec("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t_1 REPLICA IDENTITY FULL; ALTER TABLE loose REPLICA IDENTITY FULL")
			} else {
				r.cfg.Snapshot = capture.SnapshotNever
			}
			var log strings.Builder
			r.logTo(&log)
			r.startStreaming()
			db.Exec(attaching["a table that was there"])
			db.Exec("INSERT INTO t VALUES (22, 'v')")
			r.drain()
			r.stop()
			for _, part := range []string{"attached as a partition: public.loose", "dbmazz snapshot --tables public.t"} {
				if strings.Count(log.String(), part) != 1 {
					t.Errorf("the log lacks %q:\n%s", part, log.String())
				}
			}
		})
	}
}

// TestLeafThatPostgreSQLKnewOtherwiseArrives, by a publication that somebody made of the root.
func TestLeafThatPostgreSQLKnewOtherwiseArrives(t *testing.T) {
	t.Parallel()
	pgtest.ForMajors(t, []int{13, 14, 15, 18}, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(attachable)
		r := following(t, db)
		r.cfg.Leaves, r.cfg.Tables = true, []capture.Table{table("t")}
		db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLE t`)
		r.start()
		r.captures("t_1")
		db.Exec("INSERT INTO loose SELECT i, 'a', 'b' FROM generate_series(1000, 1010) i; UPDATE t SET v = 'w'")
		r.drain()
		db.Exec("ALTER TABLE t ATTACH PARTITION loose FOR VALUES FROM (1000) TO (2000)")
		r.captures("loose", "t_1")
		db.Exec("UPDATE t SET v = 'changed' WHERE id > 1005; DELETE FROM t WHERE id = 1000; INSERT INTO t VALUES (1011, 'new')")
		r.drain()
		r.same("loose", "id")
	})
}

// TestChangesOfATableThatPostgreSQLKnewOtherwiseArrive: a walsender may remember of a table
// that was changed before it was attached that it is not published, and of one that is
// detached that it is.
func TestChangesOfATableThatPostgreSQLKnewOtherwiseArrive(t *testing.T) {
	t.Parallel()
	pgtest.ForMajors(t, []int{13, 14, 15, 16, 17, 18}, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(attachable)
		r := copying(t, db, "t")
		r.cfg.CatalogInterval = 50 * time.Millisecond
		r.startStreaming()
		r.copied()
		db.Exec("INSERT INTO loose SELECT i, 'a', 'b' FROM generate_series(1000, 1010) i; UPDATE t SET v = 'w'")
		r.drain()
		db.Exec("ALTER TABLE t ATTACH PARTITION loose FOR VALUES FROM (1000) TO (2000)")
		r.await("copied again", func(s capture.Status) bool { return s.Snapshot.Done && len(r.sink()["public.t"]) == 31 })
		db.Exec("UPDATE t SET v = 'changed' WHERE id > 1005; DELETE FROM t WHERE id = 1000; INSERT INTO t VALUES (1011, 'new')")
		r.drain()
		r.same("t", "id")
		db.Exec("ALTER TABLE t DETACH PARTITION loose; UPDATE loose SET v = 'detached'; DELETE FROM loose WHERE id > 1009")
		db.Exec("INSERT INTO t VALUES (21, 'v')")
		r.drain()
		if rows := r.sink()["public.t"]; len(rows) != 32 || rows["1001"][1] != "a" {
			t.Errorf("changes of the partition that was detached have arrived: %d rows, %v", len(rows), rows["1001"])
		}
	})
}
