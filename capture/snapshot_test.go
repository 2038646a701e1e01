package capture_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// copying makes a rig that copies existing rows.
func copying(t *testing.T, db *pgtest.DB, tables ...string) *rig {
	t.Helper()
	r := newRig(t, db, tables...)
	r.cfg.Snapshot, r.cfg.SnapshotStore = capture.SnapshotInitial, &capturetest.Store{}
	return r
}

// copied waits until everything is copied.
func (r *rig) copied() {
	r.t.Helper()
	r.await("copied", func(s capture.Status) bool { return s.Snapshot.Done && len(s.Snapshot.Tables) > 0 })
	r.drain()
}

// sink does what the records say, as apply would.
func (r *rig) sink() map[string]map[string][]string {
	r.t.Helper()
	tables := map[string]map[string][]string{}
	of := func(s *cdc.Schema) map[string][]string {
		if tables[s.Name()] == nil {
			tables[s.Name()] = map[string][]string{}
		}
		return tables[s.Name()]
	}
	for _, rec := range r.records() {
		switch {
		case rec.Kind == cdc.KindTruncate:
			for _, s := range rec.Tables {
				clear(of(s))
			}
		case rec.Kind.IsRow():
			r.sinkRow(of(rec.Table), &rec)
		}
	}
	return tables
}

const unchanged = "\x00unchanged"

func (r *rig) sinkRow(rows map[string][]string, rec *capturetest.Record) {
	r.t.Helper()
	key := func(t cdc.Tuple) string {
		var k []string
		for _, i := range rec.Table.Key {
			k = append(k, tupleTexts(t)[i])
		}
		return strings.Join(k, "\x01")
	}
	if rec.Kind == cdc.KindDelete {
		delete(rows, key(rec.Old))
		return
	}
	row, at := tupleTexts(rec.New), key(rec.New)
	was := at
	if rec.OldKind != cdc.OldNone {
		was = key(rec.Old)
	}
	base, found := rows[was]
	delete(rows, was)
	if slices.Contains(row, unchanged) {
		switch {
		case found:
			for i := range row {
				if row[i] == unchanged {
					row[i] = base[i]
				}
			}
		case rec.Loose:
			delete(rows, at)
			return
		default:
			r.t.Fatalf("an update at %s leaves values out, and there is no row: %v", rec.Position, row)
		}
	}
	rows[at] = row
}

func tupleTexts(t cdc.Tuple) (texts []string) {
	for {
		v, rest, ok := t.Next()
		if !ok {
			return texts
		}
		switch v.Kind {
		case cdc.Null:
			texts = append(texts, "\x00null")
		case cdc.Unchanged:
			texts = append(texts, unchanged)
		default:
			texts = append(texts, string(v.Bytes))
		}
		t = rest
	}
}

// same compares a table of the source with the sink.
func (r *rig) same(name, key string) {
	r.t.Helper()
	conn := r.db.Connect()
	for _, set := range []string{"TimeZone=UTC", "DateStyle='ISO, YMD'", "bytea_output=hex", "extra_float_digits=3", "IntervalStyle=postgres"} {
		if _, err := conn.Exec(r.t.Context(), "SET "+set); err != nil {
			r.t.Fatal(err)
		}
	}
	rows := conn.PgConn().ExecParams(r.t.Context(), "SELECT * FROM "+name+" ORDER BY "+key, nil, nil, nil, nil).Read()
	if rows.Err != nil {
		r.t.Fatal(rows.Err)
	}
	var want, got []string
	for _, row := range rows.Rows {
		var texts []string
		for _, v := range row {
			if v == nil {
				texts = append(texts, "\x00null")
			} else {
				texts = append(texts, string(v))
			}
		}
		want = append(want, strings.Join(texts, "|"))
	}
	for _, row := range r.sink()["public."+strings.ReplaceAll(strings.Trim(name, `"`), `""`, `"`)] {
		got = append(got, strings.Join(row, "|"))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Fatalf("%s: %d rows at the source, %d in the sink (-source +sink):\n%.3000s", name, len(want), len(got), diff)
	}
}

func TestExistingRowsAreCopied(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(`CREATE TABLE "T ""q" (id int PRIMARY KEY, v text, n numeric, b bytea, at timestamptz, e float8);
INSERT INTO "T ""q" SELECT i, CASE WHEN i % 3 > 0 THEN E'tab\t back\\ nl\n cr\r \\N ' || i END, i * 1.50, decode(md5(i::text), 'hex'), now() + i * interval '1 hour', i / 3.0 FROM generate_series(1, 1000) i;
CREATE TABLE pair (a text COLLATE "C", b timestamptz, c int, v text, PRIMARY KEY (b, a));
INSERT INTO pair SELECT 'it''s\' || i % 7, 'epoch'::timestamptz + i / 3 * interval '1 day', i, repeat('x', i) FROM generate_series(1, 500) i;
CREATE TABLE nothing (id uuid PRIMARY KEY)`)
		r := copying(t, db, `T "q`, "pair", "nothing")
		r.cfg.SnapshotChunkRows = 70
		r.start()
		r.copied()
		r.same(`"T ""q"`, "id")
		r.same("pair", "a")
		for _, s := range r.c.Status().Snapshot.Tables {
			t.Logf("%+v", s)
		}
	})
}

// disturb changes rows of t (id int, n int, large text) until stop is called.
func disturb(t *testing.T, db *pgtest.DB, seed uint64, ids int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for worker := range uint64(3) {
		conn := db.Connect()
		rnd := rand.New(rand.NewPCG(seed, worker))
		running.Go(func() {
			for ctx.Err() == nil {
				var sql strings.Builder
				sql.WriteString("BEGIN;")
				for range 1 + rnd.IntN(4) {
					id := rnd.IntN(ids)
					switch rnd.IntN(6) {
					case 0:
						fmt.Fprintf(&sql, "INSERT INTO t VALUES (%d, 1, lpad('', 3000, md5(random()::text))) ON CONFLICT (id) DO UPDATE SET n = t.n + 1;", id)
					case 1:
						fmt.Fprintf(&sql, "UPDATE t SET large = (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 100)) WHERE id = %d;", id)
					case 2, 3:
						fmt.Fprintf(&sql, "UPDATE t SET n = n + 1 WHERE id = %d;", id)
					case 4:
						fmt.Fprintf(&sql, "UPDATE t SET id = %d, n = n + 1 WHERE id = %d AND NOT EXISTS (SELECT FROM t WHERE id = %d);", rnd.IntN(ids), id, id+1)
					case 5:
						fmt.Fprintf(&sql, "DELETE FROM t WHERE id = %d;", id)
					}
				}
				end := "COMMIT"
				if rnd.IntN(8) == 0 {
					end = "ROLLBACK"
				}
				// Keys collide and rows are locked in any order: that is no failure.
				if _, err := conn.Exec(context.WithoutCancel(ctx), sql.String()+end); err != nil {
					_, _ = conn.Exec(context.WithoutCancel(ctx), "ROLLBACK")
				}
			}
		})
	}
	return func() { cancel(); running.Wait() }
}

func TestCopyUnderLoadAndKillsEndsAsTheSource(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		const ids = 3000
		db.Exec(fmt.Sprintf(`CREATE TABLE t (id int PRIMARY KEY, n int, large text);
ALTER TABLE t ALTER large SET STORAGE EXTERNAL;
INSERT INTO t SELECT i, 0, (SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 100) j) FROM generate_series(0, %d, 2) i`, ids))
		r := copying(t, db, "t")
		r.cfg.SnapshotChunkRows, r.cfg.SnapshotRate, r.cfg.FrameBytes = 50, 800, 20000
		stop := disturb(t, db, seed, ids)
		r.start()
		rnd := rand.New(rand.NewPCG(seed, 99))
		for range 3 {
			pause(time.Duration(200+rnd.IntN(300)) * time.Millisecond)
			switch rnd.IntN(3) {
			case 0:
				r.stop()
				r.stream.AutoApply(rnd.IntN(2) == 0)
				r.start()
			case 1:
				db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'dbmazz/%' AND datname = current_database()")
			default:
				r.stream.FailPublish(rnd.IntN(5), rnd.IntN(2) == 0)
			}
		}
		r.stream.AutoApply(true)
		pause(300 * time.Millisecond)
		r.c.SetSnapshot(capture.SnapshotSettings{Rate: -1})
		r.await("copied", func(s capture.Status) bool { return s.Snapshot.Done && len(s.Snapshot.Tables) > 0 })
		stop()
		r.drain()
		r.same("t", "id")
	})
}

// A copy that is stopped goes on behind what stream or sink have, and reads nothing of that
// again. What the stream has lost is read again.
func TestCopyGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]bool{"stopped": false, "end of the stream lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 500) i")
			r := copying(t, db, "t")
			r.cfg.SnapshotChunkRows, r.cfg.SnapshotRate = 10, 200
			r.stream.AutoApply(false)
			r.start()
			for range 3 {
				begun := r.stream.Frames()
				r.await("further", func(capture.Status) bool { return len(r.stream.Frames()) > len(begun)+2 })
				r.stop()
				if n := len(r.stream.Frames()); lose {
					r.stream.Apply(n - 2)
					r.stream.Cut(n - 1)
				}
				r.start()
			}
			r.c.SetSnapshot(capture.SnapshotSettings{Rate: -1})
			r.copied()
			r.same("t", "id")
			// A chunk that was in the stream but not yet remembered may be there twice.
			if n := len(r.changes()); n < 500 || n > 530 {
				t.Errorf("%d rows were written", n)
			}
		})
	}
}

// However long a copy takes, no transaction of it holds the server's cleaning up back.
func TestCopyHasNoLongTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 400) i")
	r := copying(t, db, "t")
	r.cfg.SnapshotChunkRows, r.cfg.SnapshotRate = 10, 200
	r.start()
	var oldest float64
	for !r.c.Status().Snapshot.Done {
		age := pgtest.Value[float64](db, `SELECT COALESCE(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'dbmazz/%' AND backend_type = 'client backend' AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)`)
		oldest = max(oldest, age)
		pause(5 * time.Millisecond)
	}
	if oldest > 1.5 {
		t.Errorf("a transaction was %.1f s old", oldest)
	}
}

// A table without a key has each row once, whenever the copy begins and however often.
func TestCopyOfATableWithoutAKeyHasEachRowOnce(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (n int, v text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t SELECT i, repeat('v', 200) FROM generate_series(1, 20000) i")
		r := copying(t, db, "t")
		r.cfg.Snapshot, r.cfg.FrameBytes = capture.SnapshotNever, 20000
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		for worker := range 3 {
			conn := db.Connect()
			running.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					end := []string{"COMMIT", "COMMIT", "ROLLBACK"}[i%3]
					if _, err := conn.Exec(context.WithoutCancel(ctx), fmt.Sprintf("BEGIN; INSERT INTO t VALUES (%d, 'new'), (%d, 'more'); %s", -i, worker, end)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		r.startStreaming()
		for round := range 4 {
			if err := r.c.StartSnapshot(t.Context(), nil); err != nil {
				t.Error(err)
			}
			pause(time.Duration(20+60*round) * time.Millisecond)
			r.stop()
			r.startStreaming()
		}
		r.await("copied", func(s capture.Status) bool { return s.Snapshot.Done })
		pause(100 * time.Millisecond)
		cancel()
		running.Wait()
		r.drain()
		want := pgtest.Value[string](db, "SELECT string_agg(n || ' ' || v, ',' ORDER BY n, v COLLATE \"C\") FROM t")
		var got []string
		for _, rec := range r.records() {
			switch {
			case rec.Kind == cdc.KindTruncate:
				got = got[:0]
			case rec.Kind.IsRow():
				got = append(got, strings.Join(tupleTexts(rec.New), " "))
			}
		}
		had := strings.Split(want, ",")
		slices.Sort(had)
		slices.Sort(got)
		if diff := cmp.Diff(had, got); diff != "" {
			t.Errorf("%d rows at the source, %d in the sink:\n%.2000s", len(had), len(got), diff)
		}
	})
}

func TestCopiesAreAskedForAndPaused(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100); CREATE TABLE secret (id int PRIMARY KEY); ALTER TABLE secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
	role := "reader_" + db.Name()
	db.Exec("CREATE ROLE " + role + " LOGIN REPLICATION PASSWORD 'p'; GRANT ALL ON t, secret TO " + role + "; CREATE PUBLICATION p FOR TABLE t, secret WITH (publish_via_partition_root = true)")

	r := copying(t, db, "t", "secret")
	source, err := url.Parse(db.URL())
	if err != nil {
		t.Fatal(err)
	}
	source.User = url.UserPassword(role, "p")
	r.cfg.SourceURL, r.cfg.Publication = source.String(), "p"
	r.cfg.Snapshot = capture.SnapshotNever
	r.startStreaming()
	if s := r.c.Status().Snapshot; s.Active || len(s.Tables) > 0 {
		t.Errorf("nothing was asked for: %+v", s)
	}
	if err := r.c.StartSnapshot(t.Context(), []capture.Table{table("t")}); err != nil {
		t.Fatal(err)
	}
	r.await("copied", func(s capture.Status) bool { return s.Snapshot.Done })
	r.drain()
	r.same("t", "id")
	if err := r.c.StartSnapshot(t.Context(), []capture.Table{table("other")}); err == nil {
		t.Error("a table that is not captured is copied")
	}
	if err := r.c.PauseSnapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := r.c.Status().Snapshot; !s.Paused {
		t.Errorf("%+v", s)
	}
	if err := r.c.StartSnapshot(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	// A table that may not be read is refused, and holds up nobody.
	s := r.await("refused", func(s capture.Status) bool {
		return len(s.Snapshot.Tables) == 2 && s.Snapshot.Tables[0].State == capture.CopyDone && s.Snapshot.Tables[1].State == capture.CopyFailed
	})
	if !strings.Contains(s.Snapshot.Tables[1].Error, "policy") || s.State != capture.StateStreaming {
		t.Errorf("%+v", s)
	}
	if n := len(r.changes()); n != 200 {
		t.Errorf("%d rows", n)
	}
}
