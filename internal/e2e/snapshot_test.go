package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// existing commits n orders and what belongs to them before dbmazz is there, and returns
// their ids.
func (r *rig) existing(n int) []int64 {
	r.t.Helper()
	r.db.Exec(fmt.Sprintf(`INSERT INTO orders SELECT i::bigint * 1000003 %% (1 << 24) * 65536, 'c' || i, i * 0.01, E'tab\t\\N ' || i, repeat('b' || i, i %% 7 * 150), now() FROM generate_series(1, %[1]d) i;
		INSERT INTO lines SELECT o.id, p, 's' FROM orders o, generate_series(1, 3) p;
		INSERT INTO ledger SELECT -1000 - i, 'before' FROM generate_series(1, %[1]d) i`, n))
	return pgtest.Value[[]int64](r.db, "SELECT array_agg(id ORDER BY id) FROM orders")
}

// slowly makes the copy of existing rows last for a while, in small chunks.
func (r *rig) slowly(rate, chunkRows int) *rig {
	return r.set("SNAPSHOT_RATE", fmt.Sprint(rate)).set("SNAPSHOT_CHUNK_ROWS", fmt.Sprint(chunkRows))
}

// begin starts dbmazz and waits until it is serving, not until all is copied.
func (r *rig) begin() *service {
	r.t.Helper()
	s := r.up()
	s.serving()
	return s
}

// copies waits for a state of the copy.
func (s *service) copies(what string, ok func(*pb.StatusResponse) bool) (now *pb.StatusResponse) {
	s.t.Helper()
	eventually(s.t, what, func() (bool, string) {
		if s.exited() {
			s.t.Fatalf("dbmazz has exited: %v", s.err)
		}
		now = s.look()
		return ok(now), fmt.Sprintf("active %t, paused %t, %v; %s", now.GetSnapshotActive(), now.GetSnapshotPaused(), now.GetTableProgress(), s.check())
	})
	return now
}

// begun tells that some rows of the copy are in the stream.
func begun(now *pb.StatusResponse) bool {
	return now.GetSnapshotActive() && now.GetSnapshotRowsSynced() > 0
}

// TestExistingRowsArriveUnderLoadThroughKills in one process.
func TestExistingRowsArriveUnderLoadThroughKills(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		random := random(t)
		r := setup(t, loadDDL, loadTables...).set("SINK_DELETE_MODE", mode).set("FLUSH_SIZE", "500").slowly(4000, 100)
		ids := r.existing(2000)
		// What was committed before there was a slot comes by the copy, whatever the
		// slot has confirmed.
		early := mode == "soft"
		var l *load
		if early {
			l = r.loadOn(random, 2*time.Millisecond, ids)
			l.more(20)
		}
		s := r.begin()
		if !early {
			l = r.loadOn(random, 2*time.Millisecond, ids)
		}
		for range number(t, roundsEnv, 3) {
			wait := time.NewTimer(time.Duration(random.IntN(700)) * time.Millisecond)
			<-wait.C
			s.kill()
			if !early {
				r.confirmedIsApplied(l)
			}
			s = r.up()
		}
		s.copied()
		l.more(20)
		l.stop()
		r.same(s, loadTables...)
		t.Logf("%d transactions, %d of them confirmed; %v", l.count(), r.confirmedIsApplied(l), s.look().GetTableProgress())
	})
}

// TestExistingRowsArriveWithTheStagesApart and each of them killed in turns.
func TestExistingRowsArriveWithTheStagesApart(t *testing.T) {
	t.Parallel()
	random := random(t)
	a := setup(t, loadDDL, loadTables...).set("FLUSH_SIZE", "500").slowly(4000, 100).onSocket()
	ids := a.existing(2000)
	capture, apply := a.capture("capture-1"), a.apply("apply-1")
	capture.serving()
	l := a.loadOn(random, 2*time.Millisecond, ids)
	for round := range number(t, roundsEnv, 4) {
		wait := time.NewTimer(time.Duration(random.IntN(500)) * time.Millisecond)
		<-wait.C
		if round%2 == 0 {
			capture.kill()
			capture = a.capture(fmt.Sprintf("capture-%d", round+2))
		} else {
			apply.kill()
			apply = a.apply(fmt.Sprintf("apply-%d", round+2))
		}
		a.confirmedIsApplied(l)
	}
	capture.copied()
	apply.copied()
	l.stop()
	a.same(apply, loadTables...)
}

// rowsRead is how many rows of a table the source has given out.
func (r *rig) rowsRead(table string) int {
	r.t.Helper()
	return pgtest.Value[int](r.db, "SELECT (COALESCE(idx_tup_fetch, 0) + seq_tup_read)::int FROM pg_stat_user_tables WHERE relname = $1", table)
}

// atFullSpeed ends the copy's throttle.
func (s *service) atFullSpeed() {
	s.t.Helper()
	var rate uint64
	s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{SnapshotRate: &rate}))
}

// TestACopyThatGoesOnReadsNothingTwice but what was under way when it was killed.
func TestACopyThatGoesOnReadsNothingTwice(t *testing.T) {
	t.Parallel()
	const rows, chunk, kills = 6000, 100, 4
	random := random(t)
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text)", "item").slowly(400, chunk) // It ends long after the kills.
	r.db.Exec("INSERT INTO item SELECT i, 'v' || i FROM generate_series(1, $1::int) i", rows)
	before := r.rowsRead("item")
	s := r.begin()
	for range kills {
		at := s.copies("the copy goes on", begun).GetSnapshotRowsSynced()
		ahead := uint64(random.IntN(5) * chunk)
		s.copies("it gets further", func(now *pb.StatusResponse) bool { return now.GetSnapshotRowsSynced() >= min(at+ahead, rows) })
		s.kill()
		s = r.begin()
	}
	s.atFullSpeed()
	s.copied()
	// A chunk that is read and not written, and one that is written and not remembered.
	eventually(t, "each row is read once", func() (bool, string) {
		read := r.rowsRead("item") - before
		return read >= rows && read <= rows+kills*3*chunk, fmt.Sprintf("%d rows of %d were read", read, rows)
	})
	r.same(s, "item")
}
