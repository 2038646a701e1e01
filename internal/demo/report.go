package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dbmazz/dbmazz/internal/demo/compare"
	"github.com/dbmazz/dbmazz/internal/demo/shop"
)

// history is one table of the ledger.
type history struct {
	ledger *shop.Ledger
	table  shop.Table
}

// Left implements compare.History.
func (h history) Left(key []string) (left, ever bool) {
	return h.ledger.Left(h.table, shop.Key(key...))
}

// Gone implements compare.History.
func (h history) Gone(yield func(key []string) bool) {
	h.ledger.Gone(h.table, func(key string) bool { return yield(strings.Split(key, shop.Key("", ""))) })
}

// compareAll compares every row of every table.
func (d *demo) compareAll(ctx context.Context) (compare.Result, error) {
	var total compare.Result
	err := d.step("compare every row and column", func() (string, error) {
		ledger := d.load.Ledger()
		for _, table := range shop.Tables() {
			result, err := d.compareTable(ctx, history{ledger, table})
			if err != nil {
				return "", err
			}
			total.Add(result)
			d.now(fmt.Sprintf("%s rows, up to %s", count(total.Rows), table))
		}
		return fmt.Sprintf("%s rows and %s deleted ones", count(total.Rows), count(total.Deleted)), nil
	})
	return total, err
}

func (d *demo) compareTable(ctx context.Context, h history) (result compare.Result, err error) {
	conn, err := d.source.connect(ctx)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	table, err := compare.Describe(ctx, conn, h.table.Schema, h.table.Name)
	if err != nil {
		return result, err
	}
	table.Hard = d.hard
	source, err := compare.Source(ctx, conn, table)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	sink, err := compare.Sink(ctx, d.sink.db, sinkDatabase, table)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	return compare.Compare(table, source, sink, h)
}

// report prints what the run was like.
func (d *demo) report(result compare.Result) {
	total, elapsed := d.service.total(), d.watch.frozen.Sub(d.watch.begun)
	perSecond := float64(d.load.Written()) / elapsed.Seconds()
	row := func(name, format string, args ...any) string {
		return fmt.Sprintf("  %-13s ", name) + fmt.Sprintf(format, args...)
	}
	deletes := "%s kept in the sink as deleted, exactly those that were deleted"
	if d.hard {
		deletes = "%s kept in the sink: deletes are hard"
	}
	lines := []string{
		"",
		fmt.Sprintf("%s differences in %s rows of %d tables", count(result.Count), count(result.Rows), len(shop.Tables())),
		"",
		row("existing", "%s rows, copied before the changes began", count(d.existing)),
		row("changes", "%s in %s transactions, %d sessions", count(d.load.Written()), count(d.load.Transactions()), 3),
		row("speed", "%s changes/s from the first write to the last row in the sink (%s)", count(int64(perSecond)), seconds(elapsed)),
		row("batches", "%s, %s loads tried again", count(total.batches), count(total.retried)),
		row("lag", "p50 %s, p99 %s: age of the oldest change not yet in the sink, asked every %s",
			lag(d.watch.lagQuantile(0.5)), lag(d.watch.lagQuantile(0.99)), watchEvery),
		row("memory", "%s at most (dbmazz, queue included)", size(total.peak)),
		row("CPU", "%s of dbmazz, %.2f cores on average", seconds(total.cpu), total.cpu.Seconds()/elapsed.Seconds()),
		row("deleted rows", deletes, count(result.Deleted)),
	}
	if result.Count > 0 {
		lines = append(lines[:len(lines)-1], "", "the first differences:")
		for _, difference := range result.First {
			lines = append(lines, "  "+difference.String())
		}
	}
	if d.outside.Load() {
		lines = append(lines, row("note", "batches, memory and CPU are those of dbmazz before it was stopped from outside"))
	}
	if d.kills > 0 {
		lines = append(lines, row("kills", "%d with SIGKILL; slot intact each time; the number of batches is what was seen of it", d.kills))
	}
	if d.sinkDown > 0 {
		lines = append(lines, row("outage", "%s without sink and without a reconnect (wal_sender_timeout 30s)", d.sinkDown))
	}
	lines = append(lines, "",
		"The sink was a stand-in, not StarRocks: these figures say nothing about the speed of StarRocks.",
		"PostgreSQL, the load, dbmazz and the stand-in shared this machine.", "")
	d.say(lines...)
}
