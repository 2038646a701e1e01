package capture_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// stopped has captured one row and is stopped.
func stopped(t *testing.T, db *pgtest.DB) *rig {
	t.Helper()
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	r.stop()
	return r
}

// since runs a subtest for a version and for the newest one, as far as they are installed,
// each of which starts a server of its own.
func since(t *testing.T, first int, run func(t *testing.T, major int)) {
	t.Helper()
	for _, major := range slices.Compact([]int{first, 18}) {
		if slices.Contains(pgtest.Majors(), major) {
			t.Run(fmt.Sprint("postgres-", major), func(t *testing.T) {
				t.Parallel()
				run(t, major)
			})
		}
	}
}

func TestInvalidatedSlotIsRefused(t *testing.T) {
	t.Parallel()
	since(t, 13, func(t *testing.T, major int) {
		db := pgtest.StartServer(t, pgtest.Options{Major: major, Settings: map[string]string{
			"max_slot_wal_keep_size": "1MB", "wal_keep_size": "0", "max_wal_size": "32MB", "min_wal_size": "32MB",
		}}).Database(t)
		r := stopped(t, db)
		for range 5 {
			db.Exec("SELECT pg_switch_wal()")
			db.Exec("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
			db.Exec("DROP TABLE filler")
			db.Exec("CHECKPOINT")
		}
		r.refusesFor("cannot be read any more: wal_status is lost")
	})
}

func TestSlotThatWasIdleForTooLongIsRefused(t *testing.T) {
	t.Parallel()
	since(t, 18, func(t *testing.T, major int) {
		db := pgtest.StartServer(t, pgtest.Options{Major: major, Settings: map[string]string{
			"idle_replication_slot_timeout": "1s",
		}}).Database(t)
		r := stopped(t, db)
		deadline := time.Now().Add(patience)
		for pgtest.Value[string](db, "SELECT COALESCE(invalidation_reason, '') FROM pg_replication_slots WHERE slot_name = $1", r.cfg.Slot) == "" {
			if time.Now().After(deadline) {
				t.Fatal("the server does not invalidate the slot")
			}
			pause(200 * time.Millisecond)
			db.Exec("CHECKPOINT")
		}
		r.refusesFor("invalidation_reason is idle_timeout: nobody read it")
	})
}

func TestSlotOfAStandbyThatConflictsWithRecoveryIsRefused(t *testing.T) {
	t.Parallel()
	since(t, 16, func(t *testing.T, major int) {
		primary := pgtest.StartServer(t, pgtest.Options{Major: major})
		db := primary.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
		standby := primary.Standby(t, "standby", map[string]string{"hot_standby_feedback": "off", "max_standby_streaming_delay": "0"})
		r := newRig(t, db, "t")
		db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLE t`)
		r.cfg.SourceURL = db.On(standby).URL()
		r.start()
		deadline := time.Now().Add(patience)
		for r.c.Status().State != "streaming" {
			if time.Now().After(deadline) {
				t.Fatalf("status %+v", r.c.Status())
			}
			db.Exec("SELECT pg_log_standby_snapshot()") // A slot on a standby waits for it.
			pause(50 * time.Millisecond)
		}
		db.Exec("INSERT INTO t VALUES (1)")
		for len(r.changes()) == 0 {
			if time.Now().After(deadline) {
				t.Fatalf("status %+v", r.c.Status())
			}
			pause(10 * time.Millisecond)
		}
		r.stop()
		// Each on its own: rows that one transaction makes and removes are nobody's loss.
		for _, sql := range [...]string{"CREATE TABLE gone (id int)", "DROP TABLE gone", "VACUUM pg_class"} {
			db.Exec(sql)
		}
		there := db.On(standby)
		for pgtest.Value[bool](there, "SELECT NOT COALESCE((to_jsonb(s)->>'conflicting')::bool, false) FROM pg_replication_slots s WHERE slot_name = $1", r.cfg.Slot) {
			if time.Now().After(deadline) {
				t.Fatalf("the slot does not conflict: %s", pgtest.Value[string](there, "SELECT to_jsonb(s)::text FROM pg_replication_slots s"))
			}
			pause(50 * time.Millisecond)
		}
		r.refusesFor("conflicts with recovery on a standby")
	})
}
