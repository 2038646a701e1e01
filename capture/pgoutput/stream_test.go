package pgoutput_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/capture/pgoutput"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// streamed is what every server streams of the transaction in
// TestStreamsOfRealServersDecode, less the rows of which only the first of a row of equal
// ones is shown, and less what depends on where it cuts. A truncate makes it describe its
// tables again.
const streamed = `Relation public.t d id:true:-1 v:false:-1
Insert N('1','a')
Relation public.full_identity f a:true:-1 b:true:-1
Insert N('1','b')
Update O('1','b') N('2','b')
Delete O('2','b')
Relation public.t d id:true:-1 v:false:-1
Relation public.full_identity f a:true:-1 b:true:-1
Truncate flags 2 tables 2
Insert N('7','c')
Stream Commit
`

// TestStreamsOfRealServersDecode has every server stream a transaction, and checks that
// each message decodes inside a stream as it does outside.
func TestStreamsOfRealServersDecode(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, server *pgtest.Server) {
		if server.Major() < 14 {
			// skip: it has no streams.
			t.Skip("no streams")
		}
		messages := streamMessages(t, server)
		var shown strings.Builder
		var m pgoutput.Message
		var top uint32
		inside, starts, stops, others := false, 0, 0, map[uint32]bool{}
		for _, data := range messages {
			decode := pgoutput.Decode
			if inside {
				decode = pgoutput.DecodeStreamed
			}
			checkCuts(t, data, decode)
			if err := decode(data, &m); err != nil {
				t.Fatalf("%x: %v", data, err)
			}
			switch {
			case m.Kind == pgoutput.KindStreamStart:
				if m.First != (starts == 0) || starts > 0 && m.XID != top {
					t.Fatalf("%+v after %d starts of %d", m, starts, top)
				}
				inside, top, starts = true, m.XID, starts+1
				continue
			case m.Kind == pgoutput.KindStreamStop:
				inside, stops = false, stops+1
				continue
			case m.XID == 0:
				t.Fatalf("no transaction id: %+v", m)
			case m.Kind == pgoutput.KindStreamCommit && (m.XID != top || m.LSN == 0 || m.EndLSN <= m.LSN || m.Time == 0):
				t.Fatalf("%+v", m)
			}
			others[m.XID] = true
			if line := show(&m); !strings.HasSuffix(shown.String(), line+"\n") {
				fmt.Fprintln(&shown, line)
			}
		}
		if starts < 2 || stops != starts || len(others) != 2 {
			t.Errorf("%d starts, %d stops, %d transactions and subtransactions", starts, stops, len(others))
		}
		if diff := cmp.Diff(streamed, shown.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func checkCuts(t *testing.T, data []byte, decode func([]byte, *pgoutput.Message) error) {
	t.Helper()
	var m pgoutput.Message
	for n := range data {
		if err := decode(data[:n:n], &m); !errors.Is(err, pgoutput.ErrMalformed) {
			t.Fatalf("%x cut to %d bytes: %v", data, n, err)
		}
	}
	if err := decode(append(slices.Clip(data), 0), &m); !errors.Is(err, pgoutput.ErrMalformed) {
		t.Fatalf("%x and one byte more: %v", data, err)
	}
}

func streamMessages(t *testing.T, server *pgtest.Server) [][]byte {
	t.Helper()
	db := server.Database(t)
	db.Exec(`CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE full_identity (a int, b text, PRIMARY KEY (a)); ALTER TABLE full_identity REPLICA IDENTITY FULL;
CREATE TABLE filler (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t, full_identity`)
	db.Exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", db.Name())
	const filler = "INSERT INTO filler SELECT (SELECT count(*) FROM filler) + i FROM generate_series(1, 1000) i;"
	db.Exec("BEGIN; INSERT INTO t VALUES (1, 'a');" + filler + `SAVEPOINT s; INSERT INTO full_identity VALUES (1, 'b'); UPDATE full_identity SET a = 2; DELETE FROM full_identity; RELEASE s;` +
		filler + "TRUNCATE t, full_identity RESTART IDENTITY; INSERT INTO t VALUES (7, 'c'); COMMIT")
	conn := db.Connect()
	if _, err := conn.Exec(t.Context(), "SET logical_decoding_work_mem = 64"); err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(t.Context(), "SELECT data FROM pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '2', 'streaming', 'on', 'publication_names', 'p')", db.Name())
	if err != nil {
		t.Fatal(err)
	}
	messages, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func TestMessagesThatDoNotBelongInsideOfAStreamAreErrors(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"empty":    "",
		"begin":    "B" + strings.Repeat("\x00", 20),
		"commit":   "C" + strings.Repeat("\x00", 25),
		"start":    "S\x00\x00\x00\x01\x01",
		"abort":    "A\x00\x00\x00\x01\x00\x00\x00\x01",
		"unknown":  "Zabcdef",
		"long end": "E\x00",
	} {
		var m pgoutput.Message
		if err := pgoutput.DecodeStreamed([]byte(data), &m); !errors.Is(err, pgoutput.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
