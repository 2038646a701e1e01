package capture_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// rows returns how many rows of the table the sink has, and the schema of the last change.
func (r *rig) last(name string) (rows map[string][]string, schema *cdc.Schema) {
	r.t.Helper()
	for _, rec := range r.records() {
		if rec.Kind.IsRow() && rec.Table.Table == name {
			schema = rec.Table
		}
	}
	return r.sink()["public."+name], schema
}

func TestSchemaSaysWhatOlderRowsHaveInAnAddedColumn(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.Database(t), "t")
	r.db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r.startStreaming()
	r.db.Exec(`BEGIN; INSERT INTO t VALUES (1);
		ALTER TABLE t ADD a int DEFAULT 7, ADD b text DEFAULT '', ADD c timestamptz DEFAULT '2020-01-02 03:04+02', ADD d int[] DEFAULT '{1,NULL}', ADD e int, ADD f bytea DEFAULT '\xff', ADD g float8 DEFAULT random();
		INSERT INTO t VALUES (2); COMMIT`)
	r.drain()
	_, schema := r.last("t")
	var got []string
	for _, c := range schema.Columns {
		if c.Missing != nil {
			got = append(got, c.Name+"="+*c.Missing)
		}
	}
	// The volatile default has every row written, with all of its values.
	if len(got) != 0 {
		t.Errorf("columns that are written in all rows: %q", got)
	}
	r.db.Exec(`ALTER TABLE t ADD h int DEFAULT 7, ADD i text DEFAULT '', ADD j timestamptz DEFAULT '2020-01-02 03:04+02', ADD k int[] DEFAULT '{1,NULL}', ADD l int, ADD m bytea DEFAULT '\xff'; INSERT INTO t VALUES (3)`)
	r.drain()
	_, schema = r.last("t")
	for _, c := range schema.Columns {
		if c.Missing != nil {
			got = append(got, c.Name+"="+*c.Missing)
		}
	}
	if want := []string{"h=7", "i=", "j=2020-01-02 01:04:00+00", "k={1,NULL}", `m=\xff`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWhatOlderRowsHaveInAnAddedColumnIsRemembered when the catalog forgets it, because the
// table is written anew before the first row with the column comes.
func TestWhatOlderRowsHaveInAnAddedColumnIsRemembered(t *testing.T) {
	t.Parallel()
	for name, rewrite := range map[string]string{
		"another column is widened": "ALTER TABLE t ALTER n TYPE bigint", "the column is widened": "ALTER TABLE t ALTER a TYPE bigint", "VACUUM FULL": "VACUUM FULL t",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := copying(t, pgtest.Database(t), "t")
			r.cfg.CatalogInterval = 20 * time.Millisecond
			r.db.Exec("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 1), (2, 2)")
			r.startStreaming()
			r.copied()
			r.db.Exec("ALTER TABLE t ADD a int DEFAULT 7")
			r.await("the column is noticed", func(capture.Status) bool {
				tables := r.stream.Tables()
				return len(tables) == 1 && len(tables[0].Columns) == 3
			})
			r.stop()
			r.db.Exec(rewrite)
			r.db.Exec("INSERT INTO t VALUES (3, 3, 8)")
			r.startStreaming()
			r.drain()
			_, schema := r.last("t")
			if c := schema.Columns[2]; c.Name != "a" || c.Missing == nil || *c.Missing != "7" {
				t.Errorf("the column is %+v, want the value of older rows", c)
			}
			if s := r.c.Status(); len(s.Snapshot.Tables) != 1 || s.Snapshot.Tables[0].State != capture.CopyDone {
				t.Errorf("copies %+v", s.Snapshot.Tables)
			}
		})
	}
}

func TestTypeIsFoundInTheTransactionThatMadeIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, pgtest.Database(t), "t")
	r.db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r.startStreaming()
	for range 20 {
		r.db.Exec("BEGIN; CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE t ADD m mood; INSERT INTO t VALUES (1, 'sad'); COMMIT")
		r.drain()
		if _, schema := r.last("t"); schema.Columns[1].Type != cdc.TypeEnum {
			t.Fatalf("it is of type %d, %s", schema.Columns[1].Type, schema.Columns[1].TypeName)
		}
		r.db.Exec("BEGIN; DELETE FROM t; ALTER TABLE t DROP m; DROP TYPE mood; COMMIT")
	}
}

// TestTableThatIsAlteredAndNotChangedIsAnnounced, so that the sink has the column without
// a row in it.
func TestTableThatIsAlteredAndNotChangedIsAnnounced(t *testing.T) {
	t.Parallel()
	r := copying(t, pgtest.Database(t), "t")
	r.cfg.CatalogInterval = 20 * time.Millisecond
	r.db.Exec("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
	r.startStreaming()
	r.copied()
	r.db.Exec("ALTER TABLE t ADD u uuid DEFAULT gen_random_uuid()")
	r.await("copied again", func(s capture.Status) bool {
		rows, _ := r.last("t")
		return s.Snapshot.Done && len(rows["1"]) == 2
	})
	r.same("t", "id")
}

func TestTableIsFollowedByItsIdentityUntilItIsRefusedByItsName(t *testing.T) {
	t.Parallel()
	for _, rename := range []string{"ALTER TABLE t RENAME TO u", "CREATE SCHEMA other; ALTER TABLE t RENAME TO u; ALTER TABLE u SET SCHEMA other; SET search_path = other"} {
		r := copying(t, pgtest.Database(t), "t")
		r.cfg.CatalogInterval = time.Hour
		r.db.Exec("CREATE TABLE t (id int PRIMARY KEY, v int)")
		r.startStreaming()
		r.copied()
		r.db.Exec("BEGIN; INSERT INTO t VALUES (1, 1); " + rename + "; INSERT INTO u VALUES (2, 2); COMMIT; INSERT INTO u VALUES (3, 3)")
		r.drain()
		if rows, _ := r.last("t"); len(rows) != 3 {
			t.Errorf("%s: the sink has %v", rename, rows)
		}
		r.stop()
		if s := r.refused(); !s.Setup || !strings.Contains(s.LastError, "Table 'public.t' is called '") {
			t.Errorf("%s: %s", rename, s.LastError)
		}
		r.stop()
	}
}

func TestAnotherTableOfTheSameNameReplacesTheRows(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		r := copying(t, pgtest.Database(t), "t")
		r.cfg.CatalogInterval = 50 * time.Millisecond
		r.db.Exec("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)")
		r.startStreaming()
		r.copied()
		if stopped {
			r.stop()
		}
		r.db.Exec("INSERT INTO t VALUES (3, 3); BEGIN; DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, w text); INSERT INTO t VALUES (2, 'two'); COMMIT; INSERT INTO t VALUES (5, 'five')")
		if stopped {
			r.startStreaming()
		}
		r.await("copied again", func(s capture.Status) bool {
			rows, _ := r.last("t")
			return s.Snapshot.Done && len(rows) == 2 && slices.Contains(rows["5"], "five")
		})
		r.same("t", "id")
		r.stop()
	}
}

func TestTablesWithoutAKeyAreNotCopiedAgain(t *testing.T) {
	t.Parallel()
	r := copying(t, pgtest.Database(t), "t")
	r.cfg.CatalogInterval = 20 * time.Millisecond
	r.db.Exec("CREATE TABLE t (v int); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1)")
	r.startStreaming()
	r.copied()
	r.db.Exec("ALTER TABLE t ADD w float8 DEFAULT random(); INSERT INTO t VALUES (2)")
	pause(200 * time.Millisecond)
	r.drain()
	n := 0
	for _, rec := range r.records() {
		if rec.Kind == cdc.KindTruncate {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the sink was emptied %d times, once by the first copy", n)
	}
}

func TestWithoutCopyingTheLogSaysWhatToRun(t *testing.T) {
	t.Parallel()
	r := copying(t, pgtest.Database(t), "t")
	r.cfg.Snapshot = capture.SnapshotNever
	var log strings.Builder
	r.logTo(&log)
	r.db.Exec("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1)")
	r.startStreaming()
	r.db.Exec("ALTER TABLE t RENAME v TO w; INSERT INTO t VALUES (2)")
	r.drain()
	r.stop()
	if !strings.Contains(log.String(), "dbmazz snapshot --tables public.t") || !strings.Contains(log.String(), "column v is called w") {
		t.Errorf("the log is\n%s", log.String())
	}
}

// logTo has the log of the capture in a builder, to be read after stop.
func (r *rig) logTo(log *strings.Builder) {
	r.cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
}
