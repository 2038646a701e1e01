package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// fromEither runs a test with the two stages apart, once for each process that its calls
// go to.
func fromEither(t *testing.T, ddl string, tables []string, test func(t *testing.T, a *apart, asked, other *service)) {
	t.Helper()
	for _, name := range []string{"capture", "apply"} {
		t.Run("asked of "+name, func(t *testing.T) {
			t.Parallel()
			a := setup(t, ddl, tables...).onSocket()
			capture, apply := a.both()
			asked, other := capture, apply
			if name == "apply" {
				asked, other = apply, capture
			}
			test(t, a, asked, other)
		})
	}
}

// isIn waits until a process shows the state.
func (s *service) isIn(state pb.StatusResponse_CdcState) {
	s.t.Helper()
	eventually(s.t, "the state is "+state.String(), func() (bool, string) {
		now := s.look().GetState()
		return now == state, now.String()
	})
}

func TestEitherProcessShowsBothStages(t *testing.T) {
	t.Parallel()
	a := setup(t, loadDDL, loadTables...).onSocket()
	capture, apply := a.both()
	a.db.Exec("INSERT INTO ledger SELECT i, 'p' FROM generate_series(1, 100) i")
	a.same(apply, loadTables...)
	for _, s := range []*service{capture, apply} {
		eventually(t, "the picture is whole", func() (bool, string) {
			now, sample := s.look(), s.sample()
			whole := now.GetReady() && now.GetState() == pb.StatusResponse_RUNNING && now.GetPendingEvents() == 0 &&
				lsn(now.GetConfirmedLsn()) == a.confirmed() && now.GetCurrentLsn() > 0 && now.GetServerLsn() >= now.GetConfirmedLsn() &&
				now.GetCapturedPosition() != "" && now.GetCapturedPosition() == now.GetAppliedPosition() &&
				now.GetFlushSize() == 10000 && len(now.GetTables()) == 4 && now.GetQueue().GetLastSequence() > 0
			counted := sample.GetRowsCapturedTotal() == 101 && sample.GetRowsAppliedTotal() == 101 && sample.GetTotalBatchesSent() > 0
			return whole && counted, now.String() + sample.String()
		})
		for _, stage := range []string{"capture", "apply"} {
			if now := s.stage(stage); now.GetState() != pb.StageStatus_STATE_RUNNING || now.GetInstance() != stage+"-1" || now.GetError() != "" {
				t.Errorf("the status shows %v", now)
			}
		}
		s.stands("capture-1", "active", "")
		s.stands("apply-1", "", "active")
		standard, err := grpc_health_v1.NewHealthClient(s.conn).Check(s.call(), &grpc_health_v1.HealthCheckRequest{})
		if err != nil || standard.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("grpc.health.v1 says %v, %v", standard, err)
		}
		a.silent(s)
	}
}

func TestPauseAndResumeReachApplyFromEitherProcess(t *testing.T) {
	t.Parallel()
	fromEither(t, loadDDL, loadTables, func(t *testing.T, a *apart, asked, other *service) {
		l := a.load(random(t), 5*time.Millisecond)
		l.more(20)
		asked.pause()
		other.isIn(pb.StatusResponse_PAUSED)
		loads := len(a.sink.Loads())
		l.more(50)
		stays(t, time.Second, "nothing is loaded", func() (bool, string) {
			return len(a.sink.Loads()) == loads, fmt.Sprint(len(a.sink.Loads()))
		})
		for _, s := range []*service{asked, other} {
			now, answer := s.look(), s.check()
			if now.GetState() != pb.StatusResponse_PAUSED || now.GetPausedSinceUnixMs() == 0 || answer.GetStatus() != pb.HealthCheckResponse_SERVING {
				t.Errorf("while paused: %v, %v", now, answer)
			}
			if state := s.stage("apply").GetState(); state != pb.StageStatus_STATE_PAUSED {
				t.Errorf("apply is %s", state)
			}
		}
		other.resume()
		asked.isIn(pb.StatusResponse_RUNNING)
		for range 5 { // What one has answered counts for the other at once.
			asked.pause()
			other.resume()
		}
		l.stop()
		a.same(asked, loadTables...)
	})
}

// TestPauseWithoutAnApplyHoldsForTheNextOne and says so.
func TestPauseWithoutAnApplyHoldsForTheNextOne(t *testing.T) {
	t.Parallel()
	a := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item").onSocket()
	capture, apply := a.both()
	apply.terminate(20 * time.Second)
	eventually(t, "the stage that has ended is shown so", func() (bool, string) {
		now := capture.stage("apply")
		return now.GetState() == pb.StageStatus_STATE_SILENT && strings.Contains(now.GetError(), "has ended"), now.String()
	})
	answer, err := capture.control.Pause(capture.call(), &pb.PauseRequest{})
	if err != nil || answer.GetSuccess() || !strings.Contains(answer.GetMessage(), "no apply process is running; it will start paused") {
		t.Errorf("a pause without an apply process is answered %v, %v", answer, err)
	}
	apply = a.apply("apply-2")
	apply.isIn(pb.StatusResponse_PAUSED)
	a.db.Exec("INSERT INTO item VALUES (1)")
	stays(t, time.Second, "nothing is loaded", func() (bool, string) { return a.loads("item") == 0, "a load" })
	apply.resume()
	a.same(apply, "item")
}

func TestReloadReachesBothStagesFromEitherProcess(t *testing.T) {
	t.Parallel()
	const ddl = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)"
	fromEither(t, ddl, []string{"a"}, func(t *testing.T, a *apart, asked, other *service) {
		message := asked.succeeds(asked.control.ReloadConfig(asked.call(), &pb.ReloadConfigRequest{
			FlushSize: 7, FlushIntervalMs: 50, Tables: []string{"mark", "a", "b"},
		}))
		for _, text := range []string{"flush_size=7", "flush_interval_ms=50", `"public.b"`} {
			if !strings.Contains(message, text) {
				t.Errorf("the answer is %q, want %s in it", message, text)
			}
		}
		for _, s := range []*service{asked, other} {
			eventually(t, "the status shows it", func() (bool, string) {
				now := s.look()
				return now.GetFlushSize() == 7 && now.GetFlushIntervalMs() == 50 && slices.Equal(now.GetTables(), []string{"public.mark", "public.a", "public.b"}), now.String()
			})
		}
		a.db.Exec("INSERT INTO b VALUES (1)")
		a.same(asked, "a", "b")
		refused, err := asked.control.ReloadConfig(asked.call(), &pb.ReloadConfigRequest{Tables: []string{"mark", "missing"}})
		if err != nil || refused.GetSuccess() || !strings.Contains(refused.GetMessage(), "missing") || !strings.Contains(refused.GetMessage(), "not found") {
			t.Errorf("a table that does not exist is answered %v, %v", refused, err)
		}
	})
}

func TestDrainAndStopFromEitherProcessEndsBoth(t *testing.T) {
	t.Parallel()
	fromEither(t, loadDDL, loadTables, func(t *testing.T, a *apart, asked, other *service) {
		l := a.load(random(t), 2*time.Millisecond)
		l.more(150)
		l.stop()
		goal := a.mark()
		asked.succeeds(asked.control.DrainAndStop(asked.call(), &pb.DrainRequest{}))
		for _, s := range []*service{asked, other} {
			if code := s.exitCode(patience); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
		}
		a.equal(loadTables...)
		if now := a.confirmed(); now < goal {
			t.Errorf("the slot is at %s, want at least %s", now, goal)
		}
		_, apply := a.both()
		a.db.Exec("INSERT INTO ledger VALUES (-5, 'after')")
		a.same(apply, loadTables...)
	})
}

func TestStopFromEitherProcessEndsBoth(t *testing.T) {
	t.Parallel()
	fromEither(t, loadDDL, loadTables, func(t *testing.T, a *apart, asked, other *service) {
		l := a.load(random(t), 2*time.Millisecond)
		l.more(50)
		asked.succeeds(asked.control.Stop(asked.call(), &pb.StopRequest{}))
		for _, s := range []*service{asked, other} {
			if code := s.exitCode(30 * time.Second); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
		}
		l.more(20)
		_, apply := a.both()
		l.stop()
		a.same(apply, loadTables...)
	})
}

// silence is how long a process may be gone before the others say so.
const silence = 10 * time.Second

// TestAProcessThatDiesOrHangsShowsAsSilent in what the other one says.
func TestAProcessThatDiesOrHangsShowsAsSilent(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"capture", "apply"} {
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
			if victim == "capture" && signal == syscall.SIGSTOP {
				continue // Its server is the queue; see the tests on a cluster.
			}
			t.Run(victim+" "+signal.String(), func(t *testing.T) {
				t.Parallel()
				a := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item").onSocket()
				capture, apply := a.both()
				gone, other := capture, apply
				if victim == "apply" {
					gone, other = apply, capture
				}
				began := time.Now()
				gone.signal(signal)
				eventually(t, "the other says so", func() (bool, string) {
					stage, answer := other.stage(victim), other.check()
					return stage.GetState() == pb.StageStatus_STATE_SILENT && strings.Contains(stage.GetError(), victim+"-1") &&
						answer.GetStatus() == pb.HealthCheckResponse_NOT_SERVING && strings.Contains(answer.GetErrorDetail(), victim+"-1"), stage.String() + answer.String()
				})
				took := time.Since(began)
				t.Logf("after %s: %s", took.Round(time.Millisecond), other.check().GetErrorDetail())
				if took > silence {
					t.Errorf("it took %s, want at most %s", took, silence)
				}
				if signal == syscall.SIGSTOP {
					gone.signal(syscall.SIGCONT)
				} else if victim == "capture" {
					a.capture("capture-2")
				} else {
					a.apply("apply-2")
				}
				other.serving()
				a.db.Exec("INSERT INTO item VALUES (1)")
				a.same(other, "item")
			})
		}
	}
}
