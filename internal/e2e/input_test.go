package e2e_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// sourceAs is the connection URL of another account.
func (r *rig) sourceAs(user, password string) string {
	r.t.Helper()
	u, err := url.Parse(r.db.URL())
	if err != nil {
		r.t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	r.secrets = append(r.secrets, password)
	return u.String()
}

// silent checks that no secret is in what the API says.
func (r *rig) silent(s *service) {
	r.t.Helper()
	text := s.check().String() + s.look().String() + s.sample().String()
	for _, secret := range r.secrets {
		if strings.Contains(text, secret) {
			r.t.Errorf("a password is in what the API says: %s", text)
		}
	}
}

// refuses checks that the configuration is refused before anything else happens, in one
// message that names every text.
func (r *rig) refuses(texts ...string) {
	r.t.Helper()
	s := r.launch()
	if code := s.exitCode(20 * time.Second); code != 2 {
		r.t.Errorf("exit code %d, want 2", code)
	}
	for _, text := range texts {
		if !strings.Contains(s.out.String(), text) {
			r.t.Errorf("no %q in the message:\n%s", text, s.out.String())
		}
	}
}

func TestUnknownHostOfTheSource(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	r.secrets = append(r.secrets, "hunter2pass")
	s := r.set("SOURCE_URL", "postgres://joe:hunter2pass@no-such-host.invalid:5432/shop").up()
	s.complains("PostgreSQL connection failed to 'no-such-host.invalid:5432'")
	r.silent(s)
}

func TestUnreachableHostOfTheSource(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	r.secrets = append(r.secrets, "hunter2pass")
	s := r.set("SOURCE_URL", "postgres://joe:hunter2pass@127.0.0.1:1/shop").up()
	s.complains("PostgreSQL connection failed to '127.0.0.1:1'", "refused")
	r.silent(s)
}

func TestUnknownHostOfTheSink(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	s := r.set("SINK_URL", "http://no-such-sink.invalid:8030").up()
	s.complains("StarRocks connection failed to 'no-such-sink.invalid:")
	r.silent(s)
}

func TestUnreachableHTTPPortOfTheSink(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	s := r.set("SINK_URL", "http://127.0.0.1:1").up()
	s.complains("Sink HTTP connection failed", "127.0.0.1:1")
	r.silent(s)
}

func TestWrongPasswordOfTheSource(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	r.db.Exec("CREATE ROLE " + r.db.Name() + "_joe LOGIN REPLICATION PASSWORD 'right'")
	s := r.set("SOURCE_URL", r.sourceAs(r.db.Name()+"_joe", "wr0ng-Pass-word")).up()
	s.complains("PostgreSQL connection failed", "password authentication failed")
	r.silent(s)
}

func TestWrongPasswordOfTheSink(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	r.secrets = append(r.secrets, "wr0ng-Sink-word")
	s := r.set("SINK_PASSWORD", "wr0ng-Sink-word").up()
	s.complains("ccess denied", "SINK_USER", "SINK_PASSWORD")
	r.silent(s)
}

func TestMissingTableIsNamed(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE SCHEMA app", "app.orders", "no_such_table")
	s := r.up()
	s.complains("Table 'app.orders' not found in PostgreSQL", "Table 'public.no_such_table' not found in PostgreSQL")
	r.silent(s)
}

func TestRoleWithoutReplicationPrivilege(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	role := r.db.Name() + "_plain"
	r.db.Exec("CREATE ROLE " + role + " LOGIN PASSWORD 'plain-Pass-word'")
	s := r.set("SOURCE_URL", r.sourceAs(role, "plain-Pass-word")).up()
	s.complains(fmt.Sprintf("ALTER ROLE %q REPLICATION", role))
	r.silent(s)
}

// TestRoleThatMayNotCreateThePublication may replicate, and not create the publication; what to run is
// in the message, and running it is enough.
func TestRoleThatMayNotCreateThePublication(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	role := r.db.Name() + "_repl"
	r.db.Exec("CREATE ROLE " + role + " LOGIN REPLICATION PASSWORD 'repl-Pass-word'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO " + role)
	s := r.set("SOURCE_URL", r.sourceAs(role, "repl-Pass-word")).up()
	s.complains("Failed to setup publication", "CREATE PUBLICATION", `"public"."item"`)
	r.silent(s)
	_, statement, ok := strings.Cut(s.check().GetErrorDetail(), "CREATE PUBLICATION ")
	if !ok {
		t.Fatal("the message has no statement")
	}
	statement, _, _ = strings.Cut(statement, "\n")
	r.db.Exec("CREATE PUBLICATION " + strings.TrimSuffix(statement, "."))
	s.serving()
	r.db.Exec("INSERT INTO item VALUES (1)")
	r.same(s, "item")
	s.terminate(20 * time.Second)
}

func TestWALLevelThatIsNotLogical(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{Settings: map[string]string{"wal_level": "replica"}})
	r := setupOn(t, server.Database(t), starrockstest.Options{}, "SELECT 1")
	s := r.up()
	s.complains("wal_level is 'replica'", "ALTER SYSTEM SET wal_level = 'logical'", "restart PostgreSQL")
	r.silent(s)
}

func TestTableWithoutAKey(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE keyless (v int); CREATE TABLE candidate (code text NOT NULL UNIQUE)", "keyless", "candidate")
	s := r.up()
	s.complains("'public.keyless'", `ALTER TABLE "public"."keyless" ADD PRIMARY KEY`, `REPLICA IDENTITY USING INDEX candidate_code_key`)
	r.db.Exec("ALTER TABLE keyless ADD PRIMARY KEY (v); ALTER TABLE candidate REPLICA IDENTITY USING INDEX candidate_code_key")
	s.serving()
	r.db.Exec("INSERT INTO keyless VALUES (1); INSERT INTO candidate VALUES ('c')")
	r.same(s, "keyless", "candidate")
}

func TestNameClashInTheSink(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE SCHEMA a; CREATE TABLE a.t (id int PRIMARY KEY); CREATE TABLE a__t (id int PRIMARY KEY)", "a.t", "a__t")
	s := r.up()
	s.complains("a.t", "public.a__t", `would both be written to "a__t"`, "SINK_TABLE_NAME")
	r.db.Exec("INSERT INTO a.t VALUES (1); INSERT INTO a__t VALUES (2)")
	r.never(r.mark(), 3*time.Second)
}

func TestStarRocksOlderThan31(t *testing.T) {
	t.Parallel()
	r := setupOn(t, pgtest.Database(t), starrockstest.Options{Version: "3.0.9"}, "SELECT 1")
	s := r.up()
	s.complains("StarRocks 3.0.9", "too old", "needs 3.1.")
	r.silent(s)
}

func TestMissingDatabaseOfTheSink(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	s := r.set("SINK_DATABASE", "nowhere").up()
	s.complains(`database "nowhere" does not exist`, "CREATE DATABASE", "SINK_DATABASE")
	if err := r.sink.Exec("CREATE DATABASE nowhere"); err != nil {
		t.Fatal(err)
	}
	s.serving()
}

// TestTypeThatDoesNotMap: the sink's table is there already and cannot hold the column.
func TestTypeThatDoesNotMap(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, at timestamptz, n numeric(10,2))", "item")
	err := r.sink.Exec(`CREATE TABLE mart.item (id INT NOT NULL, at INT NULL, n DATE NULL) PRIMARY KEY(id) DISTRIBUTED BY HASH(id) PROPERTIES("replication_num" = "1")`)
	if err != nil {
		t.Fatal(err)
	}
	s := r.up()
	s.complains(`column "at"`, "timestamp with time zone", "cannot be stored exactly in INT", `column "n"`, "ALTER TABLE")
	r.silent(s)
	r.db.Exec("INSERT INTO item VALUES (1, now(), 12.34)")
	r.never(r.mark(), 3*time.Second)
}

// TestValueThatDoesNotMap: infinity has no value in the sink's type.
func TestValueThatDoesNotMap(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ typ, value, text string }{
		"infinity":    {"timestamptz", "'infinity'", "neither BC nor infinity"},
		"before zero": {"date", "'0044-03-15 BC'", "neither BC nor infinity"},
		"NaN":         {"double precision", "'NaN'", "NaN or Infinity"},
		"JSON null":   {"jsonb", "'null'", "SQL NULL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v "+c.typ+")", "item")
			s := r.start()
			r.db.Exec("INSERT INTO item VALUES (7, " + c.value + ")")
			bad := r.mark()
			s.complains("public.item", "id=7", "column v", c.text)
			r.never(bad, 3*time.Second)
		})
	}
}

func TestNumbersThatDoNotParseAreRefusedAllAtOnce(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	r.secrets = append(r.secrets, "p%zzsecret")
	r.set("FLUSH_SIZE", "abc").set("FLUSH_INTERVAL_MS", "0").set("SINK_PORT", "99999").set("SINK_DELETE_MODE", "gone").
		set("TABLES", "Orders").set("SOURCE_URL", "postgres://u:p%zzsecret@h/db")
	r.refuses("FLUSH_SIZE", `"abc"`, "FLUSH_INTERVAL_MS", "SINK_PORT", "SINK_DELETE_MODE", "TABLES", `"Orders" with double quotes`, "SOURCE_URL", "dbmazz --help")
}

func TestNothingSetIsRefusedWithTheNamesOfWhatIsNeeded(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	for _, name := range []string{"SOURCE_URL", "TABLES", "SINK_URL", "SINK_DATABASE"} {
		r.set(name, "")
	}
	r.refuses("SOURCE_URL", "TABLES", "SINK_URL", "SINK_DATABASE", "must be set")
}

func TestOpenAddressWithoutProtectionIsRefused(t *testing.T) {
	t.Parallel()
	setup(t, "SELECT 1").set("GRPC_ADDR", "0.0.0.0:0").refuses("GRPC_ADDR", "GRPC_TOKEN", "GRPC_INSECURE")
}

// TestOldNamesAndSecretFilesWork with a warning each, and a secret may come from a file.
func TestOldNamesAndSecretFilesWork(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	file := filepath.Join(r.dir, "password")
	if err := os.WriteFile(file, []byte(sinkPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, old := range map[string]string{
		"SOURCE_URL": "DATABASE_URL", "SOURCE_SLOT_NAME": "SLOT_NAME", "SOURCE_PUBLICATION_NAME": "PUBLICATION_NAME",
		"SINK_URL": "STARROCKS_URL", "SINK_PORT": "STARROCKS_PORT", "SINK_DATABASE": "STARROCKS_DB",
	} {
		r.env[old] = r.env[name]
		delete(r.env, name)
	}
	r.set("SINK_PASSWORD", "").set("SINK_PASSWORD_FILE", file)
	s := r.up()
	s.serving()
	for _, old := range []string{"DATABASE_URL", "SLOT_NAME", "PUBLICATION_NAME", "STARROCKS_URL", "STARROCKS_PORT", "STARROCKS_DB"} {
		if !strings.Contains(s.out.String(), "variable="+old+" ") {
			t.Errorf("no warning about %s", old)
		}
	}
	r.db.Exec("INSERT INTO item VALUES (1)")
	r.env["SOURCE_PUBLICATION_NAME"] = r.env["PUBLICATION_NAME"]
	r.same(s, "item")
}

// TestSlotOfAnotherKindIsRefused: it is neither read nor touched.
func TestSlotOfAnotherKindIsRefused(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	r.db.Exec("SELECT pg_create_logical_replication_slot($1, 'test_decoding')", r.slot)
	before := r.confirmed()
	s := r.up()
	s.complains(r.slot, "test_decoding", "pgoutput", "pg_drop_replication_slot")
	if now := r.confirmed(); now != before {
		t.Errorf("the slot was moved from %s to %s", before, now)
	}
	if answer := s.check(); answer.GetStage() != pb.HealthCheckResponse_STAGE_SETUP {
		t.Errorf("the stage is %v", answer.GetStage())
	}
}
