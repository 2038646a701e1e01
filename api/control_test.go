package api_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/internal/config"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

func TestControlCallsAnswerInTheContractsWords(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{status: replicating()}
	client := pb.NewCdcControlServiceClient(dial(t, start(t, api.Config{}, pipeline).Addr()))
	pause := func(ctx context.Context) (*pb.ControlResponse, error) { return client.Pause(ctx, &pb.PauseRequest{}) }
	resume := func(ctx context.Context) (*pb.ControlResponse, error) { return client.Resume(ctx, &pb.ResumeRequest{}) }
	drain := func(ctx context.Context) (*pb.ControlResponse, error) {
		return client.DrainAndStop(ctx, &pb.DrainRequest{})
	}
	stop := func(ctx context.Context) (*pb.ControlResponse, error) { return client.Stop(ctx, &pb.StopRequest{}) }
	skip := func(ctx context.Context) (*pb.ControlResponse, error) {
		return client.Stop(ctx, &pb.StopRequest{SkipSlotCleanup: true})
	}
	tests := []struct {
		from    api.State
		call    func(context.Context) (*pb.ControlResponse, error)
		to      api.State
		success bool
		message string
	}{
		{api.StateRunning, pause, api.StatePaused, true, "CDC paused successfully"},
		{api.StatePaused, pause, api.StatePaused, false, "CDC is already paused"},
		{api.StateDraining, pause, api.StateDraining, false, "Cannot pause CDC in state: Draining"},
		{api.StateStopped, pause, api.StateStopped, false, "Cannot pause CDC in state: Stopped"},
		{api.StatePaused, resume, api.StateRunning, true, "CDC resumed successfully"},
		{api.StateRunning, resume, api.StateRunning, false, "CDC is already running"},
		{api.StateDraining, resume, api.StateDraining, false, "Cannot resume CDC in state: Draining"},
		{api.StateRunning, drain, api.StateDraining, true, "CDC is draining and will stop"},
		{api.StatePaused, drain, api.StateDraining, true, "CDC is draining and will stop"},
		{api.StateDraining, drain, api.StateDraining, false, "CDC is already draining"},
		{api.StateStopped, drain, api.StateStopped, false, "CDC is already stopped"},
		{api.StateRunning, stop, api.StateStopped, true, "CDC stopped (slot preserved for restart)"},
		{api.StateDraining, skip, api.StateStopped, true, "CDC stopped (slot preserved for restart)"},
		{api.StateStopped, stop, api.StateStopped, false, "CDC is already stopped"},
	}
	for _, test := range tests {
		pipeline.set(func(s *api.Status) { s.State = test.from })
		got, err := test.call(soon(t))
		if err != nil {
			t.Fatalf("%s: %v", test.message, err)
		}
		if got.GetSuccess() != test.success || got.GetMessage() != test.message {
			t.Errorf("from %s: got %v %q, want %v %q", test.from, got.GetSuccess(), got.GetMessage(), test.success, test.message)
		}
		if after := pipeline.Status(soon(t)).State; after != test.to {
			t.Errorf("from %s: state is %s, want %s", test.from, after, test.to)
		}
	}
}

func TestReloadReportsWhatIsInForce(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{settings: api.Settings{
		FlushSize: 7, FlushInterval: 250 * time.Millisecond, Tables: []string{"public.a", `s."B"`},
		SnapshotWorkers: 3, SnapshotChunkRows: 400,
	}}
	var unbounded uint64
	client := pb.NewCdcControlServiceClient(dial(t, start(t, api.Config{}, pipeline).Addr()))
	for _, test := range []struct {
		req     *pb.ReloadConfigRequest
		success bool
		message string
	}{
		{&pb.ReloadConfigRequest{}, false, "No configuration changes provided (use 0 to keep current values)"},
		{&pb.ReloadConfigRequest{FlushSize: 7}, true, "Configuration reloaded: flush_size=7"},
		{
			&pb.ReloadConfigRequest{FlushSize: 7, FlushIntervalMs: 250, Tables: []string{"a"}}, true,
			`Configuration reloaded: flush_size=7, flush_interval_ms=250, tables=["public.a", "s.\"B\""]`,
		},
		{&pb.ReloadConfigRequest{SnapshotRate: &unbounded}, true, "Configuration reloaded: snapshot_rate=0"},
		{
			&pb.ReloadConfigRequest{SnapshotWorkers: 3, SnapshotChunkRows: 400}, true,
			"Configuration reloaded: snapshot_workers=3, snapshot_chunk_rows=400",
		},
	} {
		got, err := client.ReloadConfig(soon(t), test.req)
		if err != nil || got.GetSuccess() != test.success || got.GetMessage() != test.message {
			t.Errorf("%v: got %v, %v, want %v %q", test.req, got, err, test.success, test.message)
		}
	}
	want := []api.Reload{
		{FlushSize: 7},
		{FlushSize: 7, FlushInterval: 250 * time.Millisecond, Tables: []string{"a"}},
		{SnapshotRate: &unbounded},
		{SnapshotWorkers: 3, SnapshotChunkRows: 400},
	}
	if diff := cmp.Diff(want, pipeline.reloads); diff != "" {
		t.Error(diff)
	}
}

func TestReloadKeepsTheBoundsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	if api.FlushSizeMax != config.FlushSizeMax || api.FlushIntervalMax != config.FlushIntervalMax {
		t.Error("the bounds of ReloadConfig and of the variables differ")
	}
	client := pb.NewCdcControlServiceClient(dial(t, start(t, api.Config{}, &fakePipeline{}).Addr()))
	tooFast := uint64(api.SnapshotRateMax + 1)
	for _, req := range []*pb.ReloadConfigRequest{
		{FlushSize: api.FlushSizeMax + 1},
		{FlushIntervalMs: uint64(api.FlushIntervalMax.Milliseconds()) + 1},
		{FlushIntervalMs: 1 << 63},
		{SnapshotWorkers: api.SnapshotWorkersMax + 1},
		{SnapshotChunkRows: api.SnapshotChunkRowsMax + 1},
		{SnapshotRate: &tooFast},
	} {
		if _, err := client.ReloadConfig(soon(t), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: got %v, want INVALID_ARGUMENT", req, err)
		}
	}
}

func TestControlErrorsReachTheCaller(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{}
	client := pb.NewCdcControlServiceClient(dial(t, start(t, api.Config{}, pipeline).Addr()))
	reload := &pb.ReloadConfigRequest{Tables: []string{"x"}}

	pipeline.failure = fmt.Errorf("reload: %w", &api.StateError{State: api.StateDraining})
	if got, err := client.ReloadConfig(soon(t), reload); err != nil || got.GetMessage() != "Cannot reload CDC in state: Draining" {
		t.Errorf("state error: got %v, %v", got, err)
	}
	pipeline.failure = &api.InvalidError{Field: "tables", Problem: "table x is missing"}
	if _, err := client.ReloadConfig(soon(t), reload); status.Code(err) != codes.InvalidArgument ||
		!strings.Contains(err.Error(), "tables: table x is missing") {
		t.Errorf("invalid error: got %v", err)
	}
	pipeline.failure = errors.New("source is down")
	if got, err := client.Pause(soon(t), &pb.PauseRequest{}); err != nil || got.GetSuccess() ||
		got.GetMessage() != "Cannot pause CDC: source is down" {
		t.Errorf("other error: got %v, %v", got, err)
	}
	pipeline.failure = context.DeadlineExceeded
	if _, err := client.Pause(soon(t), &pb.PauseRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline: got %v", err)
	}
}

func TestSnapshotCallsReachThePipeline(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{}
	client := pb.NewCdcControlServiceClient(dial(t, start(t, api.Config{}, pipeline).Addr()))
	check := func(want string, got *pb.ControlResponse, err error) {
		t.Helper()
		if err != nil || !got.GetSuccess() || got.GetMessage() != want {
			t.Errorf("got %v, %v, want %s", got, err, want)
		}
	}
	got, err := client.StartSnapshot(soon(t), &pb.StartSnapshotRequest{Tables: []string{"a", "b"}})
	check("Snapshot started", got, err)
	got, err = client.PauseSnapshot(soon(t), &pb.PauseSnapshotRequest{})
	check("Snapshot paused", got, err)
	got, err = client.ResumeSnapshot(soon(t), &pb.ResumeSnapshotRequest{})
	check("Snapshot resumed", got, err)
	if want := []string{"start a b", "pause", "resume"}; !slices.Equal(pipeline.snapshots, want) {
		t.Errorf("got %q, want %q", pipeline.snapshots, want)
	}
	pipeline.failure = errors.New("source is down")
	if got, err := client.StartSnapshot(soon(t), &pb.StartSnapshotRequest{}); err != nil || got.GetMessage() != "Cannot start snapshot of CDC: source is down" {
		t.Errorf("refusal: got %v, %v", got, err)
	}
}
