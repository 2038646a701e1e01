package pgtest_test

import (
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestStandbyFollowsAndCanBePromoted(t *testing.T) {
	t.Parallel()
	for _, major := range pgtest.Majors() {
		if major != pgtest.Majors()[0] && major != pgtest.Majors()[len(pgtest.Majors())-1] {
			continue
		}
		primary := pgtest.StartServer(t, pgtest.Options{Major: major})
		db := primary.Database(t)
		db.Exec("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
		standby := primary.Standby(t, "standby", nil)
		copied := db.On(standby)
		db.Exec("INSERT INTO t VALUES (2)")
		deadline := time.Now().Add(30 * time.Second)
		for pgtest.Value[int](copied, "SELECT count(*) FROM t") != 2 {
			if time.Now().After(deadline) {
				t.Fatalf("the standby of PostgreSQL %d does not follow", major)
			}
			<-time.After(10 * time.Millisecond)
		}
		if err := primary.Kill(); err != nil {
			t.Fatal(err)
		}
		standby.Promote(t)
		copied.Exec("INSERT INTO t VALUES (3)")
		if n := pgtest.Value[int](copied, "SELECT timeline_id FROM pg_control_checkpoint()"); n < 1 {
			t.Errorf("timeline %d", n)
		}
	}
}

func TestRestoredServerHasTheSlotsAndGoesItsOwnWay(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{})
	db := server.Database(t)
	db.Exec("CREATE TABLE t (id int)")
	db.Exec("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
	restored := db.On(server.Restored(t))
	restored.Exec("INSERT INTO t VALUES (1)")
	if n := pgtest.Value[int](db, "SELECT count(*) FROM t"); n != 0 {
		t.Errorf("%d rows in the original", n)
	}
	const id = "SELECT system_identifier::text FROM pg_control_system()"
	if a, b := pgtest.Value[string](db, id), pgtest.Value[string](restored, id); a != b {
		t.Errorf("system identifiers %s and %s", a, b)
	}
	if n := pgtest.Value[int](restored, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 's'"); n != 1 {
		t.Errorf("%d slots", n)
	}
}
