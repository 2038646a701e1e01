package capture_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// confirmed returns where the server's slot is.
func (r *rig) confirmed() cdc.LSN {
	r.t.Helper()
	lsn, err := cdc.ParseLSN(pgtest.Value[string](r.db, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", r.cfg.Slot))
	if err != nil {
		r.t.Fatal(err)
	}
	return lsn
}

// serverEnd returns the server's WAL position.
func (r *rig) serverEnd() cdc.LSN {
	r.t.Helper()
	lsn, err := cdc.ParseLSN(pgtest.Value[string](r.db, "SELECT pg_current_wal_flush_lsn()::text"))
	if err != nil {
		r.t.Fatal(err)
	}
	return lsn
}

func TestFailuresOfTheStreamLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int)")
	r := newRig(t, db, "t")
	r.cfg.FrameBytes = 2000
	r.stream.AutoApply(false)
	r.startStreaming()
	var want []string
	for round := range 30 {
		// A fault that has not come yet stays: how many there are must not hang on how
		// fast this machine is.
		if !r.stream.FailureDue() {
			r.stream.FailPublish(rnd.IntN(12), rnd.IntN(2) == 0)
		}
		for range 5 {
			from := len(want) + 1
			to := from + rnd.IntN(60)
			for id := from; id <= to; id++ {
				want = append(want, fmt.Sprintf("insert public.t (%d,vvvvvvvvvvvvvvvvvvvv)", id))
			}
			db.Exec(fmt.Sprintf("BEGIN; INSERT INTO other VALUES (1); INSERT INTO t SELECT i, repeat('v', 20) FROM generate_series(%d, %d) i; COMMIT", from, to))
		}
		if round%3 == 0 {
			r.drain()
			if n := len(r.stream.Frames()); n > 0 {
				r.stream.Apply(rnd.IntN(n) + 1)
			}
		}
	}
	r.drain()
	if got := r.c.Status().Restarts; got < 3 {
		t.Errorf("%d restarts, the faults did not do their work", got)
	}
	if diff := cmp.Diff(want, r.changes()); diff != "" {
		t.Fatalf("changes (-want +got):\n%s", diff)
	}
}

func TestLostTailOfTheStreamIsSentAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.cfg.FrameBytes = 100
	r.stream.AutoApply(false)
	r.startStreaming()
	db.Exec("INSERT INTO t SELECT generate_series(1, 100)")
	r.drain()
	before := r.changes()
	r.stream.Apply(1)
	r.stop()
	r.stream.Cut(3)
	r.start()
	r.drain()
	if diff := cmp.Diff(before, r.changes()); diff != "" {
		t.Fatalf("changes (-want +got):\n%s", diff)
	}
}

func TestKilledConnectionIsReplacedWithoutLossOrDuplicate(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.startStreaming()
	var want []string
	for i := 1; i <= 200; i++ {
		db.Exec("INSERT INTO t VALUES ($1)", i)
		want = append(want, fmt.Sprintf("insert public.t (%d)", i))
		if i%40 == 0 {
			db.Exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", r.cfg.Slot)
		}
	}
	r.await("restarted", func(s capture.Status) bool { return s.Restarts > 0 })
	r.want(want...)
}

func TestBlockedStreamDoesNotCostTheConnection(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{Settings: map[string]string{"wal_sender_timeout": "6s"}})
	db := server.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := newRig(t, db, "t")
	r.startStreaming()
	r.stream.Block()
	// More than all buffers in between hold, so that the server blocks in sending.
	db.Exec("INSERT INTO t SELECT i, repeat('v', 1000) FROM generate_series(1, 30000) i")
	pause(15 * time.Second)
	if s := r.c.Status(); s.State != capture.StateStreaming || s.Restarts != 0 {
		t.Fatalf("status %+v", s)
	}
	r.stream.Unblock()
	r.drain()
	if n := len(r.changes()); n != 30000 {
		t.Errorf("%d changes", n)
	}
	if s := r.c.Status(); s.Restarts != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestSlotNeverPassesWhatTheSinkHasApplied(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{Settings: map[string]string{"wal_sender_timeout": "1s"}})
	db := server.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)")
	r := newRig(t, db, "t")
	r.cfg.StatusInterval = 50 * time.Millisecond
	r.stream.AutoApply(false)
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	db.Exec("INSERT INTO t VALUES (2)")
	r.drain()
	applied := r.stream.Frames()[0].Header.End
	r.stream.Apply(1)
	frames := len(r.stream.Frames())
	if frames < 2 {
		t.Fatalf("%d frames", frames)
	}
	for i := range 40 {
		db.Exec("INSERT INTO other VALUES ($1)", i)
		pause(50 * time.Millisecond)
		if got := r.confirmed(); got > applied {
			t.Fatalf("slot at %s, applied %s", got, applied)
		}
	}
	if got := r.confirmed(); got != applied {
		t.Fatalf("slot at %s, applied %s", got, applied)
	}
	r.stream.Apply(frames)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.c.Confirmed(ctx, r.serverEnd()); err != nil {
		t.Fatal(err)
	}
}

func TestIdleSlotFollowsTheServerWhileOthersWrite(t *testing.T) {
	t.Parallel()
	pgtest.ForEachMajor(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)")
		r := newRig(t, db, "t")
		r.cfg.StatusInterval = 100 * time.Millisecond
		r.startStreaming()
		for range 3 {
			db.Exec("INSERT INTO other SELECT generate_series(1, 1000)")
			goal := r.serverEnd()
			deadline := time.Now().Add(patience)
			for r.confirmed() < goal {
				if time.Now().After(deadline) {
					t.Fatalf("slot at %s, want %s; status %+v", r.confirmed(), goal, r.c.Status())
				}
				pause(10 * time.Millisecond)
			}
		}
		if n := len(r.stream.Frames()); n != 0 {
			t.Errorf("%d frames", n)
		}
		// And nothing is lost by it.
		r.stop()
		db.Exec("INSERT INTO t VALUES (1)")
		r.start()
		r.want("insert public.t (1)")
	})
}

func TestStopConfirmsWhatIsAppliedAndFreesTheSlot(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.cfg.StatusInterval = time.Hour
	r.stream.AutoApply(false)
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	r.stream.Apply(1)
	r.stop()
	if pgtest.Value[bool](db, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", r.cfg.Slot) {
		t.Error("the slot is in use after Run has returned")
	}
	if got, want := r.confirmed(), r.stream.Frames()[0].Header.End; got != want {
		t.Errorf("slot at %s, want %s", got, want)
	}
}

func TestTablesThatAreNotConfiguredAreLeftOut(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR ALL TABLES`)
	r.startStreaming()
	db.Exec("INSERT INTO other VALUES (1)")
	db.Exec("BEGIN; INSERT INTO other VALUES (2); INSERT INTO t VALUES (1); UPDATE other SET id = 3 WHERE id = 2; INSERT INTO t VALUES (2); COMMIT")
	db.Exec("TRUNCATE other")
	db.Exec("TRUNCATE other, t")
	r.want("insert public.t (1)", "insert public.t (2)", "truncate public.t flags 0")
	if got := r.records()[2].Position.Ordinal; got != 2 {
		t.Errorf("ordinal %d, want 2", got)
	}
}

// A transaction that was cut in the middle must be counted as it was counted, or
// changes would be taken for others.
func TestCutTransactionIsCountedByTheTablesOfItsTime(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
	r := newRig(t, db, "t", "u")
	db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR ALL TABLES`)
	r.cfg.FrameBytes = 1
	r.stream.AutoApply(false)
	r.startStreaming()
	var sql strings.Builder
	for i := 1; i <= 5; i++ {
		fmt.Fprintf(&sql, "INSERT INTO u VALUES (%d); INSERT INTO t VALUES (%[1]d);", i)
	}
	db.Exec("BEGIN; " + sql.String() + "COMMIT")
	r.drain()
	before := r.changes()
	r.stop()
	r.stream.Cut(4)
	r.cfg.Tables = []capture.Table{table("t")}
	r.start()
	db.Exec("BEGIN; INSERT INTO u VALUES (9); INSERT INTO t VALUES (9); COMMIT")
	r.want(append(before, "insert public.t (9)")...)
}

func TestSetTablesAddsAndRemovesWhileStreaming(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE nokey (id int)")
	r := newRig(t, db, "t")
	r.startStreaming()
	published := "SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = $1"
	db.Exec("INSERT INTO t VALUES (1)")
	db.Exec("INSERT INTO u VALUES (1)")
	if err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("t"), table("nokey")}}, kept); err == nil || !strings.Contains(err.Error(), "nokey") {
		t.Fatalf("a table without a key: %v", err)
	}
	if err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("t"), table("u")}}, kept); err != nil {
		t.Fatal(err)
	}
	if got := pgtest.Value[string](db, published, r.cfg.Publication); got != "t,u" {
		t.Errorf("published: %s", got)
	}
	db.Exec("INSERT INTO u VALUES (2)")
	r.want("insert public.t (1)", "insert public.u (2)")
	if err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("u")}}, kept); err != nil {
		t.Fatal(err)
	}
	if got := pgtest.Value[string](db, published, r.cfg.Publication); got != "u" {
		t.Errorf("published: %s", got)
	}
	db.Exec("INSERT INTO t VALUES (3)")
	db.Exec("INSERT INTO u VALUES (3)")
	r.want("insert public.t (1)", "insert public.u (2)", "insert public.u (3)")
	// A restart with the tables as they are now goes on.
	r.stop()
	r.cfg.Tables = []capture.Table{table("u")}
	db.Exec("INSERT INTO u VALUES (4)")
	r.start()
	r.want("insert public.t (1)", "insert public.u (2)", "insert public.u (3)", "insert public.u (4)")
}

// kept is a list of tables that was made durable.
func kept(context.Context) error { return nil }

func TestTableThatIsRemovedIsCapturedUntilTheListIsKept(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
	r := newRig(t, db, "t", "u")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)")
	err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("t")}}, func(context.Context) error {
		db.Exec("INSERT INTO u VALUES (2)")
		return errors.New("the process dies")
	})
	if err == nil {
		t.Fatal("the list was not kept, and nobody is told")
	}
	db.Exec("INSERT INTO u VALUES (3)")
	r.drain()
	if n := len(r.changes()); n != 4 {
		t.Errorf("%d changes, want 4: the list without the table was never kept", n)
	}
	published := "SELECT count(*) FROM pg_publication_tables WHERE pubname = $1"
	if n := pgtest.Value[int](db, published, r.cfg.Publication); n != 2 {
		t.Errorf("%d tables in the publication", n)
	}
	if err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("t")}}, kept); err != nil {
		t.Fatal(err)
	}
	if n := pgtest.Value[int](db, published, r.cfg.Publication); n != 1 {
		t.Errorf("%d tables in the publication once the list is kept", n)
	}
}
