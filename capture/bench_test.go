package capture_test

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// discard is a stream that keeps nothing but its end.
type discard struct {
	*capturetest.Stream
	tail cdc.Tail
}

func (d *discard) Tail(context.Context) (cdc.Tail, error)          { return d.tail, nil }
func (d *discard) Open(context.Context) (capture.Publisher, error) { return d, nil }
func (d *discard) Flush(context.Context) error                     { return nil }
func (d *discard) Close()                                          {}
func (d *discard) Checkpoint() (cdc.Checkpoint, bool)              { return cdc.Checkpoint{}, false }

func (d *discard) Publish(_ context.Context, frame []byte, _ cdc.Header, stored func([]byte)) error {
	stored(frame)
	return nil
}

// BenchmarkCapture reads a backlog of changes, and has pg_recvlogical read the same
// beside it for comparison.
func BenchmarkCapture(b *testing.B) {
	const rows = 200_000
	for _, size := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("rows-per-transaction-%d", size), func(b *testing.B) {
			db := pgtest.Database(b)
			db.Exec(`CREATE TABLE t (id int PRIMARY KEY, a text, b text, c int, d numeric(12,2), e timestamptz, f bool, g text);
CREATE PUBLICATION p FOR TABLE t;
CREATE PROCEDURE load(rows int, size int) LANGUAGE plpgsql AS $$ BEGIN
  FOR i IN 1 .. rows / size LOOP
    INSERT INTO t SELECT (i - 1) * size + j, 'customer ' || j, md5(j::text), j, j * 1.25, now(), j % 2 = 0, repeat('x', 80) FROM generate_series(1, size) j;
    COMMIT;
  END LOOP;
END $$`)
			for i := range 2 {
				db.Exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", fmt.Sprintf("%s_%d", db.Name(), i))
			}
			db.Exec("SET synchronous_commit = off")
			db.Exec(fmt.Sprintf("CALL load(%d, %d)", rows, size))
			end := pgtest.Value[string](db, "SELECT pg_current_wal_lsn()::text")
			b.ResetTimer()
			for range b.N {
				wall, cpu := captureAll(b, db, db.Name()+"_0")
				b.ReportMetric(rows/wall.Seconds(), "rows/s")
				b.ReportMetric(float64(cpu.Microseconds())/rows, "cpu-us/row")
				wall = receiveAll(b, db, db.Name()+"_1", end)
				b.ReportMetric(rows/wall.Seconds(), "recvlogical-rows/s")
			}
		})
	}
}

// captureAll reads the backlog; nothing is applied, so the slot stays where it is.
func captureAll(b *testing.B, db *pgtest.DB, slot string) (wall, cpu time.Duration) {
	b.Helper()
	stream := &discard{Stream: capturetest.New(), tail: cdc.Tail{Empty: true}}
	c, err := capture.New(capture.Config{
		SourceURL: db.URL(), Slot: slot, Publication: "p", Tables: []capture.Table{table("t")}, Logger: slog.New(slog.DiscardHandler),
		BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
	}, stream, stream)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	began, used := time.Now(), cpuTime(b)
	go func() { done <- c.Run(ctx) }()
	if err := c.Drain(ctx); err != nil {
		b.Fatal(err)
	}
	wall, cpu = time.Since(began), cpuTime(b)-used
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return wall, cpu
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func receiveAll(b *testing.B, db *pgtest.DB, slot, end string) time.Duration {
	b.Helper()
	program := db.Server().Program("pg_recvlogical")
	began := time.Now()
	cmd := exec.CommandContext(b.Context(), program, "--dbname", db.URL(), "--slot", slot, "--start", "--no-loop", "--endpos", end,
		"-o", "proto_version=1", "-o", "publication_names=p", "--file", "/dev/null", "--fsync-interval", "0", "--status-interval", "0")
	if out, err := cmd.CombinedOutput(); err != nil {
		// skip: a comparison only, not every installation has the program.
		b.Skipf("pg_recvlogical: %v: %s", err, out)
	}
	return time.Since(began)
}
