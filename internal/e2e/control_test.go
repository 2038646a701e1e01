package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

func TestPauseStopsTheSinkAndNotTheQueueAndSurvivesAKill(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	senderTimeout(db, 5*time.Second)
	r := setupOn(t, db, starrockstest.Options{}, loadDDL, loadTables...)
	s := r.start()
	l := r.load(random(t), 5*time.Millisecond)
	l.more(20)
	s.pause()
	loads, before, pid := len(r.sink.Loads()), s.look(), r.walsender()
	l.more(50)
	stays(t, 11*time.Second, "a paused pipeline keeps its connection and loads nothing", func() (bool, string) {
		return len(r.sink.Loads()) == loads && r.walsender() == pid, fmt.Sprint(len(r.sink.Loads()), r.walsender())
	})
	paused := s.look()
	if paused.GetState() != pb.StatusResponse_PAUSED || paused.GetPausedSinceUnixMs() == 0 {
		t.Errorf("the state is %v since %d, want PAUSED", paused.GetState(), paused.GetPausedSinceUnixMs())
	}
	if paused.GetPendingEvents() <= before.GetPendingEvents() || paused.GetCurrentLsn() <= before.GetCurrentLsn() {
		t.Errorf("pending events went from %d to %d and the LSN from %d to %d, want both to grow",
			before.GetPendingEvents(), paused.GetPendingEvents(), before.GetCurrentLsn(), paused.GetCurrentLsn())
	}
	if answer := s.check(); answer.GetStatus() != pb.HealthCheckResponse_SERVING {
		t.Errorf("a pause that was asked for is %v", answer)
	}
	refused, err := s.control.Pause(s.call(), &pb.PauseRequest{})
	if err != nil || refused.GetSuccess() || refused.GetMessage() != "CDC is already paused" {
		t.Errorf("a second pause is answered %v, %v", refused, err)
	}

	s.kill()
	s = r.start()
	l.more(20)
	if now := s.look(); now.GetState() != pb.StatusResponse_PAUSED {
		t.Errorf("after a kill the state is %v, want PAUSED", now.GetState())
	}
	stays(t, time.Second, "it still loads nothing", func() (bool, string) {
		return len(r.sink.Loads()) == loads, fmt.Sprint(len(r.sink.Loads()))
	})
	r.confirmedIsApplied(l)
	s.resume()
	l.stop()
	r.same(s, loadTables...)
	refused, err = s.control.Resume(s.call(), &pb.ResumeRequest{})
	if err != nil || refused.GetSuccess() || refused.GetMessage() != "CDC is already running" {
		t.Errorf("a second resume is answered %v, %v", refused, err)
	}
}

func TestReloadOfTheFlushSettingsCountsForTheNextBatch(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...)
	s := r.set("MIN_LOAD_INTERVAL_MS", "3000").set("FLUSH_INTERVAL_MS", "60000").start()
	l := r.load(random(t), 4*time.Millisecond)
	l.more(30)
	rate := func() int { // Batches while the load commits for about two seconds.
		before := r.loads("ledger")
		l.more(300)
		return r.loads("ledger") - before
	}
	slow := rate()
	message := s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{FlushSize: 7, FlushIntervalMs: 50}))
	for _, text := range []string{"flush_size=7", "flush_interval_ms=50"} {
		if !strings.Contains(message, text) {
			t.Errorf("the answer is %q, want %s in it", message, text)
		}
	}
	fast := rate()
	if fast < 3*slow+3 {
		t.Errorf("%d batches before the reload and %d after it, want many more", slow, fast)
	}
	if now := s.look(); now.GetFlushSize() != 7 || now.GetFlushIntervalMs() != 50 {
		t.Errorf("the status shows %d and %d", now.GetFlushSize(), now.GetFlushIntervalMs())
	}
	l.stop()
	r.same(s, loadTables...)

	s.terminate(30 * time.Second)
	s = r.start()
	if now := s.look(); now.GetFlushSize() != 7 || now.GetFlushIntervalMs() != 50 {
		t.Errorf("after a restart the status shows %d and %d, want what was set", now.GetFlushSize(), now.GetFlushIntervalMs())
	}
}

func TestReloadRefusesWhatItCannotDo(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE keyless (v int)", "a")
	s := r.start()
	before := s.look()
	answer, err := s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{})
	if err != nil || answer.GetSuccess() || !strings.Contains(answer.GetMessage(), "No configuration changes provided") {
		t.Errorf("nothing to change is answered %v, %v", answer, err)
	}
	for _, request := range []*pb.ReloadConfigRequest{{FlushSize: 1 << 40}, {FlushIntervalMs: 1 << 40}, {Tables: []string{"a", "NotQuoted"}}, {Tables: []string{`"open`}}} {
		if answer, err := s.control.ReloadConfig(s.call(), request); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v is answered %v, %v, want INVALID_ARGUMENT", request, answer, err)
		}
	}
	for table, want := range map[string]string{"missing": "not found", "keyless": "key"} {
		answer, err := s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{Tables: []string{"mark", "a", table}})
		if err != nil || answer.GetSuccess() || !strings.Contains(answer.GetMessage(), want) || !strings.Contains(answer.GetMessage(), table) {
			t.Errorf("table %s is answered %v, %v, want a refusal with %q", table, answer, err, want)
		}
	}
	if after := s.look(); !slices.Equal(after.GetTables(), before.GetTables()) || after.GetFlushSize() != before.GetFlushSize() {
		t.Errorf("refused changes changed something: %v, %v", before.GetTables(), after.GetTables())
	}
	r.db.Exec("INSERT INTO a VALUES (1)")
	r.same(s, "a")
}

// published lists the tables of the publication.
func (r *rig) published() string {
	r.t.Helper()
	return pgtest.Value[string](r.db, "SELECT COALESCE(string_agg(tablename, ',' ORDER BY tablename), '') FROM pg_publication_tables WHERE pubname = $1",
		r.env["SOURCE_PUBLICATION_NAME"])
}

func TestReloadOfTheTablesIsReal(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)", "a")
	s := r.start()
	r.db.Exec("INSERT INTO a VALUES (1, 'captured'); INSERT INTO b VALUES (1, 'before')")
	r.same(s, "a")

	message := s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{Tables: []string{"mark", "a", "b"}}))
	if !strings.Contains(message, `"public.b"`) {
		t.Errorf("the answer is %q", message)
	}
	if now := r.published(); now != "a,b,mark" {
		t.Errorf("the publication has %s", now)
	}
	r.db.Exec("INSERT INTO b VALUES (2, 'after'); INSERT INTO a VALUES (2, 'captured')")
	r.settle(s)
	if r.row("b", "id = 2") == nil {
		t.Error("a change of the added table is not in the sink")
	}
	r.equal("a")

	s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{Tables: []string{"mark", "b"}}))
	if now := r.published(); now != "b,mark" {
		t.Errorf("the publication has %s", now)
	}
	r.db.Exec("INSERT INTO a VALUES (3, 'ignored'); UPDATE b SET v = 'changed'")
	r.db.Exec("DELETE FROM b WHERE id = 1; INSERT INTO b VALUES (3, 'x')")
	r.same(s, "b")
	if r.row("a", "id = 3") != nil {
		t.Error("a change of the removed table is in the sink")
	}
	if tables := s.look().GetTables(); !slices.Equal(tables, []string{"public.mark", "public.b"}) {
		t.Errorf("the status shows the tables %v", tables)
	}

	// What was asked for holds over a kill, until TABLES itself is changed.
	s.kill()
	s = r.start()
	r.db.Exec("INSERT INTO a VALUES (4, 'ignored'); INSERT INTO b VALUES (4, 'y')")
	r.same(s, "b")
	if r.row("a", "id = 4") != nil {
		t.Error("a change of the removed table is in the sink after a restart")
	}
}

func TestDrainAndStopAppliesAllThatIsCommitted(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"running", "paused"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			r := setup(t, loadDDL, loadTables...)
			s := r.set("MIN_LOAD_INTERVAL_MS", "2000").start()
			l := r.load(random(t), 2*time.Millisecond)
			l.more(30)
			if first == "paused" {
				s.pause()
			}
			l.more(150)
			l.stop()
			goal := r.mark()
			end := r.head()
			message := s.succeeds(s.control.DrainAndStop(s.call(), &pb.DrainRequest{}))
			if message != "CDC is draining and will stop" {
				t.Errorf("the answer is %q", message)
			}
			if code := s.exitCode(patience); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			r.equal(loadTables...)
			if now := r.confirmed(); now < goal {
				t.Errorf("the slot is at %s, want at least %s (the log ended at %s)", now, goal, end)
			}
			// Nothing comes twice and nothing is missing when it starts again.
			r.db.Exec("INSERT INTO ledger VALUES (-5, 'down')")
			s = r.start()
			r.same(s, loadTables...)
			if s.look().GetState() != pb.StatusResponse_RUNNING {
				t.Error("it does not run after the drain")
			}
		})
	}
}

// TestDrainWithoutASinkWaitsForIt and refuses other control calls meanwhile.
func TestDrainWithoutASinkWaitsForIt(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	s := r.start()
	r.sink.Down()
	r.db.Exec("INSERT INTO item SELECT generate_series(1, 50)")
	s.succeeds(s.control.DrainAndStop(s.call(), &pb.DrainRequest{}))
	stays(t, 2*time.Second, "it waits for the sink", func() (bool, string) {
		return !s.exited() && s.look().GetState() == pb.StatusResponse_DRAINING, "exited or not draining"
	})
	refused, err := s.control.Pause(s.call(), &pb.PauseRequest{})
	if err != nil || refused.GetSuccess() || refused.GetMessage() != "Cannot pause CDC in state: Draining" {
		t.Errorf("a pause while draining is answered %v, %v", refused, err)
	}
	r.sinkUp()
	if code := s.exitCode(patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	r.equal("item")
}

func TestStopKeepsTheSlotAndTheQueue(t *testing.T) {
	t.Parallel()
	for _, skip := range []bool{false, true} {
		t.Run(fmt.Sprintf("skip_slot_cleanup %t", skip), func(t *testing.T) {
			t.Parallel()
			r := setup(t, loadDDL, loadTables...)
			s := r.start()
			l := r.load(random(t), 2*time.Millisecond)
			l.more(40)
			message := s.succeeds(s.control.Stop(s.call(), &pb.StopRequest{SkipSlotCleanup: skip}))
			if message != "CDC stopped (slot preserved for restart)" {
				t.Errorf("the answer is %q", message)
			}
			if code := s.exitCode(30 * time.Second); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if r.slotIdentity() == "" {
				t.Error("the slot is gone")
			}
			r.confirmedIsApplied(l)
			l.more(40)
			s = r.start()
			l.stop()
			r.same(s, loadTables...)
		})
	}
}
