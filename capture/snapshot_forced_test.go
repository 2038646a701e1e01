package capture_test

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// holder passes connections on to a server. What the server answers on those that have
// sent a certain text it keeps back from when hold is set until release is called.
type holder struct {
	listener net.Listener
	target   string
	text     string
	hold     atomic.Bool
	asked    chan struct{} // closed with the first such text
	released chan struct{}
	ask      sync.Once
	release  func()
}

func newHolder(t *testing.T, target, text string) *holder {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{listener: listener, target: target, text: text, asked: make(chan struct{}), released: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.released) })
	t.Cleanup(func() { h.release(); _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go h.serve(near)
		}
	}()
	return h
}

func (h *holder) serve(near net.Conn) {
	far, err := net.Dial("tcp", h.target)
	if err != nil {
		_ = near.Close()
		return
	}
	held := make(chan struct{})
	go func() {
		defer far.Close()
		buf := make([]byte, 64<<10)
		for found := false; ; {
			n, err := near.Read(buf)
			if !found && bytes.Contains(buf[:n], []byte(h.text)) {
				found = true
				close(held)
			}
			if _, writeErr := far.Write(buf[:n]); err != nil || writeErr != nil {
				return
			}
			if found {
				h.ask.Do(func() { close(h.asked) })
			}
		}
	}()
	defer near.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := far.Read(buf)
		select {
		case <-held:
			if h.hold.Load() {
				<-h.released
			}
		default:
		}
		if _, writeErr := near.Write(buf[:n]); err != nil || writeErr != nil {
			_, _ = io.Copy(io.Discard, far)
			return
		}
	}
}

// copyingHeld prepares a copy of twenty rows with large values, through a holder for a text.
func copyingHeld(t *testing.T, text string) (*pgtest.DB, *holder, *rig) {
	t.Helper()
	db := pgtest.Database(t)
	db.Exec(`CREATE TABLE t (id int PRIMARY KEY, n int, large text); ALTER TABLE t ALTER large SET STORAGE EXTERNAL;
INSERT INTO t SELECT i, 0, repeat('x' || i, 2000) FROM generate_series(1, 20) i`)
	source, err := url.Parse(db.URL())
	if err != nil {
		t.Fatal(err)
	}
	held := newHolder(t, source.Host, text)
	source.Host = held.listener.Addr().String()
	r := copying(t, db, "t")
	r.cfg.SourceURL = source.String()
	return db, held, r
}

// Every change that can be made to a row is made after the snapshot of its chunk and is
// passed by the reader before the chunk is written.
func TestChangesMadeWhileAChunkIsReadAreNotUndone(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"a whole row":                             "UPDATE t SET n = 1, large = 'short' WHERE id = 1",
		"some values of a row":                    "UPDATE t SET n = 1 WHERE id = 2",
		"some values of a row, then others":       "UPDATE t SET n = 1 WHERE id = 2; UPDATE t SET large = repeat('z', 5000) WHERE id = 2; UPDATE t SET n = 2 WHERE id = 2",
		"a row that is deleted":                   "DELETE FROM t WHERE id = 3",
		"a row that is deleted and comes back":    "DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (3, 9, 'back')",
		"a row that comes and goes":               "INSERT INTO t VALUES (90, 9, 'x'); DELETE FROM t WHERE id = 90",
		"a row that moves ahead":                  "UPDATE t SET id = 40 WHERE id = 4",
		"a row that moves back":                   "UPDATE t SET id = -4 WHERE id = 4",
		"a row that moves, and others":            "UPDATE t SET id = -4, n = 7 WHERE id = 4; UPDATE t SET n = 8 WHERE id = -4; UPDATE t SET id = 4 WHERE id = -4",
		"a row that takes the place of another":   "DELETE FROM t WHERE id = 5; UPDATE t SET id = 5 WHERE id = 6",
		"a row of the next chunk that moves back": "UPDATE t SET id = -11 WHERE id = 11",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, held, r := copyingHeld(t, "COPY (SELECT")
			held.hold.Store(true)
			r.cfg.SnapshotChunkRows = 10
			r.start()
			<-held.asked
			for pgtest.Value[int](db, "SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%' AND datname = current_database() AND state IN ('idle in transaction', 'active')") == 0 {
				pause(1)
			}
			for statement := range strings.SplitSeq(sql, ";") {
				db.Exec(statement)
			}
			goal := strings.Count(sql, ";") + 1
			r.await("passed", func(capture.Status) bool {
				return len(slices.DeleteFunc(r.changes(), func(c string) bool { return strings.HasPrefix(c, "snapshot") })) >= goal
			})
			if s := r.c.Status().Snapshot; s.Tables[0].ChunksDone > 0 {
				t.Error("the chunk was written before the changes")
			}
			held.release()
			r.copied()
			r.same("t", "id")
		})
	}
}

// A row moves into the part that is copied, without its large value, and its key is to be read
// again. While that is being read another row takes the same key in the same way: it is left out
// of what was read, and must not count as copied by it. Nor is it forgotten where capture ends
// meanwhile and the next one goes on.
func TestKeyThatIsTakenAgainWhileItIsReadAgainIsNotForgotten(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]struct{ between, after bool }{
		"capture goes on":                {},
		"it ends between the moves":      {between: true},
		"it ends after both":             {after: true},
		"it ends between and after them": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, held, r := copyingHeld(t, "'-15'")
			held.hold.Store(true)
			r.cfg.SnapshotWorkers, r.cfg.SnapshotChunkRows, r.cfg.SnapshotRate = 1, 4, 4
			r.start()
			r.await("the first chunk", func(s capture.Status) bool { return len(s.Snapshot.Tables) > 0 && s.Snapshot.Tables[0].ChunksDone > 0 })
			db.Exec("UPDATE t SET id = -15 WHERE id = 15")
			<-held.asked
			if ends.between {
				r.stop()
				r.start()
			}
			passed := func() int {
				return len(slices.DeleteFunc(r.changes(), func(c string) bool { return strings.HasPrefix(c, "snapshot") }))
			}
			before := passed()
			db.Exec("UPDATE t SET id = -100 WHERE id = -15")
			db.Exec("UPDATE t SET id = -15 WHERE id = 16")
			r.await("passed", func(capture.Status) bool { return passed() >= before+2 })
			if ends.after {
				r.stop()
				r.start()
			}
			held.release()
			r.copied()
			r.same("t", "id")
		})
	}
}

// A chunk that shows what the reader has not passed is not written before it has: the change
// of key would find nothing to take the large value from, and take the row away.
func TestChunkThatIsAheadOfTheReaderWaitsForIt(t *testing.T) {
	t.Parallel()
	db, held, r := copyingHeld(t, "START_REPLICATION")
	r.cfg.Snapshot = capture.SnapshotNever
	r.startStreaming()
	// A copy begins once the reader has passed where the slot began, which it learns from
	// what is held back otherwise.
	db.Exec("INSERT INTO t VALUES (21, 0, 'whole')")
	r.drain()
	held.hold.Store(true)
	db.Exec("UPDATE t SET id = 40 WHERE id = 4")
	if err := r.c.StartSnapshot(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	const head = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert%"
	for began := time.Now(); pgtest.Value[int](db, "SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE $1 AND state = 'idle' AND datname = current_database()", head) == 0; {
		if time.Since(began) > patience {
			t.Fatal("no chunk was read")
		}
		pause(time.Millisecond)
	}
	pause(200 * time.Millisecond)
	if s := r.c.Status().Snapshot; s.Tables[0].ChunksDone > 0 {
		t.Errorf("the chunk has not waited: %+v", s)
	}
	held.release()
	r.copied()
	r.same("t", "id")
}
