package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// snapshotOf is how fast existing rows are copied.
type snapshotOf struct {
	Rows       int
	CopyTo     float64 // rows/s of COPY TO of the same table, thrown away
	RowsPerSec float64 // from the start of the process until all rows are in the sink
	CPU        float64 // microseconds per row
	PeakMB     float64
}

// snapshot has existing rows copied, and by COPY for comparison.
func (b *bench) snapshot(ctx context.Context) (err error) {
	w := insertion("snapshot", 1, 100)
	w.before, w.load = plainFrom("1", "{rows}"), "SELECT 1"
	b.say("snapshot: make %d rows", b.copied)
	made := b.during(b.making(ctx))
	d, err := b.source.prepare(ctx, w, b.copied)
	made()
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
	if err := s.mark(ctx); err != nil {
		return err
	}
	arriving := b.during(func() string {
		return fmt.Sprintf("%d of %d rows have arrived in the sink", b.sink.arrivals().rows, out.Rows)
	})
	err = s.await(ctx, 20*time.Millisecond, "all rows to be copied", func(context.Context) (bool, error) {
		if err := b.sink.fault(); err != nil {
			return false, err
		}
		return b.sink.arrivals().rows >= int64(out.Rows), nil
	})
	arriving()
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
