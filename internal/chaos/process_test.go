package chaos_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stage is one dbmazz process of a run, started again whenever it was ended.
type stage struct {
	r        *run
	name     string
	commands []string
	env      map[string]string

	mu       sync.Mutex
	cmd      *exec.Cmd
	done     chan struct{}
	expected bool // its end is somebody's doing
	over     bool // the run is
	peak     int64
	log      journal
	logged   int // how long the log was when the process was started
}

// journal keeps the beginning and the end of what processes write.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// stage sets up a process; it is started by start.
func (r *run) stage(name, command string, env map[string]string) *stage {
	s := &stage{r: r, name: name, env: maps.Clone(env)}
	if command != "" {
		s.commands = []string{command}
	}
	s.env["INSTANCE"] = name
	s.env["DBMAZZ_KILLPOINT"] = s.killFile()
	r.stages = append(r.stages, s)
	return s
}

func (s *stage) killFile() string { return filepath.Join(s.r.dir, "kill-"+s.name) }

// does reports whether the process does the work of a stage.
func (s *stage) does(work string) bool {
	return len(s.commands) == 0 || s.commands[0] == work
}

func (s *stage) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.struck() // One that struck while its end was expected anyway does not excuse the next.
	environ := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.r.dir, "TZ=America/New_York"}
	for _, name := range slices.Sorted(maps.Keys(s.env)) {
		environ = append(environ, name+"="+s.env[name])
	}
	cmd := exec.Command(s.r.binary, s.commands...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = s.r.dir, environ, dieWithTests()
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	logged := len(s.log.String())
	if err := cmd.Start(); err != nil {
		s.r.problem(broken, "start %s: %v", s.name, err)
		return
	}
	s.cmd, s.done, s.expected, s.logged = cmd, make(chan struct{}), false, logged
	go s.await(cmd, s.done)
}

// await looks at how the process ends, and starts it again if a kill point ended it.
func (s *stage) await(cmd *exec.Cmd, done chan struct{}) {
	err := cmd.Wait()
	s.mu.Lock()
	expected := s.expected || s.over
	s.mu.Unlock()
	close(done)
	if expected {
		return
	}
	if s.struck() == "" {
		s.r.problem(exits, "%s has exited by itself: %v; its last words:\n%s", s.name, err, lastLines(s.log.String(), 12))
	}
	s.start()
}

// struck takes note of a kill point that was reached; empty if none was.
func (s *stage) struck() string {
	point, _ := s.hit()
	if point != "" && os.Remove(s.killFile()+".hit") == nil {
		s.r.count("point", point)
	}
	return point
}

// hit tells which kill point was reached, if any, and whether it halts instead of killing.
func (s *stage) hit() (point string, halts bool) {
	text, err := os.ReadFile(s.killFile() + ".hit")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "", false
	}
	return fields[0], fields[2] == "stop"
}

// arm has the process end or halt when it has passed a point that many times.
func (s *stage) arm(point string, passes int, verb string) {
	temporary := s.killFile() + ".new"
	line := fmt.Sprintf("%s %d %s %d", point, passes, verb, time.Now().UnixNano())
	if err := os.WriteFile(temporary, []byte(line), 0o600); err != nil {
		s.r.problem(broken, "arm a kill point: %v", err)
		return
	}
	if err := os.Rename(temporary, s.killFile()); err != nil {
		s.r.problem(broken, "arm a kill point: %v", err)
	}
}

// disarm takes an armed point away, and lets a process go on that one has halted. One that
// was killed may not have ended yet; await must find the point that did it.
func (s *stage) disarm() {
	_ = os.Remove(s.killFile()) // It may have struck.
	if _, halts := s.hit(); halts {
		s.struck()
		s.signal(syscall.SIGCONT)
	}
}

func (s *stage) running() bool {
	if s.done == nil {
		return false
	}
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

func (s *stage) signal(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running() {
		_ = s.cmd.Process.Signal(signal) // It may end at the same moment.
	}
}

// kill ends the process as a power cut would.
func (s *stage) kill() { _ = s.end(syscall.SIGKILL, time.Minute) }

// terminate asks the process to stop; it must do so cleanly and in bounded time.
func (s *stage) terminate() {
	err := s.end(syscall.SIGTERM, 40*time.Second)
	if err != nil {
		s.r.problem(exits, "%s after SIGTERM: %v; its last words:\n%s", s.name, err, lastLines(s.log.String(), 12))
	}
}

func (s *stage) end(signal syscall.Signal, within time.Duration) error {
	s.mu.Lock()
	if !s.running() {
		s.mu.Unlock()
		return nil
	}
	s.expected = true
	cmd, done, logged := s.cmd, s.done, s.logged
	_ = cmd.Process.Signal(signal)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
		_ = cmd.Process.Kill()
		<-done
		return fmt.Errorf("it was still there after %s", within)
	}
	if signal != syscall.SIGTERM || cmd.ProcessState.ExitCode() == 0 || s.struck() != "" {
		return nil
	}
	if !strings.Contains(s.log.String()[logged:], "dbmazz starts") {
		return nil // The signal came before the program had begun.
	}
	return errors.New(cmd.ProcessState.String())
}

// finish ends the process for good.
func (s *stage) finish() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.kill()
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// memory is the most that the process has had in memory since it was started, zero if
// it does not run.
func (s *stage) memory() int64 {
	s.mu.Lock()
	running, cmd := s.running(), s.cmd
	s.mu.Unlock()
	if !running {
		return 0
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/status")
	if err != nil {
		return 0
	}
	found := highWater.FindSubmatch(text)
	if found == nil {
		return 0
	}
	kilobytes, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
