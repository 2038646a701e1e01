package oracle_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

const (
	sinkDatabase = "mart"
	publication  = "pub"
	keyApply     = "apply"
	// settleWithin is far beyond what any phase takes on a slow machine.
	settleWithin = 3 * time.Minute
)

// rig is a pipeline between a database and the stand-in.
type rig struct {
	t      testing.TB
	url    string
	writer *pgconn.PgConn
	reader *pgconn.PgConn // prints values as capture's session does
	server *starrockstest.Server
	mode   starrocks.DeleteMode
	sink   *setAside
	apply  *apply.Apply
	// streams makes capture take large transactions before their end.
	streams bool
	// capture is nil before start.
	capture *capture.Capture

	progress *progress
	logs     *logTail
}

// readerSettings are those that docs/types.md names, and the rest of what a value's text depends on.
const readerSettings = "SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET bytea_output = 'hex'; SET IntervalStyle = 'postgres';" +
	"SET extra_float_digits = 3; SET lc_monetary = 'C'; SET client_encoding = 'UTF8'; SET quote_all_identifiers = off; SET search_path = pg_catalog"

// newRig connects to a database that the caller has made; ddl makes its tables.
func newRig(t testing.TB, dbURL string, mode starrocks.DeleteMode) *rig {
	t.Helper()
	r := &rig{
		t: t, url: dbURL, mode: mode, server: starrockstest.Start(t, starrockstest.Options{}),
		progress: &progress{changed: make(chan struct{})}, logs: &logTail{},
	}
	r.writer, r.reader = r.connect(), r.connect()
	r.exec(r.reader, readerSettings)
	r.sinkExec("CREATE DATABASE " + sinkDatabase)
	r.exec(r.writer, "CREATE TABLE mark (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY)")
	return r
}

// hostile gives a database defaults under which values print in other ways than they must travel, and few of which fit
// into the memory of the decoder.
func hostile(db *pgtest.DB) {
	for _, setting := range []string{
		"DateStyle = 'SQL, DMY'", "TimeZone = 'America/New_York'", "bytea_output = 'escape'", "IntervalStyle = 'iso_8601'", "extra_float_digits = -15", "logical_decoding_work_mem = '64kB'",
		"search_path = public, s2", "quote_all_identifiers = on", "xmlbinary = 'hex'",
	} {
		db.Exec("ALTER DATABASE " + db.Name() + " SET " + setting)
	}
}

func (r *rig) connect() *pgconn.PgConn {
	r.t.Helper()
	conn, err := pgconn.Connect(r.t.Context(), r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(r.t.Context())) }) // Nothing is left to be lost.
	return conn
}

func (r *rig) exec(conn *pgconn.PgConn, sql string) {
	r.t.Helper()
	if _, err := conn.Exec(r.t.Context(), sql).ReadAll(); err != nil {
		r.t.Fatalf("%v, run %s", err, around(sql, err))
	}
}

// around cuts a long statement to the part that an error is about.
func around(sql string, err error) string {
	const before, after = 300, 600
	at := 0
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		at = int(pgErr.Position)
	}
	runes := []rune(sql)
	return string(runes[max(0, min(at, len(runes))-before):min(at+after, len(runes))])
}

// query returns texts as the types' output functions print them.
func (r *rig) query(sql string) [][][]byte {
	r.t.Helper()
	results, err := r.reader.Exec(r.t.Context(), sql).ReadAll()
	if err != nil || len(results) != 1 {
		r.t.Fatalf("query %.2000s: %d results, %v", sql, len(results), err)
	}
	return results[0].Rows
}

func (r *rig) sinkExec(sql string) {
	r.t.Helper()
	if err := r.server.Exec(sql); err != nil {
		r.t.Fatalf("run %.2000s in the sink: %v", sql, err)
	}
}

// start runs the pipeline until the test ends, and waits until its tables are prepared.
func (r *rig) start(tables []string) {
	r.t.Helper()
	slot := "slot_" + string(r.query("SELECT current_database()")[0][0]) // Slots belong to the whole server.
	log := slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelWarn}))
	b, err := bus.New(bus.Config{Pipeline: slot, DataDir: r.t.TempDir(), Logger: log})
	r.must(err)
	r.must(b.Open(r.t.Context()))
	front := &url.URL{Scheme: "http", Host: r.server.FEHTTP()}
	sink, err := starrocks.New(starrocks.Config{
		URL: front.String(), MySQLAddr: r.server.MySQL(), Database: sinkDatabase, User: "root", DeleteMode: r.mode, CreateTables: true, Logger: log,
	})
	r.must(err)
	names := []capture.Table{{Schema: "public", Name: "mark"}}
	for _, name := range tables {
		names = append(names, capture.Table{Schema: "public", Name: name})
	}
	r.capture, err = capture.New(capture.Config{
		SourceURL: r.url, Slot: slot, Publication: publication, Tables: names, Streaming: r.streams, SpoolDir: r.t.TempDir(), Logger: log,
	}, captureStream{b, bucket{b, "capture"}}, r.progress)
	r.must(err)
	r.sink = &setAside{Sink: sink, refusals: map[string]map[string]*apply.RowError{}}
	r.apply = apply.New(apply.Config{MinSpacing: 5 * time.Millisecond, FlushInterval: time.Second, BackoffMax: 50 * time.Millisecond, Logger: log},
		applyStream{b, bucket{b, keyApply}, func(err error) { r.t.Errorf("list of tables: %v", err) }}, r.sink)

	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	group, ctx := errgroup.WithContext(ctx)
	loaded := make(chan struct{})
	group.Go(func() error { return r.progress.follow(ctx, b, sync.OnceFunc(func() { close(loaded) })) })
	select {
	case <-loaded:
	case <-ctx.Done():
	}
	group.Go(func() error {
		return b.RunJanitor(ctx, func() uint64 { c, _ := r.progress.Checkpoint(); return c.Sequence })
	})
	group.Go(func() error { return r.capture.Run(ctx) })
	group.Go(func() error { return r.apply.Run(ctx) })
	r.t.Cleanup(func() {
		cancel()
		if err := group.Wait(); err != nil {
			r.t.Errorf("run the pipeline: %v", err)
		}
		sink.Close()
		closing, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), time.Minute)
		defer cancel()
		if err := b.Close(closing); err != nil {
			r.t.Errorf("close the bus: %v", err)
		}
	})
	r.awaitReady()
	r.settle()
}

// awaitReady waits until the slot exists, as only what is committed after that goes through the pipeline, and until
// the sink's tables are prepared.
func (r *rig) awaitReady() {
	r.t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.Now().Add(settleWithin)
	slots := func() string {
		return string(r.query("SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND confirmed_flush_lsn IS NOT NULL")[0][0])
	}
	for !r.apply.Status().Ready || slots() == "0" {
		if time.Now().After(deadline) {
			r.t.Fatalf("the pipeline is not ready after %v: %s\n%s", settleWithin, r.apply.Status().Err, r.logs)
		}
		<-ticker.C
	}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// mark commits a row and returns a position that is after every commit before the call and before that of the row.
func (r *rig) mark() cdc.LSN {
	r.t.Helper()
	results, err := r.writer.Exec(r.t.Context(), "SELECT pg_current_wal_insert_lsn()::text; INSERT INTO mark DEFAULT VALUES").ReadAll()
	r.must(err)
	goal, err := cdc.ParseLSN(string(results[0].Rows[0][0]))
	r.must(err)
	return goal
}

// reached tells whether the sink holds what was committed before a mark.
func (r *rig) reached(goal cdc.LSN) bool {
	c, ok := r.progress.Checkpoint()
	return ok && c.End >= goal
}

// settle waits until the sink holds everything that is committed.
func (r *rig) settle() {
	r.t.Helper()
	goal := r.mark()
	timeout := time.NewTimer(settleWithin)
	defer timeout.Stop()
	for changed := r.progress.Changed(); !r.reached(goal); changed = r.progress.Changed() {
		select {
		case <-changed:
		case <-timeout.C:
			r.t.Fatalf("the sink did not get what is committed within %v: %s\n%s", settleWithin, r.apply.Status().Err, r.logs)
		}
	}
}

// logTail keeps the end of the log for failures.
type logTail struct {
	mu   sync.Mutex
	text []byte
}

func (l *logTail) Write(p []byte) (int, error) {
	const kept = 8 << 10
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, p...)
	l.text = l.text[max(0, len(l.text)-kept):]
	return len(p), nil
}

func (l *logTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.text)
}
