package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// progress is what the status says of the copy of a table of schema public.
func progress(now *pb.StatusResponse, table string) *pb.TableSnapshotProgress {
	for _, p := range now.GetTableProgress() {
		if p.GetTableName() == "public."+table {
			return p
		}
	}
	return nil
}

// items makes a table with that many rows.
func (r *rig) items(table string, rows int) {
	r.t.Helper()
	r.db.Exec(fmt.Sprintf("INSERT INTO %s SELECT i, 'v' || i FROM generate_series(1, %d) i", table, rows))
}

// TestTablesAreCopiedAgainWhileTheyChange on request, some or all.
func TestTablesAreCopiedAgainWhileTheyChange(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		random := random(t)
		r := setup(t, loadDDL, loadTables...).set("SINK_DELETE_MODE", mode).set("SNAPSHOT_CHUNK_ROWS", "100")
		ids := r.existing(500)
		s := r.start()
		l := r.loadOn(random, 2*time.Millisecond, ids)
		for _, tables := range [][]string{nil, {"orders", "public.lines"}, {"ledger"}} {
			if err := r.sink.Exec("DELETE FROM " + sinkDatabase + ".ledger WHERE n < -1000"); err != nil {
				t.Fatal(err)
			}
			before := s.look()
			s.succeeds(s.control.StartSnapshot(s.call(), &pb.StartSnapshotRequest{Tables: tables}))
			first := strings.TrimPrefix(append(tables, "orders")[0], "public.")
			s.copies("it is copied again", func(now *pb.StatusResponse) bool {
				p := progress(now, first)
				return p.GetState() == "done" && p.GetFinishedAtUnixMs() != progress(before, first).GetFinishedAtUnixMs()
			})
			l.more(10)
		}
		s.copied()
		l.stop()
		r.same(s, loadTables...)
		r.confirmedIsApplied(l)
		answer, err := s.control.StartSnapshot(s.call(), &pb.StartSnapshotRequest{Tables: []string{"missing"}})
		if err != nil || answer.GetSuccess() || !strings.Contains(answer.GetMessage(), "table public.missing is not captured") {
			t.Errorf("a table that is not captured is answered %v, %v", answer, err)
		}
	})
}

// TestPausedCopyHoldsOverARestart, and changes go on meanwhile.
func TestPausedCopyHoldsOverARestart(t *testing.T) {
	t.Parallel()
	r := setup(t, itemDDL, "item").slowly(300, 50)
	r.items("item", 3000)
	s := r.begin()
	s.copies("it has begun", begun)
	s.succeeds(s.control.PauseSnapshot(s.call(), &pb.PauseSnapshotRequest{}))
	s.copies("the status says so", func(now *pb.StatusResponse) bool {
		answer := s.check()
		return now.GetSnapshotPaused() && now.GetSnapshotActive() && answer.GetStage() == pb.HealthCheckResponse_STAGE_SNAPSHOT &&
			answer.GetStageDetail() == "Replicating; the copy of existing rows is paused" && progress(now, "item").GetState() == "waiting"
	})
	at := s.look().GetSnapshotRowsSynced()
	s.kill()
	s = r.begin()
	r.db.Exec("INSERT INTO item VALUES (-1, 'while paused')")
	r.settle(s)
	if r.row("item", "id = -1") == nil {
		t.Error("a change has not arrived while the copy is paused")
	}
	stays(t, time.Second, "nothing is copied", func() (bool, string) {
		now := s.look()
		return now.GetSnapshotPaused() && now.GetSnapshotRowsSynced() <= at+100, now.String()
	})
	s.succeeds(s.control.ResumeSnapshot(s.call(), &pb.ResumeSnapshotRequest{}))
	s.atFullSpeed()
	s.copied()
	r.same(s, "item")
}

// TestAddedTableIsCopiedAndJoins the stream; one that is taken out stops and stays.
func TestAddedTableIsCopiedAndJoins(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)", "a").slowly(200, 50)
	r.items("a", 500)
	r.items("b", 1500)
	s := r.start()
	r.same(s, "a")
	s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{Tables: []string{"mark", "b"}}))
	s.copies("the added table is being copied", func(now *pb.StatusResponse) bool { return progress(now, "b").GetRowsSynced() > 0 })
	r.db.Exec("UPDATE b SET v = 'changed' WHERE id % 7 = 0; DELETE FROM b WHERE id % 50 = 0; INSERT INTO b VALUES (-5, 'inserted'); UPDATE a SET v = 'not seen'")
	s.kill()
	s = r.begin()
	s.atFullSpeed()
	s.copied()
	r.same(s, "b")
	if now := s.look(); progress(now, "a") != nil {
		t.Errorf("the table that was taken out is still listed: %v", now.GetTableProgress())
	}
	if n := r.count("a", "v LIKE 'v%'"); n != 500 {
		t.Errorf("%d rows of the table that was taken out are as they were, want 500", n)
	}
}

func TestSnapshotNeverCopiesNothing(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)", "a").set("SNAPSHOT", "never")
	r.items("a", 100)
	r.items("b", 100)
	s := r.start()
	s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{Tables: []string{"mark", "a", "b"}}))
	r.db.Exec("INSERT INTO a VALUES (-1, 'x'); INSERT INTO b VALUES (-1, 'x')")
	r.settle(s)
	for _, table := range []string{"a", "b"} {
		if n := r.count(table, "id < 1000"); n != 1 {
			t.Errorf("%d rows are in %s, want the one that was inserted", n, table)
		}
	}
	s.succeeds(s.control.StartSnapshot(s.call(), &pb.StartSnapshotRequest{Tables: []string{"a"}}))
	s.copies("the table that was asked for is copied", func(now *pb.StatusResponse) bool {
		return progress(now, "a").GetState() == "done" && progress(now, "b").GetState() == "none" && !now.GetSnapshotActive()
	})
	r.same(s, "a")
	if n := r.count("b", "id < 1000"); n != 1 {
		t.Errorf("%d rows are in b, want 1", n)
	}
}

// TestSnapshotOnlyCopiesAndEnds with exit code 0, however often it is started.
func TestSnapshotOnlyCopiesAndEnds(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...).set("SNAPSHOT", "only").set("SNAPSHOT_CHUNK_ROWS", "100")
	ids := r.existing(500)
	l := r.loadOn(random(t), 5*time.Millisecond, ids)
	s := r.up()
	s.copies("rows are copied", func(now *pb.StatusResponse) bool { return now.GetSnapshotRowsSynced() > 500 })
	s.kill()
	s = r.up()
	eventually(t, "it drains", func() (bool, string) {
		if s.exited() {
			return true, ""
		}
		return strings.Contains(s.out.String(), "is draining"), s.out.String()
	})
	s.kill() // It may be over.
	l.stop()
	r.db.Exec("INSERT INTO ledger VALUES (-7, 'last')")
	if code := r.launch().exitCode(patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	r.equal(loadTables...)
	r.db.Exec("INSERT INTO ledger VALUES (-8, 'later')")
	if code := r.launch().exitCode(patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	r.equal(loadTables...)
	s = r.set("SNAPSHOT", "initial").start()
	r.db.Exec("INSERT INTO ledger VALUES (-9, 'latest')")
	r.same(s, loadTables...)
}

// TestSnapshotOnlyEndsBothStages where they are apart.
func TestSnapshotOnlyEndsBothStages(t *testing.T) {
	t.Parallel()
	a := setup(t, itemDDL, "item").set("SNAPSHOT", "only").onSocket()
	a.items("item", 300)
	capture, apply := a.capture("capture-1"), a.apply("apply-1")
	for _, s := range []*service{capture, apply} {
		if code := s.exitCode(patience); code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	}
	a.equal("item")
}

// TestDrainDuringACopyEndsItAndTheNextStartGoesOn: all that was committed is applied, and
// so is what was copied until then.
func TestDrainDuringACopyEndsItAndTheNextStartGoesOn(t *testing.T) {
	t.Parallel()
	r := setup(t, itemDDL, "item").slowly(300, 50)
	r.items("item", 3000)
	s := r.begin()
	s.copies("it has begun", begun)
	r.db.Exec("INSERT INTO item VALUES (-1, 'before the drain')")
	s.succeeds(s.control.DrainAndStop(s.call(), &pb.DrainRequest{}))
	if code := s.exitCode(patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	have := r.count("item", "id > 0")
	if r.row("item", "id = -1") == nil || have == 0 || have == 3000 {
		t.Errorf("after the drain %d rows are in the sink, and the change: %v", have, r.row("item", "id = -1"))
	}
	s = r.set("SNAPSHOT_RATE", "0").begin()
	if now := progress(s.look(), "item").GetRowsSynced(); now < uint64(have) { //nolint:gosec // Positive.
		t.Errorf("%d rows were in the sink, and the copy went on at %d", have, now)
	}
	s.copied()
	r.same(s, "item")
}

// TestCopyWaitsForASinkThatIsAwayOrPaused, and arrives afterwards.
func TestCopyWaitsForASinkThatIsAwayOrPaused(t *testing.T) {
	t.Parallel()
	for _, why := range []string{"away", "paused"} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			r := setup(t, itemDDL, "item").set("BUS_MAX_BYTES", "8MiB").set("BUS_RETENTION", "0").set("SNAPSHOT_CHUNK_ROWS", "2000")
			r.db.Exec("INSERT INTO item SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 20000) i")
			s := r.begin()
			if why == "away" {
				r.sink.Down()
			} else {
				s.pause()
			}
			s.copies("the copy waits for the sink", func(now *pb.StatusResponse) bool {
				return strings.Contains(now.GetSnapshotDetail(), "must be applied first") && strings.Contains(progress(now, "item").GetWaitingFor(), "must be applied first")
			})
			// Changes are still taken: there is room for them.
			r.db.Exec("INSERT INTO item VALUES (-1, 'while it waits')")
			r.captured(s)
			if why == "away" {
				r.sinkUp()
			} else {
				s.resume()
			}
			s.copied()
			r.same(s, "item")
		})
	}
}

// TestTableWithoutAKeyIsCopiedWhileItGrows has each row once, through a kill and a rate.
func TestTableWithoutAKeyIsCopiedWhileItGrows(t *testing.T) {
	t.Parallel()
	random := random(t)
	r := setup(t, eventsDDL, "events").set("SNAPSHOT_RATE", "4000")
	r.db.Exec("INSERT INTO events SELECT 1000 + i % 50, repeat('w', 300) || i % 3 FROM generate_series(1, 20000) i")
	want := history{}
	for n := range 150 {
		rows := pgtest.Value[int](r.db, "SELECT count(*)::int FROM events WHERE n = $1 AND v = $2", 1000+n%50, strings.Repeat("w", 300)+fmt.Sprint(n%3))
		want[change(0, fmt.Sprint(1000+n%50), strings.Repeat("w", 300)+fmt.Sprint(n%3))] = rows
	}
	s := r.begin()
	s.copies("it has begun", begun)
	s.kill()
	s = r.begin()
	s.atFullSpeed()
	s.copied()
	for range 20 {
		want.happen(t.Context(), r, random)
	}
	r.settle(s)
	r.exactly(sinkDatabase, want)
}

// TestCopySettingsChangeWhileItRunsAndHoldOverARestart.
func TestCopySettingsChangeWhileItRunsAndHoldOverARestart(t *testing.T) {
	t.Parallel()
	r := setup(t, itemDDL, "item").slowly(20, 10)
	r.items("item", 3000)
	s := r.begin()
	s.copies("it is slow", func(now *pb.StatusResponse) bool {
		return begun(now) && now.GetSnapshotRate() == 20 && now.GetSnapshotChunkRows() == 10 && now.GetSnapshotWorkers() == 2
	})
	rate := uint64(40)
	message := s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{SnapshotWorkers: 3, SnapshotChunkRows: 30, SnapshotRate: &rate}))
	if message != "Configuration reloaded: snapshot_workers=3, snapshot_chunk_rows=30, snapshot_rate=40" {
		t.Errorf("the answer is %q", message)
	}
	s.kill()
	s = r.begin()
	now := s.look()
	if now.GetSnapshotRate() != 40 || now.GetSnapshotChunkRows() != 30 || now.GetSnapshotWorkers() != 3 || !now.GetSnapshotActive() {
		t.Errorf("after a restart the settings are %d, %d and %d", now.GetSnapshotRate(), now.GetSnapshotChunkRows(), now.GetSnapshotWorkers())
	}
	_, err := s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{SnapshotWorkers: 65})
	if err == nil || !strings.Contains(err.Error(), "snapshot_workers must be 1 to 64") {
		t.Errorf("too many workers are answered %v", err)
	}
	s.atFullSpeed()
	s.copied()
	r.same(s, "item")
}

// TestChangesAreNotHeldUpByALongCopy into a sink that is slow: they arrive soon, and the
// source may let go of its log meanwhile.
func TestChangesAreNotHeldUpByALongCopy(t *testing.T) {
	t.Parallel()
	r := setup(t, itemDDL, "item").set("FLUSH_BYTES", "1MiB").set("SNAPSHOT_CHUNK_ROWS", "1000")
	r.db.Exec("INSERT INTO item SELECT i, repeat(md5(i::text), 30) FROM generate_series(1, 100000) i")
	s := r.begin()
	r.script(starrockstest.Fault{Kind: starrockstest.FaultSlow, Table: "item", Count: -1, Delay: starrockstest.Duration(300 * time.Millisecond)})
	s.copies("it has begun", begun)
	before, worst, looks := r.confirmed(), time.Duration(0), 0
	for s.look().GetSnapshotActive() {
		took, starved := r.flowing()
		if looks++; !starved {
			worst = max(worst, took)
		}
	}
	t.Logf("%d looks during the copy: a change took %s at most; memory at most %d MiB", looks, worst.Round(time.Millisecond), s.rssPeak()>>20)
	if looks < 2 || worst > 15*time.Second {
		t.Errorf("%d looks, a change took %s", looks, worst)
	}
	if after := r.confirmed(); after <= before {
		t.Errorf("the slot stood at %s during the copy", after)
	}
	r.sink.ClearFaults()
	r.same(s, "item")
}

// TestSnapshotCommandFollowsTheCopy and says what it did.
func TestSnapshotCommandFollowsTheCopy(t *testing.T) {
	t.Parallel()
	a := setup(t, itemDDL+"CREATE TABLE other (id int PRIMARY KEY)", "item", "other").onSocket()
	a.items("item", 700)
	capture, apply := a.capture("capture-1"), a.apply("apply-1")
	capture.copied()
	apply.copied()
	for _, asked := range []*service{capture, apply} {
		command := func(args ...string) string {
			s := a.process(map[string]string{"GRPC_ADDR": asked.address()}, append([]string{"snapshot"}, args...)...)
			if code := s.exitCode(patience); code != 0 {
				t.Errorf("exit code %d, want 0:\n%s", code, s.out.String())
			}
			return s.out.String()
		}
		if text := command("--tables", "item"); !strings.Contains(text, "copied 700 rows of 1 tables") {
			t.Errorf("the command says %q", text)
		}
		if text := command(); !strings.Contains(text, "copied 700 rows of 3 tables") {
			t.Errorf("the command says %q", text)
		}
		command("--pause")
		if text := command("--tables", "public.item", "--detach"); !strings.Contains(text, "Snapshot started") {
			t.Errorf("the command says %q", text)
		}
		if text := command("--resume"); !strings.Contains(text, "copied 700 rows of 3 tables") {
			t.Errorf("the command says %q", text)
		}
	}
	a.same(apply, "item")
}
