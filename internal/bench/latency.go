package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// latencyOf is how late rows are visible in the sink, at a rate.
type latencyOf struct {
	// Rate is in rows per second, zero for lone changes.
	Rate, Rows            int
	P50, P99, P999, Worst time.Duration
	// Reached is the rate that the writer kept.
	Reached float64
	// Cores is the processor time of dbmazz per second.
	Cores float64
	Loads int64
}

// loneEvery is the time between lone changes, which have nothing before and after them.
const loneEvery = 400 * time.Millisecond

// latency writes rows at fixed rates; each row holds when it was made, right before its transaction commits.
func (b *bench) latency(ctx context.Context) error {
	w := workload{
		name: "latency", tables: []string{"t"}, schema: `CREATE TABLE t (id bigint PRIMARY KEY, s text, n bigint)`, size: 1,
		load: "SELECT 1", mark: "SELECT 1",
	}
	for _, rate := range append([]int{0}, b.rates...) {
		l, err := b.paced(ctx, w, rate)
		if err != nil {
			return fmt.Errorf("rate %d: %w", rate, err)
		}
		b.say("latency at %d rows/s: p50 %s, p99 %s, p99.9 %s, worst %s; the writer kept %.0f/s", rate, l.P50, l.P99, l.P999, l.Worst, l.Reached)
		b.result.Latency = append(b.result.Latency, l)
	}
	return nil
}

func (b *bench) paced(ctx context.Context, w workload, rate int) (l latencyOf, err error) {
	d, err := b.source.prepare(ctx, w, 1)
	defer func() { err = errors.Join(err, d.drop(context.WithoutCancel(ctx))) }()
	if err != nil {
		return l, err
	}
	t, err := b.begin(ctx, d)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, t.end(ctx)) }()
	s, err := t.launch(ctx, "run")
	if err != nil {
		return l, err
	}
	if _, err := s.awaitReady(ctx); err != nil {
		return l, err
	}
	b.sink.count(true, nil)
	conn, err := d.server.Connect(ctx, d.name)
	if err != nil {
		return l, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // Everything is committed.
	// A commit that is not on the server's disk is not sent, and without this it gets there up to 200 ms later.
	if _, err := conn.Exec(ctx, "SET synchronous_commit = on"); err != nil {
		return l, fmt.Errorf("set up the writer: %w", err)
	}
	before, began := cpuOf(s.pid()), time.Now()
	rows, err := b.write(ctx, conn, rate)
	if err != nil {
		return l, err
	}
	took := time.Since(began)
	cores := (cpuOf(s.pid()) - before).Seconds() / took.Seconds()
	err = s.await(ctx, 10*time.Millisecond, "the last row", func(context.Context) (bool, error) {
		if err := b.sink.fault(); err != nil {
			return false, err
		}
		return b.sink.arrivals().rows >= int64(rows), nil
	})
	if err != nil {
		return l, err
	}
	if d.wants, err = wanted(ctx, conn, w.tables, ""); err != nil {
		return l, err
	}
	if err := b.sink.check(d.wants); err != nil {
		return l, err
	}
	l = percentiles(b.sink.delays())
	l.Rate, l.Rows, l.Reached, l.Cores, l.Loads = rate, rows, float64(rows)/took.Seconds(), cores, b.sink.arrivals().loads
	return l, nil
}

// write inserts rows at a rate, in a thousand transactions a second at most, and returns how many.
func (b *bench) write(ctx context.Context, conn *pgx.Conn, rate int) (rows int, err error) {
	const insert = `INSERT INTO t SELECT j, repeat('x', 160), (extract(epoch from clock_timestamp()) * 1000000)::bigint FROM generate_series($1::bigint, $2::bigint) j`
	every, lasting := time.Millisecond, b.lasting
	if rate == 0 {
		every = loneEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	began := time.Now()
	for {
		// Late ticks are made up for by larger transactions, up to ten times as large.
		due := int(time.Since(began).Seconds() * float64(rate))
		if rate == 0 {
			due = rows + 1
		}
		if n := min(due-rows, max(1, rate/100)); n > 0 {
			if _, err := conn.Exec(ctx, insert, rows+1, rows+n); err != nil {
				return rows, fmt.Errorf("insert rows: %w", err)
			}
			rows += n
		}
		if time.Since(began) >= lasting {
			return rows, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return rows, context.Cause(ctx)
		}
	}
}

// percentiles sorts microseconds.
func percentiles(micros []int32) (l latencyOf) {
	if len(micros) == 0 {
		return l
	}
	slices.Sort(micros)
	at := func(part float64) time.Duration {
		return time.Duration(micros[min(len(micros)-1, int(part*float64(len(micros))))]) * time.Microsecond
	}
	return latencyOf{P50: at(0.5), P99: at(0.99), P999: at(0.999), Worst: at(1)}
}
