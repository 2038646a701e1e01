package capture_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// behind makes a rig whose reader gets nothing from the server while the holder holds.
func behind(t *testing.T, db *pgtest.DB, tables ...string) (*rig, *holder) {
	t.Helper()
	source, err := url.Parse(db.URL())
	if err != nil {
		t.Fatal(err)
	}
	held := newHolder(t, source.Host, "START_REPLICATION")
	r := copying(t, db, tables...)
	source.Host = held.listener.Addr().String()
	r.cfg.SourceURL, r.cfg.CatalogInterval = source.String(), 20*time.Millisecond
	return r, held
}

// While a chunk is read in the form that the table has by now, the reader passes changes
// in the form of before. Values of one key must not be taken for those of another.
func TestChangesOfBeforeTheKeyWasChangedDoNotHideRowsOfTheCopy(t *testing.T) {
	t.Parallel()
	for name, alter := range map[string]string{
		"another key":   "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (k)",
		"fewer columns": "ALTER TABLE t DROP COLUMN n, ADD COLUMN u uuid DEFAULT gen_random_uuid()",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
			db.Exec(`CREATE TABLE t (id int PRIMARY KEY, n int, k int NOT NULL, large text, last text); ALTER TABLE t ALTER large SET STORAGE EXTERNAL;
INSERT INTO t SELECT i, i, 21 - i, repeat('x' || i, 2000), 'last ' || i FROM generate_series(1, 20) i`)
			r, held := behind(t, db, "t")
			r.startStreaming()
			r.copied()
			// The server describes the table before its first change, and then no more.
			db.Exec("UPDATE t SET last = 'first' WHERE id = 20")
			r.drain()
			held.hold.Store(true)
			db.Exec("UPDATE t SET last = 'changed', large = 'small' WHERE id = 3; UPDATE t SET last = 'changed' WHERE id = 5")
			db.Exec(alter)
			r.await("to be copied again", func(s capture.Status) bool { return s.Snapshot.Active })
			const read = "SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE 'SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert%' AND state = 'idle' AND datname = current_database()"
			for began := time.Now(); pgtest.Value[int](db, read) == 0 && time.Since(began) < patience; {
				pause(time.Millisecond)
			}
			pause(300 * time.Millisecond)
			held.release()
			r.copied()
			if got, want := r.inLastSchema("t"), sourceRows(db, "SELECT t::text FROM t"); !slices.Equal(got, want) {
				t.Errorf("the sink has, in the last schema\n%.90q\nthe source\n%.90q", got, want)
			}
		})
	}
}

// sourceRows returns the rows of a query with one column, in order of their text.
func sourceRows(db *pgtest.DB, query string) []string {
	return strings.Split(pgtest.Value[string](db, "SELECT string_agg(r, E'\\n' ORDER BY r COLLATE \"C\") FROM ("+query+") q(r)"), "\n")
}

// inLastSchema returns the rows that the records in the last schema of a table make, as
// PostgreSQL prints them.
func (r *rig) inLastSchema(name string) (rows []string) {
	r.t.Helper()
	_, schema := r.last(name)
	sink := map[string][]string{}
	for _, rec := range r.records() {
		if rec.Kind.IsRow() && rec.Table.Fingerprint() == schema.Fingerprint() {
			r.sinkRow(sink, &rec)
		}
	}
	for _, row := range sink {
		for i, v := range row {
			if strings.Contains(v, " ") {
				row[i] = `"` + v + `"`
			}
		}
		rows = append(rows, "("+strings.Join(row, ",")+")")
	}
	slices.Sort(rows)
	return rows
}
