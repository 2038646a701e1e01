package e2e_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// handover is the longest time from the end of the active process to the first row that
// another one brings to the sink.
const handover = 10 * time.Second

// signal sends one to the process.
func (s *service) signal(signal syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Fatalf("send a signal: %v", err)
	}
}

// standing is what a process does for a stage, as another one sees it: active, standby
// or silent, empty if it is not listed.
func (s *service) standing(instance string) (capture, apply string) {
	s.t.Helper()
	for _, p := range s.look().GetProcesses() {
		if p.GetInstance() == instance {
			if p.GetSilent() {
				return "silent", "silent"
			}
			return p.GetCapture(), p.GetApply()
		}
	}
	return "", ""
}

// stands waits until a process is seen to stand as it should.
func (s *service) stands(instance, capture, apply string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%s is seen to be %q, %q", instance, capture, apply), func() (bool, string) {
		c, a := s.standing(instance)
		return c == capture && a == apply, fmt.Sprintf("%q, %q in %v", c, a, s.look().GetProcesses())
	})
}

// stage is one of the two as the process sees it.
func (s *service) stage(name string) *pb.StageStatus {
	s.t.Helper()
	for _, stage := range s.look().GetStages() {
		if stage.GetName() == name {
			return stage
		}
	}
	s.t.Fatalf("no stage %s in the status", name)
	return nil
}

// written is what a process has written to the sink.
func (r *rig) written(instance string) starrockstest.WriterStats {
	return r.sink.Stats().Writers["dbmazz/"+instance]
}

// replaced ends the active process by a signal under load and checks that the standby
// brings rows in time.
func (a *apart) replaced(active *service, signal syscall.Signal) {
	a.t.Helper()
	began := time.Now()
	active.signal(signal)
	if signal == syscall.SIGSTOP {
		// What the stopped process does not read fills its connection.
		a.db.Exec("INSERT INTO ledger SELECT -i, repeat('p', 1000000) FROM generate_series(10, 24) i")
	}
	a.inTime(began)
}

// inTime waits for the first new row in the sink and checks how long it took. On a machine
// where something waits for the processor most of the time it may take twice as long.
func (a *apart) inTime(began time.Time) {
	a.t.Helper()
	before, looked, want := processorWait(), time.Now(), handover
	_, starved := a.flowing()
	took, waited := time.Since(began), processorWait()-before
	a.t.Logf("the first new row in the sink after %s; somebody waited for the processor for %s of it", took.Round(time.Millisecond), waited.Round(time.Millisecond))
	if waited > time.Since(looked)/2 {
		want *= 2
	}
	switch {
	case took <= want:
	case starved:
		a.t.Log("that is too long, but the machine is overloaded")
	default:
		a.t.Errorf("handover took %s, want at most %s", took, want)
	}
}

// processorWait is for how long, since the machine started, something was ready to run and
// had no processor; zero where the system does not tell.
// https://docs.kernel.org/accounting/psi.html
func processorWait() time.Duration {
	text, err := os.ReadFile("/proc/pressure/cpu")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	_, total, _ := strings.Cut(line, "total=")
	micros, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(micros) * time.Microsecond
}

// sender is the process that streams from the slot, by its instance, with which the name
// of its connection ends.
func (r *rig) sender() string {
	r.t.Helper()
	name := pgtest.Value[string](r.db, "SELECT COALESCE((SELECT application_name FROM pg_stat_replication WHERE pid = $1), '')", r.walsender())
	return name[strings.LastIndex(name, "/")+1:]
}

// idle lets a process go on that was stopped and replaced, and checks that it writes
// nothing, neither to the sink nor to the slot, and is a standby from then on.
func (a *apart) idle(replaced *service, instance, stage string, other *service) {
	a.t.Helper()
	wrote, slot := a.written(instance), a.confirmed()
	replaced.signal(syscall.SIGCONT)
	stays(a.t, 3*time.Second, "what was replaced does nothing", func() (bool, string) {
		now := a.confirmed()
		if now < slot {
			return false, fmt.Sprintf("the slot went from %s to %s", slot, now)
		}
		slot = now
		if sender := a.sender(); stage == "capture" && sender != "capture-2" {
			return false, "the slot is streamed to " + sender
		}
		return a.written(instance) == wrote, fmt.Sprintf("it had written %+v and has written %+v", wrote, a.written(instance))
	})
	capture, apply := "", "standby"
	if stage == "capture" {
		capture, apply = apply, capture
	}
	other.stands(instance, capture, apply)
	eventually(a.t, "its own status shows the other at work", func() (bool, string) {
		now := replaced.stage(stage)
		return now.GetInstance() != instance && now.GetState() == pb.StageStatus_STATE_RUNNING, now.String()
	})
}

func killedCaptureIsReplaced(t *testing.T, servers []*bustest.Server) {
	captureIsReplaced(t, servers, syscall.SIGKILL)
}

func stoppedCaptureIsReplaced(t *testing.T, servers []*bustest.Server) {
	captureIsReplaced(t, servers, syscall.SIGSTOP)
}

// captureIsReplaced is with the wal_sender_timeout that PostgreSQL has by default, so that
// the server does not end the connection of the stopped process by itself in time.
func captureIsReplaced(t *testing.T, servers []*bustest.Server, signal syscall.Signal) {
	r := setupOn(t, pgtest.Database(t), starrockstest.Options{}, loadDDL, loadTables...)
	a := r.onCluster(servers)
	first, apply := a.both()
	second := a.capture("capture-2")
	apply.stands("capture-1", "active", "")
	apply.stands("capture-2", "standby", "")
	second.serving()
	l := r.load(random(t), 5*time.Millisecond)
	l.more(30)
	a.replaced(first, signal)
	apply.stands("capture-2", "active", "")
	if signal == syscall.SIGSTOP {
		a.idle(first, "capture-1", "capture", second)
	}
	l.more(30)
	l.stop()
	r.same(apply, loadTables...)
	r.confirmedIsApplied(l)
}

func killedApplyIsReplaced(t *testing.T, servers []*bustest.Server) {
	r := setup(t, loadDDL, loadTables...)
	applyIsReplaced(t, r.onCluster(servers), syscall.SIGKILL)
}

func stoppedApplyIsReplaced(t *testing.T, servers []*bustest.Server) {
	r := setup(t, loadDDL, loadTables...)
	applyIsReplaced(t, r.onCluster(servers), syscall.SIGSTOP)
}

func applyIsReplaced(t *testing.T, a *apart, signal syscall.Signal) {
	capture, first := a.both()
	second := a.apply("apply-2")
	capture.stands("apply-1", "", "active")
	capture.stands("apply-2", "", "standby")
	second.serving()
	l := a.load(random(t), 5*time.Millisecond)
	l.more(30)
	if w := a.written("apply-2"); w.Loads > 0 {
		t.Errorf("the standby has written %+v", w)
	}
	a.replaced(first, signal)
	capture.stands("apply-2", "", "active")
	if a.written("apply-2").Loads == 0 {
		t.Error("the sink has no load of the process that took over")
	}
	if signal == syscall.SIGSTOP {
		a.idle(first, "apply-1", "apply", second)
	}
	l.more(30)
	l.stop()
	a.same(second, loadTables...)
	a.confirmedIsApplied(l)
}

// TestTwoAppliesOnOneCapture is the standby that needs no cluster: capture has the queue.
func TestTwoAppliesOnOneCapture(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			applyIsReplaced(t, setup(t, loadDDL, loadTables...).onSocket(), signal)
		})
	}
}
