package api

import (
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// metricsIntervalMin bounds the work that one caller can ask for.
const metricsIntervalMin = 10 * time.Millisecond

type metricsService struct {
	pb.UnimplementedCdcMetricsServiceServer
	server *Server
}

// StreamMetrics sends a sample at once and one per interval until the caller leaves.
func (m *metricsService) StreamMetrics(
	req *pb.MetricsRequest, stream grpc.ServerStreamingServer[pb.MetricsResponse],
) error {
	if req.GetIntervalMs() == 0 {
		return status.Error(codes.InvalidArgument, "interval_ms must be > 0")
	}
	ctx := stream.Context()
	ticker := time.NewTicker(max(metricsIntervalMin, time.Duration(req.GetIntervalMs())*time.Millisecond))
	defer ticker.Stop()
	before := m.server.samples.base()
	for {
		now := m.server.samples.take(ctx)
		if err := stream.Send(metricsProto(&now, now.since(&before))); err != nil {
			return err
		}
		before = now
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-m.server.stopping:
			return errStopping
		case <-ticker.C:
		}
	}
}

func metricsProto(s *sample, r rates) *pb.MetricsResponse {
	st, total := &s.status, &s.status.Counters
	return &pb.MetricsResponse{
		Timestamp:                 uint64(s.at.Unix()), //nolint:gosec // After 1970.
		EventsPerSecond:           r.rowsApplied,
		LagBytes:                  st.lagBytes(),
		LagEvents:                 st.Queue.PendingRows,
		MemoryBytes:               s.rss,
		TotalEventsProcessed:      total.RowsApplied,
		TotalBatchesSent:          total.BatchesApplied,
		CpuMillicores:             uint64(math.Round(r.cpuMillicores)),
		ReplicationLagMs:          milliseconds(st.Lag),
		TimestampUnixMs:           s.at.UnixMilli(),
		RowsCapturedTotal:         total.RowsCaptured,
		RowsAppliedTotal:          total.RowsApplied,
		RowsCapturedPerSecond:     r.rowsCaptured,
		RowsAppliedPerSecond:      r.rowsApplied,
		QueueDepthRows:            st.Queue.PendingRows,
		QueueDepthBytes:           st.Queue.PendingBytes,
		BytesCapturedTotal:        total.BytesCaptured,
		BytesAppliedTotal:         total.BytesApplied,
		BytesCapturedPerSecond:    r.bytesCaptured,
		BytesAppliedPerSecond:     r.bytesApplied,
		LoadsFailedTotal:          total.LoadsFailed,
		LoadsRetriedTotal:         total.LoadsRetried,
		EndToEndLagP50Ms:          milliseconds(st.LagP50),
		EndToEndLagP99Ms:          milliseconds(st.LagP99),
		RssBytes:                  s.rss,
		TransactionsCapturedTotal: total.TransactionsCaptured,
		DeadLetters:               st.DeadLetters,
		SnapshotRowsTotal:         st.Snapshot.sums().rows,
		SnapshotRowsPerSecond:     r.rowsCopied,
	}
}
