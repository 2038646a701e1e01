package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// progressEvery is how often a step that prints nothing itself says that it is still running.
const progressEvery = 10 * time.Second

// stopWithin is how long an interrupted command may take to end before it is killed.
const stopWithin = 10 * time.Second

// say prints progress; standard output is kept for results.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "toolbox: "+format+"\n", args...)
}

// quietly runs a command whose output matters only when it fails, and reports that it goes on.
func quietly(ctx context.Context, what string, cmd *exec.Cmd) error {
	return quietlyInto(ctx, what, cmd, nil)
}

// quietlyInto is quietly with the standard output for somebody, who also has it for the error then; nil is nobody.
func quietlyInto(ctx context.Context, what string, cmd *exec.Cmd, result io.Writer) error {
	say("%s", what)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if result != nil {
		cmd.Stdout = result
	}
	begin := time.Now()
	done := make(chan error, 1)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w\n%s", what, err, output.Bytes())
			}
			return context.Cause(ctx)
		case <-tick.C:
			say("%s: still running after %s", what, time.Since(begin).Round(time.Second))
		}
	}
}

// openly runs a command whose output is shown as it comes.
func openly(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return nil
}

// command makes a command that an interrupt asks to stop before it kills it.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopWithin
	return cmd
}

// locked runs a step while no other toolbox works on the same folder.
func locked(dir string, step func() error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock file: %w", err)
	}
	defer func() { _ = file.Close() }() // Closing frees the lock.
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir, err)
	}
	return step()
}
