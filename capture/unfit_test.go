package capture_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// unfit are tables that cannot be captured, and what is said of them.
var unfit = map[string]struct{ sql, want string }{
	"no key":   {"CREATE TABLE odd (id int, v text); INSERT INTO odd VALUES (1, 'v')", "'public.odd' has no usable key"},
	"view":     {"CREATE VIEW odd AS SELECT 1 AS id", "'public.odd' is not an ordinary"},
	"unlogged": {"CREATE UNLOGGED TABLE odd (id int PRIMARY KEY)", "'public.odd' is unlogged"},
	"missing":  {"SELECT", "'public.odd' not found"},
}

// slots counts the slots of the rig.
func (r *rig) slots() int {
	return pgtest.Value[int](r.db, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", r.cfg.Slot)
}

// TestOneUnfitTableThatIsNamedKeepsAllFromBeingPublished: nothing is created and nothing is
// changed until all of them are fit, so that PostgreSQL refuses no update of theirs.
func TestOneUnfitTableThatIsNamedKeepsAllFromBeingPublished(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		for name, odd := range unfit {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				db := server.Database(t)
				db.Exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY);" + odd.sql)
				r := newRig(t, db, "a", "odd", "b")
				if s := r.refused(); !s.Setup || !strings.Contains(s.LastError, odd.want) || strings.Contains(s.LastError, "\n") {
					t.Errorf("%s", s.LastError)
				}
				r.stop()
				if n := pgtest.Value[int](db, "SELECT count(*) FROM pg_publication"); n != 0 || r.slots() != 0 {
					t.Errorf("%d publications and %d slots were made", n, r.slots())
				}
				if name == "no key" {
					db.Exec("UPDATE odd SET v = 'w'; DELETE FROM odd")
				}
				// Without it they are captured, and it takes nothing away from them when it
				// is asked for while they are.
				r.cfg.Tables = []capture.Table{table("a"), table("b")}
				r.startStreaming()
				err := r.c.SetTables(t.Context(), capture.Selection{Tables: []capture.Table{table("a"), table("odd"), table("b")}}, kept)
				if err == nil || !strings.Contains(err.Error(), odd.want) {
					t.Errorf("asked for while streaming: %v", err)
				}
				db.Exec("INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)")
				r.want("insert public.a (1)", "insert public.b (1)")
				r.stop()
				// At a start it stops the pipeline, and the publication stays as it is.
				r.cfg.Tables = append(r.cfg.Tables, table("odd"))
				if s := r.refused(); !strings.Contains(s.LastError, odd.want) {
					t.Errorf("%s", s.LastError)
				}
				r.stop()
				if got := r.published(); got != "a,b" || r.slots() != 1 {
					t.Errorf("published: %s, %d slots", got, r.slots())
				}
			})
		}
	})
}

// TestOneUnfitTableThatMatchesIsLeftOutAlone, also of a publication for all tables.
func TestOneUnfitTableThatMatchesIsLeftOutAlone(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE odd (id int, v text); INSERT INTO odd VALUES (1, 'v'); CREATE TABLE hollow (); CREATE TABLE z (id int PRIMARY KEY)")
	r := following(t, db, "public.*")
	r.cfg.TablesInterval = 20 * time.Millisecond
	r.start()
	r.captures("a", "z")
	r.leftOut("public.odd", "no usable key")
	r.leftOut("public.hollow", "has no columns")
	if got := r.published(); got != "a,z" {
		t.Errorf("published: %s", got)
	}
	db.Exec("UPDATE odd SET v = 'w'; INSERT INTO a VALUES (1); INSERT INTO z VALUES (1)")
	db.Exec("ALTER TABLE odd ADD PRIMARY KEY (id); ALTER TABLE hollow ADD id int PRIMARY KEY")
	r.captures("a", "hollow", "odd", "z")
	r.same("odd", "id")
}
