package pgtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	startWithin = 2 * time.Minute
	dropWithin  = 30 * time.Second
)

// DB is a fresh database of one test. Its methods may be called concurrently; they fail the test on an error.
type DB struct {
	t      testing.TB
	server *Server
	name   string

	mu   sync.Mutex
	conn *pgx.Conn // The helpers' own, opened on first use.
}

// Database makes a fresh database on the server that the tests of this process share.
// When the test ends it is dropped together with its replication slots.
func Database(t testing.TB) *DB {
	t.Helper()
	return shared(t, 0).Database(t)
}

// Since is that major version or a later one: the default if it is, else the oldest that is installed. Without any the test
// is skipped.
func Since(t testing.TB, major int) int {
	t.Helper()
	at, err := DefaultMajor()
	if err != nil {
		t.Fatal(err)
	}
	if at >= major {
		return at
	}
	majors := Majors()
	i, _ := slices.BinarySearch(majors, major)
	if i == len(majors) {
		// skip: what is tested is not in older servers. CI installs all versions.
		t.Skipf("needs PostgreSQL %d or later", major)
	}
	return majors[i]
}

// DatabaseSince is Database on a server of [Since].
func DatabaseSince(t testing.TB, major int) *DB {
	t.Helper()
	return shared(t, Since(t, major)).Database(t)
}

// ForEachMajor runs a subtest on a shared server of every installed major version.
// The servers belong to all tests: a test that stops one starts its own with StartServer.
func ForEachMajor(t *testing.T, run func(t *testing.T, server *Server)) {
	t.Helper()
	majors := Majors()
	if len(majors) == 0 {
		t.Fatalf("%v: run \"make setup-postgres\"", ErrNoServer)
	}
	for _, major := range majors {
		t.Run("postgres-"+strconv.Itoa(major), func(t *testing.T) { run(t, shared(t, major)) })
	}
}

// ForMajors runs a subtest on a shared server of each of these major versions that is
// installed; if none is, on one of the default version.
func ForMajors(t *testing.T, majors []int, run func(t *testing.T, server *Server)) {
	t.Helper()
	majors = slices.DeleteFunc(slices.Clone(majors), func(major int) bool { return !slices.Contains(Majors(), major) })
	if len(majors) == 0 {
		majors = []int{0}
	}
	for _, major := range majors {
		t.Run("postgres-"+strconv.Itoa(major), func(t *testing.T) { run(t, shared(t, major)) })
	}
}

// StartServer starts a server for one test, which may do with it as it likes; it is closed when the test ends.
func StartServer(t testing.TB, o Options) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	server, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close PostgreSQL: %v", err)
		}
	})
	return server
}

var databaseCount atomic.Int64

// Database makes a fresh database on this server; see the function Database.
func (s *Server) Database(t testing.TB) *DB {
	t.Helper()
	return s.database(t, "")
}

// EncodedDatabase makes a fresh database whose texts have this encoding, such as LATIN1.
func (s *Server) EncodedDatabase(t testing.TB, encoding string) *DB {
	t.Helper()
	return s.database(t, " TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING '"+encoding+"'")
}

func (s *Server) database(t testing.TB, options string) *DB {
	t.Helper()
	name := fmt.Sprintf("test_%d", databaseCount.Add(1))
	s.admin(t, "CREATE DATABASE "+name+options)
	db := &DB{t: t, server: s, name: name}
	t.Cleanup(db.drop)
	return db
}

// Server is the server that holds the database.
func (d *DB) Server() *Server { return d.server }

// Name is the database's name; it needs no quotes.
func (d *DB) Name() string { return d.name }

// URL is the database's connection URL for the superuser.
func (d *DB) URL() string { return d.server.URL(d.name) }

// Connect opens another connection, closed when the test ends.
func (d *DB) Connect() *pgx.Conn {
	d.t.Helper()
	conn, err := d.server.Connect(d.t.Context(), d.name)
	if err != nil {
		d.t.Fatalf("connect to %s: %v", d.name, err)
	}
	d.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(d.t.Context())) }) // The test may have broken it on purpose.
	return conn
}

// Exec runs a statement, or several without arguments.
func (d *DB) Exec(sql string, args ...any) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.connection().Exec(d.t.Context(), sql, args...); err != nil {
		d.t.Fatalf("run %q: %v", sql, err)
	}
}

// QueryRow runs a query that returns one row, once Scan is called.
func (d *DB) QueryRow(sql string, args ...any) *Row {
	return &Row{db: d, sql: sql, args: args}
}

// Row is the promised result of QueryRow.
type Row struct {
	db   *DB
	sql  string
	args []any
}

// Scan runs the query and stores the row's columns; no row fails the test.
func (r *Row) Scan(dest ...any) {
	r.db.t.Helper()
	r.db.mu.Lock()
	defer r.db.mu.Unlock()
	if err := r.db.connection().QueryRow(r.db.t.Context(), r.sql, r.args...).Scan(dest...); err != nil {
		r.db.t.Fatalf("query %q: %v", r.sql, err)
	}
}

// Value runs a query that returns one row with one column.
func Value[T any](d *DB, sql string, args ...any) T {
	d.t.Helper()
	var value T
	d.QueryRow(sql, args...).Scan(&value)
	return value
}

// connection opens the helpers' connection again after a server's restart broke it. The caller holds d.mu.
func (d *DB) connection() *pgx.Conn {
	d.t.Helper()
	if d.conn != nil && d.conn.Ping(d.t.Context()) == nil {
		return d.conn
	}
	conn, err := d.server.Connect(d.t.Context(), d.name)
	if err != nil {
		d.t.Fatalf("connect to %s: %v", d.name, err)
	}
	d.conn = conn
	return conn
}

func (d *DB) drop() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.t.Context()), dropWithin)
	defer cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close(ctx) // The database goes with it.
	}
	if d.server.PID() == 0 {
		return // The test stopped its server.
	}
	if err := d.server.dropDatabase(ctx, d.name); err != nil {
		d.t.Errorf("drop database %s: %v", d.name, err)
	}
}

func (s *Server) dropDatabase(ctx context.Context, name string) (err error) {
	conn, err := s.Connect(ctx, superuser)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	if err := dropSlots(ctx, conn, name); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	return err
}

// dropSlots ends the walsenders of a database and drops its slots, which would keep it from being dropped.
func dropSlots(ctx context.Context, conn *pgx.Conn, database string) error {
	const terminate = `SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots
		WHERE database = $1 AND active_pid IS NOT NULL`
	const drop = `SELECT count(pg_drop_replication_slot(slot_name)) FROM pg_replication_slots
		WHERE database = $1 AND active_pid IS NULL`
	const left = `SELECT coalesce(string_agg(slot_name, ','), '') FROM pg_replication_slots WHERE database = $1`
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		for _, statement := range []string{terminate, drop} {
			// A slot may change hands between being listed and being dropped; then the next round sees it.
			if _, err := conn.Exec(ctx, statement, database); err != nil && !strings.Contains(err.Error(), "is active") {
				return fmt.Errorf("drop replication slots: %w", err)
			}
		}
		var names string
		if err := conn.QueryRow(ctx, left, database).Scan(&names); err != nil {
			return fmt.Errorf("list replication slots: %w", err)
		}
		if names == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("drop replication slots %s: %w", names, context.Cause(ctx))
		}
	}
}

func (s *Server) admin(t testing.TB, sql string) {
	t.Helper()
	ctx := t.Context()
	conn, err := s.Connect(ctx, superuser)
	if err != nil {
		t.Fatalf("connect to PostgreSQL %d: %v", s.major, err)
	}
	_, err = conn.Exec(ctx, sql)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		t.Fatalf("run %q: %v", sql, err)
	}
}
