package capture_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// A standby can be the source: rows are copied from it, those of an added table once the
// transactions of the primary have ended that it cannot see. Of a table without a key it
// cannot tell what a snapshot has.
func TestCopyFromAStandby(t *testing.T) {
	t.Parallel()
	since(t, 16, func(t *testing.T, major int) {
		primary := pgtest.StartServer(t, pgtest.Options{Major: major})
		db := primary.Database(t)
		db.Exec("CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text); CREATE TABLE c (v text); ALTER TABLE c REPLICA IDENTITY FULL;" +
			"INSERT INTO a SELECT i, 'old' FROM generate_series(1, 500) i; INSERT INTO b SELECT i, 'old' FROM generate_series(1, 500) i; INSERT INTO c VALUES ('x')")
		standby := primary.Standby(t, "standby", nil)
		r := copying(t, db, "a", "c")
		r.cfg.SnapshotChunkRows = 50
		db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLE a, c WITH (publish_via_partition_root = true)`)
		r.cfg.SourceURL = db.On(standby).URL()
		replayed := func() {
			goal := pgtest.Value[string](db, "SELECT pg_current_wal_insert_lsn()::text")
			for !pgtest.Value[bool](db.On(standby), "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", goal) {
				pause(10 * time.Millisecond)
			}
		}
		state := func(s capture.Status, i int) capture.CopyState {
			if len(s.Snapshot.Tables) <= i {
				return ""
			}
			return s.Snapshot.Tables[i].State
		}
		replayed()
		r.start()
		s := r.await("copied and refused", func(s capture.Status) bool {
			db.Exec("SELECT pg_log_standby_snapshot()") // A slot on a standby waits for it.
			return state(s, 0) == capture.CopyDone && state(s, 1) == capture.CopyFailed
		})
		if !strings.Contains(s.Snapshot.Tables[1].Error, "copy it from the primary") {
			t.Error(s.Snapshot.Tables[1].Error)
		}
		holder := db.Connect()
		if _, err := holder.Exec(t.Context(), "BEGIN; UPDATE b SET v = 'new' WHERE id = 7"); err != nil {
			t.Fatal(err)
		}
		db.Exec(`ALTER PUBLICATION "` + r.cfg.Publication + `" SET TABLE a, b`)
		replayed()
		if err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("a"), table("b")}}, kept); err != nil {
			t.Fatal(err)
		}
		r.await("waiting for the transaction", func(s capture.Status) bool {
			db.Exec("UPDATE a SET v = v WHERE id = 1") // A standby hears of what runs with what ends.
			return strings.Contains(s.Snapshot.Detail, "transactions of the primary")
		})
		if _, err := holder.Exec(t.Context(), "COMMIT"); err != nil {
			t.Fatal(err)
		}
		r.await("copied", func(s capture.Status) bool { return s.Snapshot.Done })
		replayed()
		r.drain()
		r.same("a", "id")
		r.same("b", "id")
	})
}

// A table that is made anew under the name of one that was copied is another table.
func TestTableThatIsMadeAnewIsCopiedAnew(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	const create = "CREATE TABLE t (id int PRIMARY KEY, v text);"
	db.Exec(create + "INSERT INTO t SELECT i, 'first' FROM generate_series(1, 300) i")
	r := copying(t, db, "t")
	r.start()
	r.copied()
	r.same("t", "id")
	r.stop()
	db.Exec("DROP TABLE t; " + create + "INSERT INTO t SELECT i, 'second' FROM generate_series(200, 500) i; ALTER PUBLICATION " + `"` + strings.ReplaceAll(r.cfg.Publication, `"`, `""`) + `" ADD TABLE t`)
	r.start()
	r.copied()
	r.same("t", "id")
}
