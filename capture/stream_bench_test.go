package capture_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// BenchmarkLargeTransaction has a transaction of two million rows captured while it
// happens, with the server's default memory, with and without streaming.
func BenchmarkLargeTransaction(b *testing.B) {
	for _, streaming := range []bool{false, true} {
		b.Run(fmt.Sprintf("streaming-%t", streaming), func(b *testing.B) {
			for range b.N {
				largeTransaction(b, streaming)
			}
		})
	}
}

func largeTransaction(b *testing.B, streaming bool) {
	b.Helper()
	const rows, step = 2_000_000, 100_000
	db := pgtest.Database(b)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, a text, b text, c int, d numeric(12,2), e timestamptz, f bool, g text)")
	stream := &discard{Stream: capturetest.New(), tail: cdc.Tail{Empty: true}}
	c, err := capture.New(capture.Config{
		SourceURL: db.URL(), Slot: db.Name(), Publication: "p", Tables: []capture.Table{table("t")}, Logger: slog.New(slog.DiscardHandler),
		Streaming: streaming, SpoolDir: b.TempDir(),
	}, stream, stream)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for c.Status().State != capture.StateStreaming {
		pause(time.Millisecond)
	}
	pid := pgtest.Value[int](db, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", db.Name())
	began, own, theirs := time.Now(), cpuTime(b), processTime(b, pid)
	db.Exec("BEGIN")
	for from := 0; from < rows; from += step {
		db.Exec(fmt.Sprintf("INSERT INTO t SELECT j, 'customer ' || j, md5(j::text), j, j * 1.25, now(), j %% 2 = 0, repeat('x', 80) FROM generate_series(%d, %d) j", from+1, from+step))
	}
	committing := time.Now()
	db.Exec("COMMIT")
	if err := c.Drain(ctx); err != nil {
		b.Fatal(err)
	}
	if n := c.Status().Rows; n != rows {
		b.Fatalf("%d rows", n)
	}
	b.ReportMetric(time.Since(began).Seconds(), "total-s")
	b.ReportMetric(time.Since(committing).Seconds(), "after-commit-s")
	b.ReportMetric((cpuTime(b) - own).Seconds(), "own-cpu-s")
	b.ReportMetric((processTime(b, pid) - theirs).Seconds(), "walsender-cpu-s")
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// processTime reads the processor time of another process, zero where there is no /proc.
func processTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// After the name, which is in brackets, the twelfth and thirteenth are ticks.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
