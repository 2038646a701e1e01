package e2e_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/bustest"
)

// onServer has the queue on one server of its own.
func (r *rig) onServer() *apart {
	r.t.Helper()
	server := bustest.StartServer(r.t, bustest.ServerConfig{})
	return &apart{rig: r, captureEnv: map[string]string{"BUS_URL": server.URL}, applyEnv: map[string]string{"BUS_URL": server.URL}}
}

// with starts a process with one variable that the others of its stage do not have.
func (a *apart) with(command, instance, name, value string) *service {
	a.t.Helper()
	env := a.env(command, instance)
	env[name] = value
	s := a.process(env, command)
	s.dial()
	return s
}

const leftToStandby = "stage is left to a standby"

// TestACaptureThatDoesNotReachTheSourceLetsAStandbyWork has a leader whose way to
// PostgreSQL is blocked while the queue is there.
func TestACaptureThatDoesNotReachTheSourceLetsAStandbyWork(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE items (id int PRIMARY KEY, v text)", "items").set("HANDOVER_AFTER_S", "2")
	a := r.onServer()
	first := a.with("capture", "capture-1", "SOURCE_URL", "postgres://joe:Hunter2-pass@127.0.0.1:1/shop")
	first.complains("refused")
	apply := a.apply("apply-1")
	apply.stands("capture-1", "active", "")
	second := a.capture("capture-2")
	first.logs(leftToStandby)
	apply.stands("capture-2", "active", "")
	apply.stands("capture-1", "standby", "")
	second.copied() // Only then there is a slot, which tells what is applied.
	r.db.Exec("INSERT INTO items SELECT i, 'v' FROM generate_series(1, 100) i")
	r.same(apply, "items")
}

// TestAnApplyThatDoesNotReachTheSinkLetsAStandbyWork does it for the other stage. Then
// both fail, and the stage stays where it is.
func TestAnApplyThatDoesNotReachTheSinkLetsAStandbyWork(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE items (id int PRIMARY KEY, v text)", "items").set("HANDOVER_AFTER_S", "2")
	a := r.onSocket()
	capture := a.capture("capture-1")
	first := a.with("apply", "apply-1", "SINK_URL", "http://127.0.0.1:1")
	capture.stands("apply-1", "", "active")
	second := a.apply("apply-2")
	first.logs(leftToStandby)
	capture.stands("apply-2", "", "active")
	r.db.Exec("INSERT INTO items SELECT i, 'v' FROM generate_series(1, 100) i")
	r.same(capture, "items")
	r.sink.Down()
	r.db.Exec("INSERT INTO items VALUES (0, 'w')")
	second.complains("refused")
	stays(t, 5*time.Second, "the stage stays with the process that failed last", func() (bool, string) {
		_, standing := capture.standing("apply-2")
		return standing == "active" && !strings.Contains(second.out.String(), leftToStandby), standing
	})
	r.sinkUp()
	r.same(capture, "items")
}

// TestACaptureWithOtherTablesDoesNotTakeOver states that a standby never changes what is
// captured: it waits for an operator.
func TestACaptureWithOtherTablesDoesNotTakeOver(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE items (id int PRIMARY KEY, v text); CREATE TABLE more (id int PRIMARY KEY)", "items", "more")
	a := r.onServer()
	first, apply := a.both()
	second := a.with("capture", "capture-2", "TABLES", "mark,items")
	apply.stands("capture-2", "standby", "")
	second.logs("another capture of the pipeline has a different TABLES")
	r.db.Exec("INSERT INTO more VALUES (1)")
	r.same(apply, "items", "more")
	stays(t, 3*time.Second, "the second stands by and hears of the other at work more than once", func() (bool, string) {
		now := second.stage("capture")
		return now.GetInstance() == "capture-1", now.String()
	})
	first.kill()
	eventually(t, "the standby says why it does not take over", func() (bool, string) {
		now := second.stage("capture")
		return strings.Contains(now.GetError(), "does not take over") && strings.Contains(now.GetError(), "TABLES") || strings.Contains(second.out.String(), "this capture does not take over"), now.String()
	})
	r.db.Exec("INSERT INTO more VALUES (2)")
	third := a.capture("capture-3")
	apply.stands("capture-3", "active", "")
	r.same(apply, "items", "more")
	third.terminate(20 * time.Second)
	second.terminate(20 * time.Second)
	// To start a process says that its list is wanted.
	a.with("capture", "capture-4", "TABLES", "mark,items")
	apply.stands("capture-4", "active", "")
}
