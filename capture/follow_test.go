package capture_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// like is a pattern over schema.table.
type like string

func (l like) Match(schema, name string) bool {
	ok, err := path.Match(string(l), schema+"."+name)
	return ok && err == nil
}

func (l like) String() string { return string(l) }

// following makes a rig that copies and captures what a pattern matches, and looks often.
func following(t *testing.T, db *pgtest.DB, patterns ...string) *rig {
	t.Helper()
	r := copying(t, db)
	for _, p := range patterns {
		if rest, except := strings.CutPrefix(p, "!"); except {
			r.cfg.Except = append(r.cfg.Except, like(rest))
		} else {
			r.cfg.Patterns = append(r.cfg.Patterns, like(p))
		}
	}
	r.cfg.TablesInterval = 50 * time.Millisecond
	return r
}

// captures waits until exactly these tables are captured, and copied.
func (r *rig) captures(names ...string) {
	r.t.Helper()
	slices.Sort(names)
	r.await("captured: "+strings.Join(names, ", "), func(s capture.Status) bool {
		var have []string
		for _, t := range r.c.Tables() {
			have = append(have, strings.TrimPrefix(t.String(), "public."))
		}
		slices.Sort(have)
		copied := 0
		for _, t := range s.Snapshot.Tables {
			if t.State == capture.CopyDone {
				copied++
			}
		}
		return slices.Equal(have, names) && copied == len(names) && copied == len(s.Snapshot.Tables)
	})
	r.drain()
}

// leftOut waits until a table is left out for a reason.
func (r *rig) leftOut(name, reason string) {
	r.t.Helper()
	r.await(name+" left out: "+reason, func(s capture.Status) bool {
		return slices.ContainsFunc(s.LeftOut, func(l capture.LeftOut) bool {
			return l.Name == name && strings.Contains(l.Reason, reason)
		})
	})
}

// published are the tables of the publication.
func (r *rig) published() string {
	r.t.Helper()
	return pgtest.Value[string](r.db, "SELECT COALESCE(string_agg(tablename, ',' ORDER BY tablename), '') FROM pg_publication_tables WHERE pubname = $1", r.cfg.Publication)
}

// value is the second column of a row in the sink.
func (r *rig) value(table, key string) string {
	r.t.Helper()
	if row := r.sink()[table][key]; len(row) > 1 {
		return row[1]
	}
	return ""
}

func TestTablesUnderAPatternComeAndGo(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(`CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE audit_x (id int PRIMARY KEY); CREATE TABLE nokey (id int);
CREATE VIEW v AS SELECT 1 AS id; CREATE MATERIALIZED VIEW m AS SELECT 1 AS id; CREATE UNLOGGED TABLE un (id int PRIMARY KEY);
CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE f (id int) SERVER s;
CREATE TEMPORARY TABLE tmp (id int PRIMARY KEY);
CREATE SCHEMA other; CREATE TABLE other.x (id int PRIMARY KEY); INSERT INTO a SELECT i, 'a' FROM generate_series(1, 10) i; INSERT INTO nokey VALUES (1), (2)`)
		r := following(t, db, "public.*", "!public.audit_*")
		r.start()
		r.captures("a")
		r.leftOut("public.nokey", "no usable key")
		r.leftOut("public.un", "unlogged")
		r.leftOut("public.f", "not an ordinary")
		if n := len(r.c.Status().LeftOut); n != 3 {
			t.Errorf("left out: %v", r.c.Status().LeftOut)
		}

		db.Exec("CREATE TABLE b (id int PRIMARY KEY, v text, big text); INSERT INTO b SELECT i, 'b', repeat('x', 9000) FROM generate_series(1, 500) i")
		for i := range 20 { // While it joins.
			db.Exec("UPDATE b SET v = $1::int WHERE id % 20 = $1::int", i)
		}
		r.captures("a", "b")
		r.same("b", "id")

		db.Exec("ALTER TABLE nokey ADD PRIMARY KEY (id)")
		r.captures("a", "b", "nokey")
		r.same("nokey", "id")

		db.Exec("UPDATE b SET v = 'last' WHERE id = 1")
		db.Exec("ALTER TABLE b RENAME TO audit_b")
		db.Exec("UPDATE audit_b SET v = 'not seen' WHERE id = 1; DELETE FROM audit_b WHERE id = 2")
		r.captures("a", "nokey")
		if got := r.published(); got != "a,nokey" {
			t.Errorf("published: %s", got)
		}
		if v := r.value("public.b", "1"); v != "last" {
			t.Errorf("the target of the table that left: %s", v)
		}
		db.Exec("ALTER TABLE audit_b RENAME TO b")
		r.captures("a", "b", "nokey")
		r.same("b", "id")

		db.Exec("DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, n numeric, v text); INSERT INTO a SELECT i, i, 'again' FROM generate_series(5, 7) i")
		r.await("copied anew", func(capture.Status) bool {
			return strings.Contains(r.published(), "a,") && len(r.sink()["public.a"]) == 3 && len(r.sink()["public.a"]["7"]) == 3
		})
		r.captures("a", "b", "nokey")
		db.Exec("INSERT INTO a VALUES (8, 8, 'later')")
		r.drain()
		r.same("a", "id")

		db.Exec("DROP TABLE b")
		r.captures("a", "nokey")
		if n := len(r.sink()["public.b"]); n != 499 {
			t.Errorf("the target of the table that was dropped has %d rows", n)
		}
	})
}

// A table that has another name for a moment lacks the changes of that time, whether it is
// noticed meanwhile or not.
func TestChangesUnderAnotherNameAreMadeUpFor(t *testing.T) {
	t.Parallel()
	for name, down := range map[string]bool{"while it runs": false, "while it is stopped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			db.Exec("CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a SELECT i, 'a' FROM generate_series(1, 10) i")
			r := following(t, db, "public.?")
			r.cfg.TablesInterval = time.Hour
			r.start()
			r.captures("a", "b")
			if down {
				r.stop()
			}
			db.Exec("ALTER TABLE a RENAME TO hidden; UPDATE hidden SET v = 'missed' WHERE id = 1; DELETE FROM hidden WHERE id = 2; ALTER TABLE hidden RENAME TO a")
			if down {
				r.start()
			}
			db.Exec("INSERT INTO a VALUES (11, 'later')")
			r.await("copied anew", func(capture.Status) bool { return r.value("public.a", "1") == "missed" })
			r.captures("a", "b")
			r.same("a", "id")
			// It is made up for once.
			before := len(r.records())
			r.stop()
			r.start()
			r.captures("a", "b")
			if n := len(r.records()); n != before {
				t.Errorf("%d records before a restart, %d after", before, n)
			}
		})
	}
}

// What was committed before a table was dropped is captured, also if that is read later.
func TestLastChangesOfADroppedTableAreCaptured(t *testing.T) {
	t.Parallel()
	for name, down := range map[string]bool{"while it runs": false, "while it is stopped": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			db.Exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, v text)")
			r := following(t, db, "public.?")
			r.start()
			r.captures("a", "b")
			r.stream.Block()
			release := sync.OnceFunc(r.stream.Unblock)
			defer release()
			if down {
				r.stop()
			}
			db.Exec("INSERT INTO a VALUES (1)")
			for i := range 5 {
				db.Exec(fmt.Sprintf("INSERT INTO b VALUES (%d, repeat('x', 500000))", i))
			}
			db.Exec("INSERT INTO b VALUES (100, 'last'); DROP TABLE b")
			if down {
				r.start()
			}
			pause(500 * time.Millisecond) // Time to see that it is gone.
			release()
			r.captures("a")
			if n := len(r.sink()["public.b"]); n != 6 {
				t.Errorf("%d of 6 rows", n)
			}
		})
	}
}

// The process may die at any moment while a table joins. Each attempt of the new list ends
// at another step.
func TestTableThatJoinsLosesNothingWhereverTheProcessDies(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE a (id int PRIMARY KEY, v text)")
	r := following(t, db, "public.*")
	for round := range 8 {
		r.start()
		r.await("streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming })
		name := fmt.Sprintf("t%d", round)
		db.Exec("CREATE TABLE " + name + " (id int PRIMARY KEY, v text); INSERT INTO " + name + " SELECT i, 'x' FROM generate_series(1, 100) i; DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (" + name[1:] + ")")
		for i := range 5 {
			db.Exec(fmt.Sprintf("UPDATE %s SET v = 'y' WHERE id = %d; INSERT INTO a VALUES (%d)", name, i, 100+i))
		}
		pause(time.Duration(round) * 25 * time.Millisecond)
		r.stop()
		db.Exec("INSERT INTO " + name + " VALUES (101, 'down')")
	}
	r.start()
	names := []string{"a"}
	for round := range 8 {
		names = append(names, fmt.Sprintf("t%d", round))
	}
	r.captures(names...)
	for _, name := range names {
		r.same(name, "id")
	}
}

// What no server state shows any more is remembered before it is changed.
func TestTableThatWasTakenOutOfThePublicationIsCopiedAnew(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'x'), (2, 'x')")
	r := following(t, db, "public.*")
	r.start()
	r.captures("a")
	pub := `ALTER PUBLICATION "` + r.cfg.Publication + `" `
	db.Exec(pub + "DROP TABLE a; UPDATE a SET v = 'missed' WHERE id = 1; DELETE FROM a WHERE id = 2")
	r.await("copied anew", func(capture.Status) bool { return r.value("public.a", "1") == "missed" })
	r.captures("a")
	r.same("a", "id")
}

func TestSelectionThatMatchesNothingSaysSo(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE a (id int PRIMARY KEY)")
	r := following(t, db, "shop.*")
	if s := r.refused(); !strings.Contains(s.LastError, "No table of the source matches TABLES") || !s.Setup {
		t.Errorf("%+v", s)
	}
	r.stop()
	r.cfg.Patterns = append(r.cfg.Patterns, like("public.*"))
	r.start()
	r.captures("a")
	r.leftOut("shop.*", "no table of the source matches it")
	// A pipeline whose last table goes waits for others.
	db.Exec("DROP TABLE a")
	r.await("empty", func(capture.Status) bool { return len(r.c.Tables()) == 0 })
	r.stop()
	r.startStreaming()
	db.Exec("CREATE SCHEMA shop; CREATE TABLE shop.b (id int PRIMARY KEY); INSERT INTO shop.b VALUES (1)")
	r.captures("shop.b")
	if n := len(r.sink()["shop.b"]); n != 1 {
		t.Errorf("%d rows", n)
	}
}

func TestTableThatTheRoleMayNotPublishIsLeftOutAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	role := "owner_" + db.Name()
	db.Exec(fmt.Sprintf(`CREATE ROLE %s LOGIN REPLICATION PASSWORD 'x'; GRANT CREATE ON DATABASE %s TO %s; CREATE TABLE mine (id int PRIMARY KEY); CREATE TABLE theirs (id int PRIMARY KEY);
ALTER TABLE mine OWNER TO %s; INSERT INTO mine VALUES (1)`, role, db.Name(), role, role))
	r := following(t, db, "public.*")
	r.cfg.SourceURL = as(t, db, role, "x")
	r.start()
	r.captures("mine")
	r.leftOut("public.theirs", "Run as its owner or superuser: ALTER PUBLICATION")
	db.Exec("CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (1); ALTER TABLE more OWNER TO " + role)
	r.captures("mine", "more")
	db.Exec("ALTER TABLE theirs OWNER TO " + role)
	r.captures("mine", "more", "theirs")
}

// A table that somebody has locked keeps nothing from the others.
func TestLockedTableKeepsNoOtherFromJoining(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a VALUES (1)")
	conn := db.Connect()
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE b IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	r := following(t, db, "public.*")
	r.cfg.LockTimeout = 300 * time.Millisecond
	r.start()
	r.captures("a")
	r.leftOut("public.b", "lock timeout")
	if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	r.captures("a", "b")
}

func TestPublicationOfAllTablesCapturesOnlyWhatMatches(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		clauses := map[string]string{"all tables": "FOR ALL TABLES"}
		if server.Major() >= 15 {
			clauses["schema"] = "FOR TABLES IN SCHEMA public"
		}
		for name, clause := range clauses {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				db := server.Database(t)
				db.Exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE audit_x (id int PRIMARY KEY); INSERT INTO a VALUES (1); INSERT INTO audit_x VALUES (1)")
				r := following(t, db, "public.*", "!public.audit_*")
				db.Exec(`CREATE PUBLICATION "` + r.cfg.Publication + `" ` + clause + " WITH (publish_via_partition_root = true)")
				r.start()
				r.captures("a")
				db.Exec("CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (1, 'x'); UPDATE b SET v = 'y'; INSERT INTO audit_x VALUES (2)")
				r.captures("a", "b")
				r.same("b", "id")
				// Nothing in the publication shows that this one is another.
				db.Exec("DROP TABLE b; CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (2, 'z')")
				r.await("emptied", func(capture.Status) bool { return len(r.sink()["public.b"]) == 1 && r.value("public.b", "2") == "z" })
				r.captures("a", "b")
				r.same("b", "id")
				if n := len(r.sink()); n != 2 {
					t.Errorf("%d tables in the stream", n)
				}
			})
		}
	})
}

func TestSelectionIsChangedWhileStreaming(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)")
	r := copying(t, db, "a")
	r.cfg.TablesInterval = 50 * time.Millisecond
	r.start()
	r.captures("a")
	all := capture.Selection{Patterns: []capture.Pattern{like("public.*")}}
	failed := func(context.Context) error { return errors.New("not kept") }
	if err := r.c.SetTables(t.Context(), all, failed); err == nil {
		t.Error("a selection that was not kept is taken")
	}
	r.captures("a")
	if err := r.c.SetTables(t.Context(), all, kept); err != nil {
		t.Fatal(err)
	}
	r.captures("a", "b")
	db.Exec("CREATE TABLE c (id int PRIMARY KEY); INSERT INTO c VALUES (1)")
	r.captures("a", "b", "c")
	// Who comes back gets what it has missed, also what was deleted.
	only := capture.Selection{Tables: []capture.Table{table("a")}}
	if err := r.c.SetTables(t.Context(), only, kept); err != nil {
		t.Fatal(err)
	}
	r.captures("a")
	db.Exec("DELETE FROM b; INSERT INTO b VALUES (2)")
	if err := r.c.SetTables(t.Context(), all, kept); err != nil {
		t.Fatal(err)
	}
	r.captures("a", "b", "c")
	r.same("b", "id")
	if err := r.c.SetTables(t.Context(), capture.Selection{Patterns: []capture.Pattern{like("no.*")}}, kept); err == nil || !strings.Contains(err.Error(), "matches") {
		t.Errorf("a selection of nothing: %v", err)
	}
}

// Between joining and being copied an update that leaves values out finds no row in the
// sink. It must say so, or the sink would stop at it.
func TestLooseFromTheFirstChangeOfATableThatJoins(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, v text, big text); ALTER TABLE b ALTER big SET STORAGE EXTERNAL; INSERT INTO b VALUES (1, 'x', repeat('y', 9000))")
	r := copying(t, db, "a")
	r.start()
	r.captures("a")
	if err := r.c.PauseSnapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.c.SetTables(t.Context(), capture.Selection{Patterns: []capture.Pattern{like("public.*")}}, kept); err != nil {
		t.Fatal(err)
	}
	db.Exec("UPDATE b SET v = 'z'")
	r.drain()
	if rows := r.sink()["public.b"]; len(rows) != 0 {
		t.Errorf("rows before the copy: %v", rows)
	}
	if err := r.c.ResumeSnapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.captures("a", "b")
	r.same("b", "id")
}
