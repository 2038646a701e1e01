package capture_test

import (
	"slices"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// listed returns the key of the only table of the list that was announced, empty if there
// is no list.
func (r *rig) listed() string {
	list := r.stream.Tables()
	if len(list) != 1 {
		return ""
	}
	return list[0].Columns[list[0].Key[0]].Name
}

// has reports whether a row of the table is in the stream whose first value is this.
func (r *rig) has(value string) bool {
	return slices.ContainsFunc(r.records(), func(rec capturetest.Record) bool {
		return rec.Kind.IsRow() && rec.Kind != cdc.KindDelete && tupleTexts(rec.New)[0] == value
	})
}

func TestTablesAreAnnouncedOnceTheStreamHasWhatWasCommittedBefore(t *testing.T) {
	t.Parallel()
	for _, stopped := range []bool{false, true} {
		db := pgtest.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL); INSERT INTO t VALUES (1, 10)")
		r, held := behind(t, db, "t")
		r.startStreaming()
		r.copied()
		r.await("announced", func(capture.Status) bool { return r.listed() == "id" })
		if stopped {
			r.stop()
		}
		held.hold.Store(true)
		db.Exec("INSERT INTO t VALUES (2, 20)")
		db.Exec("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (k)")
		if stopped {
			r.start()
		}
		// The catalog has the new key, and the reader is still before the row.
		r.await("taken back", func(capture.Status) bool { return r.listed() == "" })
		for range 20 {
			pause(20 * time.Millisecond)
			if key := r.listed(); key != "" || r.has("2") {
				t.Fatalf("stopped %v: a table with the key %q is announced before the stream has a row of before", stopped, key)
			}
		}
		held.release()
		r.await("announced again", func(capture.Status) bool { return r.listed() == "k" })
		if !r.has("2") {
			t.Errorf("stopped %v: the list was there before a row of before", stopped)
		}
		r.stop()
	}
}
