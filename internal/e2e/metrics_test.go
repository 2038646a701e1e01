package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/freeport"
	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// TestEventsAreRowsAndNotMessages: an autocommit insert of one row is one event, with no
// begin, commit or relation in the count.
func TestEventsAreRowsAndNotMessages(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY)", "item")
	s := r.start()
	total := uint64(0)
	counts := func(what string, rows uint64) {
		t.Helper()
		total += rows
		eventually(t, what+" is counted", func() (bool, string) {
			now := s.sample()
			return now.GetTotalEventsProcessed() == total && now.GetRowsCapturedTotal() == total && now.GetLagEvents() == 0,
				fmt.Sprintf("want %d: %v", total, now)
		})
		again := s.sample()
		if again.GetTotalEventsProcessed() != total || again.GetRowsAppliedTotal() != total {
			t.Errorf("after %s: %v, want a total of %d", what, again, total)
		}
	}
	counts("nothing", 0)
	r.db.Exec("INSERT INTO item VALUES (1, 'a')")
	counts("one insert", 1)
	r.db.Exec("BEGIN; INSERT INTO item SELECT i, 'b' FROM generate_series(2, 11) i; UPDATE item SET v = 'c' WHERE id = 1; DELETE FROM item WHERE id = 2; COMMIT")
	counts("ten inserts, an update and a delete", 12)
	r.db.Exec("INSERT INTO other VALUES (1)")
	r.db.Exec("BEGIN; INSERT INTO item VALUES (77, 'rolled back'); ROLLBACK")
	counts("what is not captured", 0)
	r.db.Exec("TRUNCATE item")
	counts("a truncate", 1)
	sample := s.sample()
	if n := sample.GetTransactionsCapturedTotal(); n != 3 {
		t.Errorf("%d transactions, want 3", n)
	}
	if n := sample.GetTotalBatchesSent(); n != 3 {
		t.Errorf("%d batches, want 3", n)
	}
}

func TestLagBytesAreTheLogThatTheServerMustKeep(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{}) // Nobody else writes its log.
	r := setupOn(t, server.Database(t), starrockstest.Options{}, "CREATE TABLE item (id int PRIMARY KEY, pad text)", "item")
	s := r.start()
	r.db.Exec("INSERT INTO item VALUES (0, 'x')")
	r.settle(s)
	s.pause()
	r.db.Exec("INSERT INTO item SELECT i, " + noise(16) + " FROM generate_series(1, 5000) i")
	r.captured(s)
	eventually(t, "lag_bytes is what PostgreSQL says", func() (bool, string) {
		want := pgtest.Value[int64](r.db, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE slot_name = $1", r.slot)
		got := int64(s.sample().GetLagBytes()) //nolint:gosec // Far below the limit.
		return want > 2_000_000 && max(got-want, want-got) < 64<<10, fmt.Sprintf("got %d, PostgreSQL says %d", got, want)
	})
	sample := s.sample()
	if n := sample.GetLagEvents(); n != 5001 {
		t.Errorf("lag_events is %d, want 5001: the rows and the mark", n)
	}
	if n := sample.GetQueueDepthBytes(); n < 1_000_000 {
		t.Errorf("queue_depth_bytes is %d, want what 5000 rows of 500 bytes that cannot be packed take", n)
	}
	if n := s.look().GetPendingEvents(); n != 5001 {
		t.Errorf("pending_events is %d, want 5001", n)
	}
	eventually(t, "the lag in time grows", func() (bool, string) {
		now := s.sample()
		return now.GetReplicationLagMs() > 500 && now.GetReplicationLagMs() < 120_000, fmt.Sprint(now.GetReplicationLagMs())
	})
	s.resume()
	r.same(s, "item")
	eventually(t, "nothing lags", func() (bool, string) {
		now := s.sample()
		return now.GetReplicationLagMs() == 0 && now.GetLagEvents() == 0 && now.GetQueueDepthBytes() == 0 && now.GetLagBytes() < 64<<10, now.String()
	})
}

func TestMemoryAndProcessorAreThoseOfTheProcess(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...)
	s := r.start()
	l := r.load(random(t), 2*time.Millisecond)
	l.more(50)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := s.metrics.StreamMetrics(ctx, &pb.MetricsRequest{IntervalMs: 200})
	if err != nil {
		t.Fatal(err)
	}
	var last *pb.MetricsResponse
	rate := 0.0
	for i := range 8 {
		sample, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		rss := residentBytes(t, s.cmd.Process.Pid)
		if got := sample.GetMemoryBytes(); got < rss/2 || got > rss*2 {
			t.Errorf("sample %d: memory_bytes is %d, the kernel says %d", i, got, rss)
		}
		if last != nil && sample.GetTotalEventsProcessed() < last.GetTotalEventsProcessed() {
			t.Errorf("sample %d: events went back from %d to %d", i, last.GetTotalEventsProcessed(), sample.GetTotalEventsProcessed())
		}
		last, rate = sample, max(rate, sample.GetEventsPerSecond())
	}
	if cores := last.GetCpuMillicores(); cores == 0 || cores > 64_000 {
		t.Errorf("cpu_millicores is %d under load", cores)
	}
	if rate <= 0 || last.GetEndToEndLagP99Ms() == 0 {
		t.Errorf("under load the sample is %v, want a rate and a latency", last)
	}
	if age := time.Since(time.Unix(int64(last.GetTimestamp()), 0)); age < -2*time.Second || age > time.Minute { //nolint:gosec // A time of this century.
		t.Errorf("the sample is %s old", age)
	}
	zero, err := s.metrics.StreamMetrics(ctx, &pb.MetricsRequest{})
	if err == nil {
		_, err = zero.Recv()
	}
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "interval_ms must be > 0") {
		t.Errorf("interval 0 is answered with %v", err)
	}
}

// residentBytes is what the kernel says.
func residentBytes(t *testing.T, pid int) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Skipf("no /proc here: %v", err) // skip: only Linux shows it.
	}
	pages, err := strconv.ParseUint(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize()) //nolint:gosec // Positive.
}

func TestPrometheusShowsTheSameFiguresAndNoSecret(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	addr := freeAddr(t)
	s := r.set("METRICS_ADDR", addr).start()
	r.db.Exec("INSERT INTO item SELECT generate_series(1, 123)")
	r.same(s, "item")
	text := get(t, "http://"+addr+"/metrics", http.StatusOK)
	if !strings.Contains(text, "dbmazz_") || !strings.Contains(text, " 124\n") {
		t.Errorf("the metrics do not show 124 rows (with the mark):\n%s", text)
	}
	for _, secret := range r.secrets {
		if strings.Contains(text, secret) {
			t.Error("a password is in the metrics")
		}
	}
	get(t, "http://"+addr+"/healthz", http.StatusOK)
	get(t, "http://"+addr+"/readyz", http.StatusOK)
	r.set("TABLES", "missing")
	s.kill()
	s = r.up()
	s.complains("not found")
	get(t, "http://"+addr+"/healthz", http.StatusOK)
	get(t, "http://"+addr+"/readyz", http.StatusServiceUnavailable)
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := freeport.PickAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func get(t *testing.T, url string, want int) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != want {
		t.Errorf("%s answers %s, want %d: %v", url, answer.Status, want, err)
	}
	return string(text)
}
