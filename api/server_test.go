package api_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/dbmazz/dbmazz/api"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// fetch gets a URL, with a token unless it is empty.
func fetch(t *testing.T, cfg *tls.Config, url, bearer string) (code int, body string) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(soon(t), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	response, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func TestMetricsEndpointShowsTheStatus(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{status: full()}
	server := start(t, api.Config{MetricsAddr: "127.0.0.1:0", Version: "v1"}, pipeline)
	base := "http://" + server.MetricsAddr().String()
	code, body := fetch(t, nil, base+"/metrics", "")
	if code != http.StatusOK {
		t.Fatalf("got %d", code)
	}
	for _, want := range []string{
		"dbmazz_events_processed_total 12", "dbmazz_events_per_second 0", "dbmazz_replication_lag_ms 27",
		"dbmazz_batches_sent_total 16", "dbmazz_pending_events 9", "dbmazz_rows_captured_total 11",
		"dbmazz_transactions_captured_total 13", "dbmazz_bytes_captured_total 14", "dbmazz_bytes_applied_total 15",
		"dbmazz_loads_failed_total 17", "dbmazz_loads_retried_total 18", "dbmazz_lag_bytes 4700",
		"dbmazz_replication_lag_seconds 0.027", `dbmazz_end_to_end_lag_seconds{quantile="0.5"} 0.028`,
		`dbmazz_end_to_end_lag_seconds{quantile="0.99"} 0.029`, "dbmazz_server_lsn 5000", "dbmazz_received_lsn 1000",
		"dbmazz_confirmed_lsn 300", "dbmazz_queue_messages 1", "dbmazz_queue_bytes 2", "dbmazz_queue_bytes_max 3",
		"dbmazz_queue_pending_messages 7", "dbmazz_queue_pending_bytes 8", "dbmazz_queue_oldest_age_seconds 0.01",
		"dbmazz_ready 1", `dbmazz_state{state="Paused"} 1`, `dbmazz_state{state="Running"} 0`,
		`dbmazz_stage_state{stage="apply",state="paused"} 1`, `dbmazz_stage_state{stage="capture",state="running"} 0`,
		`dbmazz_stage_restarts_total{stage="apply"} 9`,
		`dbmazz_stage_last_activity_timestamp_seconds{stage="apply"} 1.7e+09`, "dbmazz_memory_limit_bytes 31",
		"dbmazz_memory_resident_bytes ", "dbmazz_flush_size_rows 25", "dbmazz_flush_interval_seconds 0.026",
		`dbmazz_build_info{version="v1"} 1`, "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(body, "\n"+want) {
			t.Errorf("want %s", want)
		}
	}
	mounted := httptest.NewServer(api.MetricsHandler(pipeline))
	defer mounted.Close()
	if code, body := fetch(t, nil, mounted.URL, ""); code != http.StatusOK || !strings.Contains(body, "dbmazz_ready 1") {
		t.Errorf("MetricsHandler: got %d", code)
	}
}

func TestProbesOverHTTPFollowReadiness(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{}
	server := start(t, api.Config{MetricsAddr: "127.0.0.1:0", Token: token}, pipeline)
	base := "http://" + server.MetricsAddr().String()
	if code, _ := fetch(t, nil, base+"/healthz", ""); code != http.StatusOK {
		t.Errorf("/healthz: got %d", code)
	}
	if code, body := fetch(t, nil, base+"/readyz", ""); code != http.StatusServiceUnavailable || body != "not ready\n" {
		t.Errorf("/readyz before: got %d %q", code, body)
	}
	pipeline.set(func(s *api.Status) { *s = replicating() })
	if code, body := fetch(t, nil, base+"/readyz", ""); code != http.StatusOK || body != "ready\n" {
		t.Errorf("/readyz after: got %d %q", code, body)
	}
}

func TestMetricsAndProfilesAreProtected(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, addr, token, path, bearer string
		want                            int
	}{
		{"loopback", "127.0.0.1:0", "", "/metrics", "", http.StatusOK},
		{"loopback", "127.0.0.1:0", "", "/debug/pprof/", "", http.StatusOK},
		{"no token given", "127.0.0.1:0", token, "/metrics", "", http.StatusUnauthorized},
		{"no token given", "127.0.0.1:0", token, "/debug/pprof/heap", "", http.StatusUnauthorized},
		{"wrong token", "127.0.0.1:0", token, "/metrics", "wrong", http.StatusUnauthorized},
		{"token", "127.0.0.1:0", token, "/metrics", token, http.StatusOK},
		{"token", "0.0.0.0:0", token, "/debug/pprof/", token, http.StatusOK},
		{"exposed", "0.0.0.0:0", "", "/metrics", "", http.StatusOK},
		{"exposed", "0.0.0.0:0", "", "/debug/pprof/", "", http.StatusNotFound},
	} {
		cfg := api.Config{MetricsAddr: test.addr, Token: test.token, Insecure: test.token == ""}
		server := start(t, cfg, &fakePipeline{})
		_, port, err := net.SplitHostPort(server.MetricsAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		if code, _ := fetch(t, nil, "http://127.0.0.1:"+port+test.path, test.bearer); code != test.want {
			t.Errorf("%s %s: got %d, want %d", test.name, test.path, code, test.want)
		}
	}
}

func TestRatesOfTheLastSecondAreThereAtOnce(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{status: replicating()}
	server := start(t, api.Config{MetricsAddr: "127.0.0.1:0"}, pipeline)
	client := pb.NewCdcMetricsServiceClient(dial(t, server.Addr()))
	// The stream serves as the clock: its second sample comes when the server has
	// taken at least one of its own.
	clock, err := client.StreamMetrics(soon(t), &pb.MetricsRequest{IntervalMs: 1200})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := clock.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	pipeline.set(func(s *api.Status) { s.Counters.RowsApplied += 1000 })
	fresh, err := client.StreamMetrics(soon(t), &pb.MetricsRequest{IntervalMs: 3_600_000})
	if err != nil {
		t.Fatal(err)
	}
	got, err := fresh.Recv()
	if err != nil || got.GetEventsPerSecond() < 100 || got.GetEventsPerSecond() > 1000 {
		t.Errorf("first sample: got %v, %v, want 1000 rows over one to two seconds", got.GetEventsPerSecond(), err)
	}
	if _, body := fetch(t, nil, "http://"+server.MetricsAddr().String()+"/metrics", ""); strings.Contains(body, "\ndbmazz_events_per_second 0\n") {
		t.Error("dbmazz_events_per_second is 0")
	}
}

func TestStoppingEndsStreamsWithinTheBound(t *testing.T) {
	t.Parallel()
	server := start(t, api.Config{MetricsAddr: "127.0.0.1:0", ShutdownTimeout: time.Minute}, &fakePipeline{})
	conn := dial(t, server.Addr())
	stream, err := pb.NewCdcMetricsServiceClient(conn).StreamMetrics(soon(t), &pb.MetricsRequest{IntervalMs: 3_600_000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := server.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("stopping took %v, although all calls can end at once", took)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
}

func TestRunThatIsStoppedAtOnceReturnsNil(t *testing.T) {
	t.Parallel()
	for range 20 {
		server, err := api.New(api.Config{Addr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0"}, &fakePipeline{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-server.Ready(); cancel() }()
		if err := server.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestStoppingDoesNotWaitForACallThatHangs(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{hold: make(chan struct{}), holding: make(chan struct{})}
	server := start(t, api.Config{ShutdownTimeout: 100 * time.Millisecond}, pipeline)
	defer close(pipeline.hold)
	client := pb.NewCdcControlServiceClient(dial(t, server.Addr()))
	failed := make(chan error, 1)
	ctx := soon(t)
	go func() {
		_, err := client.Pause(ctx, &pb.PauseRequest{})
		failed <- err
	}()
	<-pipeline.holding
	begin := time.Now()
	if err := server.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("stopping took %v, want about the bound of 100 ms", took)
	}
	if err := <-failed; err == nil {
		t.Error("the hanging call: want an error")
	}
}

func TestConnectionsAboveTheLimitAreRefused(t *testing.T) {
	t.Parallel()
	server := start(t, api.Config{MaxConnections: 2}, &fakePipeline{})
	live := func() *healthpb.HealthCheckRequest { return &healthpb.HealthCheckRequest{Service: api.LivenessService} }
	first, second := dial(t, server.Addr()), dial(t, server.Addr())
	for i, client := range []healthpb.HealthClient{healthpb.NewHealthClient(first), healthpb.NewHealthClient(second)} {
		if _, err := client.Check(soon(t), live()); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	third := healthpb.NewHealthClient(dial(t, server.Addr()))
	if _, err := third.Check(soon(t), live()); status.Code(err) != codes.Unavailable {
		t.Errorf("third connection: got %v, want UNAVAILABLE", err)
	}
	if _, err := healthpb.NewHealthClient(first).Check(soon(t), live()); err != nil {
		t.Errorf("first connection: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	for { // The server learns of the close a moment later.
		conn := dial(t, server.Addr())
		_, err := healthpb.NewHealthClient(conn).Check(soon(t), live())
		if err == nil {
			break
		}
		if t.Context().Err() != nil || status.Code(err) != codes.Unavailable {
			t.Fatalf("connection after a close: %v", err)
		}
	}
}

func TestRequestsAboveTheLimitAreRefused(t *testing.T) {
	t.Parallel()
	server := start(t, api.Config{MaxMessageBytes: 1000}, &fakePipeline{})
	client := pb.NewCdcControlServiceClient(dial(t, server.Addr()))
	req := &pb.ReloadConfigRequest{Tables: []string{strings.Repeat("x", 2000)}}
	if _, err := client.ReloadConfig(soon(t), req); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want RESOURCE_EXHAUSTED", err)
	}
}

func TestRunSaysWhichAddressIsTaken(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for what, cfg := range map[string]api.Config{
		"gRPC":    {Addr: taken.Addr().String()},
		"metrics": {Addr: "127.0.0.1:0", MetricsAddr: taken.Addr().String()},
	} {
		server, err := api.New(cfg, &fakePipeline{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err = server.Run(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "listen on the "+what+" address") ||
			!strings.Contains(err.Error(), taken.Addr().String()) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}
