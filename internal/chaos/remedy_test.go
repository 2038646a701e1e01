package chaos_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// What is here is what apply asks for when history is repeated to a sink that is far ahead: a
// partial change can find the row gone that has its large values. Nothing is lost or altered by
// that, and apply stops and says what to do. It is done.

// refusedForGood is said of a row that no repetition can complete.
const refusedForGood = "set SINK_REFUSED_ROWS=dead-letter until the row has passed, and then copy the table anew"

// refusesWhatIsGone reports whether apply has come to such a row, for a good reason.
func (r *run) refusesWhatIsGone() bool {
	if !r.wiped.Load() {
		return false
	}
	for _, s := range r.stages {
		s.mu.Lock()
		logged := s.logged
		s.mu.Unlock()
		if s.does("apply") && strings.Contains(s.log.String()[logged:], refusedForGood) {
			return true
		}
	}
	return false
}

// setAside has apply set such rows aside.
func (r *run) setAside() {
	r.count("remedy", "rows set aside, tables copied anew")
	r.note("apply refuses a row for good, as it must; it is set aside")
	for _, s := range r.stages {
		if s.does("apply") {
			s.terminate()
			s.mu.Lock()
			s.env["SINK_REFUSED_ROWS"] = "dead-letter"
			s.mu.Unlock()
			s.start()
		}
	}
}

var listening = regexp.MustCompile(`msg="api listens" component=api addr=(\S+)`)

// copyAnew asks for a copy of all tables; what differs is to be put right by it.
func (r *run) copyAnew(ctx context.Context) {
	for _, s := range r.stages {
		s.mu.Lock()
		running, logged := s.running(), s.logged
		s.mu.Unlock()
		found := listening.FindStringSubmatch(s.log.String()[logged:])
		if !running || !s.does("capture") || found == nil {
			continue
		}
		command := exec.CommandContext(ctx, r.binary, "snapshot")
		command.Env = []string{"GRPC_ADDR=" + found[1]}
		out, err := command.CombinedOutput()
		r.note("tables are copied anew: %v\n%s", err, lastLines(string(out), 3))
		if err != nil {
			r.problem(stuck, "copy the tables anew: %v", err)
		}
		r.shape.existing = true // The comparison waits for it.
		return
	}
	r.problem(broken, "no process to ask for a copy")
}

// stoppedWhileRecovering reports from its log whether PostgreSQL was told to stop while it
// recovered from the crash of a backend. PostgreSQL 18.4 does not end then, whoever is connected: its
// checkpointer and its I/O workers wait for ever.
func stoppedWhileRecovering(log string) bool {
	recovering := strings.LastIndex(log, "automatic recovery in progress")
	return recovering >= 0 && strings.Contains(log[recovering:], "received fast shutdown request") && !strings.Contains(log[recovering:], "ready to accept connections")
}

// sourceLog is all that PostgreSQL has logged. While it is told to stop it logs each connection.
func (r *run) sourceLog() string {
	text, err := os.ReadFile(r.server.LogFile())
	r.must("read the log of PostgreSQL", err)
	return string(text)
}

func TestOnlyAStopDuringRecoveryIsHelpedAlong(t *testing.T) {
	t.Parallel()
	const crash = "LOG:  database system was not properly shut down; automatic recovery in progress\n"
	const ready, stop = "LOG:  database system is ready to accept connections\n", "LOG:  received fast shutdown request\n"
	for log, want := range map[string]bool{
		crash + stop: true, ready + crash + stop + "LOG:  redo starts at 0/1B195F8\n": true,
		crash + ready + stop: false, ready + stop: false, stop + crash: false, "": false,
	} {
		if got := stoppedWhileRecovering(log); got != want {
			t.Errorf("%q: %t", log, got)
		}
	}
}
