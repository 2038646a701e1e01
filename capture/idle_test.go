package capture_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// follows waits until the slot has passed a position.
func (r *rig) follows(goal cdc.LSN) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for r.confirmed() < goal {
		if time.Now().After(deadline) {
			r.t.Fatalf("slot at %s, want %s; status %+v", r.confirmed(), goal, r.c.Status())
		}
		pause(10 * time.Millisecond)
	}
}

// A server keeps WAL for all its databases, so a slot in a quiet one must move while
// another database is busy.
func TestIdleSlotFollowsWhileOnlyAnotherDatabaseWrites(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db, busy := server.Database(t), server.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
		busy.Exec("CREATE TABLE other (id int)")
		r := newRig(t, db, "t")
		r.cfg.StatusInterval = 100 * time.Millisecond
		r.startStreaming()
		for range 3 {
			busy.Exec("INSERT INTO other SELECT generate_series(1, 5000)")
			r.follows(r.serverEnd())
		}
		if n := len(r.stream.Frames()); n != 0 {
			t.Errorf("%d frames", n)
		}
		r.stop()
		db.Exec("INSERT INTO t VALUES (1)")
		r.start()
		r.want("insert public.t (1)")
	})
}

// While unpublished tables change all the time the slot follows, but never past a change
// that the sink lacks.
func TestIdleSlotFollowsABusyTableThatIsNotPublished(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)")
		r := newRig(t, db, "t")
		r.cfg.StatusInterval = 50 * time.Millisecond
		r.stream.AutoApply(false)
		r.startStreaming()
		ctx, stop := context.WithCancel(t.Context())
		conn, ended := db.Connect(), make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				_, _ = conn.Exec(ctx, "INSERT INTO other SELECT generate_series(1, 10)") // Ends with ctx.
				pause(5 * time.Millisecond)
			}
		}()
		defer func() { stop(); <-ended }()
		r.follows(r.serverEnd())
		db.Exec("INSERT INTO t VALUES (1)")
		r.drain()
		end := r.stream.Frames()[0].Header.End
		pause(300 * time.Millisecond)
		if got := r.confirmed(); got >= end {
			t.Fatalf("slot at %s, the change that ends at %s is not applied", got, end)
		}
		r.stream.Apply(1)
		r.follows(r.serverEnd())
	})
}

func TestHeartbeatMovesTheSlot(t *testing.T) {
	t.Parallel()
	since(t, 18, func(t *testing.T, major int) {
		// A server of its own, where nothing else writes.
		db := pgtest.StartServer(t, pgtest.Options{Major: major, Settings: map[string]string{"autovacuum": "off"}}).Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
		r := newRig(t, db, "t")
		r.cfg.StatusInterval, r.cfg.Heartbeat = 50*time.Millisecond, 20*time.Millisecond
		r.startStreaming()
		for range 3 {
			r.follows(r.confirmed() + 1)
		}
		if n := len(r.stream.Frames()); n != 0 {
			t.Errorf("%d frames", n)
		}
		if s := r.c.Status(); s.Warning != "" || s.LastError != "" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestHeartbeatThatFailsIsAWarning(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	function := "pg_logical_emit_message(boolean, text, text)"
	if db.Server().Major() >= 17 {
		function = "pg_logical_emit_message(boolean, text, text, boolean)"
	}
	db.Exec("REVOKE EXECUTE ON FUNCTION " + function + " FROM PUBLIC")
	role := "beat_" + db.Name()
	db.Exec("CREATE ROLE " + role + " LOGIN REPLICATION PASSWORD 'secret'")
	r := newRig(t, db, "t")
	db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLE t`)
	r.cfg.SourceURL, r.cfg.Heartbeat = as(t, db, role, "secret"), 10*time.Millisecond
	r.startStreaming()
	s := r.await("warned", func(s capture.Status) bool { return s.Warning != "" })
	if s.State != capture.StateStreaming || !strings.Contains(s.Warning, "heartbeat: permission denied") {
		t.Errorf("status %+v", s)
	}
	db.Exec("INSERT INTO t VALUES (1)")
	r.want("insert public.t (1)")
	db.Exec("GRANT EXECUTE ON FUNCTION " + function + " TO " + role)
	r.await("recovered", func(s capture.Status) bool { return s.Warning == "" })
	if s := r.c.Status(); s.Restarts != 0 {
		t.Errorf("status %+v", s)
	}
	db.Exec("REVOKE ALL ON FUNCTION " + function + " FROM " + role)
	db.Exec("GRANT EXECUTE ON FUNCTION " + function + " TO PUBLIC")
}
