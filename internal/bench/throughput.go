package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// measured is what one run took.
type measured struct {
	Rows int // row changes
	Wall time.Duration
	// CPU is that of the reader or of dbmazz, Walsender that of the server's process.
	CPU, Walsender time.Duration
	// Bytes are those of the messages from the server, or of the bodies to the sink.
	Bytes   int64
	Loads   int64 // of the sink
	Mallocs float64
	Peak    uint64 // bytes of memory, of the largest process
}

// The ways in which the changes of a workload are read.
const (
	wayRecv    = "pg_recvlogical"
	wayBare    = "bare reader"
	wayBinary  = "bare reader, binary"
	wayOne     = "end to end"
	waySplit   = "two processes"
	wayCapture = "capture to queue"
	wayDrain   = "queue to sink"
)

// throughput measures each workload, all ways in turn.
func (b *bench) throughput(ctx context.Context) error {
	for name := range strings.SplitSeq(b.workloads, ",") {
		w, _ := workloadNamed(name) // It was checked before.
		if err := b.measure(ctx, w, b.rows, b.pairs, b.options.full); err != nil {
			return fmt.Errorf("workload %s: %w", w.name, err)
		}
	}
	return nil
}

// measure makes the changes of a workload and reads them.
func (b *bench) measure(ctx context.Context, w workload, rows, pairs int, full bool) (err error) {
	changes := w.changes(rows)
	b.say("%s: make %d row changes", w.name, changes)
	made := b.during(b.making(ctx))
	d, err := b.source.prepare(ctx, w, changes)
	made()
	defer func() { err = errors.Join(err, d.drop(context.WithoutCancel(ctx))) }()
	if err != nil {
		return err
	}
	runs := runsOf{Workload: w.name, Rows: d.rows, Ways: map[string][]measured{}}
	for n := range pairs {
		for _, way := range []struct {
			name string
			run  func() error
		}{
			{wayRecv, func() error { return runs.add(wayRecv)(b.recv(ctx, d)) }},
			{wayBare, func() error { return runs.add(wayBare)(b.bareRun(ctx, d)) }},
			{wayBinary, func() error {
				if !full || d.server.Major() < 14 {
					return nil // PostgreSQL has the option from 14 on.
				}
				return runs.add(wayBinary)(b.bareRun(ctx, d, bareBinary))
			}},
			{wayOne, func() error { return runs.add(wayOne)(b.together(ctx, d)) }},
			{wayCapture, func() error { return b.staged(ctx, d, &runs) }},
			{waySplit, func() error {
				if !full || !w.split {
					return nil
				}
				return runs.add(waySplit)(b.apart(ctx, d))
			}},
		} {
			if err := way.run(); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
		}
		b.say("%s: %d of %d: %s", w.name, n+1, pairs, runs.brief(n))
	}
	b.result.Throughput = append(b.result.Throughput, runs)
	return nil
}

// add notes a run.
func (r *runsOf) add(way string) func(measured, error) error {
	return func(m measured, err error) error {
		if err == nil {
			r.Ways[way] = append(r.Ways[way], m)
		}
		return err
	}
}

// trial is a run of dbmazz over the changes: a copy of the slot and an empty queue.
type trial struct {
	*bench
	d      *database
	slot   string
	folder string
	// processes are stopped in this order.
	processes []*service
}

// begin makes a trial, and the sink empty.
func (b *bench) begin(ctx context.Context, d *database) (*trial, error) {
	b.sink.reset(nil)
	return b.another(ctx, d)
}

// another makes a trial beside others.
func (b *bench) another(ctx context.Context, d *database) (*trial, error) {
	t := &trial{bench: b, d: d}
	var err error
	if t.folder, err = b.folder(); err != nil {
		return nil, err
	}
	t.slot = fmt.Sprintf("bench_run_%d", b.folders)
	return t, d.slot(ctx, t.slot)
}

func (t *trial) launch(ctx context.Context, command string) (*service, error) {
	s, err := t.bench.launch(ctx, command, t.folder, t.d, t.slot)
	if err != nil {
		return nil, err
	}
	t.processes = append([]*service{s}, t.processes...)
	return s, s.awaitMetrics(ctx)
}

// end stops everything and takes the slot and the queue away.
func (t *trial) end(ctx context.Context) error {
	var errs []error
	for _, s := range t.processes {
		errs = append(errs, s.profile.wait(), s.stop())
	}
	return errors.Join(append(errs, t.d.dropSlot(context.WithoutCancel(ctx), t.slot), os.RemoveAll(t.folder))...)
}

// awaitSink waits until the server is told that the sink has everything, and compares.
func (t *trial) awaitSink(ctx context.Context) error {
	defer t.during(t.sinking)()
	err := t.processes[0].await(ctx, 20*time.Millisecond, "the sink to have all changes", func(ctx context.Context) (bool, error) {
		if err := t.sink.fault(); err != nil {
			return false, err
		}
		return t.d.confirmed(ctx, t.slot)
	})
	if err != nil {
		return err
	}
	return t.sink.check(t.d.wants)
}

// together runs everything in one process.
func (b *bench) together(ctx context.Context, d *database) (m measured, err error) {
	t, err := b.begin(ctx, d)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, t.end(ctx)) }()
	s, err := t.launch(ctx, "run")
	if err != nil {
		return m, err
	}
	sender, err := d.awaitWalsender(ctx, t.slot, nil)
	if err != nil {
		return m, err
	}
	if err := s.mark(ctx); err != nil {
		return m, err
	}
	if err := t.awaitSink(ctx); err != nil {
		return m, err
	}
	return t.account(ctx, sender, b.sink.arrivals().last, s)
}

// account sums up what the processes have used until everything had arrived.
func (t *trial) account(ctx context.Context, sender walsender, until time.Time, processes ...*service) (measured, error) {
	m := measured{Rows: t.d.rows, Wall: until.Sub(sender.began), Walsender: sender.used(), Bytes: t.sink.arrivals().bytes, Loads: t.sink.arrivals().loads}
	for _, s := range processes {
		used, err := s.since(ctx)
		if err != nil {
			return m, err
		}
		_, peak, _ := memoryOf(s.pid())
		m.CPU += used.cpu
		m.Mallocs += used.mallocs
		m.Peak = max(m.Peak, peak)
	}
	return m, nil
}

// apart runs capture and apply as two processes. The time in which apply starts counts.
func (b *bench) apart(ctx context.Context, d *database) (m measured, err error) {
	t, err := b.begin(ctx, d)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, t.end(ctx)) }()
	capture, err := t.launch(ctx, "capture")
	if err != nil {
		return m, err
	}
	sender, err := d.awaitWalsender(ctx, t.slot, nil)
	if err != nil {
		return m, err
	}
	if err := capture.mark(ctx); err != nil {
		return m, err
	}
	apply, err := t.launch(ctx, "apply")
	if err != nil {
		return m, err
	}
	if err := apply.mark(ctx); err != nil {
		return m, err
	}
	if err := t.awaitSink(ctx); err != nil {
		return m, err
	}
	return t.account(ctx, sender, b.sink.arrivals().last, capture, apply)
}

// staged has capture fill the queue, and then apply empty it.
func (b *bench) staged(ctx context.Context, d *database, runs *runsOf) (err error) {
	t, err := b.begin(ctx, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.end(ctx)) }()
	capture, err := t.launch(ctx, "capture")
	if err != nil {
		return err
	}
	sender, err := d.awaitWalsender(ctx, t.slot, nil)
	if err != nil {
		return err
	}
	if err := capture.mark(ctx); err != nil {
		return err
	}
	if err := t.awaitQueue(ctx, sender, capture); err != nil {
		return err
	}
	if err := runs.add(wayCapture)(t.account(ctx, sender, time.Now(), capture)); err != nil {
		return err
	}
	return runs.add(wayDrain)(t.drain(ctx))
}

// awaitQueue waits until the queue has everything. A look at the metrics costs the process work, so the first is when the
// server has sent everything, and the next when half of what is missing should have come.
func (t *trial) awaitQueue(ctx context.Context, sender walsender, capture *service) error {
	defer t.during(t.queueing(ctx, capture))()
	err := capture.await(ctx, 5*time.Millisecond, "the server to send everything", func(ctx context.Context) (bool, error) {
		return t.d.sent(ctx, sender.pid)
	})
	if err != nil {
		return err
	}
	var next time.Time
	return capture.await(ctx, 5*time.Millisecond, "the queue to have all changes", func(ctx context.Context) (bool, error) {
		now := time.Now()
		if now.Before(next) {
			return false, nil
		}
		values, err := capture.scrape(ctx)
		have, want := values["dbmazz_rows_captured_total"], float64(t.d.rows)
		next = now.Add(halfway(now.Sub(sender.began), have, want))
		return have >= want, err
	})
}

// halfway is after how long half of what is missing should have come, going by what has since the start.
func halfway(since time.Duration, have, want float64) time.Duration {
	const least, most = 10 * time.Millisecond, 500 * time.Millisecond
	return min(max(time.Duration(float64(since)*(want-have)/max(have, 1)/2), least), most)
}

// drain starts apply, and measures from its first load on what it does.
func (t *trial) drain(ctx context.Context) (m measured, err error) {
	first := make(chan struct{})
	t.sink.reset(func() { close(first) })
	apply, err := t.launch(ctx, "apply")
	if err != nil {
		return m, err
	}
	select {
	case <-first:
	case <-apply.done:
		return m, fmt.Errorf("apply has ended: %w", orZero(apply.err))
	case <-ctx.Done():
		return m, context.Cause(ctx)
	}
	values, err := apply.scrape(ctx)
	if err != nil {
		return m, err
	}
	began, before := time.Now(), values["dbmazz_events_processed_total"]
	apply.used = usage{cpu: cpuOf(apply.pid()), mallocs: values["go_memstats_mallocs_total"]}
	apply.profile.take(ctx, apply.metrics)
	if err := t.awaitSink(ctx); err != nil {
		return m, err
	}
	a := t.sink.arrivals()
	used, err := apply.since(ctx)
	_, peak, _ := memoryOf(apply.pid())
	m = measured{Rows: t.d.rows - int(before), Wall: a.last.Sub(began), CPU: used.cpu, Mallocs: used.mallocs, Bytes: a.bytes, Loads: a.loads, Peak: peak}
	if m.Wall <= 0 {
		// Everything was in the first load.
		m = measured{}
	}
	return m, err
}

// drains measures what is waiting in the log, and in the queue.
func (b *bench) drains(ctx context.Context) error {
	w := insertion("backlog", 100, 100)
	return b.measure(ctx, w, b.backlog, 1, false)
}
