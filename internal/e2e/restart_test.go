package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

func TestKillAtRandomMomentsLosesNothing(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		random := random(t)
		r := setup(t, loadDDL, loadTables...)
		s := r.set("SINK_DELETE_MODE", mode).set("FLUSH_SIZE", "50").start()
		l := r.load(random, 2*time.Millisecond)
		l.more(20)
		slot := r.slotIdentity()
		for range 5 {
			wait := time.NewTimer(time.Duration(random.IntN(400)) * time.Millisecond)
			<-wait.C
			s.kill()
			r.confirmedIsApplied(l)
			if now := r.slotIdentity(); now != slot {
				t.Fatalf("the slot was %s and is %s", slot, now)
			}
			s = r.up()
		}
		l.more(50)
		l.stop()
		r.same(s, loadTables...)
		t.Logf("%d transactions, %d of them confirmed", l.count(), r.confirmedIsApplied(l))
	})
}

// slotIdentity tells a slot from one that was created again: its catalog_xmin never
// goes back, and the oldest of all is remembered by its name only.
func (r *rig) slotIdentity() string {
	r.t.Helper()
	return pgtest.Value[string](r.db, "SELECT slot_name || ' ' || plugin || ' ' || datoid FROM pg_replication_slots WHERE slot_name = $1", r.slot)
}

// TestKillInTheMiddleOfALoadAppliesItOnce kills while a load is in the sink: committed
// and not answered, or not committed yet. In the second case the sink may still commit
// it at any time, so nothing newer may be applied before that is settled.
func TestKillInTheMiddleOfALoadAppliesItOnce(t *testing.T) {
	t.Parallel()
	for _, kind := range []starrockstest.FaultKind{starrockstest.FaultHold, starrockstest.FaultHoldBeforeCommit, starrockstest.FaultCommitLate} {
		for _, released := range []string{"before the restart", "after it"} {
			t.Run(string(kind)+" released "+released, func(t *testing.T) {
				t.Parallel()
				r := setup(t, "CREATE TABLE doc (id int PRIMARY KEY, v text, body text); ALTER TABLE doc ALTER COLUMN body SET STORAGE EXTERNAL", "doc")
				s := r.start()
				r.db.Exec("INSERT INTO doc SELECT i, 'v', repeat('b', 5000) FROM generate_series(1, 20) i")
				r.same(s, "doc")
				r.script(starrockstest.Fault{Kind: kind, Table: "doc"})
				r.db.Exec("UPDATE doc SET id = id + 100 WHERE id <= 5; UPDATE doc SET v = 'w' WHERE id > 10; DELETE FROM doc WHERE id = 20")
				eventually(t, "the load is in the sink", func() (bool, string) { return len(r.sink.Faults()) == 0, fmt.Sprint(r.sink.Faults()) })
				s.kill()
				if released == "before the restart" {
					r.sink.Release()
				}
				r.db.Exec("UPDATE doc SET v = 'after' WHERE id > 10; INSERT INTO doc VALUES (20, 'new', NULL); UPDATE doc SET id = id + 100 WHERE id > 100; DELETE FROM doc WHERE id = 6")
				s = r.up()
				r.same(s, "doc")
				r.sink.Release()
				stays(t, time.Second, "a late commit changes nothing", func() (bool, string) {
					found := r.compare("doc")
					return len(found) == 0, strings.Join(found, "\n")
				})
			})
		}
	}
}

func TestSIGTERMUnderLoadExitsCleanlyAndLosesNothing(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...)
	s := r.set("SHUTDOWN_TIMEOUT_S", "10").start()
	l := r.load(random(t), 2*time.Millisecond)
	for range 3 {
		l.more(60)
		began := time.Now()
		if code := s.terminate(15 * time.Second); code != 0 {
			t.Fatalf("exit code %d, want 0", code)
		}
		t.Logf("stopped within %s", time.Since(began).Round(time.Millisecond))
		r.confirmedIsApplied(l)
		if !strings.Contains(s.out.String(), "dbmazz has stopped") {
			t.Error("the log does not say that dbmazz has stopped")
		}
		s = r.start()
	}
	l.stop()
	r.same(s, loadTables...)
}

// TestSIGTERMWhileTheSinkHangsStaysWithinItsBound: a load that never ends must not keep
// the process.
func TestSIGTERMWhileTheSinkHangsStaysWithinItsBound(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	s := r.set("SHUTDOWN_TIMEOUT_S", "3").start()
	r.script(starrockstest.Fault{Kind: starrockstest.FaultHold, Table: "item"})
	r.db.Exec("INSERT INTO item SELECT generate_series(1, 10)")
	eventually(t, "the load hangs", func() (bool, string) { return len(r.sink.Faults()) == 0, "" })
	if code := s.terminate(8 * time.Second); code != 0 {
		t.Fatalf("exit code %d, want 0", code)
	}
	r.sink.Release()
	s = r.start()
	r.same(s, "item")
}

func TestChangesMadeWhileDownArrive(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"SIGTERM", "SIGKILL"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text)", "item")
			s := r.start()
			r.db.Exec("INSERT INTO item VALUES (1, 'up')")
			r.settle(s)
			if how == "SIGTERM" {
				s.terminate(20 * time.Second)
			} else {
				s.kill()
			}
			r.db.Exec("INSERT INTO item VALUES (2, 'down'); UPDATE item SET v = 'down' WHERE id = 1")
			r.db.Exec("INSERT INTO item VALUES (3, 'gone'); DELETE FROM item WHERE id = 3")
			s = r.start()
			r.same(s, "item")
		})
	}
}

func TestRestartOfPostgreSQLUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{})
	r := setupOn(t, server.Database(t), starrockstest.Options{}, loadDDL, loadTables...)
	s := r.start()
	l := r.load(random(t), 2*time.Millisecond)
	l.more(50)
	if err := server.Restart(t.Context()); err != nil { // A fast stop, which asks walsenders for a last word.
		t.Fatal(err)
	}
	l.more(50)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Check says that PostgreSQL is away", func() (bool, string) {
		answer := s.check()
		return strings.Contains(answer.GetErrorDetail(), "PostgreSQL connection failed"), answer.String()
	})
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.more(50)
	l.stop()
	r.same(s, loadTables...)
	r.confirmedIsApplied(l)
	if s.exited() {
		t.Error("dbmazz has exited")
	}
}

func TestTerminatedWalsenderIsReplacedWithoutLoss(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...)
	s := r.start()
	l := r.load(random(t), 2*time.Millisecond)
	for range 4 {
		l.more(40)
		eventually(t, "a walsender streams", func() (bool, string) { return r.walsender() != 0, "none" })
		pid := r.walsender()
		r.db.Exec("SELECT pg_terminate_backend($1::int)", pid)
		eventually(t, "another walsender streams", func() (bool, string) {
			now := r.walsender()
			return now != 0 && now != pid, fmt.Sprint(now)
		})
	}
	l.stop()
	r.same(s, loadTables...)
}

// TestEmptyDataFolderWithTheSlotGoesOnFromTheSlot: the slot has confirmed only what is
// in the sink, so without the queue the changes after it come once more and change
// nothing.
func TestEmptyDataFolderWithTheSlotGoesOnFromTheSlot(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text, body text); ALTER TABLE item ALTER COLUMN body SET STORAGE EXTERNAL", "item")
	s := r.start()
	r.db.Exec("INSERT INTO item SELECT i, 'v', repeat('b', 5000) FROM generate_series(1, 20) i")
	r.settle(s)
	r.script(starrockstest.Fault{Kind: starrockstest.FaultHold, Table: "item"})
	r.db.Exec("UPDATE item SET v = 'w' WHERE id < 10; DELETE FROM item WHERE id = 11; UPDATE item SET id = id + 100, body = 'short' WHERE id IN (12, 13)")
	eventually(t, "the load is committed", func() (bool, string) { return r.row("item", "id = 112") != nil, "" })
	s.kill()
	r.sink.Release()
	r.db.Exec("INSERT INTO item VALUES (50, 'down', NULL)")
	if err := os.Rename(r.env["BUS_DATA_DIR"], filepath.Join(r.dir, "away")); err != nil {
		t.Fatal(err)
	}
	s = r.start()
	r.same(s, "item")
}

// TestEmptyDataFolderAfterAMovedRowStopsOrIsRight: the one change that cannot be repeated
// without the queue. The batch is in the sink, but its label and plan went with the
// folder; the row's large value is under neither key that dbmazz could look for.
func TestEmptyDataFolderAfterAMovedRowStopsOrIsRight(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text, body text); ALTER TABLE item ALTER COLUMN body SET STORAGE EXTERNAL", "item")
		s := r.set("SINK_DELETE_MODE", mode).start()
		r.db.Exec("INSERT INTO item SELECT i, 'v', repeat('b', 5000) FROM generate_series(1, 5) i")
		r.settle(s)
		r.script(starrockstest.Fault{Kind: starrockstest.FaultHold, Table: "item"})
		r.db.Exec("UPDATE item SET id = id + 100 WHERE id IN (2, 3)")
		bad := r.mark()
		eventually(t, "the load is committed", func() (bool, string) { return r.row("item", "id = 102") != nil, "" })
		s.kill()
		r.sink.Release()
		if err := os.Rename(r.env["BUS_DATA_DIR"], filepath.Join(r.dir, "away")); err != nil {
			t.Fatal(err)
		}
		s = r.up()
		eventually(t, "it is applied right, or refused with a remedy", func() (bool, string) {
			answer := s.check()
			refused := strings.Contains(answer.GetErrorDetail(), "REPLICA IDENTITY FULL")
			return refused || r.confirmed() >= bad, answer.String()
		})
		if r.confirmed() >= bad {
			s.copied() // The table counts as one that was never copied.
			r.same(s, "item")
			return
		}
		t.Logf("refused: %s", s.check().GetErrorDetail())
	})
}

// TestMovedOrRecreatedSlotIsRefused: a slot that somebody else has moved, or created again, has
// lost changes. dbmazz must say so and confirm nothing.
func TestMovedOrRecreatedSlotIsRefused(t *testing.T) {
	t.Parallel()
	how := map[string]string{
		"moved":     "SELECT pg_replication_slot_advance('%[1]s', pg_current_wal_lsn())",
		"recreated": "SELECT pg_drop_replication_slot('%[1]s'); SELECT pg_create_logical_replication_slot('%[1]s', 'pgoutput')",
		"dropped":   "SELECT pg_drop_replication_slot('%[1]s')",
	}
	for name, sql := range how {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
			s := r.start()
			r.db.Exec("INSERT INTO item VALUES (1)")
			r.settle(s)
			s.terminate(20 * time.Second)
			r.db.Exec("INSERT INTO item VALUES (2)")
			r.db.Exec(fmt.Sprintf(sql, r.slot))
			r.db.Exec("INSERT INTO item VALUES (3)")
			before := r.confirmed()
			s = r.up()
			s.complains("refuse to stream", r.slot, "Recovery")
			stays(t, 2*time.Second, "nothing is confirmed and nothing created", func() (bool, string) {
				now := r.confirmed()
				return now == before && r.row("item", "id = 3") == nil, now.String()
			})
		})
	}
}

// TestSecondProcessOnTheSlotDoesNotAct: two with a data folder each, on one slot.
func TestSecondProcessOnTheSlotDoesNotAct(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...)
	first := r.start()
	l := r.load(random(t), 5*time.Millisecond)
	l.more(20)
	pid := r.walsender()
	r.set("BUS_DATA_DIR", filepath.Join(r.dir, "second"))
	second := r.up()
	second.complains(r.slot, "in use")
	l.more(50)
	if now := r.walsender(); now != pid {
		t.Errorf("the walsender of the first process was %d and is %d", pid, now)
	}
	second.kill()
	l.stop()
	r.same(first, loadTables...)
}

// TestSecondProcessOnTheDataFolderDoesNotAct: it says why and ends, and the first goes
// on.
func TestSecondProcessOnTheDataFolderDoesNotAct(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...)
	first := r.start()
	l := r.load(random(t), 5*time.Millisecond)
	l.more(20)
	pid := r.walsender()
	second := r.launch()
	if code := second.exitCode(patience); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, text := range []string{"data folder is in use", r.env["BUS_DATA_DIR"], strconv.Itoa(first.cmd.Process.Pid)} {
		if !strings.Contains(second.out.String(), text) {
			t.Errorf("no %q in the message of the second process", text)
		}
	}
	l.more(50)
	if now := r.walsender(); now != pid {
		t.Errorf("the walsender of the first process was %d and is %d", pid, now)
	}
	l.stop()
	r.same(first, loadTables...)
}

// TestRaceDetectorFindsNothing runs a binary with the race detector through load, a
// pause, a change of the tables and a stop.
func TestRaceDetectorFindsNothing(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("no C compiler for the race detector") // skip: cgo needs one.
	}
	r := setup(t, loadDDL+"CREATE TABLE extra (id int PRIMARY KEY)", loadTables...)
	r.race = true
	s := r.start()
	l := r.load(random(t), 2*time.Millisecond)
	l.more(30)
	s.pause()
	l.more(30)
	s.resume()
	s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{FlushSize: 100, Tables: append([]string{"mark", "extra"}, loadTables...)}))
	s.sample()
	r.db.Exec("INSERT INTO extra VALUES (1)")
	r.sink.Down()
	l.more(30)
	r.sinkUp()
	r.db.Exec("SELECT pg_terminate_backend($1::int)", r.walsender())
	l.more(30)
	if code := s.terminate(30 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0: the race detector exits with 66", code)
	}
	s = r.start()
	l.stop()
	r.settle(s)
	s.succeeds(s.control.DrainAndStop(s.call(), &pb.DrainRequest{}))
	if code := s.exitCode(patience); code != 0 {
		t.Errorf("exit code %d, want 0: the race detector exits with 66", code)
	}
	r.equal(append([]string{"extra"}, loadTables...)...)
}

// TestKillDuringTheFirstStartLeavesAFolderThatOpens: whatever of the queue was being made.
func TestKillDuringTheFirstStartLeavesAFolderThatOpens(t *testing.T) {
	t.Parallel()
	random := random(t)
	r := setup(t, itemDDL, "item").set("SINK_REFUSED_ROWS", "dead-letter")
	for round := range number(t, roundsEnv, 12) {
		r.set("BUS_DATA_DIR", filepath.Join(r.dir, fmt.Sprintf("bus-%d", round)))
		s := r.launch()
		wait := time.NewTimer(time.Duration(10+random.IntN(140)) * time.Millisecond)
		<-wait.C
		s.kill()
		s = r.start()
		if round == 0 {
			r.db.Exec("INSERT INTO item VALUES (1, 'v')")
			r.same(s, "item")
		}
		s.kill()
	}
}
