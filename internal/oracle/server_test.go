package oracle_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// TestGeneratedColumnsArriveWhereTheyArePublished: before version 18, and unless the publication says so, PostgreSQL
// does not send stored generated columns, and the sink must not have them.
func TestGeneratedColumnsArriveWhereTheyArePublished(t *testing.T) {
	const ddl = `CREATE TABLE made (id bigint PRIMARY KEY, a text, up text GENERATED ALWAYS AS (upper(a)) STORED,
		n numeric(10,2), twice numeric(12,2) GENERATED ALWAYS AS (n * 2) STORED)`
	const fill = `INSERT INTO made (id, a, n) VALUES (1, 'abc', 1.25), (2, NULL, NULL), (3, 'ß é', -0.01);
		UPDATE made SET a = a || 'x', n = n + 1 WHERE id < 3`
	forMajors(t, func(t *testing.T, major int, db *pgtest.DB) {
		published := major >= 18
		o := &oracle{rig: newRig(t, db.URL(), starrocks.DeleteSoft)}
		o.exec(o.writer, ddl)
		text := &kind{sql: "text"}
		made := &table{name: "made", columns: []column{{name: "a", kind: text}, {name: "n", kind: &kind{sql: "numeric(10,2)", auto: "DECIMAL(10,2)"}}}}
		if published {
			o.exec(o.writer, "CREATE PUBLICATION "+publication+" FOR TABLE mark, made WITH (publish_generated_columns = stored)")
			made.columns = append(made.columns, column{name: "up", kind: text}, column{name: "twice", kind: &kind{sql: "numeric(12,2)", auto: "DECIMAL(12,2)"}})
		}
		o.tables = []*table{made}
		o.start([]string{"made"})
		o.find(made)
		o.exec(o.writer, fill)
		o.compare("update", true)
		sink, err := o.server.Rows(sinkDatabase, "made")
		o.must(err)
		if has := slices.Contains(sink.Columns, "up"); has != published {
			t.Errorf("the sink's columns are %q; want generated ones among them: %t", sink.Columns, published)
		}
	})
}

// TestTypesMadeWhileRunningArrive covers what the catalog gets while the slot is read.
func TestTypesMadeWhileRunningArrive(t *testing.T) {
	forMajors(t, func(t *testing.T, major int, db *pgtest.DB) {
		o := &oracle{rig: newRig(t, db.URL(), starrocks.DeleteSoft)}
		mood := &kind{sql: "mood", auto: "VARCHAR(255)"}
		live := &table{name: "live", columns: []column{
			{name: "m", kind: mood},
			{name: "a", kind: &kind{sql: "mood[]"}},
			{name: "p", kind: &kind{sql: "pair"}},
		}}
		o.tables = []*table{live}
		o.setUp("CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE pair AS (x int, m mood)")
		o.exec(o.writer, "INSERT INTO live VALUES (1, 'sad', '{sad,NULL}', ROW(1, 'sad'))")
		o.exec(o.writer, "ALTER TYPE mood ADD VALUE 'very glad'")
		o.exec(o.writer, "INSERT INTO live VALUES (2, 'very glad', '{sad,very glad}', ROW(2, 'very glad'))")
		o.exec(o.writer, "BEGIN; CREATE TYPE taste AS ENUM ('sweet', 'so ur'); ALTER TABLE live ADD COLUMN t taste; "+
			"INSERT INTO live VALUES (3, 'sad', '{}', NULL, 'so ur'); UPDATE live SET t = 'sweet' WHERE id < 3; COMMIT")
		o.settle()
		live.columns = append(live.columns, column{name: "t", kind: &kind{sql: "taste", auto: "VARCHAR(255)"}})
		o.find(live)
		o.compare("update", true)
	})
}

// TestTextArrivesFromEveryEncoding covers databases whose own encoding is not UTF-8.
func TestTextArrivesFromEveryEncoding(t *testing.T) {
	encodings := map[string]string{
		"LATIN1": "äöüß éñ ÿ\u00a0\u00ad\u0080", "LATIN9": "€ Š ž Œ", "WIN1252": "€ ‚ „ … † ‡ ˆ ‰ Š", "EUC_JP": "日本語 カナ ー", "KOI8R": "Привет ─ ё", "SQL_ASCII": "plain é 日",
	}
	forMajors(t, func(t *testing.T, major int, db *pgtest.DB) {
		for name, text := range encodings {
			database := "enc_" + strings.ToLower(name)
			db.Exec("CREATE DATABASE " + database + " ENCODING '" + name + "' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
			t.Run(name, func(t *testing.T) {
				o := &oracle{rig: newRig(t, db.Server().URL(database), starrocks.DeleteSoft)}
				o.exec(o.writer, "SET client_encoding = 'UTF8'")
				words := &table{name: "words", columns: []column{
					{name: "v", kind: &kind{sql: "text"}},
					{name: "c", kind: &kind{sql: "varchar(30)", auto: "VARCHAR(120)"}},
					{name: "a", kind: &kind{sql: "text[]"}},
					{name: "j", kind: &kind{sql: "jsonb", auto: "JSON"}},
				}}
				o.tables = []*table{words}
				o.setUp("")
				o.exec(o.writer, "INSERT INTO words SELECT 1, t, t, ARRAY[t, NULL], to_jsonb(t) FROM (SELECT "+quoteText(text)+"::text) s(t)")
				o.compare("insert", true)
				if name == "SQL_ASCII" { // It takes any bytes.
					o.exec(o.writer, `INSERT INTO words VALUES (2, E'\xff', 'b')`)
					o.stopsAtBadBytes("words")
				}
			})
		}
	})
}

// stopsAtBadBytes waits until bytes that are no UTF-8 are refused: by PostgreSQL, which sends nothing more then, or by
// the sink.
func (r *rig) stopsAtBadBytes(table string) {
	r.t.Helper()
	goal := r.mark()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(settleWithin); !strings.Contains(r.capture.Status().LastError, "invalid byte sequence"); <-ticker.C {
		if r.reached(goal) && len(r.sink.taken(table)) == 1 {
			return
		}
		if r.reached(goal) || time.Now().After(deadline) {
			r.t.Fatalf("a text that is no UTF-8 was not refused\n%s", r.logs)
		}
	}
	if r.reached(goal) {
		r.t.Error("a text that is no UTF-8 was refused and passed over")
	}
}
