package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Mode says how Stop stops a server.
type Mode int

// The modes of pg_ctl stop.
const (
	// Fast ends sessions and writes a checkpoint; walsenders first send what is left.
	Fast Mode = iota
	// Smart waits until all sessions have ended.
	Smart
	// Immediate ends everything at once without a checkpoint; the next start recovers.
	Immediate
)

var modeSignals = map[Mode]syscall.Signal{
	Fast: syscall.SIGINT, Smart: syscall.SIGTERM, Immediate: syscall.SIGQUIT,
}

// pollEvery is how often a wait looks again where the system offers nothing to wait on.
const pollEvery = 10 * time.Millisecond

// process is one run of the postmaster.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // Closed when the process was reaped; err is then set.
	err  error
}

// start starts the postmaster and waits until it takes connections.
func (s *Server) start(ctx context.Context) error {
	p, err := s.launch()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process = p
	s.mu.Unlock()
	if err := s.awaitReady(ctx, p); err != nil {
		_ = p.cmd.Process.Kill() // It may have exited already; either way the next line waits for its end.
		<-p.done
		s.mu.Lock()
		s.process = nil
		s.mu.Unlock()
		return fmt.Errorf("%w; the end of its log:\n%s", err, s.LogTail())
	}
	return nil
}

// launch starts the postmaster from a goroutine that keeps its thread until the process ends: the kernel sends the
// parent-death signal when the starting thread ends, not when the starting program does.
func (s *Server) launch() (*process, error) {
	log, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the server's log file: %w", err)
	}
	defer func() { _ = log.Close() }() // The server has its own descriptor.
	cmd := exec.Command(filepath.Join(s.binDir, "postgres"), "-D", s.dataDir, "-p", fmt.Sprint(s.port))
	cmd.Dir = "/" // The server's user need not be able to enter the caller's folder.
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = s.account.attributes()
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return p, nil
}

// onLockedThread runs a command that ends before it returns, on a thread that cannot end before the command does.
func onLockedThread(run func() ([]byte, error)) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return run()
}

func (s *Server) awaitReady(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("no connection within %s", readyWithin))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ready, err := s.ready()
		if ready || err != nil {
			return err
		}
		select {
		case <-p.done:
			return fmt.Errorf("the server ended while starting: %w", p.err)
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// ready reads the status that the postmaster keeps in the eighth line of its pid file, as pg_ctl does.
// A pid file of an earlier run names another process and does not count.
func (s *Server) ready() (bool, error) {
	text, err := os.ReadFile(filepath.Join(s.dataDir, "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the server's pid file: %w", err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 8 || strings.TrimSpace(lines[0]) != fmt.Sprint(s.PID()) {
		return false, nil
	}
	status := strings.TrimSpace(lines[7])
	return status == "ready" || status == "standby", nil
}

// PID is the postmaster's process id, zero while the server is stopped.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.cmd.Process.Pid
}

// Stop stops the server and waits for its end; the data folder stays. Stopping a stopped server does nothing.
// When the context ends first the server is still stopping.
func (s *Server) Stop(ctx context.Context, mode Mode) error {
	s.mu.Lock()
	p := s.process
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(modeSignals[mode]); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal PostgreSQL: %w", err)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("wait for PostgreSQL to stop: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	s.process = nil
	s.mu.Unlock()
	return nil
}

// Kill ends every process of the server with SIGKILL, as a crash of the machine would, and waits until they are gone.
func (s *Server) Kill() error {
	s.mu.Lock()
	p := s.process
	s.process = nil
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	pid := p.cmd.Process.Pid
	backends := children(pid)
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	<-p.done
	// A backend that outlives the postmaster holds the shared memory and keeps the next start from succeeding.
	// It ends by itself when it notices, so an error here means that it is gone already.
	for _, backend := range backends {
		_ = syscall.Kill(backend, syscall.SIGKILL)
	}
	return awaitGone(backends)
}

func awaitGone(pids []int) error {
	deadline := time.NewTimer(readyWithin)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for _, pid := range pids {
		for alive(pid) {
			select {
			case <-tick.C:
			case <-deadline.C:
				return fmt.Errorf("wait for PostgreSQL's process %d to end: still there after %s", pid, readyWithin)
			}
		}
	}
	return nil
}

// Restart starts the server again on the same port and data, after a fast stop if it still runs.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.Stop(ctx, Fast); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return fmt.Errorf("restart PostgreSQL %d: %w", s.major, err)
	}
	return nil
}

// Close stops the server, waits for its end, and removes a data folder that Start made.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	err := s.Stop(ctx, Fast)
	if err != nil {
		err = errors.Join(err, s.Kill())
	}
	return errors.Join(err, s.removeData())
}
