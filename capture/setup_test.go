package capture_test

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// as returns the database's URL for another role.
func as(t *testing.T, db *pgtest.DB, user, password string) string {
	t.Helper()
	u, err := url.Parse(db.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// setupRefusals are what setup refuses, by name.
var setupRefusals = map[string]struct {
	sql    string
	change func(*testing.T, *rig)
	want   []string
	since  int // version of PostgreSQL
}{
	"missing table": {
		change: func(_ *testing.T, r *rig) { r.cfg.Tables = append(r.cfg.Tables, table("nowhere")) },
		want:   []string{"Table 'public.nowhere' not found in PostgreSQL. Verify the table exists and is accessible."},
	},
	"several problems at once": {
		sql: "CREATE VIEW v AS SELECT 1 AS x; CREATE UNLOGGED TABLE un (id int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING",
		change: func(_ *testing.T, r *rig) {
			r.cfg.Tables = append(r.cfg.Tables, table("nowhere"), table("v"), table("un"))
		},
		want: []string{"'public.nowhere' not found", "'public.v' is not an ordinary", "SET LOGGED", `REPLICA IDENTITY NOTHING`, `ALTER TABLE "public"."t" REPLICA IDENTITY DEFAULT`},
	},
	"no key": {
		sql:    "ALTER TABLE t DROP CONSTRAINT t_pkey",
		change: func(*testing.T, *rig) {},
		want:   []string{`ALTER TABLE "public"."t" ADD PRIMARY KEY`, `REPLICA IDENTITY USING INDEX`, `ALTER TABLE "public"."t" REPLICA IDENTITY FULL`, "PostgreSQL refuses every UPDATE and DELETE"},
	},
	"key that could serve": {
		sql:    "ALTER TABLE t DROP CONSTRAINT t_pkey; CREATE UNIQUE INDEX serves ON t (id)",
		change: func(*testing.T, *rig) {},
		want:   []string{"REPLICA IDENTITY USING INDEX serves"},
	},
	"foreign table and materialized view": {
		sql: "CREATE MATERIALIZED VIEW m AS SELECT 1 AS x; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE f (id int NOT NULL) SERVER s",
		change: func(_ *testing.T, r *rig) {
			r.cfg.Tables = append(r.cfg.Tables, table("m"), table("f"))
		},
		want: []string{
			"Table 'public.m' is not an ordinary or partitioned table (relkind 'm'): logical replication does not carry it",
			"Table 'public.f' is not an ordinary or partitioned table (relkind 'f'): logical replication does not carry it",
		},
	},
	"unlogged partition": {
		sql: "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id); CREATE UNLOGGED TABLE p_2 PARTITION OF p_1 DEFAULT",
		change: func(_ *testing.T, r *rig) {
			r.cfg.Tables = append(r.cfg.Tables, table("p"))
		},
		want: []string{"'public.p' has a partition whose changes are not in the WAL", "ALTER TABLE public.p_2 SET LOGGED", "SOURCE_PARTITIONS=leaf"},
	},
	"foreign partition": {
		sql: "CREATE TABLE p (id int) PARTITION BY RANGE (id); ALTER TABLE p REPLICA IDENTITY FULL; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE p_1 PARTITION OF p DEFAULT SERVER s",
		change: func(_ *testing.T, r *rig) {
			r.cfg.Tables = append(r.cfg.Tables, table("p"))
		},
		want: []string{"'public.p' has a partition whose changes are not in the WAL", `ALTER TABLE "public"."p" DETACH PARTITION public.p_1`},
	},
	"unique indexes that cannot serve": {
		sql:    "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD n int; CREATE UNIQUE INDEX expr ON t ((id + 1)); CREATE UNIQUE INDEX part ON t (id) WHERE id > 0; CREATE UNIQUE INDEX maybe ON t (n)",
		change: func(*testing.T, *rig) {},
		want:   []string{"'public.t' has no usable key", "REPLICA IDENTITY USING INDEX <unique index over NOT NULL columns>"},
	},
	"no columns": {
		sql:    "CREATE TABLE empty (); ALTER TABLE empty REPLICA IDENTITY FULL",
		change: func(_ *testing.T, r *rig) { r.cfg.Tables = append(r.cfg.Tables, table("empty")) },
		want:   []string{"'public.empty' has no columns", "ADD COLUMN"},
	},
	"deferrable key": {
		sql:    "ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (id) DEFERRABLE",
		change: func(*testing.T, *rig) {},
		want:   []string{"DEFERRABLE", "REPLICA IDENTITY FULL"},
	},
	"publication without deletes": {
		change: func(_ *testing.T, r *rig) {
			r.db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR ALL TABLES WITH (publish = 'insert, update')`)
		},
		want: []string{"Failed to setup publication", "does not publish delete, truncate", "ALTER PUBLICATION"},
	},
	"partitioned table in a publication of partitions": {
		sql: "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)",
		change: func(_ *testing.T, r *rig) {
			r.cfg.Tables = []capture.Table{table("p")}
			r.db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR ALL TABLES`)
		},
		want: []string{"publish_via_partition_root = true"},
	},
	"slot of another plugin": {
		change: func(_ *testing.T, r *rig) {
			r.db.Exec("SELECT pg_create_logical_replication_slot($1, 'test_decoding')", r.cfg.Slot)
		},
		want: []string{"Failed to setup replication slot", "'test_decoding' instead of pgoutput"},
	},
	"physical slot": {
		change: func(_ *testing.T, r *rig) {
			r.db.Exec("SELECT pg_create_physical_replication_slot($1)", r.cfg.Slot)
		},
		want: []string{"Failed to setup replication slot", "physical"},
	},
	"two-phase slot": {
		change: func(_ *testing.T, r *rig) {
			r.db.Exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput', false, true)", r.cfg.Slot)
		},
		want:  []string{"two_phase"},
		since: 14,
	},
	"no right to replicate": {
		change: func(t *testing.T, r *rig) {
			role := "plain_" + r.db.Name()
			r.db.Exec("CREATE ROLE " + role + " LOGIN PASSWORD 'secret'")
			r.cfg.SourceURL = as(t, r.db, role, "secret")
		},
		want: []string{"must not replicate", "ALTER ROLE", "REPLICATION"},
	},
	"no right to create the publication": {
		change: func(t *testing.T, r *rig) {
			role := "repl_" + r.db.Name()
			r.db.Exec("CREATE ROLE " + role + " LOGIN REPLICATION PASSWORD 'secret'")
			r.cfg.SourceURL = as(t, r.db, role, "secret")
		},
		want: []string{"Failed to setup publication", "permission denied", "CREATE PUBLICATION"},
	},
	"wrong password": {
		change: func(t *testing.T, r *rig) { r.cfg.SourceURL = as(t, r.db, "postgres", "wr0ng-pass") },
		want:   []string{"PostgreSQL connection failed to '127.0.0.1:", "password authentication failed"},
	},
	"unknown host": {
		change: func(_ *testing.T, r *rig) {
			r.cfg.SourceURL = "postgres://u:wr0ng-pass@no-such-host.invalid:5432/x"
		},
		want: []string{"PostgreSQL connection failed to 'no-such-host.invalid:5432'"},
	},
	"nobody listens": {
		change: func(t *testing.T, r *rig) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			_ = l.Close()
			r.cfg.SourceURL = "postgres://u:wr0ng-pass@" + l.Addr().String() + "/x"
		},
		want: []string{"PostgreSQL connection failed to '127.0.0.1:", "refused"},
	},
	"unknown database": {
		change: func(t *testing.T, r *rig) {
			r.cfg.SourceURL = strings.Replace(as(t, r.db, r.db.Server().User(), r.db.Server().Password()), r.db.Name(), "nowhere", 1)
		},
		want: []string{"PostgreSQL connection failed to", `database "nowhere" does not exist`},
	},
}

func TestSetupRefusesWithOneLineThatSaysWhatToRun(t *testing.T) {
	t.Parallel()
	for name, test := range setupRefusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.DatabaseSince(t, test.since)
			db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
			if test.sql != "" {
				db.Exec(test.sql)
			}
			r := newRig(t, db, "t")
			test.change(t, r)
			s := r.refused()
			r.stop()
			if !s.Setup || s.Refused {
				t.Errorf("setup %t, refused %t", s.Setup, s.Refused)
			}
			for _, part := range test.want {
				if !strings.Contains(s.LastError, part) {
					t.Errorf("error lacks %q:\n%s", part, s.LastError)
				}
			}
			if strings.Contains(s.LastError, "wr0ng-pass") || strings.Contains(s.LastError, "secret") {
				t.Errorf("error shows the password: %s", s.LastError)
			}
			t.Log(s.LastError)
		})
	}
}

// TestPostgreSQLRefusesAnExpressionAsIdentity, so that dbmazz need not.
func TestPostgreSQLRefusesAnExpressionAsIdentity(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int NOT NULL); CREATE UNIQUE INDEX expr ON t ((id + 1))")
		_, err := db.Connect().Exec(t.Context(), "ALTER TABLE t REPLICA IDENTITY USING INDEX expr")
		if err == nil || !strings.Contains(err.Error(), "cannot use expression index") {
			t.Errorf("PostgreSQL answers %v", err)
		}
	})
}

func TestWalLevelMustBeLogical(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{Settings: map[string]string{"wal_level": "replica"}})
	db := server.Database(t)
	r := newRig(t, db, "nowhere")
	if s := r.refused(); !strings.Contains(s.LastError, "ALTER SYSTEM SET wal_level = 'logical'") {
		t.Error(s.LastError)
	}
}

func TestFullServerIsNamed(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{Settings: map[string]string{"max_replication_slots": "1"}})
	db := server.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	db.Exec("SELECT pg_create_logical_replication_slot('taken', 'pgoutput')")
	r := newRig(t, db, "t")
	if s := r.refused(); !strings.Contains(s.LastError, "max_replication_slots") {
		t.Error(s.LastError)
	}
	if n := pgtest.Value[int](db, "SELECT count(*) FROM pg_publication"); n != 0 {
		t.Error("something was created although a check had failed")
	}
}

func TestSetupGoesOnOnceTheProblemIsGone(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	r := newRig(t, db, "t")
	r.refused()
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r.await("streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming && s.LastError == "" })
	db.Exec("INSERT INTO t VALUES (1)")
	r.want("insert public.t (1)")
}

func TestSlotCreationNamesTheTransactionItWaitsFor(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	conn := db.Connect()
	if _, err := conn.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, db, "t")
	r.cfg.SlotTimeout = time.Second
	// Publication and table share a lock that the transaction holds back.
	db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR ALL TABLES`)
	s := r.refused()
	if pid := fmt.Sprint(conn.PgConn().PID()); !strings.Contains(s.LastError, pid) || !strings.Contains(s.LastError, "pg_terminate_backend") {
		t.Errorf("error does not name pid %s: %s", pid, s.LastError)
	}
	if _, err := conn.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	r.await("streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming })
}

func TestMissingTablesAreAddedToAnExistingPublication(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")
	r := newRig(t, db, "t", "u")
	db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" FOR TABLE t, other`)
	r.startStreaming()
	got := pgtest.Value[string](db, "SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = $1", r.cfg.Publication)
	if got != "other,t,u" {
		t.Errorf("published: %s", got)
	}
	db.Exec("INSERT INTO other VALUES (1); INSERT INTO u VALUES (1)")
	r.want("insert public.u (1)")
}

func TestSecondCaptureWaitsAndTakesOver(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	first := newRig(t, db, "t")
	first.startStreaming()
	second := newRig(t, db, "t")
	second.stream = first.stream
	if s := second.refused(); !strings.Contains(s.LastError, "in use") {
		t.Errorf("the second says %s", s.LastError)
	}
	db.Exec("INSERT INTO t VALUES (1)")
	first.want("insert public.t (1)")
	first.stop()
	db.Exec("INSERT INTO t VALUES (2)")
	second.await("streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming })
	second.want("insert public.t (1)", "insert public.t (2)")
}

func TestConfigReportsEveryProblemAndNoPassword(t *testing.T) {
	t.Parallel()
	_, err := capture.New(capture.Config{Slot: "Bad-Slot", Tables: []capture.Table{{Schema: "s"}}}, nil, nil)
	for _, part := range []string{"source URL", "Bad-Slot", "publication", `table "s."`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error lacks %s: %v", part, err)
		}
	}
	_, err = capture.New(capture.Config{
		SourceURL: "postgres://u:pa%ss%wo@rd@host/db", Slot: "s", Publication: "p", Tables: []capture.Table{table("t")},
	}, nil, nil)
	if err == nil || strings.Contains(err.Error(), "ss") && strings.Contains(err.Error(), "wo@rd") {
		t.Errorf("error is %v", err)
	}
}
