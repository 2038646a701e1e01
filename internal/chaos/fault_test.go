package chaos_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// fault is one kind of them. Of a group only one is there at a time.
type fault struct {
	name, group string
	weight      int
	// possible is nil for faults that every layout has.
	possible func(*run) bool
	// strike does it. The answer heals it, nil if there is nothing to heal. It is called
	// by the goroutine of the schedule, as heal is.
	strike func(*run, *rand.Rand) (heal func())
	// lasts is how long it takes at least to show.
	lasts time.Duration
}

// The kill points of the code, by the stage that passes them.
var (
	capturePoints = []string{
		"capture.announced", "capture.slotted", "capture.opened", "capture.publishing", "capture.published", "capture.stored", "capture.remembered", "capture.confirming",
		"capture.confirmed", "bus.sent", "bus.stored", "bus.purging", "bus.purged",
	}
	startPoints = []string{"capture.announced", "capture.slotted", "capture.opened"}
	copyPoints  = []string{"copy.read", "copy.written", "copy.noted", "copy.whole", "capture.opened", "capture.stored"}
	applyPoints = []string{
		"apply.planning", "apply.planned", "apply.loaded", "apply.finishing", "apply.checkpointed", "apply.acknowledged",
		"sink.sending", "sink.answered", "sink.settled",
	}
)

// faults are all but those of the sink, which are in sinkFaults.
var faults = []fault{
	{name: "SIGKILL of capture", group: "process", weight: 4, strike: killOf("capture")},
	{name: "SIGKILL of apply", group: "process", weight: 4, strike: killOf("apply")},
	{name: "SIGTERM of capture", group: "process", weight: 2, strike: terminationOf("capture")},
	{name: "SIGTERM of apply", group: "process", weight: 2, strike: terminationOf("apply")},
	{name: "SIGSTOP of capture", group: "process", weight: 3, strike: haltOf("capture")},
	{name: "SIGSTOP of apply", group: "process", weight: 3, strike: haltOf("apply")},
	{name: "SIGSTOP until another takes over", group: "process", weight: 4, possible: hasStandby, strike: haltOf("apply"), lasts: 8 * time.Second},
	{name: "SIGKILL of all", group: "process", weight: 2, strike: func(r *run, _ *rand.Rand) func() {
		for _, s := range r.stages {
			s.kill()
		}
		return func() {
			for _, s := range r.stages {
				s.start()
			}
		}
	}},
	{name: "queue and state are wiped", group: "process", weight: 2, possible: (*run).mayWipe, strike: wipe},
	{name: "kill point of capture", group: "process", weight: 9, strike: killPoint("capture", capturePoints)},
	{name: "kill point of apply", group: "process", weight: 9, strike: killPoint("apply", applyPoints)},
	{name: "kill point of the copy", group: "process", weight: 5, possible: func(r *run) bool { return r.shape.existing }, strike: killPoint("capture", copyPoints)},

	{name: "SIGKILL of nats-server", group: "queue", weight: 5, possible: hasQueue, strike: func(r *run, random *rand.Rand) func() {
		server := pick(random, r.queue)
		server.Kill(r.t)
		return func() { server.Start(r.t) }
	}},
	{name: "SIGTERM of nats-server", group: "queue", weight: 3, possible: hasQueue, strike: func(r *run, random *rand.Rand) func() {
		server := pick(random, r.queue)
		server.Terminate(r.t)
		return func() { server.Start(r.t) }
	}},
	{name: "SIGSTOP of nats-server", group: "queue", weight: 4, possible: hasQueue, strike: func(r *run, random *rand.Rand) func() {
		server := pick(random, r.queue)
		server.Stop(r.t)
		return func() { server.Continue(r.t) }
	}},
	{name: "full disk under the queue", group: "queue", weight: 8, possible: func(r *run) bool { return r.shape.smallDisk }, strike: fillDisk},

	{name: "immediate shutdown of PostgreSQL", group: "source", weight: 3, possible: notStandby, strike: stopSource(pgtest.Immediate)},
	{name: "fast shutdown of PostgreSQL", group: "source", weight: 3, possible: notStandby, strike: stopSource(pgtest.Fast)},
	{name: "SIGKILL of PostgreSQL", group: "source", weight: 3, possible: notStandby, strike: func(r *run, _ *rand.Rand) func() {
		r.must("kill PostgreSQL", r.server.Kill())
		return r.restartSource
	}},
	{name: "SIGKILL of the walsender", group: "source", weight: 3, possible: notStandby, strike: signalWalsender(syscall.SIGKILL)},
	{name: "SIGSTOP of the walsender", group: "source", weight: 3, strike: signalWalsender(syscall.SIGSTOP)},
	{name: "pg_terminate_backend of the walsender", group: "source", weight: 4, strike: signalWalsender(syscall.SIGTERM)},
	{name: withheld, group: "source", weight: 4, possible: notStandby, strike: withholdCommits, lasts: time.Second},
	{name: "promotion of a standby", group: "source", weight: 12, possible: func(r *run) bool { return r.standby != nil }, strike: promote},
}

// connectionFaults are those of the proxies.
func connectionFaults() []fault {
	var all []fault
	for _, side := range []struct{ name, group string }{{"source", "source"}, {"queue", "queue"}, {"frontend", "sink"}, {"backend", "sink"}, {"query", "sink"}} {
		for how, name := range map[condition]string{cut: "cut", slow: "slow", halfOpen: "half-open"} {
			all = append(all, fault{
				name: name + " connections: " + side.name, group: side.group, weight: 2,
				possible: func(r *run) bool { return r.proxies[side.name] != nil },
				strike: func(r *run, _ *rand.Rand) func() {
					p := r.proxies[side.name]
					p.set(how)
					return func() { p.set(passing) }
				},
			})
		}
	}
	return all
}

func hasStandby(r *run) bool { return r.shape.standby && len(r.stages) > 2 }
func hasQueue(r *run) bool   { return len(r.queue) > 0 }

// notStandby: while a standby waits for its promotion its primary must live.
func notStandby(r *run) bool { return r.standby == nil }

// mayWipe: what a table without a key has been told is not known without the state, and
// a copy would begin anew.
func (r *run) mayWipe() bool {
	return r.shape.embedded() && !r.shape.keyless && !r.shape.smallDisk
}

// must notes an error of the suite.
func (r *run) must(what string, err error) {
	if err != nil {
		r.problem(broken, "%s: %v", what, err)
	}
}

// of chooses a process that does the work.
func (r *run) of(work string, random *rand.Rand) *stage {
	var able []*stage
	for _, s := range r.stages {
		if s.does(work) {
			able = append(able, s)
		}
	}
	return pick(random, able)
}

func killOf(work string) func(*run, *rand.Rand) func() {
	return func(r *run, random *rand.Rand) func() {
		s := r.of(work, random)
		s.kill()
		return s.start
	}
}

func terminationOf(work string) func(*run, *rand.Rand) func() {
	return func(r *run, random *rand.Rand) func() {
		s := r.of(work, random)
		s.terminate()
		return s.start
	}
}

func haltOf(work string) func(*run, *rand.Rand) func() {
	return func(r *run, random *rand.Rand) func() {
		s := r.of(work, random)
		s.signal(syscall.SIGSTOP)
		return func() { s.signal(syscall.SIGCONT) }
	}
}

func killPoint(work string, points []string) func(*run, *rand.Rand) func() {
	return func(r *run, random *rand.Rand) func() {
		verb := "kill"
		if random.IntN(5) == 0 {
			verb = "stop"
		}
		point, passes := pick(random, points), random.IntN(4)
		var armed []*stage
		for _, s := range r.stages { // Only one of several does the work.
			if s.does(work) {
				s.arm(point, passes, verb)
				armed = append(armed, s)
			}
		}
		return func() {
			for _, s := range armed {
				s.disarm()
			}
		}
	}
}

func wipe(r *run, _ *rand.Rand) func() {
	for _, s := range r.stages {
		s.kill()
	}
	// A load of the life before that is still on its way would arrive in the middle of
	// the next one, which knows nothing of it.
	r.sink.ClearFaults()
	r.sink.Release()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	r.must("wait for the loads", r.sink.AwaitLoads(ctx, 0))
	r.wiped.Store(true)
	r.must("remove the queue", os.RemoveAll(filepath.Join(r.dir, "bus")))
	return func() {
		for _, s := range r.stages {
			s.start()
		}
	}
}

// fillDisk leaves nothing of the small disk.
func fillDisk(r *run, random *rand.Rand) func() {
	disk := filepath.Join(r.dir, "disk")
	name := filepath.Join(disk, "filler")
	f, err := os.Create(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	var s syscall.Statfs_t
	if err := syscall.Statfs(disk, &s); err != nil {
		r.must("look at the disk", err)
		return nil
	}
	left := pick(random, []int64{0, 4 << 10, 1 << 20, 20 << 20})
	if size := int64(s.Bavail)*s.Bsize - left; size > 0 { //nolint:gosec // Far below the limit.
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, size); err != nil && !errors.Is(err, syscall.ENOSPC) {
			r.must("fill the disk", err)
		}
	}
	return func() { r.must("empty the disk", os.Remove(name)) }
}

func stopSource(mode pgtest.Mode) func(*run, *rand.Rand) func() {
	return func(r *run, _ *rand.Rand) func() {
		ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
		defer cancel()
		err := r.server.Stop(ctx, mode)
		if err != nil && stoppedWhileRecovering(r.sourceLog()) {
			r.count("remedy", "PostgreSQL killed that was to stop while it recovered")
			err = r.server.Kill()
		}
		r.must("stop PostgreSQL", err)
		return r.restartSource
	}
}

func (r *run) restartSource() {
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	r.must("restart PostgreSQL", r.server.Restart(ctx))
}

// withheld is the name of the fault that withholdCommits is.
const withheld = "commits wait for a standby that is not there"

// withholdCommits has transactions wait for a standby after their commits are in the log: they
// are streamed, and no snapshot shows them.
func withholdCommits(r *run, _ *rand.Rand) func() {
	_ = r.setSource("ALTER SYSTEM SET synchronous_standby_names = 'nobody'") // The server may have no time.
	return func() {
		r.must("let commits go on", r.setSource("ALTER SYSTEM RESET synchronous_standby_names"))
	}
}

// withholdDuringCopy does so again and again for moments, while existing rows are copied.
func (r *run) withholdDuringCopy() {
	r.count("fault", withheld)
	for range 10 + r.random.IntN(20) {
		heal := withholdCommits(r, r.random)
		r.wait(time.Duration(r.random.IntN(120)) * time.Millisecond)
		heal()
		r.wait(time.Duration(r.random.IntN(60)) * time.Millisecond)
	}
}

// setSource changes a setting of the whole server.
func (r *run) setSource(statement string) error {
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	conn, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, statement); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT pg_reload_conf()")
	return err
}

// signalWalsender signals the backend that streams. Killing it makes PostgreSQL restart
// all its backends.
func signalWalsender(signal syscall.Signal) func(*run, *rand.Rand) func() {
	return func(r *run, _ *rand.Rand) func() {
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		defer cancel()
		conn, err := r.connect(ctx)
		if err != nil {
			return nil
		}
		defer conn.Close(context.WithoutCancel(ctx))
		var pid int
		if conn.QueryRow(ctx, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL", slotName).Scan(&pid) != nil {
			return nil
		}
		if signal == syscall.SIGTERM {
			_, err = conn.Exec(ctx, "SELECT pg_terminate_backend($1)", pid)
			r.must("terminate the walsender", err)
			return nil
		}
		_ = syscall.Kill(pid, signal) // It may have ended at the same moment.
		if signal == syscall.SIGSTOP {
			return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
		}
		return nil
	}
}
