package api_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/dbmazz/dbmazz/api"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// full is a status in which nothing is zero and every number is its own.
func full() api.Status {
	at := time.UnixMilli(1_700_000_000_000)
	work := func(n int64) api.Work {
		return api.Work{
			State: api.WorkPaused, Detail: "detail", Error: "error", LastActivity: at.Add(time.Duration(n)), Since: at, Restarts: 9,
			Instance: "i", Heard: at,
		}
	}
	return api.Status{
		State: api.StatePaused, Stage: api.StageSnapshot, StageDetail: "detail",
		Capture: work(1), Apply: work(2),
		Queue: api.Queue{
			Messages: 1, Bytes: 2, BytesMax: 3, FirstSequence: 4, LastSequence: 5, AckedSequence: 6,
			PendingMessages: 7, PendingBytes: 8, PendingRows: 9, OldestAge: 10 * time.Millisecond,
		},
		Counters: api.Counters{
			RowsCaptured: 11, RowsApplied: 12, TransactionsCaptured: 13, BytesCaptured: 14, BytesApplied: 15,
			BatchesApplied: 16, LoadsFailed: 17, LoadsRetried: 18,
		},
		Snapshot: api.Snapshot{
			Active: true, Paused: true, Detail: "detail",
			Tables: []api.TableSnapshot{
				{
					Table: "t", State: "copying", ChunksTotal: 22, ChunksDone: 20, Rows: 21, RowsEstimated: 61, Bytes: 24, RowsPerSecond: 20,
					Waiting: "waiting", Error: "error", Started: at, Finished: at,
				},
				{Table: "u", State: "copying", RowsEstimated: 60, RowsPerSecond: 30},
			},
		},
		Settings: api.Settings{
			FlushSize: 25, FlushInterval: 26 * time.Millisecond, Tables: []string{"public.t"},
			SnapshotWorkers: 33, SnapshotChunkRows: 34, SnapshotRate: 35,
		},
		ReceivedLSN: 1000, ConfirmedLSN: 300, ServerLSN: 5000, CapturedPosition: "c", AppliedPosition: "a",
		Lag: 27 * time.Millisecond, LagP50: 28 * time.Millisecond, LagP99: 29 * time.Millisecond,
		DeadLetters: 32,
		Processes: []api.Process{{
			Instance: "i", Host: "h", PID: 1, Version: "v", Started: at, Capture: "active", Apply: "standby", Heard: at, Silent: true,
		}},
		SourceType: "postgres", SinkType: "starrocks", SlotName: "slot", PublicationName: "pub",
		FlushBytes: 30, MemoryLimit: 31, StartedAt: at, PausedSince: at,
	}
}

// assertAllSet fails for every field that is not set, in nested messages too.
func assertAllSet(t *testing.T, message protoreflect.Message) {
	t.Helper()
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if !message.Has(field) {
			t.Errorf("%s is not set", field.FullName())
			continue
		}
		switch {
		case field.Message() != nil && field.IsList():
			assertAllSet(t, message.Get(field).List().Get(0).Message())
		case field.Message() != nil:
			assertAllSet(t, message.Get(field).Message())
		}
	}
}

func TestGetStatusFillsEveryField(t *testing.T) {
	t.Parallel()
	server := start(t, api.Config{Version: "v1"}, &fakePipeline{status: full()})
	got, err := pb.NewCdcStatusServiceClient(dial(t, server.Addr())).GetStatus(soon(t), &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	assertAllSet(t, got.ProtoReflect())
	if got.GetState() != pb.StatusResponse_PAUSED || got.GetPendingEvents() != 9 || got.GetCurrentLsn() != 1000 ||
		got.GetConfirmedLsn() != 300 || got.GetServerLsn() != 5000 || got.GetSlotName() != "slot" ||
		got.GetSnapshotRowsSynced() != 21 || got.GetFlushIntervalMs() != 26 || got.GetQueue().GetOldestAgeMs() != 10 ||
		got.GetPausedSinceUnixMs() != 1_700_000_000_000 || got.GetSnapshotTimeLeftMs() != 2000 || got.GetTableProgress()[0].GetTimeLeftMs() != 2000 ||
		got.GetSnapshotRowsEstimated() != 121 || got.GetSnapshotRowsPerSecond() != 30 || got.GetSnapshotChunksTotal() != 22 {
		t.Errorf("got %v", got)
	}
}

func TestGetStatusOfNothingIsZeroRatherThanAnOldTime(t *testing.T) {
	t.Parallel()
	server := start(t, api.Config{Version: "v1"}, &fakePipeline{})
	got, err := pb.NewCdcStatusServiceClient(dial(t, server.Addr())).GetStatus(soon(t), &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := &pb.StatusResponse{
		Version: "v1", Queue: &pb.QueueStatus{},
		Stages: []*pb.StageStatus{{Name: "capture"}, {Name: "apply"}},
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStreamMetricsTellsTheTruth(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{status: full()}
	server := start(t, api.Config{}, pipeline)
	client := pb.NewCdcMetricsServiceClient(dial(t, server.Addr()))
	// An interval of an hour: the first sample must not wait for it.
	stream, err := client.StreamMetrics(soon(t), &pb.MetricsRequest{IntervalMs: 3_600_000})
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now().Unix()
	got, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if now := int64(got.GetTimestamp()); now < before-20 || now > time.Now().Unix() {
		t.Errorf("timestamp: got %d, want unix seconds", now)
	}
	if got.GetLagBytes() != 4700 {
		t.Errorf("lag_bytes: got %d, want server head - confirmed = 4700", got.GetLagBytes())
	}
	if rss := got.GetMemoryBytes(); rss < 4<<20 || rss > 4<<30 || rss != got.GetRssBytes() {
		t.Errorf("memory_bytes: got %d, want the real memory of this process", rss)
	}
	if got.GetTotalEventsProcessed() != 12 || got.GetTotalBatchesSent() != 16 || got.GetLagEvents() != 9 ||
		got.GetReplicationLagMs() != 27 || got.GetEndToEndLagP50Ms() != 28 || got.GetEndToEndLagP99Ms() != 29 ||
		got.GetQueueDepthBytes() != 8 || got.GetLoadsFailedTotal() != 17 || got.GetLoadsRetriedTotal() != 18 ||
		got.GetBytesAppliedTotal() != 15 || got.GetBytesCapturedTotal() != 14 || got.GetTransactionsCapturedTotal() != 13 {
		t.Errorf("got %v", got)
	}
}

func TestStreamMetricsRatesAreTakenBetweenItsSamples(t *testing.T) {
	t.Parallel()
	pipeline := &fakePipeline{status: replicating()}
	server := start(t, api.Config{}, pipeline)
	client := pb.NewCdcMetricsServiceClient(dial(t, server.Addr()))
	stream, err := client.StreamMetrics(soon(t), &pb.MetricsRequest{IntervalMs: 200})
	if err != nil {
		t.Fatal(err)
	}
	last, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	busy := make(chan struct{})
	go func() { // Burn processor time, so that cpu_millicores has something to show.
		for until := time.Now().Add(450 * time.Millisecond); time.Now().Before(until); {
		}
		close(busy)
	}()
	seen, millicores := 0, uint64(0)
	for _, n := range []uint64{1000, 9000, 100} {
		pipeline.set(func(s *api.Status) {
			s.Counters.RowsApplied += n
			s.Counters.RowsCaptured += 2 * n
			s.Counters.BytesCaptured += 3 * n
			s.Counters.BytesApplied += 4 * n
		})
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		seconds := float64(got.GetTimestampUnixMs()-last.GetTimestampUnixMs()) / 1000
		rows := float64(got.GetRowsAppliedTotal() - last.GetRowsAppliedTotal())
		for i, rate := range []float64{
			got.GetEventsPerSecond(), got.GetRowsAppliedPerSecond(), got.GetRowsCapturedPerSecond() / 2,
			got.GetBytesCapturedPerSecond() / 3, got.GetBytesAppliedPerSecond() / 4,
		} {
			if want := rows / seconds; rate < want*0.97 || rate > want*1.03 {
				t.Errorf("rate %d: got %f, want %f", i, rate, want)
			}
		}
		if rows > 0 {
			seen++
		}
		millicores = max(millicores, got.GetCpuMillicores())
		last = got
	}
	<-busy
	if seen == 0 {
		t.Error("no sample showed the rows")
	}
	if millicores < 100 || millicores > 100_000 {
		t.Errorf("cpu_millicores: got at most %d for a busy loop", millicores)
	}
}

func TestStreamMetricsRefusesAnIntervalOfZero(t *testing.T) {
	t.Parallel()
	server := start(t, api.Config{}, &fakePipeline{})
	stream, err := pb.NewCdcMetricsServiceClient(dial(t, server.Addr())).StreamMetrics(soon(t), &pb.MetricsRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if got := status.Convert(err); got.Code() != codes.InvalidArgument || got.Message() != "interval_ms must be > 0" {
		t.Errorf("got %v", err)
	}
}
