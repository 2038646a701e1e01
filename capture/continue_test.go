package capture_test

import (
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// applied returns a capture that is stopped: row 1 is applied and confirmed, row 2 is
// in the stream, row 3 is committed.
func applied(t *testing.T, db *pgtest.DB) *rig {
	t.Helper()
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.stream.AutoApply(false)
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	first := len(r.stream.Frames())
	db.Exec("INSERT INTO t VALUES (2)")
	r.drain()
	r.stream.Apply(first)
	r.stop()
	if got, want := r.confirmed(), r.stream.Frames()[first-1].Header.End; got != want {
		t.Fatalf("slot at %s, want %s", got, want)
	}
	db.Exec("INSERT INTO t VALUES (3)")
	return r
}

// What was lost and is provably repeated by the slot makes no refusal: each change that
// the sink lacks is in the stream once.
func TestWhatTheSlotRepeatsIsNoReasonToRefuse(t *testing.T) {
	t.Parallel()
	rest := []string{"insert public.t (2)", "insert public.t (3)"}
	all := append([]string{"insert public.t (1)"}, rest...)
	for name, test := range map[string]struct {
		lose func(*rig)
		want []string
	}{
		"nothing lost":            {func(*rig) {}, all},
		"end of the stream":       {func(r *rig) { r.stream.Cut(1) }, all},
		"all of the stream":       {func(r *rig) { r.stream.Cut(0) }, rest},
		"stream made anew":        {func(r *rig) { r.stream.Replace("second") }, rest},
		"stream, state and all":   {func(r *rig) { r.stream.Replace("second"); r.stream.SetState(nil); r.stream.ForgetApplied() }, rest},
		"slot replaced by a copy": {func(r *rig) { r.copySlot(r.cfg.Slot, "kept_"+r.db.Name()); r.restoreSlot("kept_" + r.db.Name()) }, all},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			forMajors(t, func(t *testing.T, server *pgtest.Server) {
				t.Parallel()
				r := applied(t, server.Database(t))
				test.lose(r)
				r.start()
				r.want(test.want...)
			})
		})
	}
}

func (r *rig) copySlot(from, to string) {
	r.db.Exec("SELECT pg_copy_logical_replication_slot($1, $2)", from, to)
}

func (r *rig) restoreSlot(from string) {
	r.db.Exec("SELECT pg_drop_replication_slot($1)", r.cfg.Slot)
	r.copySlot(from, r.cfg.Slot)
}

// A slot cannot be moved back: PostgreSQL refuses it. One that was copied earlier can take
// its place, and repeats what the stream holds.
func TestSlotThatStandsFurtherBackRepeatsOnlyWhatIsSkipped(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
		r := newRig(t, db, "t")
		r.startStreaming()
		db.Exec("INSERT INTO t VALUES (1)")
		r.drain()
		r.stop()
		back := r.confirmed()
		r.copySlot(r.cfg.Slot, "old_"+db.Name())
		r.startStreaming()
		db.Exec("INSERT INTO t VALUES (2)")
		db.Exec("INSERT INTO t VALUES (3)")
		r.drain()
		r.stop()
		if _, err := db.Connect().Exec(t.Context(), "SELECT pg_replication_slot_advance($1, $2::pg_lsn)", r.cfg.Slot, back.String()); err == nil ||
			!strings.Contains(err.Error(), "cannot advance") {
			t.Errorf("PostgreSQL moves a slot back: %v", err)
		}
		r.restoreSlot("old_" + db.Name())
		db.Exec("INSERT INTO t VALUES (4)")
		r.start()
		r.want("insert public.t (1)", "insert public.t (2)", "insert public.t (3)", "insert public.t (4)")
	})
}

// When the sink has applied what the stream lost and the slot was told so, live apply needs
// nothing more, but the history has a hole. The next frame shows it.
func TestLostEndThatIsAppliedLeavesAVisibleHole(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.startStreaming()
	for _, sql := range []string{"INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"} {
		db.Exec(sql)
		r.drain()
	}
	r.stop()
	r.stream.Cut(1)
	at := r.confirmed()
	db.Exec("INSERT INTO t VALUES (3)")
	r.start()
	r.want("insert public.t (1)", "insert public.t (3)")
	frames := r.stream.Frames()
	if got := frames[1].Header.Prev; got != (cdc.Position{Commit: at - 1}) || got == frames[0].Header.Last {
		t.Errorf("the frame after the hole continues %s, the slot stood at %s", got, at)
	}
	// The next session goes on behind it.
	r.stop()
	db.Exec("INSERT INTO t VALUES (4)")
	r.start()
	r.want("insert public.t (1)", "insert public.t (3)", "insert public.t (4)")
}

func TestNewStreamBesideAnUnappliedSlotStartsOver(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.stream.AutoApply(false)
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	r.stop()
	r.stream.Cut(0)
	r.start()
	r.want("insert public.t (1)")
	if s := r.c.Status(); s.State != capture.StateStreaming {
		t.Errorf("status %+v", s)
	}
}
