package capture_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func execOn(t *testing.T) func(*pgx.Conn, string) {
	return func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// rawStream keeps the bytes of every frame.
type rawStream struct {
	*capturetest.Stream
	mu     sync.Mutex
	frames [][]byte
	// givenUp is why the server does not stream any more.
	givenUp string
}

func (s *rawStream) Open(ctx context.Context) (capture.Publisher, error) {
	p, err := s.Stream.Open(ctx)
	return &rawPublisher{p, s}, err
}

type rawPublisher struct {
	capture.Publisher
	s *rawStream
}

func (p *rawPublisher) Publish(ctx context.Context, frame []byte, h cdc.Header, stored func([]byte)) error {
	p.s.mu.Lock()
	p.s.frames = append(p.s.frames, bytes.Clone(frame))
	p.s.mu.Unlock()
	return p.Publisher.Publish(ctx, frame, h, stored)
}

// captureRaw captures everything that a slot has, and returns the frames.
func captureRaw(t *testing.T, cfg capture.Config) *rawStream {
	t.Helper()
	s := &rawStream{Stream: capturetest.New()}
	c, err := capture.New(cfg, s, s.Stream)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if err := c.Drain(ctx); err != nil {
		t.Fatalf("%v; status %+v", err, c.Status())
	}
	st := c.Status()
	if s.givenUp = st.Streaming.Problem; st.Restarts > 0 && s.givenUp == "" || st.Streaming.Transactions > 0 {
		t.Fatalf("status %+v", st)
	}
	return s
}

// writer is a connection with a transaction that has savepoints.
type writer struct {
	conn    *pgx.Conn
	number  int
	open    bool
	saves   []string
	columns int
	next    int // id
}

// randomWriters makes interleaved transactions. Rows go to a table that all share, to one
// that is not captured, and to the writer's own, of which the definition changes.
type randomWriters struct {
	t       *testing.T
	rnd     *rand.Rand
	writers []*writer
	exec    func(*pgx.Conn, string)
}

const setUpWriters = `
CREATE TABLE shared (id bigint PRIMARY KEY, v text, w int); ALTER TABLE shared REPLICA IDENTITY FULL;
CREATE TABLE filtered (id bigint PRIMARY KEY, v text);
CREATE TABLE parted (id bigint PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES FROM (0) TO (4000000);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (4000000) TO (100000000);`

func newRandomWriters(t *testing.T, db *pgtest.DB, rnd *rand.Rand, count int) *randomWriters {
	db.Exec(setUpWriters)
	w := &randomWriters{t: t, rnd: rnd, exec: execOn(t)}
	for i := range count {
		db.Exec(fmt.Sprintf("CREATE TABLE own%d (id bigint PRIMARY KEY, v text)", i))
		w.writers = append(w.writers, &writer{conn: db.Connect(), number: i, next: (i + 1) * 1_000_000})
	}
	return w
}

func (r *randomWriters) tables() []capture.Table {
	list := []capture.Table{table("shared"), table("parted_0"), table("parted_1")}
	for i := range r.writers {
		list = append(list, table(fmt.Sprintf("own%d", i)))
	}
	return list
}

// step does something with one of the writers.
func (r *randomWriters) step() {
	w := r.writers[r.rnd.IntN(len(r.writers))]
	if !w.open {
		r.exec(w.conn, "BEGIN")
		w.open, w.saves = true, nil
	}
	own := fmt.Sprintf("own%d", w.number)
	mine := fmt.Sprintf("id BETWEEN %d AND %d", (w.number+1)*1_000_000, (w.number+2)*1_000_000-1)
	switch n := r.rnd.IntN(100); {
	case n < 45:
		rows := 1 + r.rnd.IntN(300)
		target := []string{"shared", "filtered", "parted", own}[r.rnd.IntN(4)]
		r.exec(w.conn, fmt.Sprintf("INSERT INTO %s (id, v) SELECT i, repeat(chr(97 + i %% 26), %d) FROM generate_series(%d, %d) i",
			target, r.rnd.IntN(600), w.next, w.next+rows-1))
		w.next += rows
	case n < 52:
		r.exec(w.conn, fmt.Sprintf("UPDATE shared SET w = %d WHERE %s AND id %% %d = 0", n, mine, 1+r.rnd.IntN(5)))
	case n < 57:
		r.exec(w.conn, fmt.Sprintf("DELETE FROM %s WHERE %s AND id %% 3 = %d", []string{"shared", own}[r.rnd.IntN(2)], mine, r.rnd.IntN(3)))
	case n < 60:
		r.exec(w.conn, "TRUNCATE "+own)
	case n < 64:
		w.columns++
		r.exec(w.conn, fmt.Sprintf("ALTER TABLE %s ADD COLUMN c%d int DEFAULT %d", own, w.columns, n))
	case n < 66:
		r.exec(w.conn, fmt.Sprintf("ALTER TABLE %s ALTER COLUMN v TYPE %s", own, []string{"text", "varchar(2000)"}[r.rnd.IntN(2)]))
	case n < 78:
		w.saves = append(w.saves, fmt.Sprintf("s%d", len(w.saves)))
		r.exec(w.conn, "SAVEPOINT "+w.saves[len(w.saves)-1])
	case n < 92:
		if len(w.saves) == 0 {
			return
		}
		i := r.rnd.IntN(len(w.saves))
		if n < 87 {
			r.exec(w.conn, "ROLLBACK TO "+w.saves[i])
			w.saves = w.saves[:i+1]
			return
		}
		r.exec(w.conn, "RELEASE "+w.saves[i])
		w.saves = w.saves[:i]
	default:
		r.end(w)
	}
}

func (r *randomWriters) end(w *writer) {
	if w.open {
		r.exec(w.conn, []string{"COMMIT", "COMMIT", "COMMIT", "ROLLBACK"}[r.rnd.IntN(4)])
		w.open = false
	}
}

// rounds is how much the random tests do; DBMAZZ_TEST_ROUNDS makes it more.
func rounds(t *testing.T, usual int) int {
	t.Helper()
	text := os.Getenv("DBMAZZ_TEST_ROUNDS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func seed(t *testing.T) uint64 {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("DBMAZZ_TEST_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("DBMAZZ_TEST_SEED=%d", n)
	return n
}

// The server decides anew after every restart whether a transaction is streamed, so the
// stream must not show it in a single byte.
func TestFramesAreTheSameWithAndWithoutStreaming(t *testing.T) {
	t.Parallel()
	pgtest.ForEachMajor(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		n := seed(t)
		db := server.Database(t)
		w := newRandomWriters(t, db, rand.New(rand.NewPCG(n, 0)), 4)
		db.Exec("CREATE PUBLICATION p FOR ALL TABLES")
		db.Exec("SELECT pg_create_logical_replication_slot('s_' || $1 || '_plain', 'pgoutput')", db.Name())
		for _, kind := range []string{"streamed", "live"} {
			db.Exec("SELECT pg_copy_logical_replication_slot('s_' || $1 || '_plain', 's_' || $1 || '_' || $2)", db.Name(), kind)
		}
		live := newRig(t, db)
		cfg := live.cfg
		cfg.SourceURL, cfg.Publication, cfg.Tables, cfg.SpoolMemory = smallWorkMem(db.URL()), "p", w.tables(), spoolMemory
		with := func(kind string, streaming bool, frameBytes int) capture.Config {
			c := cfg
			c.Slot, c.Streaming, c.FrameBytes = "s_"+db.Name()+"_"+kind, streaming, frameBytes
			return c
		}
		live.cfg = with("live", true, 3000)
		live.startStreaming()
		for range rounds(t, 100) {
			w.step()
		}
		for _, x := range w.writers {
			w.end(x)
		}
		live.drain()
		if server.Major() >= 14 {
			requireStreams(t, db, "s_"+db.Name()+"_streamed")
		}
		unstreamed := captureRaw(t, with("plain", false, 1))
		streamed := captureRaw(t, with("streamed", true, 1))
		compareExact(t, exactChanges(t, unstreamed.Stream), exactChanges(t, streamed.Stream))
		// A session starts anew with the definitions of tables.
		if t.Log(streamed.givenUp); streamed.givenUp == "" {
			compareFrames(t, unstreamed.frames, streamed.frames)
		}
		compareExact(t, exactChanges(t, unstreamed.Stream), exactChanges(t, live.stream))
	})
}

// exactChanges prints the changes of a stream with all that belongs to them but the
// description of their table.
func exactChanges(t *testing.T, s *capturetest.Stream) []string {
	t.Helper()
	records, err := s.Records()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, r := range records {
		if r.Kind != cdc.KindBegin {
			list = append(list, fmt.Sprintf("%s %d %d %s %s", r.Position, r.CommitTime, r.XID, r.End, printAny(&r)))
		}
	}
	return list
}

func printAny(r *capturetest.Record) string {
	if r.Kind == cdc.KindCommit {
		return "commit"
	}
	return printChange(r)
}

// compareExact compares what was captured while it happened with what was captured
// afterwards. Meanwhile the catalog has changed, so descriptions of tables may differ,
// and frames end where the server paused.
func compareExact(t *testing.T, want, got []string) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			t.Fatalf("change %d of %d: %s, want %s", i, len(want), got[i], want[i])
		}
	}
	if len(want) != len(got) {
		t.Fatalf("%d changes, want %d", len(got), len(want))
	}
}

// requireStreams checks that the server streams what a slot has, and tells how much.
func requireStreams(t *testing.T, db *pgtest.DB, slot string) {
	t.Helper()
	counts := map[string]int{}
	conn := db.Connect()
	rows, err := conn.Query(t.Context(), `SELECT chr(get_byte(data, 0)), count(*)::int FROM (SELECT set_config('logical_decoding_work_mem', '64', false)) x,
pg_logical_slot_peek_binary_changes($1, NULL, NULL, 'proto_version', '2', 'streaming', 'on', 'publication_names', 'p') GROUP BY 1`, slot)
	if err != nil {
		t.Fatal(err)
	}
	var kind string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&kind, &n}, func() error {
		counts[kind] = n
		return nil
	}); err != nil {
		// The server could not; see blamesStreaming.
		t.Log(err)
		return
	}
	t.Logf("stream starts %d, aborts %d, commits %d; transactions that were not streamed %d", counts["S"], counts["A"], counts["c"], counts["B"])
	if counts["S"] <= counts["c"] || counts["c"] == 0 {
		t.Fatalf("not enough is streamed: %v", counts)
	}
}

// compareFrames compares frames byte by byte. The end LSN in the header is left out: it
// counts empty transactions too, and a server that streams names one that is empty
// because all of it was rolled back.
func compareFrames(t *testing.T, plain, streamed [][]byte) {
	t.Helper()
	for i := range min(len(plain), len(streamed)) {
		if !bytes.Equal(withoutEnd(t, plain[i]), withoutEnd(t, streamed[i])) {
			t.Fatalf("frame %d of %d\nwithout streaming %q\nwith              %q", i, len(plain), plain[i], streamed[i])
		}
	}
	if len(plain) == 0 || len(plain) != len(streamed) {
		t.Fatalf("%d frames without streaming, %d with", len(plain), len(streamed))
	}
}

// withoutEnd takes the checksum and the end LSN out of a frame.
func withoutEnd(t *testing.T, data []byte) []byte {
	t.Helper()
	f, err := cdc.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	text := f.Header.End.String()
	const checksum = 5
	return bytes.Replace(data[checksum:], append([]byte{0xa1, 'e', 0xc4, byte(len(text))}, text...), nil, 1)
}
