package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// footprintOf is what processes take that have little to do.
type footprintOf struct {
	What      string
	Processes int
	Start     time.Duration // from the start of a process until it is ready; the longest
	// ResidentMB, PrivateMB (without the program's file, which processes share) and Millicores are means per process.
	ResidentMB, PrivateMB, Millicores float64
	// WorstMB and WorstMillicores are those of the process that takes most.
	WorstMB, WorstMillicores float64
	// Rows is how many row changes there were, all processes together, and RowsPerSec how many arrived in a second.
	Rows       int
	RowsPerSec float64
}

func small(name string) workload {
	return workload{
		name: name, tables: []string{"t"}, schema: `CREATE TABLE t (id bigint PRIMARY KEY, s text, n bigint)`, size: 1,
		load: "SELECT 1", mark: "SELECT 1",
	}
}

// footprint looks at one process that has nothing to do.
func (b *bench) footprint(ctx context.Context) (err error) {
	d, err := b.source.prepare(ctx, small("idle"), 1)
	defer func() { err = errors.Join(err, d.drop(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	w, err := b.watch(ctx, []*database{d})
	defer func() { err = errors.Join(err, w.end(ctx)) }()
	if err != nil {
		return err
	}
	return w.measure(ctx, "one table, idle", b.idle)
}

// watched are processes that are looked at together, each with a database.
type watched struct {
	*bench
	trials   []*trial
	services []*service
	start    time.Duration
}

// watch starts a process per database. What it returns has to be ended, whatever the error.
func (b *bench) watch(ctx context.Context, of []*database) (*watched, error) {
	w := &watched{bench: b}
	b.sink.reset(nil)
	var ready atomic.Int64
	defer b.during(func() string { return fmt.Sprintf("%d of %d processes are ready", ready.Load(), len(of)) })()
	for _, d := range of {
		t, err := b.another(ctx, d)
		if err != nil {
			return w, err
		}
		w.trials = append(w.trials, t)
		s, err := t.launch(ctx, "run")
		if err != nil {
			return w, err
		}
		took, err := s.awaitReady(ctx)
		if err != nil {
			return w, err
		}
		w.start = max(w.start, took)
		w.services = append(w.services, s)
		ready.Add(1)
	}
	return w, nil
}

func (w *watched) end(ctx context.Context) error {
	var errs []error
	for _, t := range w.trials {
		errs = append(errs, t.end(ctx))
	}
	return errors.Join(errs...)
}

// idle lets time pass. It makes no row changes.
func (b *bench) idle(ctx context.Context) (rows int, err error) { return 0, pause(ctx, b.lasting) }

// measure notes what the processes take while work is done, which returns how many row changes it has made. All of them
// must have arrived by then.
func (w *watched) measure(ctx context.Context, what string, work func(context.Context) (rows int, err error)) error {
	// What the start has left over is not idle yet.
	if err := pause(ctx, min(3*time.Second, w.lasting)); err != nil {
		return err
	}
	f := footprintOf{What: what, Processes: len(w.services), Start: w.start}
	before := make([]time.Duration, len(w.services))
	for i, s := range w.services {
		before[i] = cpuOf(s.pid())
	}
	began := time.Now()
	var err error
	if f.Rows, err = work(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	f.RowsPerSec = float64(f.Rows) / took.Seconds()
	for i, s := range w.services {
		if s.ended() {
			return fmt.Errorf("%s has ended: %w; see the log", s.name, orZero(s.err))
		}
		resident, _, shared := memoryOf(s.pid())
		cores := 1000 * (cpuOf(s.pid()) - before[i]).Seconds() / took.Seconds()
		f.ResidentMB += mega(resident) / float64(f.Processes)
		f.PrivateMB += mega(resident-shared) / float64(f.Processes)
		f.Millicores += cores / float64(f.Processes)
		f.WorstMB, f.WorstMillicores = max(f.WorstMB, mega(resident)), max(f.WorstMillicores, cores)
	}
	w.say("%s: per process %.0f MB (%.0f MB private, %.0f at most), %.1f millicores (%.1f at most), ready after %s; %.0f row changes/s in all",
		what, f.ResidentMB, f.PrivateMB, f.WorstMB, f.Millicores, f.WorstMillicores, f.Start.Round(time.Millisecond), f.RowsPerSec)
	w.result.Footprint = append(w.result.Footprint, f)
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// awaitRows waits until so many rows have arrived.
func (w *watched) awaitRows(ctx context.Context, rows int) error {
	return poll(ctx, 5*time.Minute, 10*time.Millisecond, "all row changes to arrive", func(context.Context) (bool, error) {
		if err := w.sink.fault(); err != nil {
			return false, err
		}
		return w.sink.arrivals().rows >= int64(rows), nil
	})
}

// manyTables has one pipeline with many tables, of each of which rows change again and again.
func (b *bench) manyTables(ctx context.Context) (err error) {
	w := small("tables")
	w.tables, w.schema = nil, ""
	var schema strings.Builder
	for i := range b.tables {
		name := "t" + strconv.Itoa(i)
		w.tables = append(w.tables, name)
		fmt.Fprintf(&schema, "CREATE TABLE %s (id bigint PRIMARY KEY, s text, n bigint);\n", name)
	}
	w.schema = schema.String()
	b.say("tables: make %d tables", b.tables)
	d, err := b.source.prepare(ctx, w, 1)
	defer func() { err = errors.Join(err, d.drop(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	all, err := b.watch(ctx, []*database{d})
	defer func() { err = errors.Join(err, all.end(ctx)) }()
	if err != nil {
		return err
	}
	if err := all.measure(ctx, fmt.Sprintf("%d tables, idle", b.tables), b.idle); err != nil {
		return err
	}
	err = all.measure(ctx, fmt.Sprintf("%d tables, a change of each in every transaction", b.tables), func(ctx context.Context) (int, error) {
		return all.rounds(ctx, d)
	})
	if err != nil {
		return err
	}
	return b.compare(ctx, d)
}

// compare compares the sink with a database as it is now.
func (b *bench) compare(ctx context.Context, d *database) error {
	conn, err := d.server.Connect(ctx, d.name)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // It was only read.
	if d.wants, err = wanted(ctx, conn, d.workload.tables, d.workload.changed); err != nil {
		return err
	}
	return b.sink.check(d.wants)
}

// rounds inserts a row into each table in one transaction, and another one as soon as it has arrived, for a while.
func (w *watched) rounds(ctx context.Context, d *database) (rows int, err error) {
	conn, err := d.server.Connect(ctx, d.name)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // Everything is committed.
	for end, round := time.Now().Add(w.lasting), 1; round == 1 || time.Now().Before(end); round++ {
		var change strings.Builder
		for _, table := range d.workload.tables {
			fmt.Fprintf(&change, "INSERT INTO %s VALUES (%d, 'row', %d);\n", table, round, round)
		}
		if _, err := conn.Exec(ctx, change.String()); err != nil {
			return rows, fmt.Errorf("change a row of each table: %w", err)
		}
		rows += len(d.workload.tables)
		if err := w.awaitRows(ctx, rows); err != nil {
			return rows, err
		}
	}
	return rows, nil
}

// opsPerSecond is what each of many pipelines has to do.
const opsPerSecond = 20

// manyPipelines has many processes, each with a database and a few changes per second.
func (b *bench) manyPipelines(ctx context.Context) (err error) {
	var of []*database
	b.say("pipelines: make %d databases", b.pipelines)
	for i := range b.pipelines {
		w := small("pipe_" + strconv.Itoa(i))
		w.tables = []string{"p" + strconv.Itoa(i)}
		w.schema = strings.ReplaceAll(w.schema, "TABLE t ", "TABLE "+w.tables[0]+" ")
		d, err := b.source.prepare(ctx, w, 1)
		defer func() { err = errors.Join(err, d.drop(context.WithoutCancel(ctx))) }()
		if err != nil {
			return err
		}
		of = append(of, d)
	}
	all, err := b.watch(ctx, of)
	defer func() { err = errors.Join(err, all.end(ctx)) }()
	if err != nil {
		return err
	}
	if err := all.measure(ctx, fmt.Sprintf("%d pipelines, idle", b.pipelines), b.idle); err != nil {
		return err
	}
	what := fmt.Sprintf("%d pipelines, %d changes/s each", b.pipelines, opsPerSecond)
	if err := all.measure(ctx, what, func(ctx context.Context) (int, error) { return all.trickle(ctx, of) }); err != nil {
		return err
	}
	for _, d := range of {
		if err := b.compare(ctx, d); err != nil {
			return err
		}
	}
	return nil
}

// trickle makes single changes in all databases in turn.
func (w *watched) trickle(ctx context.Context, of []*database) (rows int, err error) {
	conns := make([]*pgx.Conn, 0, len(of))
	defer func() {
		for _, c := range conns {
			_ = c.Close(context.WithoutCancel(ctx)) // Everything is committed.
		}
	}()
	for _, d := range of {
		conn, err := d.server.Connect(ctx, d.name)
		if err != nil {
			return 0, fmt.Errorf("connect: %w", err)
		}
		conns = append(conns, conn)
	}
	tick := time.NewTicker(time.Second / opsPerSecond)
	defer tick.Stop()
	for end, n := time.Now().Add(w.lasting), 1; time.Now().Before(end); n++ {
		for i, conn := range conns {
			if _, err := conn.Exec(ctx, "INSERT INTO "+of[i].workload.tables[0]+" VALUES ($1, 'row', $1)", n); err != nil {
				return rows, fmt.Errorf("insert a row: %w", err)
			}
			rows++
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return rows, context.Cause(ctx)
		}
	}
	return rows, w.awaitRows(ctx, rows)
}
