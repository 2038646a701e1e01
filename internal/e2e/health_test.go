package e2e_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// TestAPIIsUpBeforeSourceAndSinkAre and everything follows without a restart.
func TestAPIIsUpBeforeSourceAndSinkAre(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{})
	r := setupOn(t, server.Database(t), starrockstest.Options{}, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	if err := server.Stop(t.Context(), pgtest.Immediate); err != nil {
		t.Fatal(err)
	}
	r.sink.Down()
	s := r.up()
	s.complains("PostgreSQL connection failed to '127.0.0.1:")
	answer := s.check()
	if answer.GetStage() != pb.HealthCheckResponse_STAGE_SETUP || answer.GetStageDetail() == "" {
		t.Errorf("Check says %v, want STAGE_SETUP with a detail", answer)
	}
	s.complains("StarRocks connection failed to '127.0.0.1:")
	s.attempts(4)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only the sink is missing", func() (bool, string) {
		answer := s.check()
		return answer.GetStatus() == pb.HealthCheckResponse_NOT_SERVING && !strings.Contains(answer.GetErrorDetail(), "PostgreSQL") &&
			strings.Contains(answer.GetErrorDetail(), "StarRocks connection failed"), answer.String()
	})
	r.db.Exec("INSERT INTO item VALUES (1)")
	r.sinkUp()
	s.serving()
	r.db.Exec("INSERT INTO item VALUES (2)")
	r.same(s, "item")
}

// TestSilentSourceShowsInTheHealthWithinABound: the host accepts and says nothing.
func TestSilentSourceShowsInTheHealthWithinABound(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	r := setup(t, "SELECT 1")
	s := r.set("SOURCE_URL", "postgres://u:pw@"+listener.Addr().String()+"/db?connect_timeout=2&sslmode=disable").up()
	began := time.Now()
	s.complains("PostgreSQL connection failed to '" + listener.Addr().String())
	t.Logf("after %s", time.Since(began).Round(time.Millisecond))
	if code := s.terminate(20 * time.Second); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestSetupErrorIsRetriedUntilItIsGone(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE a (id int PRIMARY KEY)", "a", "later")
	s := r.up()
	s.complains("Table 'public.later' not found in PostgreSQL. Verify the table exists and is accessible.")
	if answer := s.check(); answer.GetStageDetail() != "Setup failed" {
		t.Errorf("the stage is %q, want %q", answer.GetStageDetail(), "Setup failed")
	}
	if r.confirmed() != 0 {
		t.Error("a slot was created although the setup cannot succeed")
	}
	s.attempts(4)
	r.db.Exec("CREATE TABLE later (id int PRIMARY KEY)")
	s.serving()
	r.db.Exec("INSERT INTO later VALUES (1); INSERT INTO a VALUES (1)")
	r.same(s, "a", "later")
}

// attempts waits until capture has tried that often: each time it says when the next try
// is, with a random part. The log has an error that repeats itself only once.
func (s *service) attempts(n int) {
	s.t.Helper()
	seen := map[string]bool{}
	eventually(s.t, "capture goes on trying", func() (bool, string) {
		if detail := s.stage("capture").GetDetail(); strings.HasPrefix(detail, "next attempt in") {
			seen[detail] = true
		}
		return len(seen) >= n, fmt.Sprintf("%d attempts", len(seen))
	})
}

func TestStandardHealthAgreesWithCheck(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	r.sink.Down()
	s := r.up()
	client := grpc_health_v1.NewHealthClient(s.conn)
	is := func(service string, want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		eventually(t, fmt.Sprintf("service %q is %s", service, want), func() (bool, string) {
			answer, err := client.Check(s.call(), &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil {
				return false, err.Error()
			}
			return answer.GetStatus() == want, answer.String()
		})
	}
	is("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	is("liveness", grpc_health_v1.HealthCheckResponse_SERVING)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "dbmazz"})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	next := func() string {
		t.Helper()
		answer, err := watch.Recv()
		if err != nil {
			t.Fatalf("after %v: %v", seen, err)
		}
		seen = append(seen, answer.GetStatus().String())
		return seen[len(seen)-1]
	}
	if first := next(); first != "NOT_SERVING" {
		t.Errorf("the watch begins with %s", first)
	}
	r.sinkUp()
	if second := next(); second != "SERVING" {
		t.Errorf("the watch goes on with %s", second)
	}
	is("dbmazz.HealthService", grpc_health_v1.HealthCheckResponse_SERVING)
}

// TestIdleDatabaseReleasesItsLog: only tables that are not published change.
func TestIdleDatabaseReleasesItsLog(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	senderTimeout(db, 3*time.Second)
	r := setupOn(t, db, starrockstest.Options{}, "CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE other (id int, pad text)", "item")
	s := r.start()
	r.db.Exec("INSERT INTO item VALUES (1)")
	r.settle(s)
	before := r.head()
	for range 5 {
		r.db.Exec("INSERT INTO other SELECT i, repeat('x', 1000) FROM generate_series(1, 500) i")
	}
	goal := r.head()
	eventually(t, "the slot follows the log", func() (bool, string) {
		at := r.confirmed()
		return at >= goal, fmt.Sprintf("slot at %s, the log went from %s to %s", at, before, goal)
	})
	// It follows only what is not outstanding.
	r.sink.Down()
	bad := r.markAfter("INSERT INTO item VALUES (2)")
	for range 5 {
		r.db.Exec("INSERT INTO other SELECT i, repeat('x', 1000) FROM generate_series(1, 500) i")
	}
	r.never(bad, 4*time.Second)
	r.sinkUp()
	r.same(s, "item")

	// And a restart of an idle pipeline is not taken for a slot that somebody moved.
	r.db.Exec("INSERT INTO other SELECT i, repeat('x', 1000) FROM generate_series(1, 500) i")
	idle := r.head()
	eventually(t, "the slot follows the log", func() (bool, string) { at := r.confirmed(); return at >= idle, at.String() })
	s.kill()
	s = r.start()
	r.db.Exec("INSERT INTO item VALUES (3)")
	r.same(s, "item")
}

// markAfter runs a statement and then marks.
func (r *rig) markAfter(sql string) lsn {
	r.t.Helper()
	r.db.Exec(sql)
	return r.mark()
}
