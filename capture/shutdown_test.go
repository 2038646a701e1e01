package capture_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// TestServerShutsDownWhileTheSinkIsAway, although its walsender waits until everything that
// it has sent is confirmed. Nothing is lost by it.
func TestServerShutsDownWhileTheSinkIsAway(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		for _, major := range []int{13, 18} {
			t.Run(fmt.Sprintf("stream full %t, PostgreSQL %d", full, major), func(t *testing.T) {
				t.Parallel()
				if _, err := pgtest.BinDir(major); err != nil {
					t.Skip(err) // skip: that version is not installed; make setup-postgres-majors installs it.
				}
				shutsDownWhileTheSinkIsAway(t, major, full)
			})
		}
	}
}

func shutsDownWhileTheSinkIsAway(t *testing.T, major int, full bool) {
	t.Helper()
	server := pgtest.StartServer(t, pgtest.Options{Major: major})
	db := server.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := newRig(t, db, "t")
	// Once it is the walsender's question that tells, once the look at the catalog, since
	// the question is behind what the reader cannot take.
	r.cfg.CatalogInterval, r.cfg.SnapshotStore = map[bool]time.Duration{false: time.Hour, true: time.Second}[full], &capturetest.Store{}
	r.stream.AutoApply(false)
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (0, 'the table is described')")
	r.drain()
	rows := 100
	if full {
		rows = 30_000 // More than all buffers in between hold.
		r.stream.Block()
	}
	db.Exec(fmt.Sprintf("INSERT INTO t SELECT i, repeat('v', 1000) FROM generate_series(1, %d) i", rows))
	if !full {
		r.drain()
	} else {
		pause(2 * time.Second) // Until the server blocks in sending.
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	if err := server.Stop(ctx, pgtest.Fast); err != nil {
		t.Fatalf("%v; status %+v", err, r.c.Status())
	}
	t.Logf("it has stopped after %s", time.Since(began).Round(time.Millisecond))
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if full {
		r.stream.Unblock()
	}
	r.drain()
	if n := len(r.changes()); n != 1+rows {
		t.Errorf("%d changes, want %d", n, 1+rows)
	}
}

// TestServerShutsDownWhileTheStreamCannotBeOpened, as while the disk under it is full.
func TestServerShutsDownWhileTheStreamCannotBeOpened(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{})
	db := server.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := newRig(t, db, "t")
	r.cfg.StatusInterval = 500 * time.Millisecond
	r.stream.AutoApply(false)
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1, 'x')")
	r.drain()
	r.stop()
	open := r.stream.BlockOpen()
	r.start()
	db.Exec("INSERT INTO t VALUES (2, 'x')")
	for pgtest.Value[int](db, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 0 {
		pause(10 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := server.Stop(ctx, pgtest.Fast); err != nil {
		t.Fatalf("%v; status %+v", err, r.c.Status())
	}
	if err := server.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	open()
	r.drain()
	r.want("insert public.t (1,x)", "insert public.t (2,x)")
}
