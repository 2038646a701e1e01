package api_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/dbmazz/dbmazz/api"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// with is a replicating status with a change.
func with(change func(*api.Status)) api.Status {
	st := replicating()
	change(&st)
	return st
}

var readinessCases = []struct {
	name    string
	status  api.Status
	serving bool
	stage   pb.HealthCheckResponse_Stage
	detail  string
	failure string
}{
	{"start", api.Status{}, false, pb.HealthCheckResponse_STAGE_INIT, "Initializing", ""},
	{"init detail", api.Status{StageDetail: api.DetailStartingServer}, false, 1, "Starting gRPC server", ""},
	{"setup", api.Status{Stage: api.StageSetup}, false, pb.HealthCheckResponse_STAGE_SETUP, "Running automatic setup", ""},
	{
		"setup runs although the stages are up", with(func(s *api.Status) { s.Stage = api.StageSetup }),
		false, pb.HealthCheckResponse_STAGE_SETUP, "Running automatic setup", "",
	},
	{
		"setup failed",
		api.Status{Stage: api.StageSetup, ErrorDetail: "Table 'x' not found"},
		false, pb.HealthCheckResponse_STAGE_SETUP, "Setup failed", "Table 'x' not found",
	},
	{"replicating", replicating(), true, pb.HealthCheckResponse_STAGE_CDC, "Replicating", ""},
	{
		"snapshot", with(func(s *api.Status) { s.Stage, s.StageDetail = api.StageSnapshot, "Copying" }),
		true, pb.HealthCheckResponse_STAGE_SNAPSHOT, "Copying", "",
	},
	{
		"paused by an operator",
		with(func(s *api.Status) { s.State, s.Apply.State = api.StatePaused, api.WorkPaused }), true, 3, "Replicating", "",
	},
	{"draining", with(func(s *api.Status) { s.State, s.Apply.State = api.StateDraining, api.WorkDraining }), true, 3, "Replicating", ""},
	{"stopped", with(func(s *api.Status) { s.State = api.StateStopped }), false, 3, "Replicating", ""},
	{
		"capture reconnects",
		with(func(s *api.Status) { s.Capture = api.Work{State: api.WorkRetrying, Error: "no route"} }),
		false, 3, "Replicating", "capture: no route",
	},
	{
		"both in trouble", with(func(s *api.Status) {
			s.Capture = api.Work{State: api.WorkFailed, Error: "slot is gone"}
			s.Apply = api.Work{State: api.WorkRetrying, Error: "timeout"}
		}), false, 3, "Replicating", "capture: slot is gone; apply: timeout",
	},
	{"apply starts", with(func(s *api.Status) { s.Apply.State = api.WorkStarting }), false, 3, "Replicating", ""},
	{"error", with(func(s *api.Status) { s.ErrorDetail = "e" }), false, 3, "Replicating", "e"},
}

func TestReadinessIsHonest(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{}
	conn := dial(t, start(t, api.Config{}, pipeline).Addr())
	ours, standard := pb.NewHealthServiceClient(conn), healthpb.NewHealthClient(conn)
	for _, test := range readinessCases {
		pipeline.set(func(s *api.Status) { *s = test.status })
		got, err := ours.Check(soon(t), &pb.HealthCheckRequest{Service: "ignored"})
		if err != nil {
			t.Fatal(err)
		}
		if (got.GetStatus() == pb.HealthCheckResponse_SERVING) != test.serving || got.GetStage() != test.stage ||
			got.GetStageDetail() != test.detail || got.GetErrorDetail() != test.failure {
			t.Errorf("%s: got %v", test.name, got)
		}
		for _, service := range []string{"", "dbmazz", "dbmazz.CdcControlService"} {
			probe, err := standard.Check(soon(t), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || (probe.GetStatus() == healthpb.HealthCheckResponse_SERVING) != test.serving {
				t.Errorf("%s: standard health of %q: got %v, %v", test.name, service, probe, err)
			}
		}
		alive, err := standard.Check(soon(t), &healthpb.HealthCheckRequest{Service: api.LivenessService})
		if err != nil || alive.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%s: liveness: got %v, %v", test.name, alive, err)
		}
	}
}

func TestStandardHealthRefusesUnknownServices(t *testing.T) {
	t.Parallel()
	client := healthpb.NewHealthClient(dial(t, start(t, api.Config{}, &fakePipeline{}).Addr()))
	if _, err := client.Check(soon(t), &healthpb.HealthCheckRequest{Service: "x"}); status.Code(err) != codes.NotFound {
		t.Errorf("Check: got %v, want NOT_FOUND", err)
	}
	watch, err := client.Watch(soon(t), &healthpb.HealthCheckRequest{Service: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		t.Errorf("Watch: got %v, %v, want SERVICE_UNKNOWN", got, err)
	}
}

func TestStandardHealthListsEveryName(t *testing.T) {
	t.Parallel()
	client := healthpb.NewHealthClient(dial(t, start(t, api.Config{}, &fakePipeline{}).Addr()))
	got, err := client.List(soon(t), &healthpb.HealthListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"": healthpb.HealthCheckResponse_NOT_SERVING, "dbmazz": healthpb.HealthCheckResponse_NOT_SERVING,
		"dbmazz.HealthService": healthpb.HealthCheckResponse_NOT_SERVING,
		"liveness":             healthpb.HealthCheckResponse_SERVING,
	} {
		if entry, ok := got.GetStatuses()[name]; !ok || entry.GetStatus() != want {
			t.Errorf("%q: got %v, want %v", name, entry, want)
		}
	}
}

func TestWatchFollowsReadinessToTheEnd(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{}
	server := start(t, api.Config{}, pipeline)
	watch, err := healthpb.NewHealthClient(dial(t, server.Addr())).Watch(soon(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
			t.Fatalf("got %v, %v, want %v", got, err, want)
		}
	}
	expect(healthpb.HealthCheckResponse_NOT_SERVING)
	pipeline.set(func(s *api.Status) { *s = replicating() })
	expect(healthpb.HealthCheckResponse_SERVING)
	if err := server.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	expect(healthpb.HealthCheckResponse_NOT_SERVING)
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
}
