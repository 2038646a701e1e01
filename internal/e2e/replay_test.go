package e2e_test

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// tool runs a command beside the pipeline, or while it is stopped, and returns its exit
// code and what it printed.
func (a *apart) tool(args ...string) (code int, printed string) {
	a.t.Helper()
	s := a.process(a.env(args[0], "tool"), args...)
	code = s.exitCode(patience)
	return code, s.out.String()
}

// does runs a command that must succeed.
func (a *apart) does(args ...string) string {
	a.t.Helper()
	code, printed := a.tool(args...)
	if code != 0 {
		a.t.Fatalf("dbmazz %s: exit code %d:\n%s", strings.Join(args, " "), code, printed)
	}
	return printed
}

// fails runs a command that must fail with every text in its message.
func (a *apart) fails(args []string, texts ...string) {
	a.t.Helper()
	code, printed := a.tool(args...)
	for _, text := range texts {
		if code != 1 || !strings.Contains(printed, text) {
			a.t.Errorf("dbmazz %s: exit code %d, want 1 and %q in the message:\n%s", strings.Join(args, " "), code, text, printed)
		}
	}
	a.t.Logf("dbmazz %s: %s", strings.Join(args, " "), strings.TrimSpace(printed))
}

// equalIn compares the source with a database of the sink.
func (r *rig) equalIn(database string, tables ...string) {
	r.t.Helper()
	if found := r.compareWith(database, tables...); len(found) > 0 {
		r.t.Fatalf("source and database %s differ:\n%s", database, strings.Join(found, "\n"))
	}
}

func TestReplayIntoAnotherDatabaseMakesItEqualToTheSource(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		a := setup(t, loadDDL, loadTables...).set("SINK_DELETE_MODE", mode).onSocket()
		capture, apply := a.both()
		l := a.load(random(t), 5*time.Millisecond)
		l.more(100)
		t.Logf("while the load goes on:\n%s", a.does("replay", "--all", "--sink-database", "copy"))
		l.more(20)
		l.stop()
		a.same(apply, loadTables...)
		a.does("replay", "--all", "--sink-database", "copy")
		a.equalIn("copy", loadTables...)
		a.equal(loadTables...)

		apply.terminate(20 * time.Second)
		a.does("replay", "--all", "--sink-database", "apply_stopped")
		a.equalIn("apply_stopped", loadTables...)
		capture.terminate(20 * time.Second)
		a.does("replay", "--all", "--sink-database", "all_stopped")
		a.equalIn("all_stopped", loadTables...)
		if n := a.written("tool").Loads; n == 0 {
			t.Error("the sink has no load of the replay")
		}
	})
}

// docHistory is what happens to a table before it is damaged: all kinds of changes, with
// large values that updates leave out and keys that move.
var docHistory = []string{
	"INSERT INTO doc SELECT i, 'v', repeat('b', 4000) FROM generate_series(1, 60) i",
	"UPDATE doc SET v = 'w' WHERE id <= 20",
	"UPDATE doc SET id = id + 100 WHERE id BETWEEN 10 AND 15",
	"DELETE FROM doc WHERE id BETWEEN 50 AND 55",
	"UPDATE doc SET v = 'x', body = 'short' WHERE id IN (1, 110, 40); INSERT INTO doc VALUES (12, 'again', NULL)",
}

// damages are what somebody may do to the sink: rows deleted, set back, brought back.
func damages(mode string) []string {
	all := []string{
		"DELETE FROM mart.doc WHERE id IN (1, 2, 12, 111, 30)",
		"UPDATE mart.doc SET v = 'damaged', body = 'damaged', dbmazz_cdc_version = 1 WHERE id IN (3, 16, 110, 113, 40, 60)",
		"DELETE FROM mart.ledger WHERE n < 30",
	}
	if mode == "soft" {
		return append(all, "UPDATE mart.doc SET dbmazz_is_deleted = 0, dbmazz_op_type = 0, dbmazz_cdc_version = 1 WHERE id IN (10, 51)")
	}
	return append(all, "INSERT INTO mart.doc (id, v, body, dbmazz_op_type, dbmazz_is_deleted, dbmazz_synced_at, dbmazz_cdc_version) "+
		"VALUES (10, 'back', 'back', 0, false, '2026-01-01 00:00:00', 1), (51, 'back', 'back', 0, false, '2026-01-01 00:00:00', 1)")
}

func TestReplayRepairsDamagedLiveTablesUnderLoad(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		r := setup(t, loadDDL+"CREATE TABLE doc (id int PRIMARY KEY, v text, body text); ALTER TABLE doc ALTER COLUMN body SET STORAGE EXTERNAL",
			append([]string{"doc"}, loadTables...)...)
		a := r.set("SINK_DELETE_MODE", mode).onSocket()
		_, apply := a.both()
		for _, sql := range docHistory {
			r.db.Exec(sql)
		}
		l := r.load(random(t), 5*time.Millisecond)
		l.more(50)
		r.settle(apply)
		for _, sql := range damages(mode) {
			if err := r.sink.Exec(sql); err != nil {
				t.Fatal(err)
			}
		}
		if len(r.compare("doc")) == 0 {
			t.Fatal("nothing is damaged")
		}
		watch := r.watchVersions(mode, "doc", "ledger", "lines")
		t.Log(a.does("replay", "--all"))
		watch()
		l.more(20)
		l.stop()
		r.same(apply, append([]string{"doc"}, loadTables...)...)
	})
}

// watchVersions samples the versions of rows until the returned function is called: none
// may go back. A row that is deleted for good and comes again has no version in between,
// so this is for soft deletes.
func (r *rig) watchVersions(mode string, tables ...string) (stop func()) {
	if mode != "soft" {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		last := map[string]map[string]*big.Int{}
		samples := 0
		for {
			for _, table := range tables {
				last[table] = r.versions(table, last[table])
			}
			samples++
			select {
			case <-quit:
				r.t.Logf("%d samples of the versions", samples)
				return
			case <-time.After(pollEvery):
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// versions reads those of a table, and complains of those that were higher before.
func (r *rig) versions(table string, before map[string]*big.Int) map[string]*big.Int {
	data, err := r.sink.Rows(sinkDatabase, table)
	if err != nil {
		r.t.Errorf("read the sink: %v", err)
		return before
	}
	at := slices.Index(data.Columns, "dbmazz_cdc_version")
	keys := map[string]int{"lines": 2}[table]
	now := make(map[string]*big.Int, len(data.Rows))
	for _, row := range data.Rows {
		key := ""
		for i := range max(keys, 1) {
			key += row[i].Text + ","
		}
		version, ok := new(big.Int).SetString(row[at].Text, 10)
		if !ok {
			r.t.Errorf("version %q of table %s is no number", row[at].Text, table)
			return before
		}
		now[key] = version
		if was := before[key]; was != nil && was.Cmp(version) > 0 {
			r.t.Errorf("table %s, key %s: the version went from %s to %s", table, key, was, version)
		}
	}
	for key := range before {
		if now[key] == nil {
			r.t.Errorf("table %s: the row with key %s is gone", table, key)
		}
	}
	return now
}

// ids are the keys of table item in a database of the sink.
func (r *rig) ids(database string) []int {
	r.t.Helper()
	data, err := r.sink.Query("SELECT id FROM " + database + ".item ORDER BY id")
	if err != nil {
		r.t.Fatalf("query the sink: %v", err)
	}
	var ids []int
	for _, row := range data.Rows {
		id, err := strconv.Atoi(row[0].Text)
		if err != nil {
			r.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// TestReplayTakesTheRangeThatWasAskedFor: three transactions of item with positions in
// between.
func TestReplayTakesTheRangeThatWasAskedFor(t *testing.T) {
	t.Parallel()
	a := setup(t, "CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)", "item", "other").onSocket()
	capture, apply := a.both()
	var positions []string
	var sequences []uint64
	var times []time.Time
	for i := range 3 {
		a.db.Exec(fmt.Sprintf("INSERT INTO item VALUES (%d); INSERT INTO other VALUES (%[1]d)", i+1))
		positions = append(positions, a.mark().String())
		a.settle(apply)
		sequences, times = append(sequences, capture.look().GetQueue().GetLastSequence()), append(times, time.Now())
	}
	for i, test := range []struct {
		args []string
		want []int
	}{
		{[]string{"--all"}, []int{1, 2, 3}},
		{[]string{"--from-lsn", positions[0]}, []int{2, 3}},
		{[]string{"--from-lsn", positions[0], "--to", positions[1]}, []int{2}},
		{[]string{"--from-seq", strconv.FormatUint(sequences[0]+1, 10)}, []int{2, 3}},
		{[]string{"--all", "--to", times[1].Format(time.RFC3339Nano)}, []int{1, 2}},
		{[]string{"--from-time", times[0].Format(time.RFC3339Nano), "--to", positions[1]}, []int{1, 2}}, // A minute is added for clocks.
		{[]string{"--from-time", "10m", "--tables", "item"}, []int{1, 2, 3}},
	} {
		database := fmt.Sprintf("range_%d", i)
		args := append([]string{"replay", "--sink-database", database}, test.args...)
		t.Logf("%v:\n%s", test.args, a.does(append(slices.Clone(args), "--dry-run")...))
		if tables := strings.Join(a.sink.Tables(), " "); strings.Contains(tables, database) {
			t.Errorf("--dry-run has made %s", tables)
		}
		a.does(args...)
		if got := a.ids(database); !slices.Equal(got, test.want) {
			t.Errorf("replay %v brought %v, want %v", test.args, got, test.want)
		}
		other := slices.Contains(a.sink.Tables(), database+".other")
		if want := !slices.Contains(test.args, "--tables"); other != want {
			t.Errorf("replay %v: table other is there: %t, want %t", test.args, other, want)
		}
	}
	a.fails([]string{"replay"}, "--from-lsn", "--from-time", "--from-seq", "--all")
	a.fails([]string{"replay", "--all", "--from-seq", "3"}, "give one of")
	a.fails([]string{"replay", "--from-lsn", "nonsense"}, "--from-lsn")
	a.fails([]string{"replay", "--from-time", "yesterday"}, "--from-time", "yesterday")
	a.fails([]string{"replay", "--all", "--tables", "nope"}, "nope")
}

// TestReplayThatIsKilledGoesOnAndLosesNothing kills it while a load of it is in the sink.
func TestReplayThatIsKilledGoesOnAndLosesNothing(t *testing.T) {
	t.Parallel()
	for _, kind := range []starrockstest.FaultKind{starrockstest.FaultHold, starrockstest.FaultHoldBeforeCommit, starrockstest.FaultCommitLate} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := setup(t, loadDDL, loadTables...)
			a := r.set("FLUSH_BYTES", "8KiB").onSocket() // Many batches.
			_, apply := a.both()
			l := r.load(random(t), 5*time.Millisecond)
			l.more(100)
			l.stop()
			r.same(apply, loadTables...)
			args := []string{"replay", "--all", "--sink-database", "copy"}
			for range 2 {
				r.script(starrockstest.Fault{Kind: kind, Table: `^copy\.orders$`})
				s := a.process(a.env("replay", "tool"), args...)
				eventually(t, "a load of the replay is in the sink", func() (bool, string) {
					if s.exited() {
						t.Fatalf("the replay has ended: %s", s.out.String())
					}
					return len(r.sink.Faults()) == 0, ""
				})
				s.kill()
				r.sink.Release()
			}
			t.Log(a.does(args...))
			r.equalIn("copy", loadTables...)
			r.equal(loadTables...)
		})
	}
}

func TestReplayOfWhatIsNoLongerRetainedNamesTheOldest(t *testing.T) {
	t.Parallel()
	a := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item").set("BUS_RETENTION", "1s").onSocket()
	capture, apply := a.both()
	a.db.Exec("INSERT INTO item VALUES (1)")
	first := a.mark().String()
	at := time.Now()
	a.settle(apply)
	eventually(t, "what is old is purged", func() (bool, string) {
		a.db.Exec("INSERT INTO item SELECT max(id) + 1 FROM item")
		now := capture.look().GetQueue()
		return now.GetFirstSequence() > 2, now.String()
	})
	for _, args := range [][]string{{"--from-lsn", first}, {"--from-seq", "1"}, {"--from-time", at.Add(-time.Hour).Format(time.RFC3339)}} {
		a.fails(append([]string{"replay", "--sink-database", "copy"}, args...), "no longer retained", "follows position", "committed at")
	}
	a.does("replay", "--all", "--sink-database", "copy")
	if ids := a.ids("copy"); len(ids) == 0 || ids[0] == 1 {
		t.Errorf("--all brought %v", ids)
	}
	a.same(apply, "item")
}
