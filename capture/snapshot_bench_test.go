package capture_test

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// BenchmarkSnapshot copies a table, and has COPY read the same one beside it for
// comparison. DBMAZZ_SNAPSHOT_ROWS is its size.
func BenchmarkSnapshot(b *testing.B) {
	rows, err := strconv.Atoi(os.Getenv("DBMAZZ_SNAPSHOT_ROWS"))
	if err != nil {
		rows = 200_000
	}
	db := pgtest.Database(b)
	db.Exec(`CREATE TABLE t (id int PRIMARY KEY, a text, b text, c int, d numeric(12,2), e timestamptz, f bool, g text)`)
	db.Exec("INSERT INTO t SELECT j, 'customer ' || j, md5(j::text), j, j * 1.25, now(), j % 2 = 0, repeat('x', 80) FROM generate_series(1, $1::int) j", rows)
	db.Exec("VACUUM ANALYZE t")
	b.ResetTimer()
	for range b.N {
		began := time.Now()
		if _, err := db.Connect().PgConn().CopyTo(b.Context(), io.Discard, "COPY t TO STDOUT"); err != nil {
			b.Fatal(err)
		}
		plain := time.Since(began)
		b.ReportMetric(float64(rows)/plain.Seconds(), "plain-copy-rows/s")
		b.ReportMetric(float64(rows)/copyAll(b, db).Seconds(), "rows/s")
	}
}

// copyAll copies the table into a stream that keeps nothing.
func copyAll(b *testing.B, db *pgtest.DB) time.Duration {
	b.Helper()
	stream := &appliedAll{discard: discard{Stream: capturetest.New(), tail: cdc.Tail{Empty: true}}}
	c, err := capture.New(capture.Config{
		SourceURL: db.URL(), Slot: "slot_" + db.Name(), Publication: "p_" + db.Name(), Tables: []capture.Table{table("t")},
		Snapshot: capture.SnapshotInitial, SnapshotStore: &capturetest.Store{}, Logger: slog.New(slog.DiscardHandler),
	}, stream, stream)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(b.Context())
	go func() { done <- c.Run(ctx) }()
	for {
		if s := c.Status().Snapshot; s.Done && len(s.Tables) == 1 {
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			db.Exec("SELECT pg_drop_replication_slot($1)", "slot_"+db.Name())
			return s.Tables[0].Finished.Sub(s.Tables[0].Started)
		}
		pause(5 * time.Millisecond)
	}
}

// appliedAll is a stream that keeps nothing, and a sink that has applied it.
type appliedAll struct {
	discard
	mu   sync.Mutex
	last cdc.Header
}

func (a *appliedAll) Open(context.Context) (capture.Publisher, error) { return a, nil }

func (a *appliedAll) Publish(_ context.Context, frame []byte, h cdc.Header, stored func([]byte)) error {
	a.mu.Lock()
	a.last = h
	a.mu.Unlock()
	stored(frame)
	return nil
}

func (a *appliedAll) Checkpoint() (cdc.Checkpoint, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return cdc.Checkpoint{Epoch: "test", Position: a.last.Last, End: a.last.End}, a.last.End > 0
}
