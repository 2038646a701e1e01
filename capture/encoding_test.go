package capture_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// encoded makes a database of another encoding.
func encoded(t *testing.T, encoding string) *pgtest.DB {
	t.Helper()
	return pgtest.Database(t).Server().EncodedDatabase(t, encoding)
}

// written lists the new rows of the stream.
func (r *rig) written() (rows []string) {
	r.t.Helper()
	for _, rec := range r.records() {
		if rec.Kind.IsRow() && len(rec.New) > 0 {
			rows = append(rows, strings.Join(tupleTexts(rec.New), ","))
		}
	}
	return rows
}

// TestTextOfOtherEncodingsArrivesAsUTF8 covers names, keys and values, changed and copied.
func TestTextOfOtherEncodingsArrivesAsUTF8(t *testing.T) {
	t.Parallel()
	for encoding, text := range map[string]string{"LATIN1": "Ærøskøbing ¥", "EUC_JP": "日本語 テスト", "WIN1251": "Привет", "UTF8": "😀 €"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			db := encoded(t, encoding)
			db.Exec("SET client_encoding = UTF8")
			db.Exec(`CREATE TABLE "t ` + text + `" ("k ` + text + `" text PRIMARY KEY, v text)`)
			db.Exec(`INSERT INTO "t `+text+`" VALUES ('1' || $1, $1), ('2' || $1, $1)`, text)
			r := copying(t, db, "t "+text)
			r.cfg.SnapshotChunkRows = 1
			r.start()
			r.copied()
			db.Exec(`INSERT INTO "t `+text+`" VALUES ('3' || $1, $1)`, text)
			r.drain()
			if diff := cmp.Diff([]string{"1" + text + "," + text, "2" + text + "," + text, "3" + text + "," + text}, r.written()); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			if s := r.records()[1].Table; s.Table != "t "+text || s.Columns[0].Name != "k "+text {
				t.Errorf("the schema names %q, %q", s.Table, s.Columns[0].Name)
			}
		})
	}
}

const rawInsert = `INSERT INTO t VALUES (1, 'plain'), (2, E'\303\251'), (3, E'caf\351 \377\\')`

// rawRows are what rawInsert leaves in an SQL_ASCII database.
var rawRows = []string{"1,plain", "2,\xc3\xa9", "3,caf\xe9 \xff\\"}

// TestBytesOfADatabaseWithoutEncodingArriveAsTheyAre: it is the sink that refuses those
// which are not UTF-8, and names their row.
func TestBytesOfADatabaseWithoutEncodingArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	db := encoded(t, "SQL_ASCII")
	db.Exec("SET client_encoding = SQL_ASCII; CREATE TABLE t (id int, v text, PRIMARY KEY (v, id))")
	db.Exec(rawInsert)
	r := copying(t, db, "t")
	r.cfg.SnapshotChunkRows = 1
	r.start()
	r.copied()
	copied := slices.Sorted(slices.Values(r.written()))
	db.Exec("BEGIN; DELETE FROM t; " + rawInsert + "; COMMIT")
	r.drain()
	if diff := cmp.Diff(rawRows, copied); diff != "" {
		t.Errorf("copied rows (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(rawRows, r.written()[len(rawRows):]); diff != "" {
		t.Errorf("streamed rows (-want +got):\n%s", diff)
	}
}

// TestACopyGoesOnBehindAKeyThatIsNotUTF8 stops in the middle of a copy, where the last
// key is one that JSON has no text for.
func TestACopyGoesOnBehindAKeyThatIsNotUTF8(t *testing.T) {
	t.Parallel()
	db := encoded(t, "SQL_ASCII")
	db.Exec("SET client_encoding = SQL_ASCII; CREATE TABLE t (k text PRIMARY KEY)")
	db.Exec(`INSERT INTO t SELECT convert_from('\xe9'::bytea, 'SQL_ASCII') || to_char(n, 'FM0000') FROM generate_series(1, 300) n`)
	r := copying(t, db, "t")
	r.cfg.SnapshotChunkRows, r.cfg.SnapshotRate = 10, 100
	r.start()
	store := r.cfg.SnapshotStore.(*capturetest.Store)
	r.await("copying", func(capture.Status) bool { return strings.Contains(string(store.Value()), `"key":[{"bytes":`) })
	r.stop()
	r.cfg.SnapshotRate = 0
	r.start()
	r.copied()
	rows := r.written()
	slices.Sort(rows)
	if n := len(slices.Compact(rows)); n != 300 {
		t.Errorf("%d rows arrived, want 300", n)
	}
	if len(rows) > 320 {
		t.Errorf("%d rows were copied for 300: the copy began anew", len(rows))
	}
}

// TestACharacterWithoutUTF8IsASetupProblem covers a change and an existing row.
func TestACharacterWithoutUTF8IsASetupProblem(t *testing.T) {
	t.Parallel()
	// No character of Unicode has this code in EUC_JP.
	const insert = `INSERT INTO t VALUES (1, convert_from('\xaaaa', 'EUC_JP'))`
	for name, when := range map[string]struct {
		before, after string
		wants         []string
	}{
		"change": {after: insert, wants: []string{"A changed value", "drop the slot"}},
		"copy":   {before: insert, wants: []string{"Table 'public.t'", "Correct the value"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := encoded(t, "EUC_JP")
			db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text);" + when.before)
			r := copying(t, db, "t")
			r.startStreaming()
			db.Exec("SELECT 1;" + when.after)
			problem := ""
			r.await("stopped", func(s capture.Status) bool {
				problem = s.LastError
				for _, table := range s.Snapshot.Tables {
					problem += table.Error
				}
				return strings.Contains(problem, "22P05")
			})
			for _, want := range append(when.wants, "cannot be turned into UTF-8", "EUC_JP") {
				if !strings.Contains(problem, want) {
					t.Errorf("error %q lacks %q", problem, want)
				}
			}
		})
	}
}
