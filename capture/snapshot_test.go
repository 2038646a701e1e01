package capture_test

import (
	"context"
	"fmt"
	"math/rand/v2"
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
