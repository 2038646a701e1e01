package capture_test

import (
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestTableWithoutAKeyIsCapturedInFull(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL")
		r := newRig(t, db, "t")
		r.startStreaming()
		db.Exec("INSERT INTO t VALUES (1, 'a'), (1, 'a'), (2, NULL)")
		db.Exec("UPDATE t SET v = 'b' WHERE id = 1")
		db.Exec("INSERT INTO t SELECT 3, " + largeValue)
		db.Exec("UPDATE t SET id = 4 WHERE id = 3")
		db.Exec("DELETE FROM t WHERE id = 2")
		want := []string{
			"insert public.t (1,a)", "insert public.t (1,a)", "insert public.t (2,~)",
			"update public.t (1,b)", "update public.t (1,b)",
			"insert public.t (3,c*32000)", "update public.t (4,c*32000)",
			"delete public.t old(2,~)",
		}
		r.want(want...)
		for _, rec := range r.records() {
			if rec.Table != nil && (len(rec.Table.Key) != 0 || rec.Table.ReplicaIdentity != 'f') {
				t.Fatalf("key %v, identity %c", rec.Table.Key, rec.Table.ReplicaIdentity)
			}
		}
		if key := r.stream.Tables()[0].Key; len(key) != 0 {
			t.Errorf("the sink is told of the key %v", key)
		}
		// It is the same after a restart and after a change of the table.
		r.stop()
		db.Exec("ALTER TABLE t ADD COLUMN n int")
		db.Exec("INSERT INTO t VALUES (5, 'e', 7)")
		r.start()
		r.want(append(want, "insert public.t (5,e,7)")...)
	})
}

// Without a key the sink cannot know what it has already, so a slot that may repeat it is
// refused when nothing else is left.
func TestLostStreamAndStateAreRefusedForTablesWithoutAKey(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int); ALTER TABLE t REPLICA IDENTITY FULL")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	r.stop()
	r.stream.Replace("second")
	r.stream.SetState(nil)
	r.stream.ForgetApplied()
	r.refusesFor("has no key to know them by")
	db.Exec("SELECT pg_drop_replication_slot($1)", r.cfg.Slot)
	r.start()
	r.await("streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming })
	db.Exec("INSERT INTO t VALUES (2)")
	r.want("insert public.t (2)")
}

// The process that makes the slot may die before it has stored what it made, or never get
// the server's answer. It has stored that it would, so the slot is no stranger.
func TestSlotWhoseMakerDiedIsUsed(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int); ALTER TABLE t REPLICA IDENTITY FULL")
	r := newRig(t, db, "t")
	db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLE t`)
	db.Exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", r.cfg.Slot)
	db.Exec("INSERT INTO t VALUES (1)")
	r.refusesFor("has no key to know them by")
	r.stream.SetState([]byte(`{"version": 1, "making": true}`))
	r.startStreaming()
	r.want("insert public.t (1)")
	r.stop()
	db.Exec("INSERT INTO t VALUES (2)")
	r.start()
	r.want("insert public.t (1)", "insert public.t (2)")
}

// identitiesThatRefuse are tables that PostgreSQL would refuse updates and deletes of.
var identitiesThatRefuse = map[string]string{
	"no key":                      "",
	"no key, nothing":             "ALTER TABLE u REPLICA IDENTITY NOTHING",
	"key, nothing":                "ALTER TABLE u ADD PRIMARY KEY (id); ALTER TABLE u REPLICA IDENTITY NOTHING",
	"lost index":                  "ALTER TABLE u ALTER id SET NOT NULL; CREATE UNIQUE INDEX ui ON u (id); ALTER TABLE u REPLICA IDENTITY USING INDEX ui; DROP INDEX ui",
	"deferrable key":              "ALTER TABLE u ADD PRIMARY KEY (id) DEFERRABLE",
	"unique index that may be it": "ALTER TABLE u ALTER id SET NOT NULL; CREATE UNIQUE INDEX ui ON u (id)",
}

func TestTableThatPostgreSQLWouldRefuseToUpdateIsNotPublished(t *testing.T) {
	t.Parallel()
	for name, sql := range identitiesThatRefuse {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int, v text)")
			db.Exec("INSERT INTO u VALUES (1, 'a')")
			if sql != "" {
				db.Exec(sql)
			}
			r := newRig(t, db, "t", "u")
			s := r.refused()
			r.stop()
			if !s.Setup || !strings.Contains(s.LastError, "'public.u'") || !strings.Contains(s.LastError, `ALTER TABLE "public"."u"`) {
				t.Errorf("setup %t: %s", s.Setup, s.LastError)
			}
			t.Log(s.LastError)
			db.Exec("UPDATE u SET v = 'b'")
			// Also when it is added to what streams.
			r.cfg.Tables = r.cfg.Tables[:1]
			r.startStreaming()
			if err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("t"), table("u")}}, kept); err == nil {
				t.Error("the table was accepted")
			}
			db.Exec("UPDATE u SET v = 'c'; DELETE FROM u")
			// And it streams once it is put right.
			db.Exec("ALTER TABLE u REPLICA IDENTITY FULL")
			if err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("t"), table("u")}}, kept); err != nil {
				t.Fatal(err)
			}
			db.Exec("INSERT INTO u VALUES (2, 'd')")
			r.want("insert public.u (2,d)")
		})
	}
}

// Somebody changes the table between the check and the publication.
func TestTableIsNotPublishedIfItLosesItsIdentityMeanwhile(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 'a')")
		other := db.Connect()
		if _, err := other.Exec(t.Context(), "BEGIN; ALTER TABLE t REPLICA IDENTITY DEFAULT"); err != nil {
			t.Fatal(err)
		}
		r := newRig(t, db, "t")
		r.start()
		// The DDL waits for the lock of the other transaction: the check is behind it.
		const waiting = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database() AND a.query LIKE '%PUBLICATION%')"
		r.await("waiting", func(capture.Status) bool { return pgtest.Value[bool](db, waiting) })
		if _, err := other.Exec(t.Context(), "COMMIT"); err != nil {
			t.Fatal(err)
		}
		s := r.await("refused", func(s capture.Status) bool { return s.Setup })
		if !strings.Contains(s.LastError, "REPLICA IDENTITY FULL") {
			t.Error(s.LastError)
		}
		r.stop()
		if n := pgtest.Value[int](db, "SELECT count(*) FROM pg_publication_tables WHERE pubname = $1", r.cfg.Publication); n != 0 {
			t.Error("the table is published")
		}
		db.Exec("UPDATE t SET v = 'b'")
	})
}

// A table that loses its key while it is published takes inserts only. What came in
// meanwhile is captured once it is put right.
func TestTableThatLostItsKeyStreamsAgainOnceItIsPutRight(t *testing.T) {
	t.Parallel()
	for name, remedy := range map[string]string{
		"key":  "ALTER TABLE t ADD PRIMARY KEY (id)",
		"full": "ALTER TABLE t REPLICA IDENTITY FULL",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
			r := newRig(t, db, "t")
			r.startStreaming()
			db.Exec("INSERT INTO t VALUES (1)")
			r.drain()
			db.Exec("ALTER TABLE t DROP CONSTRAINT t_pkey")
			db.Exec("INSERT INTO t VALUES (2)")
			s := r.await("refused", func(s capture.Status) bool { return s.Setup })
			t.Log(s.LastError)
			db.Exec(remedy)
			db.Exec("INSERT INTO t VALUES (3)")
			r.await("streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming && s.LastError == "" })
			r.want("insert public.t (1)", "insert public.t (2)", "insert public.t (3)")
		})
	}
}
