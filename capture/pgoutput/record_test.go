package pgoutput_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/capture/pgoutput"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var record = flag.Bool("record", false, "record testdata from the installed servers")

// TestRecordingsAreWhatServersSend records the messages of every installed server and
// checks that they decode as expected; with -record it writes them to testdata.
func TestRecordingsAreWhatServersSend(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, server *pgtest.Server) {
		db := server.Database(t)
		db.Exec(`CREATE TYPE mood AS ENUM ('ok', 'bad'); CREATE SCHEMA "S 2";
CREATE TABLE plain (id int, "V v" text, m mood, n numeric(10,2), gone int, PRIMARY KEY (id)); ALTER TABLE plain DROP COLUMN gone;
CREATE TABLE "S 2".full_identity (a int, b text, PRIMARY KEY (a)); ALTER TABLE "S 2".full_identity REPLICA IDENTITY FULL;
CREATE PUBLICATION p FOR TABLE plain, "S 2".full_identity`)
		db.Exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", db.Name())
		large := "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i)"
		for _, sql := range []string{
			"INSERT INTO plain VALUES (1, 'a', 'ok', 1.5), (2, NULL, NULL, 'NaN'), (3, '', 'bad', -1)",
			"UPDATE plain SET \"V v\" = " + large + " WHERE id = 1",
			"UPDATE plain SET n = 7 WHERE id = 1",
			"UPDATE plain SET id = 10 WHERE id = 1",
			"DELETE FROM plain WHERE id = 2",
			`INSERT INTO "S 2".full_identity SELECT 1, ` + large,
			`UPDATE "S 2".full_identity SET a = 2`,
			`DELETE FROM "S 2".full_identity`,
			`TRUNCATE plain, "S 2".full_identity RESTART IDENTITY CASCADE`,
			"BEGIN; SELECT pg_logical_emit_message(true, 'prefix', 'content'); INSERT INTO plain VALUES (9); COMMIT",
		} {
			db.Exec(sql)
		}
		options := "'proto_version', '1', 'publication_names', 'p'"
		if server.Major() >= 14 {
			options += ", 'messages', 'true'"
		}
		rows, err := db.Connect().Query(t.Context(), "SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, "+options+")", db.Name())
		if err != nil {
			t.Fatal(err)
		}
		messages, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			t.Fatal(err)
		}
		var shown, dump strings.Builder
		var m pgoutput.Message
		for _, data := range messages {
			if err := pgoutput.Decode(data, &m); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&shown, show(&m))
			fmt.Fprintln(&dump, hex.EncodeToString(data))
		}
		if *record {
			if err := os.WriteFile(fmt.Sprintf("testdata/postgres-%d.hex", server.Major()), []byte(dump.String()), 0o644); err != nil {
				t.Fatal(err)
			}
			if server.Major() != 13 {
				if err := os.WriteFile("testdata/expected.txt", []byte(shown.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		compare(t, server.Major(), shown.String())
	})
}
