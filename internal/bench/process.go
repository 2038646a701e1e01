package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child; it dies with this program, however that ends.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended; err is then set
	err  error
}

// start starts a child. Its output goes to the writer.
func start(name string, cmd *exec.Cmd, out io.Writer) (*process, error) {
	cmd.Stderr = out
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.SysProcAttr = attributes()
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel ends the child when the thread that started it ends, so the thread is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// ended tells that the child is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// cpu is the processor time of a child that has ended.
func (p *process) cpu() time.Duration {
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// stopWithin is a little more than dbmazz's own bound.
const stopWithin = 40 * time.Second

// stop asks the child to end and kills it when it takes too long, which is an error.
func (p *process) stop() error {
	_ = syscall.Kill(-p.pid(), syscall.SIGTERM) // Gone already shows below.
	timer := time.NewTimer(stopWithin)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // Gone already is as good.
		<-p.done
		return fmt.Errorf("stop %s: it did not end within %s and was killed", p.name, stopWithin)
	}
}

// childEnv keeps the caller's settings away from a child, which must not depend on them.
func childEnv(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}, more...)
}

// poll asks until the answer is yes, or the time is over.
func poll(ctx context.Context, within, every time.Duration, what string, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ok, err := ready(ctx)
		if ok || err != nil {
			if err != nil && ctx.Err() != nil {
				err = errors.Join(context.Cause(ctx), err)
			}
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
