package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// progressEvery is how long nothing is said about work that goes on.
const progressEvery = 10 * time.Second

// during tells every so often how far something is that takes long, until stop is called.
func (b *bench) during(how func() string) (stop func()) {
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				b.say("    %s", how())
			}
		}
	})
	return func() {
		close(done)
		running.Wait()
	}
}

// making tells how far the changes of a workload are, by the server's log.
func (b *bench) making(ctx context.Context) func() string {
	const mega = "SELECT round(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') / 1048576)::bigint"
	return func() string {
		conn, err := b.source.server.Connect(ctx, "postgres")
		if err != nil {
			return fmt.Sprintf("the changes are being made; the server does not say how far it is: %v", err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // It was only read.
		var size int64
		if err := conn.QueryRow(ctx, mega).Scan(&size); err != nil {
			return fmt.Sprintf("the changes are being made; the server does not say how far it is: %v", err)
		}
		return fmt.Sprintf("the changes are being made; the server's log is at %d MB", size)
	}
}

// sinking tells how many rows the sink has.
func (t *trial) sinking() string {
	return fmt.Sprintf("%d rows have arrived in the sink; the changes are %d", t.sink.arrivals().rows, t.d.rows)
}

// queueing tells how many row changes capture has taken.
func (t *trial) queueing(ctx context.Context, capture *service) func() string {
	return func() string {
		values, err := capture.scrape(ctx)
		if err != nil {
			return fmt.Sprintf("capture does not say how far it is: %v", err)
		}
		return fmt.Sprintf("%.0f of %d row changes are in the queue", values["dbmazz_rows_captured_total"], t.d.rows)
	}
}
