package capture_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// waitingForStandby commits a statement on a server that then waits for a standby that
// does not exist: the commit is in the log and nobody sees it. release ends the wait.
func (r *rig) waitingForStandby(sql string) (release func()) {
	r.t.Helper()
	r.db.Exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	r.db.Exec("SELECT pg_reload_conf()")
	conn := r.db.Connect()
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.WithoutCancel(r.t.Context()), sql)
		done <- err
	}()
	for pgtest.Value[int](r.db, "SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == 0 {
		pause(10 * time.Millisecond)
	}
	return func() {
		r.db.Exec("ALTER SYSTEM RESET synchronous_standby_names")
		r.db.Exec("SELECT pg_reload_conf()")
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

func TestCopyWaitsForACommitThatIsLoggedButNotSeen(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"passed while copying": false, "passed by the session before": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.StartServer(t, pgtest.Options{}).Database(t)
			db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'old' FROM generate_series(1, 100) i")
			r := copying(t, db, "t")
			r.cfg.SnapshotChunkRows, r.cfg.SnapshotRate = 5, 10
			r.start()
			r.await("begun", func(s capture.Status) bool { return len(s.Snapshot.Tables) > 0 && s.Snapshot.Tables[0].RowsDone > 0 })
			if err := r.c.PauseSnapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
			pause(50 * time.Millisecond)
			release := r.waitingForStandby("UPDATE t SET v = 'new' WHERE id = 90")
			for !slices.Contains(r.changes(), "update public.t (90,new)") {
				pause(10 * time.Millisecond)
			}
			if restart {
				r.stop()
				r.cfg.SnapshotRate = 0
				r.startStreaming()
			}
			r.c.SetSnapshot(capture.SnapshotSettings{Rate: -1, ChunkRows: 1000})
			if err := r.c.ResumeSnapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
			pause(2 * time.Second)
			if s := r.c.Status().Snapshot; s.Done {
				t.Errorf("the copy has not waited: %+v", s)
			}
			release()
			r.copied()
			r.same("t", "id")
		})
	}
}

// A transaction that changed a table before it came into the publication is not in the
// stream. The copy of the table must not begin before it has ended.
func TestCopyOfAnAddedTableWaitsForWhoChangedItBefore(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'old' FROM generate_series(1, 10) i")
	r := copying(t, db, "a")
	r.start()
	r.copied()
	conn := db.Connect()
	if _, err := conn.Exec(t.Context(), "BEGIN; UPDATE t SET v = 'new' WHERE id = 5"); err != nil {
		t.Fatal(err)
	}
	if err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("a"), table("t")}}, kept); err != nil {
		t.Fatal(err)
	}
	pause(500 * time.Millisecond)
	if s := r.c.Status().Snapshot; s.Done {
		t.Errorf("the copy has not waited: %+v", s)
	}
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	r.copied()
	r.same("t", "id")
}

// A truncate, or a change of type, that runs between a snapshot and the read leaves the
// table empty for that snapshot. The lock comes first.
func TestCopyIsNotFooledByARewriteOfTheTable(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 2000) i")
	conn := db.Connect()
	r := copying(t, db, "t")
	r.cfg.SnapshotChunkRows, r.cfg.SnapshotRate = 50, 1000
	r.start()
	r.await("begun", func(s capture.Status) bool { return len(s.Snapshot.Tables) > 0 && s.Snapshot.Tables[0].RowsDone > 0 })
	for i := range 12 {
		// The first two change nothing that the stream would tell.
		alter := []string{"int USING v + 0", "int USING v + 0", "bigint", "int"}[i%4]
		if _, err := conn.Exec(t.Context(), "BEGIN; ALTER TABLE t ALTER v TYPE "+alter); err != nil {
			t.Fatal(err)
		}
		pause(100 * time.Millisecond)
		end := "COMMIT"
		if i%4 > 1 {
			end = "UPDATE t SET v = v + 1 WHERE id % 100 = 0; COMMIT"
		}
		if _, err := conn.Exec(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		pause(20 * time.Millisecond)
	}
	r.c.SetSnapshot(capture.SnapshotSettings{Rate: -1})
	r.copied()
	r.same("t", "id")
}

// A drain ends the copying at once, whoever it waits for, and the next process goes on.
func TestHaltedCopyWaitsForNobody(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'old' FROM generate_series(1, 10) i")
	r := copying(t, db, "a")
	r.start()
	r.copied()
	conn := db.Connect()
	if _, err := conn.Exec(t.Context(), "BEGIN; UPDATE t SET v = 'new' WHERE id = 5"); err != nil {
		t.Fatal(err)
	}
	r.cfg.Tables = []capture.Table{table("a"), table("t")}
	if err := r.c.SetTables(t.Context(), capture.Selection{Tables: r.cfg.Tables}, kept); err != nil {
		t.Fatal(err)
	}
	r.await("waiting", func(s capture.Status) bool { return strings.Contains(s.Snapshot.Detail, "must end") })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.c.HaltSnapshot(ctx); err != nil {
		t.Error(err)
	}
	r.stop()
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.copied()
	r.same("t", "id")
}
