package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// Bounds of ReloadConfig, those of FLUSH_SIZE and FLUSH_INTERVAL_MS.
const (
	FlushSizeMax     = 10_000_000
	FlushIntervalMax = time.Hour
)

// Bounds of the settings of the copy of existing rows, those of SNAPSHOT_WORKERS,
// SNAPSHOT_CHUNK_ROWS and SNAPSHOT_RATE.
const (
	SnapshotWorkersMax   = 64
	SnapshotChunkRowsMax = 10_000_000
	SnapshotRateMax      = 100_000_000
)

// controlTimeout bounds a control call whose caller set no bound.
const controlTimeout = time.Minute

type controlService struct {
	pb.UnimplementedCdcControlServiceServer
	server *Server
}

// Pause stops applying.
func (c *controlService) Pause(ctx context.Context, _ *pb.PauseRequest) (*pb.ControlResponse, error) {
	return c.call(ctx, "pause", c.server.pipeline.Pause, "CDC paused successfully")
}

// Resume goes on applying.
func (c *controlService) Resume(ctx context.Context, _ *pb.ResumeRequest) (*pb.ControlResponse, error) {
	return c.call(ctx, "resume", c.server.pipeline.Resume, "CDC resumed successfully")
}

// DrainAndStop begins to drain.
func (c *controlService) DrainAndStop(ctx context.Context, _ *pb.DrainRequest) (*pb.ControlResponse, error) {
	return c.call(ctx, "drain", c.server.pipeline.Drain, "CDC is draining and will stop")
}

// Stop begins to stop. skip_slot_cleanup makes no difference: the slot always stays.
func (c *controlService) Stop(ctx context.Context, _ *pb.StopRequest) (*pb.ControlResponse, error) {
	return c.call(ctx, "stop", c.server.pipeline.Stop, "CDC stopped (slot preserved for restart)")
}

// ReloadConfig changes settings.
func (c *controlService) ReloadConfig(ctx context.Context, req *pb.ReloadConfigRequest) (*pb.ControlResponse, error) {
	for _, field := range []struct {
		name       string
		value, max uint64
	}{
		{"flush_size", req.GetFlushSize(), FlushSizeMax},
		{"flush_interval_ms", req.GetFlushIntervalMs(), uint64(FlushIntervalMax.Milliseconds())},
		{"snapshot_workers", uint64(req.GetSnapshotWorkers()), SnapshotWorkersMax},
		{"snapshot_chunk_rows", req.GetSnapshotChunkRows(), SnapshotChunkRowsMax},
	} {
		if field.value > field.max {
			return nil, status.Errorf(codes.InvalidArgument, "%s must be 1 to %d, or 0 to keep the current value", field.name, field.max)
		}
	}
	if req.GetSnapshotRate() > SnapshotRateMax {
		return nil, status.Errorf(codes.InvalidArgument, "snapshot_rate must be 1 to %d, or 0 for no bound", SnapshotRateMax)
	}
	change := Reload{
		FlushSize:         req.GetFlushSize(),
		FlushInterval:     time.Duration(req.GetFlushIntervalMs()) * time.Millisecond, //nolint:gosec // Bounded above.
		Tables:            req.GetTables(),
		SnapshotWorkers:   req.GetSnapshotWorkers(),
		SnapshotChunkRows: req.GetSnapshotChunkRows(),
		SnapshotRate:      req.SnapshotRate,
	}
	if change.FlushSize == 0 && change.FlushInterval == 0 && len(change.Tables) == 0 && !change.Snapshot() {
		return refused("No configuration changes provided (use 0 to keep current values)"), nil
	}
	bound, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	settings, err := c.server.pipeline.Reload(bound, change)
	if err != nil {
		return c.answer(ctx, "reload", err)
	}
	return c.done(ctx, "reload", reloadMessage(change, settings)), nil
}

// reloadMessage names what was changed with the values now in force.
func reloadMessage(change Reload, settings Settings) string {
	var parts []string
	if change.FlushSize != 0 {
		parts = append(parts, fmt.Sprintf("flush_size=%d", settings.FlushSize))
	}
	if change.FlushInterval != 0 {
		parts = append(parts, fmt.Sprintf("flush_interval_ms=%d", settings.FlushInterval.Milliseconds()))
	}
	if len(change.Tables) != 0 {
		quoted := make([]string, len(settings.Tables))
		for i, table := range settings.Tables {
			quoted[i] = fmt.Sprintf("%q", table)
		}
		parts = append(parts, "tables=["+strings.Join(quoted, ", ")+"]")
	}
	if change.SnapshotWorkers != 0 {
		parts = append(parts, fmt.Sprintf("snapshot_workers=%d", settings.SnapshotWorkers))
	}
	if change.SnapshotChunkRows != 0 {
		parts = append(parts, fmt.Sprintf("snapshot_chunk_rows=%d", settings.SnapshotChunkRows))
	}
	if change.SnapshotRate != nil {
		parts = append(parts, fmt.Sprintf("snapshot_rate=%d", settings.SnapshotRate))
	}
	return "Configuration reloaded: " + strings.Join(parts, ", ")
}

// StartSnapshot begins a copy of existing rows.
func (c *controlService) StartSnapshot(ctx context.Context, req *pb.StartSnapshotRequest) (*pb.ControlResponse, error) {
	start := func(ctx context.Context) error { return c.server.pipeline.StartSnapshot(ctx, req.GetTables()) }
	return c.call(ctx, "start snapshot of", start, "Snapshot started")
}

// PauseSnapshot holds the copy.
func (c *controlService) PauseSnapshot(ctx context.Context, _ *pb.PauseSnapshotRequest) (*pb.ControlResponse, error) {
	return c.call(ctx, "pause snapshot of", c.server.pipeline.PauseSnapshot, "Snapshot paused")
}

// ResumeSnapshot goes on with the copy.
func (c *controlService) ResumeSnapshot(ctx context.Context, _ *pb.ResumeSnapshotRequest) (*pb.ControlResponse, error) {
	return c.call(ctx, "resume snapshot of", c.server.pipeline.ResumeSnapshot, "Snapshot resumed")
}

func (c *controlService) call(
	ctx context.Context, verb string, do func(context.Context) error, success string,
) (*pb.ControlResponse, error) {
	bound, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	if err := do(bound); err != nil {
		return c.answer(ctx, verb, err)
	}
	return c.done(ctx, verb, success), nil
}

func (c *controlService) done(ctx context.Context, verb, message string) *pb.ControlResponse {
	from := "unknown"
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	c.server.log.InfoContext(ctx, "control call done", "call", verb, "message", message, "peer", from)
	return &pb.ControlResponse{Success: true, Message: message}
}

// answer tells the caller why not. A refusal is an answer in the contract's form, a
// wrong argument or an interrupted call is an RPC error.
func (c *controlService) answer(ctx context.Context, verb string, err error) (*pb.ControlResponse, error) {
	var (
		state   *StateError
		invalid *InvalidError
	)
	switch {
	case errors.As(err, &state):
		return refused(refusal(verb, state.State)), nil
	case errors.As(err, &invalid):
		return nil, status.Error(codes.InvalidArgument, invalid.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil, status.FromContextError(err).Err()
	}
	c.server.log.WarnContext(ctx, "control call not carried out", "call", verb, "err", err)
	return refused(fmt.Sprintf("Cannot %s CDC: %v", verb, err)), nil
}

// refusal is the contract's wording of a state that does not allow a call.
func refusal(verb string, state State) string {
	same := map[string]State{"pause": StatePaused, "resume": StateRunning, "drain": StateDraining, "stop": StateStopped}
	already, known := same[verb]
	if known && (state == already || (verb == "drain" && state == StateStopped)) {
		return "CDC is already " + strings.ToLower(state.String())
	}
	return fmt.Sprintf("Cannot %s CDC in state: %s", verb, state)
}

func refused(message string) *pb.ControlResponse {
	return &pb.ControlResponse{Success: false, Message: message}
}
