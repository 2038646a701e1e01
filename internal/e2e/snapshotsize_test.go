package e2e_test

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// snapshotRowsEnv sets how many rows exist before TestLargeDatabaseIsCopiedUnderLoad, all
// tables together.
const snapshotRowsEnv = "DBMAZZ_E2E_SNAPSHOT_ROWS"

// manyTables are the tables of that test: every fourth has a key of two columns, and one
// row in fifty a value that is stored out of line.
const manyTables = 20

// many makes the tables with rows of about 90 bytes, and returns their names.
func (r *rig) many(rows int) (names []string) {
	r.t.Helper()
	var group sync.WaitGroup
	for i := range manyTables {
		name, key, index := fmt.Sprintf("bulk%02d", i), "id", ""
		if i%4 == 3 {
			key, index = "part, id", fmt.Sprintf("CREATE INDEX ON bulk%02d (id)", i) // For disturb.
		}
		names = append(names, name)
		r.db.Exec(fmt.Sprintf(`CREATE TABLE %s (id bigint, part text, n int, name text, amount numeric(12,2), at timestamptz, body text, PRIMARY KEY (%s));
			ALTER TABLE %[1]s ALTER body SET STORAGE EXTERNAL; %[3]s`, name, key, index))
	}
	for lane := range 2 {
		conn := r.db.Connect()
		group.Go(func() {
			for i := lane; i < len(names); i += 2 {
				if _, err := conn.Exec(r.t.Context(), fmt.Sprintf(`INSERT INTO %s SELECT i, 'p' || i %% 97, 0, 'customer ' || i, i * 0.01, now(), CASE WHEN i %% 50 = 0 THEN repeat('b' || i, 400) END
					FROM generate_series(1, %d) i; ANALYZE %[1]s`, names[i], rows/manyTables)); err != nil {
					r.t.Error(err)
				}
			}
		})
	}
	group.Wait()
	return names
}

// disturb changes rows of the tables in all ways until stop is called, which returns how
// many transactions that were.
func (r *rig) disturb(random *rand.Rand, tables []string, ids int) (stop func() int64) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	var committed atomic.Int64
	for range 3 {
		conn, rnd := r.db.Connect(), rand.New(rand.NewPCG(random.Uint64(), random.Uint64()))
		running.Go(func() {
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				sql := "BEGIN;"
				for range 1 + rnd.IntN(4) {
					sql += disturbance(rnd, tables[rnd.IntN(len(tables))], 1+rnd.IntN(ids)) + ";"
				}
				// Rows are locked in any order: that is no failure.
				if _, err := conn.Exec(context.WithoutCancel(ctx), sql+"COMMIT"); err != nil {
					_, _ = conn.Exec(context.WithoutCancel(ctx), "ROLLBACK")
					continue
				}
				committed.Add(1)
			}
		})
	}
	return sync.OnceValue(func() int64 { cancel(); running.Wait(); return committed.Load() })
}

// disturbance is a statement that changes a row or more.
func disturbance(rnd *rand.Rand, table string, id int) string {
	switch rnd.IntN(8) {
	case 0:
		return fmt.Sprintf("INSERT INTO %s VALUES (%d, 'q', 0, 'new', 1.5, now(), repeat('x', %d)) ON CONFLICT DO NOTHING", table, rnd.IntN(1<<30)+1<<31, rnd.IntN(4000))
	case 1:
		return fmt.Sprintf("DELETE FROM %s WHERE id = %d", table, id)
	case 2:
		return fmt.Sprintf("UPDATE %s SET id = -id WHERE id = %d", table, id/50*50)
	case 3:
		return fmt.Sprintf("UPDATE %s SET part = part || 'x', n = n + 1 WHERE id = %d", table, id)
	case 4:
		return fmt.Sprintf("UPDATE %s SET body = repeat('y%d', %d) WHERE id = %d", table, id, rnd.IntN(800), id)
	default: // Some of them have a value out of line, which the change leaves as it is.
		return fmt.Sprintf("UPDATE %s SET n = n + 1, at = now() WHERE id IN (%d, %d)", table, id/50*50, id)
	}
}

// plainCopy has COPY read the tables, two at a time, and returns how long that takes.
func (r *rig) plainCopy(tables []string) time.Duration {
	r.t.Helper()
	var group sync.WaitGroup
	began := time.Now()
	for lane := range 2 {
		conn := r.db.Connect()
		group.Go(func() {
			for i := lane; i < len(tables); i += 2 {
				if _, err := conn.PgConn().CopyTo(r.t.Context(), io.Discard, "COPY "+tables[i]+" TO STDOUT"); err != nil {
					r.t.Error(err)
				}
			}
		})
	}
	group.Wait()
	return time.Since(began)
}

// TestLargeDatabaseIsCopiedUnderLoad and three kills without a difference. It says how fast
// that was, and how fast COPY reads the same tables.
func TestLargeDatabaseIsCopiedUnderLoad(t *testing.T) {
	t.Parallel()
	rows, random := number(t, snapshotRowsEnv, 100_000), random(t)
	bound := patience + time.Duration(rows/2000)*time.Second
	r := setup(t, "")
	tables := r.many(rows)
	r.set("TABLES", "mark,"+strings.Join(tables, ",")).set("SNAPSHOT_CHUNK_ROWS", fmt.Sprint(min(50_000, max(500, rows/200))))
	plain := r.plainCopy(tables)
	if rows <= 100_000 {
		r.set("SNAPSHOT_RATE", "40000") // Else there is no time to kill it three times.
	}
	stop := r.disturb(random, tables, rows/manyTables)
	s := r.begin()
	began, away := time.Now(), time.Duration(0)
	for kill := range 3 {
		goal := uint64(rows) * uint64(10+30*kill+random.IntN(20)) / 100 //nolint:gosec // Positive.
		eventuallyWithin(t, bound, "the copy goes on", func() (bool, string) {
			now := s.look()
			return now.GetSnapshotRowsSynced() >= goal, fmt.Sprintf("%d rows; %s", now.GetSnapshotRowsSynced(), s.check())
		})
		now, gone := s.look(), time.Now()
		s.kill()
		s = r.begin()
		away += time.Since(gone)
		t.Logf("killed at %d rows, lag %d ms; it goes on at %d", now.GetSnapshotRowsSynced(), r.lag(s), s.look().GetSnapshotRowsSynced())
	}
	var last *pb.StatusResponse
	eventuallyWithin(t, bound, "all is copied", func() (bool, string) {
		last = s.look()
		return !last.GetSnapshotActive(), s.check().String()
	})
	took := time.Since(began) - away
	transactions := stop()
	goal := r.mark()
	eventuallyWithin(t, bound, "everything committed is confirmed", func() (bool, string) { return r.confirmed() >= goal, s.check().String() })
	total := time.Since(began) - away
	differ := 0
	for _, name := range tables {
		differ += r.differ(name)
	}
	if differ > 0 {
		t.Errorf("%d differences", differ)
	}
	copied := float64(last.GetSnapshotRowsSynced())
	t.Logf("%d rows of %d tables and %d transactions beside: %d differences; plain COPY %.0f rows/s, copied %.0f rows/s (%.2f of it), in the sink %.0f rows/s; memory at most %d MiB",
		rows, len(tables), transactions, differ, float64(rows)/plain.Seconds(), copied/took.Seconds(), plain.Seconds()/took.Seconds(), copied/total.Seconds(), s.rssPeak()>>20)
}

// lag is how old the oldest change is that is not in the sink, in milliseconds.
func (r *rig) lag(s *service) uint64 { return s.sample().GetReplicationLagMs() }

// differ counts the rows in which source and sink differ, with little memory.
func (r *rig) differ(name string) (n int) {
	r.t.Helper()
	conn := r.textConn()
	defer conn.Close(context.WithoutCancel(r.t.Context()))
	columns := describe(r.t, conn, "public", name)
	sink, err := r.sink.Rows(sinkDatabase, name)
	if err != nil {
		r.t.Fatal(err)
	}
	types, missing := sinkTypes(sink, columns)
	if missing != "" {
		r.t.Fatal(missing)
	}
	seed := maphash.MakeSeed()
	digest := func(text func(i int) string) (key, row uint64) {
		var k, h maphash.Hash
		k.SetSeed(seed)
		h.SetSeed(seed)
		for i, c := range columns {
			value := text(i)
			fmt.Fprintf(&h, "%d:%s", len(value), value)
			if c.key {
				fmt.Fprintf(&k, "%d:%s", len(value), value)
			}
		}
		return k.Sum64(), h.Sum64()
	}
	want := map[uint64]uint64{}
	reader := conn.Exec(r.t.Context(), "SELECT * FROM "+name)
	for reader.NextResult() {
		for rows := reader.ResultReader(); rows.NextRow(); {
			values := rows.Values()
			key, row := digest(func(i int) string {
				if values[i] == nil {
					return nullText
				}
				return canonical(string(values[i]), columns[i], types[i])
			})
			want[key] = row
		}
	}
	if err := reader.Close(); err != nil {
		r.t.Fatal(err)
	}
	at := make([]int, len(columns))
	for i, c := range columns {
		at[i] = columnOf(r.t, sink, c.name)
	}
	audit := auditOf(r.t, sink)
	for _, cells := range sink.Rows {
		if audit.deleted(r.t, cells) {
			continue
		}
		key, row := digest(func(i int) string {
			if cells[at[i]].Null {
				return nullText
			}
			return canonicalSink(cells[at[i]].Text, columns[i], types[i])
		})
		if was, ok := want[key]; !ok || was != row {
			n++
		}
		delete(want, key)
	}
	return n + len(want)
}

func columnOf(t testing.TB, sink starrockstest.TableData, name string) int {
	t.Helper()
	for i, column := range sink.Columns {
		if column == name {
			return i
		}
	}
	t.Fatalf("the sink has no column %s", name)
	return 0
}
