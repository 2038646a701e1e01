package api

import (
	"context"
	"time"

	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

type statusService struct {
	pb.UnimplementedCdcStatusServiceServer
	server *Server
}

// GetStatus returns one picture of both stages.
func (s *statusService) GetStatus(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	st := s.server.status(ctx)
	copied := st.Snapshot.sums()
	response := &pb.StatusResponse{
		State:               stateProto(st.State),
		CurrentLsn:          st.ReceivedLSN,
		ConfirmedLsn:        st.ConfirmedLSN,
		PendingEvents:       st.Queue.PendingRows,
		SlotName:            st.SlotName,
		Tables:              st.Settings.Tables,
		SnapshotActive:      st.Snapshot.Active,
		SnapshotChunksTotal: copied.chunksTotal,
		SnapshotChunksDone:  copied.chunks,
		SnapshotRowsSynced:  copied.rows,
		SnapshotPaused:      st.Snapshot.Paused,
		ServerLsn:           st.ServerLSN,
		CapturedPosition:    st.CapturedPosition,
		AppliedPosition:     st.AppliedPosition,
		Stages:              []*pb.StageStatus{workProto("capture", st.Capture), workProto("apply", st.Apply)},
		Queue:               queueProto(st.Queue),
		MemoryLimitBytes:    st.MemoryLimit,
		FlushSize:           st.Settings.FlushSize,
		FlushIntervalMs:     milliseconds(st.Settings.FlushInterval),
		FlushBytes:          st.FlushBytes,
		Version:             s.server.cfg.Version,
		PausedSinceUnixMs:   unixMilliseconds(st.PausedSince),
		StartedAtUnixMs:     unixMilliseconds(st.StartedAt),
		PublicationName:     st.PublicationName,
		Ready:               st.Ready(),
		SourceType:          st.SourceType,
		SinkType:            st.SinkType,
		DeadLetters:         st.DeadLetters,

		SnapshotDetail:        st.Snapshot.Detail,
		SnapshotRowsEstimated: copied.rowsEstimated,
		SnapshotBytes:         copied.bytes,
		SnapshotRowsPerSecond: copied.rowsPerSecond,
		SnapshotTimeLeftMs:    milliseconds(copied.left),
		SnapshotWorkers:       st.Settings.SnapshotWorkers,
		SnapshotChunkRows:     st.Settings.SnapshotChunkRows,
		SnapshotRate:          st.Settings.SnapshotRate,
	}
	for _, process := range st.Processes {
		response.Processes = append(response.Processes, processProto(process))
	}
	for i := range st.Snapshot.Tables {
		response.TableProgress = append(response.TableProgress, tableProto(&st.Snapshot.Tables[i]))
	}
	return response, nil
}

func tableProto(t *TableSnapshot) *pb.TableSnapshotProgress {
	return &pb.TableSnapshotProgress{
		TableName: t.Table, ChunksTotal: t.ChunksTotal, ChunksDone: t.ChunksDone, RowsSynced: t.Rows,
		State: t.State, RowsEstimated: t.RowsEstimated, Bytes: t.Bytes, RowsPerSecond: t.RowsPerSecond, TimeLeftMs: milliseconds(t.left()),
		WaitingFor: t.Waiting, Error: t.Error, StartedAtUnixMs: unixMilliseconds(t.Started), FinishedAtUnixMs: unixMilliseconds(t.Finished),
	}
}

func stateProto(state State) pb.StatusResponse_CdcState {
	switch state {
	case StateRunning:
		return pb.StatusResponse_RUNNING
	case StatePaused:
		return pb.StatusResponse_PAUSED
	case StateDraining:
		return pb.StatusResponse_DRAINING
	case StateStopped:
	}
	return pb.StatusResponse_STOPPED
}

var workProtos = [...]pb.StageStatus_State{
	WorkUnknown:  pb.StageStatus_STATE_UNKNOWN,
	WorkStarting: pb.StageStatus_STATE_STARTING,
	WorkRunning:  pb.StageStatus_STATE_RUNNING,
	WorkPaused:   pb.StageStatus_STATE_PAUSED,
	WorkRetrying: pb.StageStatus_STATE_RETRYING,
	WorkDraining: pb.StageStatus_STATE_DRAINING,
	WorkStopped:  pb.StageStatus_STATE_STOPPED,
	WorkFailed:   pb.StageStatus_STATE_FAILED,
	WorkStandby:  pb.StageStatus_STATE_STANDBY,
	WorkSilent:   pb.StageStatus_STATE_SILENT,
}

func workProto(name string, work Work) *pb.StageStatus {
	state := pb.StageStatus_STATE_UNKNOWN
	if int(work.State) < len(workProtos) {
		state = workProtos[work.State]
	}
	return &pb.StageStatus{
		Name:               name,
		State:              state,
		Detail:             work.Detail,
		Error:              work.Error,
		LastActivityUnixMs: unixMilliseconds(work.LastActivity),
		Restarts:           work.Restarts,
		StateSinceUnixMs:   unixMilliseconds(work.Since),
		Instance:           work.Instance,
		HeardUnixMs:        unixMilliseconds(work.Heard),
	}
}

func processProto(p Process) *pb.ProcessStatus {
	return &pb.ProcessStatus{
		Instance: p.Instance, Host: p.Host, Pid: int64(p.PID), Version: p.Version, StartedAtUnixMs: unixMilliseconds(p.Started),
		Capture: p.Capture, Apply: p.Apply, HeardUnixMs: unixMilliseconds(p.Heard), Silent: p.Silent,
	}
}

func queueProto(queue Queue) *pb.QueueStatus {
	return &pb.QueueStatus{
		Messages:        queue.Messages,
		Bytes:           queue.Bytes,
		BytesMax:        queue.BytesMax,
		FirstSequence:   queue.FirstSequence,
		LastSequence:    queue.LastSequence,
		OldestAgeMs:     milliseconds(queue.OldestAge),
		PendingMessages: queue.PendingMessages,
		PendingBytes:    queue.PendingBytes,
		AckedSequence:   queue.AckedSequence,
	}
}

// unixMilliseconds returns 0 for the zero time.
func unixMilliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// milliseconds returns 0 for a negative duration, which a clock that is set back makes.
func milliseconds(d time.Duration) uint64 {
	return uint64(max(0, d.Milliseconds())) //nolint:gosec // Not negative.
}
