package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// bench is one run from the first server to the last table.
type bench struct {
	options
	dir     string
	binary  string
	log     *os.File
	source  *source
	sink    *sink
	folders int
	result  result
}

func newBench(o options) *bench { return &bench{options: o} }

// part is something that is measured.
type part struct {
	name string
	run  func(*bench, context.Context) error
}

func parts() []part {
	return []part{
		{"footprint", (*bench).footprint},
		{"throughput", (*bench).throughput},
		{"latency", (*bench).latency},
		{"backlog", (*bench).drains},
		{"snapshot", (*bench).snapshot},
		{"tables", (*bench).manyTables},
		{"pipelines", (*bench).manyPipelines},
	}
}

func allParts() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

func isPart(name string) bool { return slices.Contains(allParts(), name) }

// say prints a line about what is being done.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

func (b *bench) run(ctx context.Context) (err error) {
	var recorded *result
	if b.check != "" {
		if recorded, err = readResult(b.check); err != nil {
			return err
		}
	}
	closeAll, err := b.setUp(ctx)
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	if err := b.runParts(ctx); err != nil {
		return errors.Join(err, b.tell())
	}
	if err := b.tell(); err != nil {
		return err
	}
	if b.record != "" {
		b.result.Noise = b.noise
		if err := b.result.write(b.record); err != nil {
			return err
		}
	}
	if recorded != nil {
		return b.result.against(recorded)
	}
	return nil
}

// runParts runs the parts that were chosen.
func (b *bench) runParts(ctx context.Context) error {
	chosen := strings.Split(b.parts, ",")
	for _, p := range parts() {
		if !slices.Contains(chosen, p.name) {
			continue
		}
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("measure %s: %w; the log is %s (-dir keeps it)", p.name, err, b.log.Name())
		}
	}
	return nil
}

// tell prints and writes what has been measured, also if it is not all.
func (b *bench) tell() error {
	fmt.Fprintln(os.Stdout, b.result.markdown())
	if b.markdown != "" {
		if err := os.WriteFile(b.markdown, []byte(b.result.markdown()+"\n"), 0o600); err != nil {
			return fmt.Errorf("write the tables: %w", err)
		}
	}
	if b.json == "" {
		return nil
	}
	return b.result.write(b.json)
}

// setUp builds dbmazz and starts source and sink. What it returns takes everything away again.
func (b *bench) setUp(ctx context.Context) (closeAll func() error, err error) {
	var closers []func() error
	closeAll = func() error {
		var errs []error
		for _, c := range slices.Backward(closers) {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	if b.dir = b.options.dir; b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "dbmazz-bench-"); err != nil {
			return closeAll, fmt.Errorf("make a folder: %w", err)
		}
		closers = append(closers, func() error { return os.RemoveAll(b.dir) })
	} else if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return closeAll, fmt.Errorf("make the folder: %w", err)
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return closeAll, fmt.Errorf("find the folder: %w", err)
	}
	if b.log, err = os.Create(filepath.Join(b.dir, "bench.log")); err != nil {
		return closeAll, fmt.Errorf("make the log: %w", err)
	}
	closers = append(closers, b.log.Close)
	if err := b.build(ctx); err != nil {
		return closeAll, err
	}
	b.say("start PostgreSQL and the sink")
	b.source, err = startSource(ctx)
	if b.source != nil {
		closers = append(closers, func() error { return b.source.close(context.WithoutCancel(ctx)) })
	}
	if err != nil {
		return closeAll, err
	}
	b.sink, err = startSink(context.WithoutCancel(ctx), b.delay)
	if b.sink != nil {
		closers = append(closers, b.sink.close)
	}
	b.result.Postgres = b.source.server.Major()
	return closeAll, err
}

// build compiles dbmazz as it is shipped.
func (b *bench) build(ctx context.Context) error {
	b.say("build dbmazz")
	b.binary = filepath.Join(b.dir, "dbmazz")
	args := []string{"build", "-o", b.binary}
	if !b.plain {
		args = append(args, "-trimpath", "-ldflags", "-s -w")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/dbmazz/dbmazz/cmd/dbmazz")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build (run it inside the repository): %w\n%s", err, out)
	}
	info, err := os.Stat(b.binary)
	if err != nil {
		return fmt.Errorf("look at the binary: %w", err)
	}
	commit, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown")
	}
	b.result = result{
		Machine: machine(), Load: busy(), Commit: strings.TrimSpace(string(commit)), Date: time.Now().UTC().Format(time.DateOnly),
		Command: strings.Join(append([]string{"bench"}, os.Args[1:]...), " "), BinaryMB: mega(uint64(info.Size())), //nolint:gosec // Positive.
		Rows: b.rows, Pairs: b.pairs,
	}
	return nil
}

func mega(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
