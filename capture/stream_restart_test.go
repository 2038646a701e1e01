package capture_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// inserted lists the inserts of rows from..to with a value of 100 times what.
func inserted(from, to int, what string) []string {
	var list []string
	for i := from; i <= to; i++ {
		list = append(list, fmt.Sprintf("insert public.t (%d,%s)", i, strings.Repeat(what, 100)))
	}
	return list
}

func insert(from, to int, what string) string {
	return fmt.Sprintf("INSERT INTO t SELECT i, repeat('%s', 100) FROM generate_series(%d, %d) i;", what, from, to)
}

// kill ends the walsender.
func (r *rig) kill() {
	r.db.Exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", r.cfg.Slot)
}

// A transaction of which the stream holds a part goes on after it, and one that it holds
// wholly is left out, whoever kept it before the commit in this session and the last.
func TestStreamedTransactionGoesOnWhereTheStreamEnds(t *testing.T) {
	t.Parallel()
	n := seed(t)
	rnd := rand.New(rand.NewPCG(n, 0))
	db := pgtest.DatabaseSince(t, 14)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := streamingRig(t, db, "t")
	r.cfg.FrameBytes = 2000
	r.stream.AutoApply(false)
	r.startStreaming()
	const rollback = "SAVEPOINT s; INSERT INTO t SELECT -i, repeat('x', 100) FROM generate_series(1, 900) i; ROLLBACK TO s;"
	db.Exec("BEGIN;" + insert(1, 900, "a") + rollback + insert(901, 1500, "b") + "COMMIT")
	db.Exec("INSERT INTO t VALUES (0)")
	db.Exec("BEGIN;" + rollback + insert(2001, 3000, "c") + "COMMIT")
	r.drain()
	want := append(inserted(1, 900, "a"), inserted(901, 1500, "b")...)
	want = append(append(want, "insert public.t (0,~)"), inserted(2001, 3000, "c")...)
	r.want(want...)
	full := exactChanges(t, r.stream)
	for range 8 {
		r.stop()
		r.stream.Cut(1 + rnd.IntN(len(r.stream.Frames())))
		r.cfg.Streaming = rnd.IntN(3) > 0
		r.cfg.FrameBytes = 1 + rnd.IntN(5000)
		r.start()
		r.drain()
		compareExact(t, full, exactChanges(t, r.stream))
	}
}

func TestConnectionLostInsideOfAStreamLosesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.DatabaseSince(t, 14)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := streamingRig(t, db, "t")
	r.startStreaming()
	conn, exec := db.Connect(), execOn(t)
	exec(conn, "BEGIN;"+insert(1, 1000, "a"))
	r.awaitStreamed(1)
	r.kill()
	r.await("restarted", func(s capture.Status) bool { return s.Restarts == 1 })
	r.awaitStreamed(1)
	exec(conn, "SAVEPOINT s;"+insert(5000, 6000, "x")+"ROLLBACK TO s;"+insert(1001, 2000, "b"))
	r.kill()
	r.await("restarted", func(s capture.Status) bool { return s.Restarts == 2 })
	exec(conn, "COMMIT")
	r.want(append(inserted(1, 1000, "a"), inserted(1001, 2000, "b")...)...)
}

// The slot may follow the server past the first change of an open transaction: the
// server still sends all of it.
func TestIdleSlotPassesTheStartOfAStreamedTransactionWithoutLosingIt(t *testing.T) {
	t.Parallel()
	pgtest.ForEachMajor(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int)")
		r := streamingRig(t, db, "t")
		r.cfg.StatusInterval = 50 * time.Millisecond
		r.startStreaming()
		conn, exec := db.Connect(), execOn(t)
		exec(conn, "BEGIN;"+insert(1, 1000, "a"))
		if r.c.Status().Streaming.On {
			r.awaitStreamed(1)
		}
		db.Exec("INSERT INTO other VALUES (1); CHECKPOINT; INSERT INTO other VALUES (2)")
		goal := r.serverEnd()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := r.c.Confirmed(ctx, goal); err != nil {
			t.Fatal(err)
		}
		r.kill()
		r.stop()
		exec(conn, insert(1001, 1010, "b"))
		r.start()
		exec(conn, "COMMIT")
		r.want(append(inserted(1, 1000, "a"), inserted(1001, 1010, "b")...)...)
		if last := r.stream.Frames()[0].Header.Last.Commit; last <= goal {
			t.Errorf("committed at %s, the slot was at %s", last, goal)
		}
	})
}

func TestReplayOfALargeTransactionDoesNotCostTheConnection(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{Major: pgtest.Since(t, 14), Settings: map[string]string{"wal_sender_timeout": "8s"}})
	db := server.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := streamingRig(t, db, "t")
	r.stream.AutoApply(false)
	r.startStreaming()
	conn, exec := db.Connect(), execOn(t)
	exec(conn, "BEGIN;"+insert(1, 30000, "a"))
	r.awaitStreamed(1)
	r.stream.Block()
	exec(conn, "COMMIT")
	// What comes meanwhile fills the buffers in between.
	db.Exec(insert(30001, 60000, "b"))
	pause(13 * time.Second)
	if s := r.c.Status(); s.State != capture.StateStreaming || s.Restarts != 0 {
		t.Fatalf("status %+v", s)
	}
	got := r.confirmed()
	r.stream.Unblock()
	r.want(append(inserted(1, 30000, "a"), inserted(30001, 60000, "b")...)...)
	if s := r.c.Status(); s.Restarts != 0 {
		t.Errorf("status %+v", s)
	}
	if commit := r.stream.Frames()[0].Header.Last.Commit; got > commit {
		t.Errorf("the slot was at %s, nothing is applied, and the transaction committed at %s", got, commit)
	}
}

func TestFullSpoolLeavesLargeTransactionsToTheServer(t *testing.T) {
	t.Parallel()
	db := pgtest.DatabaseSince(t, 14)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := streamingRig(t, db, "t")
	r.cfg.SpoolBytes = 1 << 20
	r.cfg.StatusInterval = 50 * time.Millisecond
	r.start()
	r.c.PauseStreaming(time.Second)
	conn, exec := db.Connect(), execOn(t)
	r.await("streaming", func(s capture.Status) bool { return s.Streaming.On && s.State == capture.StateStreaming })
	exec(conn, "BEGIN;"+insert(1, 20000, "a"))
	s := r.await("without streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming && !s.Streaming.On })
	if !strings.Contains(s.Streaming.Problem, "it may have 1 MiB") || s.Streaming.Until.IsZero() || s.Streaming.SpoolBytes != 0 {
		t.Errorf("status %+v", s.Streaming)
	}
	exec(conn, "COMMIT")
	r.drain()
	if diff := cmp.Diff(inserted(1, 20000, "a"), r.changes()); diff != "" {
		t.Fatal(diff)
	}
	// And when the time has come it streams again.
	r.await("streaming again", func(s capture.Status) bool { return s.State == capture.StateStreaming && s.Streaming.On })
	exec(conn, "BEGIN;"+insert(20001, 21000, "b"))
	r.awaitStreamed(1)
	exec(conn, "COMMIT")
	r.want(append(inserted(1, 20000, "a"), inserted(20001, 21000, "b")...)...)
	if s := r.c.Status(); s.Streaming.Problem != "" {
		t.Errorf("status %+v", s.Streaming)
	}
}

func TestManyStreamedTransactionsAndLargeValues(t *testing.T) {
	t.Parallel()
	db := pgtest.DatabaseSince(t, 14)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := streamingRig(t, db, "t")
	r.startStreaming()
	exec := execOn(t)
	const count = 40
	var want []string
	conns := make([]func(string), count)
	for i := range conns {
		conn := db.Connect()
		conns[i] = func(sql string) { exec(conn, sql) }
		conns[i]("BEGIN")
	}
	for range 3 {
		for i, run := range conns {
			run(fmt.Sprintf("SAVEPOINT s; INSERT INTO t SELECT coalesce(max(id), %d) + n, repeat('v', 200) FROM t, generate_series(1, 300) n WHERE id BETWEEN %[1]d AND %d GROUP BY n",
				i*100_000, i*100_000+99_999))
			run(fmt.Sprintf("INSERT INTO t SELECT %d + n, repeat('v', 200) FROM generate_series(1, 300) n ON CONFLICT DO NOTHING", i*100_000))
		}
	}
	r.awaitStreamed(count)
	const large = 64 << 20
	conns[0](fmt.Sprintf("INSERT INTO t VALUES (99999, repeat('L', %d)); COMMIT", large))
	rows := 0
	for i := count - 1; i > 0; i-- {
		conns[i]("COMMIT")
	}
	r.drain()
	db.QueryRow("SELECT count(*) FROM t").Scan(&rows)
	got := r.changes()
	if len(got) != rows {
		t.Fatalf("%d changes, %d rows", len(got), rows)
	}
	want = append(want, fmt.Sprintf("insert public.t (99999,L*%d)", large))
	if !strings.Contains(strings.Join(got, "\n"), want[0]) {
		t.Error("the large value is missing")
	}
	if s := r.c.Status(); s.Restarts > 0 || s.Streaming.Bytes != 0 {
		t.Errorf("status %+v", s)
	}
}

// A server that streams decodes what was rolled back too, and may not be able to; see
// blamesStreaming. The random test meets such a server at times.
func TestServerThatCannotStreamATransactionIsAskedToKeepIt(t *testing.T) {
	t.Parallel()
	db := pgtest.DatabaseSince(t, 14)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := streamingRig(t, db, "t")
	target, err := url.Parse(r.cfg.SourceURL)
	if err != nil {
		t.Fatal(err)
	}
	target.Host = failStreaming(t, target.Host)
	r.cfg.SourceURL = target.String()
	r.start()
	s := r.await("without streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming && !s.Streaming.On })
	if !strings.Contains(s.Streaming.Problem, "could not map filenumber") || s.LastError != "" {
		t.Errorf("status %+v", s)
	}
	db.Exec(insert(1, 2000, "a"))
	r.want(inserted(1, 2000, "a")...)
}

// failStreaming is a server that fails as soon as it is to stream.
func failStreaming(t *testing.T, server string) (addr string) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				t.Error(err)
				return
			}
			go func() { _, _ = io.Copy(client, up); _ = client.Close() }()
			go func() {
				defer func() { _, _ = up.Close(), client.Close() }()
				for buf := make([]byte, 8192); ; {
					n, err := client.Read(buf)
					if err != nil {
						return
					}
					if bytes.Contains(buf[:n], []byte("streaming 'on'")) {
						e := pgproto3.ErrorResponse{Severity: "ERROR", Code: "XX000", Message: "could not map filenumber"}
						answer, _ := e.Encode(nil)
						_, _ = client.Write(answer)
						return
					}
					if _, err := up.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}
