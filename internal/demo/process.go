package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// command says what a child runs.
type command struct {
	name string
	path string
	args []string
	env  []string
	dir  string
	log  string // File that gets its output, at the end.
}

// process is a child. It has a process group of its own, so that Ctrl-C in the terminal reaches only the demo, which
// stops its children in order; and it dies with the demo, however that ends.
type process struct {
	command
	cmd      *exec.Cmd
	done     chan struct{} // Closed when it has ended; err is then set.
	err      error
	expected atomic.Bool // Its end was asked for.
}

// start starts a child. ended is called if it ends unasked, with what Wait said.
func start(c command, ended func(error)) (*process, error) {
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", c.name, err)
	}
	defer func() { _ = log.Close() }()                                                         // The child has its own descriptor.
	p := &process{command: c, cmd: exec.Command(c.path, c.args...), done: make(chan struct{})} //nolint:noctx // Stopped in order, not by a context.
	p.cmd.Env, p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = c.env, c.dir, log, log
	p.cmd.SysProcAttr = attributes()
	started := make(chan error)
	go func() {
		// The kernel ends the child when the thread that started it ends, so the thread is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = p.cmd.Wait()
		close(p.done)
		if !p.expected.Load() {
			ended(p.err)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the child and what it started with SIGKILL, and waits until it is gone.
func (p *process) kill() {
	p.expected.Store(true)
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // Gone already is as good.
	<-p.done
}

// stop asks the child to end and kills it when it takes too long, which is an error.
func (p *process) stop(ctx context.Context, within time.Duration) error {
	select {
	case <-p.done:
		return nil // Ended unasked, which was said then.
	default:
	}
	if p.expected.Swap(true) {
		<-p.done
		return nil
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGTERM) // Gone already shows below.
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("stop %s: %w", p.name, context.Cause(ctx))
	case <-timer.C:
		p.kill()
		return fmt.Errorf("stop %s: it did not end within %s and was killed", p.name, within)
	}
	if p.err != nil {
		return fmt.Errorf("stop %s: %w", p.name, p.err)
	}
	return nil
}

// childEnv keeps the caller's settings away from a child, which must not depend on them.
func childEnv(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}, more...)
}

// tail returns the last lines of a file.
func tail(path string, lines int) []string {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }() // Only read.
	var last []string
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		last = append(last, scanner.Text())
		if len(last) > lines {
			last = last[1:]
		}
	}
	return last
}

// firstWords maps the first word of each line of a file to the rest.
func firstWords(path string) map[string]string {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	words := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if first, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasSuffix(line, "\n") {
			words[first] = rest
		}
	}
	return words
}
