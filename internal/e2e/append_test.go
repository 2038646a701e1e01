package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

const eventsDDL = "CREATE TABLE events (n bigint, v text); ALTER TABLE events REPLICA IDENTITY FULL;"

// history is what happened to a table without a key: every change as the sink should
// show it, in no order, many of them alike.
type history map[string]int

func change(op int, n, v string) string { return fmt.Sprintf("op %d: %s, %s", op, n, v) }

// happen commits one random change of events and notes it. Values repeat, so that rows
// of the table and changes are alike.
func (h history) happen(ctx context.Context, r *rig, random *rand.Rand) {
	r.t.Helper()
	n := random.IntN(20)
	op, sql := 0, fmt.Sprintf("INSERT INTO events SELECT %d, repeat('v', %d) FROM generate_series(1, %d) RETURNING n, v", n, random.IntN(3), 1+random.IntN(4))
	switch random.IntN(4) {
	case 0:
		op, sql = 1, fmt.Sprintf("UPDATE events SET v = v || 'x', n = %d WHERE n = %d RETURNING n, v", random.IntN(20), n)
	case 1:
		op, sql = 2, fmt.Sprintf("DELETE FROM events WHERE n = %d RETURNING n, v", n)
	}
	conn := r.db.Connect()
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, row := range results[0].Rows {
		h[change(op, string(row[0]), string(row[1]))]++
	}
}

// appended is what the sink has of it.
func (r *rig) appended(database string) history {
	r.t.Helper()
	data, err := r.sink.Rows(database, "events")
	if err != nil {
		r.t.Fatal(err)
	}
	at := auditOf(r.t, data)
	n, v := slices.Index(data.Columns, "n"), slices.Index(data.Columns, "v")
	h := history{}
	for _, row := range data.Rows {
		op := strings.Index("012", row[at.op].Text)
		at.deleted(r.t, row)
		h[change(op, row[n].Text, row[v].Text)]++
	}
	return h
}

// exactly compares what happened with what the sink has.
func (r *rig) exactly(database string, want history) {
	r.t.Helper()
	got := r.appended(database)
	total := 0
	for text, times := range want {
		total += times
		if got[text] != times {
			r.t.Errorf("%s: it happened %d times and is there %d times", text, times, got[text])
		}
	}
	for text, times := range got {
		if want[text] == 0 {
			r.t.Errorf("%s: it never happened and is there %d times", text, times)
		}
	}
	r.t.Logf("%d changes, %d of them different", total, len(want))
}

func TestTableWithoutAKeyGetsEachChangeExactlyOnceThroughKills(t *testing.T) {
	t.Parallel()
	random := random(t)
	r := setup(t, eventsDDL, "events")
	s := r.set("FLUSH_SIZE", "5").start()
	want := history{}
	for round := range number(t, roundsEnv, 6) {
		kinds := []starrockstest.FaultKind{"", starrockstest.FaultLostResponse, starrockstest.FaultHold, starrockstest.FaultHoldBeforeCommit, starrockstest.FaultCommitLate, starrockstest.FaultEvictLabel, starrockstest.FaultEvictLost}
		if kind := kinds[round%len(kinds)]; kind != "" {
			r.script(starrockstest.Fault{Kind: kind, Table: "events"})
		}
		for range 30 {
			want.happen(t.Context(), r, random)
		}
		wait := time.NewTimer(time.Duration(random.IntN(200)) * time.Millisecond)
		<-wait.C
		s.kill()
		for range 5 {
			want.happen(t.Context(), r, random)
		}
		r.sink.ClearFaults()
		s = r.up()
		r.sink.Release()
	}
	r.settle(s)
	r.exactly(sinkDatabase, want)
}

// TestReplayOfATableWithoutAKeyAddsOnlyWhatIsMissing to the live table, and all of it to
// another one.
func TestReplayOfATableWithoutAKeyAddsOnlyWhatIsMissing(t *testing.T) {
	t.Parallel()
	random := random(t)
	a := setup(t, eventsDDL, "events").onSocket()
	_, apply := a.both()
	want := history{}
	for range 60 {
		want.happen(t.Context(), a.rig, random)
	}
	a.settle(apply)
	a.does("replay", "--all")
	a.exactly(sinkDatabase, want)
	if err := a.sink.Exec("DELETE FROM mart.events WHERE n = 3"); err != nil {
		t.Fatal(err)
	}
	t.Log(a.does("replay", "--all"))
	a.exactly(sinkDatabase, want)
	a.does("replay", "--all", "--sink-database", "copy")
	a.does("replay", "--all", "--sink-database", "copy")
	a.exactly("copy", want)
}
