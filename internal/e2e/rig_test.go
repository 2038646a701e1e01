package e2e_test

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

const (
	sinkDatabase = "mart"
	sinkPassword = "s1nk-Secret-9x!"
)

// rig is a source, a sink, and what dbmazz is told about them.
type rig struct {
	t    *testing.T
	db   *pgtest.DB
	sink *starrockstest.Server
	env  map[string]string
	slot string
	dir  string
	race bool
	// secrets must appear nowhere.
	secrets []string
}

// setup makes a rig on the shared PostgreSQL. ddl makes the tables.
func setup(t *testing.T, ddl string, tables ...string) *rig {
	t.Helper()
	db := pgtest.Database(t)
	senderTimeout(db, 6*time.Second)
	return setupOn(t, db, starrockstest.Options{}, ddl, tables...)
}

// major is that of the shared PostgreSQL.
func major(t *testing.T) int {
	t.Helper()
	version, err := pgtest.DefaultMajor()
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// senderTimeout sets after what silence PostgreSQL drops a walsender of the database.
// dbmazz reports more often the shorter it is, so what it confirms wrongly shows soon.
func senderTimeout(db *pgtest.DB, timeout time.Duration) {
	db.Exec(fmt.Sprintf("ALTER DATABASE %s SET wal_sender_timeout = '%dms'", db.Name(), timeout.Milliseconds()))
}

// setupOn makes a rig on a database that the caller has. Every rig has the table mark,
// see [rig.settle].
func setupOn(t *testing.T, db *pgtest.DB, o starrockstest.Options, ddl string, tables ...string) *rig {
	t.Helper()
	o.Password = sinkPassword
	r := &rig{t: t, db: db, sink: starrockstest.Start(t, o), slot: "slot_" + db.Name(), dir: t.TempDir()}
	r.secrets = []string{sinkPassword, db.Server().Password()}
	if err := r.sink.Exec("CREATE DATABASE " + sinkDatabase); err != nil {
		t.Fatal(err)
	}
	db.Exec("CREATE TABLE mark (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY);" + ddl)
	host, port, err := net.SplitHostPort(r.sink.MySQL())
	if err != nil || host != "127.0.0.1" {
		t.Fatalf("the sink's MySQL address is %s, want one on 127.0.0.1: %v", r.sink.MySQL(), err)
	}
	r.env = map[string]string{
		"SOURCE_URL": db.URL(), "SOURCE_SLOT_NAME": r.slot, "SOURCE_PUBLICATION_NAME": "pub_" + db.Name(),
		"TABLES":   strings.Join(append([]string{"mark"}, tables...), ","),
		"SINK_URL": "http://" + r.sink.FEHTTP(), "SINK_PORT": port, "SINK_DATABASE": sinkDatabase, "SINK_PASSWORD": sinkPassword,
		"GRPC_ADDR": "127.0.0.1:0", "BUS_DATA_DIR": filepath.Join(r.dir, "bus"),
		"MIN_LOAD_INTERVAL_MS": "20", "FLUSH_INTERVAL_MS": "1000", "SHUTDOWN_TIMEOUT_S": "20",
	}
	return r
}

// set changes a variable for the next start; an empty value removes it.
func (r *rig) set(name, value string) *rig {
	r.env[name] = value
	return r
}

// launch starts dbmazz without waiting for its API.
func (r *rig) launch() *service {
	r.t.Helper()
	return r.process(r.env)
}

// process starts dbmazz with these variables and arguments.
func (r *rig) process(env map[string]string, args ...string) *service {
	r.t.Helper()
	environ := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "TZ=America/New_York"}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		environ = append(environ, name+"="+env[name])
	}
	s := launch(r.t, append([]string{builds.binary(r.t, r.race)}, args...), r.dir, environ)
	r.t.Cleanup(func() { r.inspect(s, env) })
	return s
}

// up starts dbmazz with its API.
func (r *rig) up() *service {
	r.t.Helper()
	s := r.launch()
	s.dial()
	return s
}

// start starts dbmazz and waits until it is serving.
func (r *rig) start() *service {
	r.t.Helper()
	s := r.up()
	s.serving()
	s.copied()
	return s
}

// inspect looks through the log of every process, what its commands have printed and what
// its API has answered, for what must never be in them.
func (r *rig) inspect(s *service, env map[string]string) {
	log, said := s.out.String(), s.said.String()
	for _, secret := range append(secretsOf(env), r.secrets...) {
		if strings.Contains(log, secret) {
			r.t.Errorf("a secret is in the log")
		}
		if strings.Contains(said, secret) {
			r.t.Errorf("a secret is in what the API says")
		}
	}
	for _, text := range []string{"panic:", "fatal error:", "DATA RACE", "report this as a bug"} {
		if strings.Contains(log, text) {
			r.t.Errorf("%q is in the log", text)
		}
	}
}

// secretsOf are those that a process is given, in variables and files, and the key that it
// makes for itself.
func secretsOf(env map[string]string) (secrets []string) {
	add := func(text string) {
		if text = strings.TrimSpace(text); len(text) >= 6 {
			secrets = append(secrets, text)
		}
	}
	for _, name := range []string{"SINK_PASSWORD", "GRPC_TOKEN", "BUS_PASSWORD"} {
		add(env[name])
	}
	if u, err := url.Parse(env["SOURCE_URL"]); err == nil {
		password, _ := u.User.Password()
		add(password)
	}
	files := []string{filepath.Join(env["BUS_DATA_DIR"], bus.KeyFile)}
	for _, name := range []string{"BUS_NKEY_FILE", "BUS_CREDS_FILE", "SINK_PASSWORD_FILE", "GRPC_TOKEN_FILE", "BUS_PASSWORD_FILE", "SOURCE_URL_FILE", "GRPC_TLS_KEY_FILE", "BUS_TLS_KEY_FILE", "SINK_TLS_KEY_FILE"} {
		files = append(files, env[name])
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // Not given, or gone with its folder.
		}
		for line := range strings.Lines(string(data)) {
			if !strings.HasPrefix(line, "-") && len(line) > 12 {
				add(line)
			}
		}
	}
	return secrets
}

// script queues faults of the sink.
func (r *rig) script(faults ...starrockstest.Fault) {
	r.t.Helper()
	if err := r.sink.Script(faults...); err != nil {
		r.t.Fatal(err)
	}
}

// sinkUp ends an outage of the sink.
func (r *rig) sinkUp() {
	r.t.Helper()
	if err := r.sink.Up(); err != nil {
		r.t.Fatal(err)
	}
}

// lsn is a position in the source's log.
type lsn = pglogrepl.LSN

func parseLSN(t testing.TB, text string) lsn {
	t.Helper()
	parsed, err := pglogrepl.ParseLSN(text)
	if err != nil {
		t.Fatalf("parse LSN: %v", err)
	}
	return parsed
}

// head is the position of the source's log now.
func (r *rig) head() lsn {
	r.t.Helper()
	return parseLSN(r.t, pgtest.Value[string](r.db, "SELECT pg_current_wal_insert_lsn()::text"))
}

// confirmed is what the slot has confirmed.
func (r *rig) confirmed() lsn {
	r.t.Helper()
	return parseLSN(r.t, pgtest.Value[string](r.db,
		"SELECT COALESCE((SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1), '0/0')", r.slot))
}

// walsender is the pid of the backend that streams to dbmazz, zero if there is none.
func (r *rig) walsender() int {
	r.t.Helper()
	return pgtest.Value[int](r.db, "SELECT COALESCE((SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1), 0)", r.slot)
}

// mark commits a row and returns a position before its commit and after every commit
// before this call.
func (r *rig) mark() lsn {
	r.t.Helper()
	const insert = "WITH m AS (INSERT INTO mark DEFAULT VALUES RETURNING id) SELECT pg_current_wal_insert_lsn()::text FROM m"
	return parseLSN(r.t, pgtest.Value[string](r.db, insert))
}

// settle waits until the slot has confirmed everything that was committed before the
// call. It asks PostgreSQL, not dbmazz: whatever the slot has confirmed must be in the
// sink, so that afterwards the rows can be compared without waiting.
func (r *rig) settle(s *service) {
	r.t.Helper()
	goal := r.mark()
	eventually(r.t, "everything committed is confirmed", func() (bool, string) {
		if s.exited() {
			r.t.Fatalf("dbmazz has exited: %v", s.err)
		}
		at := r.confirmed()
		if at >= goal {
			return true, ""
		}
		return false, fmt.Sprintf("slot at %s, want %s; %s", at, goal, s.check())
	})
}

// same waits until all is confirmed and compares the tables.
func (r *rig) same(s *service, tables ...string) {
	r.t.Helper()
	r.settle(s)
	r.equal(tables...)
}

// loads counts the committed loads of a table in the sink.
func (r *rig) loads(table string) int {
	n := 0
	for _, load := range r.sink.Loads() {
		if load.Table == table && load.Status == "Success" {
			n++
		}
	}
	return n
}
