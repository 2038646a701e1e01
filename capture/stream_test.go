package capture_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// workMem makes the server stream, or spill, transactions of more than 64 kB.
const workMem = "&options=-c%20logical_decoding_work_mem%3D64kB"

// spoolMemory is the least that is allowed, so that the file is used.
const spoolMemory = 512 << 10

func smallWorkMem(url string) string {
	if !strings.Contains(url, "?") {
		return url + "?" + workMem[1:]
	}
	return url + workMem
}

// streamingRig is a rig whose server streams transactions of more than 64 kB.
func streamingRig(t *testing.T, db *pgtest.DB, tables ...string) *rig {
	t.Helper()
	r := newRig(t, db, tables...)
	r.cfg.SourceURL, r.cfg.SpoolMemory = smallWorkMem(db.URL()), spoolMemory
	return r
}

// awaitStreamed waits until so many transactions are in the spool.
func (r *rig) awaitStreamed(n int) capture.Status {
	r.t.Helper()
	return r.await(fmt.Sprintf("%d transactions in the spool", n), func(s capture.Status) bool { return s.Streaming.Transactions == n })
}

func TestNothingIsPublishedBeforeTheCommit(t *testing.T) {
	t.Parallel()
	pgtest.ForEachMajor(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
		r := streamingRig(t, db, "t")
		r.startStreaming()
		if on := r.c.Status().Streaming.On; on != (server.Major() >= 14) {
			t.Fatalf("streaming %t", on)
		}
		if server.Major() < 14 {
			return
		}
		a, b := db.Connect(), db.Connect()
		exec := execOn(t)
		exec(a, "BEGIN; INSERT INTO t SELECT i, repeat('a', 100) FROM generate_series(1, 2000) i")
		exec(b, "BEGIN; INSERT INTO t SELECT i, repeat('b', 100) FROM generate_series(2001, 4000) i")
		r.awaitStreamed(2)
		db.Exec("INSERT INTO t VALUES (-1)")
		r.want("insert public.t (-1,~)")
		exec(a, "ROLLBACK")
		exec(b, "COMMIT")
		want := []string{"insert public.t (-1,~)"}
		for i := 2001; i <= 4000; i++ {
			want = append(want, fmt.Sprintf("insert public.t (%d,%s)", i, strings.Repeat("b", 100)))
		}
		r.want(want...)
		if s := r.awaitStreamed(0); s.Streaming.Bytes != 0 || s.Streaming.SpoolBytes != 0 {
			t.Errorf("left in the spool: %+v", s.Streaming)
		}
	})
}
