package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// footprintOf is what processes take that have little to do.
type footprintOf struct {
	What      string
	Processes int
	Start     time.Duration // from the start of the process until it is ready; the longest
	// ResidentMB, PrivateMB (without the program's file, which processes share) and Millicores are means per process.
	ResidentMB, PrivateMB, Millicores float64
}

// snapshotOf is how fast existing rows are copied.
type snapshotOf struct {
	Rows       int
	CopyTo     float64 // rows/s of COPY TO of the same table, thrown away
	RowsPerSec float64 // from the start of the process until all rows are in the sink
	CPU        float64 // microseconds per row
	PeakMB     float64
}

// idleFor is how long a process is watched.
func (b *bench) idleFor() time.Duration { return max(5*time.Second, b.lasting) }

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
	for _, command := range []string{"run"} {
		if err := b.watchIdle(ctx, "idle, one table", []*database{d}, command, nil); err != nil {
			return err
		}
	}
	return nil
}

// watchIdle starts a process per database and watches them, while work runs if it is not nil.
func (b *bench) watchIdle(ctx context.Context, what string, of []*database, command string, work func(context.Context) error) (err error) {
	f := footprintOf{What: what, Processes: len(of)}
	var services []*service
	for _, d := range of {
		t, err := b.begin(ctx, d)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.end(ctx)) }()
		s, err := t.launch(ctx, command)
		if err != nil {
			return err
		}
		took, err := s.awaitReady(ctx)
		if err != nil {
			return err
		}
		f.Start = max(f.Start, took)
		services = append(services, s)
	}
	// What the start has left over is not idle yet.
	if err := pause(ctx, 3*time.Second); err != nil {
		return err
	}
	var before, after time.Duration
	for _, s := range services {
		before += cpuOf(s.pid())
	}
	began := time.Now()
	if work != nil {
		if err := work(ctx); err != nil {
			return err
		}
	} else if err := pause(ctx, b.idleFor()); err != nil {
		return err
	}
	took := time.Since(began)
	var resident, private uint64
	for _, s := range services {
		r, _, shared := memoryOf(s.pid())
		resident, private = resident+r, private+r-shared
		after += cpuOf(s.pid())
	}
	count := float64(len(services))
	f.ResidentMB, f.PrivateMB = mega(resident)/count, mega(private)/count
	f.Millicores = 1000 * (after - before).Seconds() / took.Seconds() / count
	b.say("%s: %.0f MB (%.0f MB private), %.1f millicores, ready after %s", what, f.ResidentMB, f.PrivateMB, f.Millicores, f.Start.Round(time.Millisecond))
	b.result.Footprint = append(b.result.Footprint, f)
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

// manyTables has one pipeline with many tables, a row of each changing.
func (b *bench) manyTables(ctx context.Context) (err error) {
	w := small("tables")
	w.tables, w.schema = nil, ""
	var schema, change strings.Builder
	for i := range b.tables {
		name := "t" + strconv.Itoa(i)
		w.tables = append(w.tables, name)
		fmt.Fprintf(&schema, "CREATE TABLE %s (id bigint PRIMARY KEY, s text, n bigint);\n", name)
		fmt.Fprintf(&change, "INSERT INTO %s VALUES (1, 'row', 1);\n", name)
	}
	w.schema = schema.String()
	d, err := b.source.prepare(ctx, w, 1)
	defer func() { err = errors.Join(err, d.drop(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	return b.watchIdle(ctx, fmt.Sprintf("%d tables, a change of each", b.tables), []*database{d}, "run", func(ctx context.Context) error {
		conn, err := d.server.Connect(ctx, d.name)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // Everything is committed.
		if _, err := conn.Exec(ctx, change.String()); err != nil {
			return fmt.Errorf("change a row of each table: %w", err)
		}
		if d.wants, err = wanted(ctx, conn, w.tables, ""); err != nil {
			return err
		}
		return poll(ctx, 5*time.Minute, 20*time.Millisecond, "a row of each table", func(context.Context) (bool, error) {
			return b.sink.check(d.wants) == nil, nil
		})
	})
}

// opsPerSecond is what each of many pipelines has to do.
const opsPerSecond = 20

// manyPipelines has many processes, each with a database and a few changes per second.
func (b *bench) manyPipelines(ctx context.Context) (err error) {
	var all []*database
	for i := range b.pipelines {
		w := small("pipe_" + strconv.Itoa(i))
		w.tables = []string{"p" + strconv.Itoa(i)}
		w.schema = strings.ReplaceAll(w.schema, "TABLE t ", "TABLE "+w.tables[0]+" ")
		d, err := b.source.prepare(ctx, w, 1)
		defer func() { err = errors.Join(err, d.drop(context.WithoutCancel(ctx))) }()
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	what := fmt.Sprintf("%d pipelines, %d changes/s each", b.pipelines, opsPerSecond)
	return b.watchIdle(ctx, what, all, "run", func(ctx context.Context) error { return b.trickle(ctx, all) })
}

// trickle makes single changes in all databases in turn.
func (b *bench) trickle(ctx context.Context, all []*database) error {
	conns := make([]*pgx.Conn, 0, len(all))
	defer func() {
		for _, c := range conns {
			_ = c.Close(context.WithoutCancel(ctx)) // Everything is committed.
		}
	}()
	for _, d := range all {
		conn, err := d.server.Connect(ctx, d.name)
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		conns = append(conns, conn)
	}
	tick := time.NewTicker(time.Second / opsPerSecond)
	defer tick.Stop()
	for end, n := time.Now().Add(b.idleFor()), 1; time.Now().Before(end); n++ {
		for i, conn := range conns {
			if _, err := conn.Exec(ctx, "INSERT INTO "+all[i].workload.tables[0]+" VALUES ($1, 'row', $1)", n); err != nil {
				return fmt.Errorf("insert a row: %w", err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// snapshot has existing rows copied, and by COPY for comparison.
func (b *bench) snapshot(ctx context.Context) (err error) {
	w := insertion("snapshot", 1)
	w.before, w.load = plainFrom("1", "{rows}"), "SELECT 1"
	d, err := b.source.prepare(ctx, w, b.copied)
	defer func() { err = errors.Join(err, d.drop(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	out := snapshotOf{Rows: b.copied + 1}
	if out.CopyTo, err = copyTo(ctx, d, out.Rows); err != nil {
		return err
	}
	t, err := b.begin(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.end(ctx)) }()
	b.env = append(b.env, "SNAPSHOT=initial")
	s, err := t.launch(ctx, "run")
	b.env = b.env[:len(b.env)-1]
	if err != nil {
		return err
	}
	err = s.await(ctx, 20*time.Millisecond, "all rows to be copied", func(context.Context) (bool, error) {
		return b.sink.arrivals().rows >= int64(out.Rows), nil
	})
	if err != nil {
		return err
	}
	if err := b.sink.check(d.wants); err != nil {
		return err
	}
	_, peak, _ := memoryOf(s.pid())
	out.RowsPerSec = float64(out.Rows) / b.sink.arrivals().last.Sub(s.began).Seconds()
	out.CPU, out.PeakMB = perRow(cpuOf(s.pid()), out.Rows), mega(peak)
	b.say("snapshot: %.0fk rows/s, %.2f of COPY", out.RowsPerSec/1000, out.RowsPerSec/out.CopyTo)
	b.result.Snapshot = &out
	return nil
}

// copyTo returns the rows per second of COPY TO, whose output goes nowhere.
func copyTo(ctx context.Context, d *database, rows int) (float64, error) {
	conn, err := d.server.Connect(ctx, d.name)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // It was only read.
	began := time.Now()
	if _, err := conn.PgConn().CopyTo(ctx, io.Discard, "COPY t TO STDOUT"); err != nil {
		return 0, fmt.Errorf("copy the table: %w", err)
	}
	return float64(rows) / time.Since(began).Seconds(), nil
}
