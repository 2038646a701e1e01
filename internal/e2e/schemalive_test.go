package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// alterModes are the two ways in which the sink carries out a schema change: a new column
// is there at once, or every change is a job that takes its time.
func alterModes(t *testing.T, run func(t *testing.T, o starrockstest.Options)) {
	for name, o := range map[string]starrockstest.Options{
		"fast schema evolution": {AlterDuration: time.Second},
		"every change is a job": {AlterDuration: time.Second, DisableFastSchemaEvolution: true},
		"an old version":        {AlterDuration: time.Second, Version: "3.1.10"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, o)
		})
	}
}

const liveDDL = "CREATE TABLE live (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, n int, v varchar(4), gone text);"

// writing changes rows of the table live until stop is called, which tells how many there
// were, each in a transaction of its own.
func (r *rig) writing() (stop func() int) {
	conn, end, ended := r.db.Connect(), make(chan struct{}), make(chan int, 1)
	tick := time.NewTicker(3 * time.Millisecond)
	go func() {
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-end:
				ended <- n
				return
			case <-tick.C:
			}
			sql := fmt.Sprintf("INSERT INTO live (n, v) VALUES (%d, 'v%d'); UPDATE live SET n = n + 1 WHERE id = (SELECT max(id) - 3 FROM live); DELETE FROM live WHERE id %% 7 = 0 AND id < (SELECT max(id) - 20 FROM live)", n, n%100)
			if _, err := conn.Exec(r.t.Context(), sql); err != nil {
				r.t.Errorf("change rows: %v", err)
				ended <- n
				return
			}
		}
	}()
	return func() int { close(end); return <-ended }
}

func TestColumnsAreAddedAndWidenedUnderLoad(t *testing.T) {
	t.Parallel()
	alterModes(t, func(t *testing.T, o starrockstest.Options) {
		r := setupOn(t, pgtest.Database(t), o, liveDDL+"INSERT INTO live (n, v, gone) SELECT i, i, i FROM generate_series(1, 500) i", "live")
		s := r.set("SNAPSHOT", "initial").start()
		stop := r.writing()
		for _, ddl := range []string{
			"ALTER TABLE live ADD COLUMN added int NOT NULL DEFAULT 7",
			"ALTER TABLE live ALTER COLUMN n TYPE bigint; INSERT INTO live (n, added) VALUES (5000000000, 8)",
			"ALTER TABLE live ALTER COLUMN v TYPE text, ADD COLUMN w text DEFAULT 'w'; UPDATE live SET v = repeat('long', 10) WHERE id IN (2, 400)",
			"ALTER TABLE live DROP COLUMN gone",
		} {
			r.db.Exec(ddl)
			r.settle(s)
		}
		if n := stop(); n < 20 {
			t.Errorf("only %d transactions were made beside the changes", n)
		}
		r.same(s, "live")
		r.holdsTypes("live", map[string]string{"n": "BIGINT", "added": "INT", "w": "VARCHAR", "gone": "VARCHAR"})
	})
}

// holdsTypes checks how the types of some columns of the sink begin.
func (r *rig) holdsTypes(table string, want map[string]string) {
	r.t.Helper()
	got, err := r.sink.Rows(sinkDatabase, table)
	if err != nil {
		r.t.Fatal(err)
	}
	have := map[string]string{}
	for i, name := range got.Columns {
		have[name] = strings.ToUpper(got.Types[i])
	}
	for name, typ := range want {
		if !strings.HasPrefix(have[name], typ) {
			r.t.Errorf("column %s is %q in the sink, want %s; all are %v", name, have[name], typ, have)
		}
	}
}

// altering waits until a schema change of the table live runs in the sink.
func (r *rig) altering() {
	r.t.Helper()
	eventually(r.t, "the sink is being altered", func() (bool, string) {
		answer, err := r.sink.Query("SHOW ALTER TABLE COLUMN FROM " + sinkDatabase + " WHERE TableName = 'live' ORDER BY CreateTime DESC LIMIT 1")
		if err != nil {
			return false, err.Error()
		}
		text := fmt.Sprint(answer.Rows)
		return len(answer.Rows) > 0 && !strings.Contains(text, "FINISHED"), text
	})
}

// The process dies while the sink is altered, or when it has been and a row in the new form
// is not committed. Nothing says so yet, so both are done again.
func TestAKillBetweenAlteringTheSinkAndTheCheckpointLosesNothing(t *testing.T) {
	t.Parallel()
	for name, running := range map[string]bool{"while the change runs": true, "before the rows after it are committed": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alterModes(t, func(t *testing.T, o starrockstest.Options) {
				r := setupOn(t, pgtest.Database(t), o, liveDDL+"INSERT INTO live (n, v) SELECT i, i FROM generate_series(1, 50) i", "live")
				s := r.set("SNAPSHOT", "initial").start()
				r.same(s, "live")
				r.db.Exec("UPDATE live SET n = -1 WHERE id = 1")
				r.settle(s)
				before := r.confirmed()
				if !running {
					r.script(starrockstest.Fault{Kind: starrockstest.FaultHoldBeforeCommit, Table: `\.live$`})
				}
				r.db.Exec("BEGIN; ALTER TABLE live ALTER COLUMN n TYPE bigint, ADD COLUMN added int DEFAULT 7; INSERT INTO live (n, added) VALUES (5000000000, 8); UPDATE live SET n = 6000000000 WHERE id = 2; COMMIT")
				if running {
					r.altering()
				} else {
					eventually(t, "the load is held", func() (bool, string) { return len(r.sink.Faults()) == 0, "" })
				}
				s.kill()
				if at := r.confirmed(); at < before {
					t.Errorf("the slot went back from %s to %s", before, at)
				}
				r.sink.Release()
				s = r.up()
				r.db.Exec("INSERT INTO live (n, v) VALUES (1, 'x')")
				r.agree(s, []string{"live"})
				r.holdsTypes("live", map[string]string{"n": "BIGINT", "added": "INT"})
			})
		})
	}
}

// A replay begins with schemas that the target has left behind.
func TestReplayOverSchemaChanges(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		a := setup(t, liveDDL+"INSERT INTO live (n, v, gone) SELECT i, i, i FROM generate_series(1, 100) i", "live").set("SNAPSHOT", "initial").set("SINK_DELETE_MODE", mode).onSocket()
		_, apply := a.both()
		apply.copied()
		for i, ddl := range []string{
			"ALTER TABLE live ADD COLUMN added int NOT NULL DEFAULT 7",
			"ALTER TABLE live ALTER COLUMN n TYPE bigint",
			"ALTER TABLE live ALTER COLUMN v TYPE text",
			"ALTER TABLE live DROP COLUMN gone",
		} {
			change := fmt.Sprintf("INSERT INTO live (n, v) VALUES (%d, 'a'); UPDATE live SET n = -n WHERE id %% 10 = %d; DELETE FROM live WHERE id = %d;", i, i, 50+i)
			a.db.Exec("BEGIN; " + change + ddl + "; UPDATE live SET v = 'b' WHERE id = 90; COMMIT")
		}
		a.db.Exec("UPDATE live SET n = 5000000000, v = repeat('long', 10), added = 1 WHERE id IN (4, 5)")
		a.agree(apply, []string{"live"})
		a.does("replay", "--all", "--sink-database", "copy")
		a.equalIn("copy", "live")

		want := map[string]string{"n": "BIGINT", "added": "INT", "v": "VARCHAR", "gone": "VARCHAR"}
		a.holdsTypes("live", want)
		for _, sql := range []string{
			"DELETE FROM mart.live WHERE id IN (1, 4, 90, 101, 104)",
			"UPDATE mart.live SET n = 0, v = 'damaged', added = 0, dbmazz_cdc_version = 1 WHERE id IN (5, 6, 102, 103)",
		} {
			if err := a.sink.Exec(sql); err != nil {
				t.Fatal(err)
			}
		}
		stop := a.writing()
		a.does("replay", "--all")
		stop()
		a.same(apply, "live")
		a.holdsTypes("live", want)
	})
}
