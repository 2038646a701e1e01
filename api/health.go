package api

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// LivenessService is the name under which grpc.health.v1 tells whether the process runs,
// whatever the source and the sink do. All other names tell readiness.
const LivenessService = "liveness"

// healthPollInterval is how soon a watcher learns of a change.
const healthPollInterval = 500 * time.Millisecond

type healthService struct {
	pb.UnimplementedHealthServiceServer
	server *Server
}

// Check tells readiness and, if not ready, why.
func (h *healthService) Check(ctx context.Context, _ *pb.HealthCheckRequest) (*pb.HealthCheckResponse, error) {
	st := h.server.status(ctx)
	response := &pb.HealthCheckResponse{
		Status:      pb.HealthCheckResponse_NOT_SERVING,
		Stage:       stageProto(st.Stage),
		StageDetail: st.StageDetail,
		ErrorDetail: st.errorText(),
	}
	if st.Ready() {
		response.Status = pb.HealthCheckResponse_SERVING
	}
	if response.StageDetail == "" {
		response.StageDetail = stageDetail(&st)
	}
	return response, nil
}

func stageProto(stage Stage) pb.HealthCheckResponse_Stage {
	switch stage {
	case StageInit:
		return pb.HealthCheckResponse_STAGE_INIT
	case StageSetup:
		return pb.HealthCheckResponse_STAGE_SETUP
	case StageCDC:
		return pb.HealthCheckResponse_STAGE_CDC
	case StageSnapshot:
		return pb.HealthCheckResponse_STAGE_SNAPSHOT
	}
	return pb.HealthCheckResponse_STAGE_UNKNOWN
}

// stageDetail is what is shown when the pipeline says no more than the stage.
func stageDetail(st *Status) string {
	switch {
	case st.Stage == StageInit:
		return DetailInitializing
	case st.Stage == StageSetup && st.ErrorDetail != "":
		return DetailSetupFailed
	case st.Stage == StageSetup:
		return DetailSetup
	}
	return DetailReplicating
}

// standardHealth is grpc.health.v1.Health.
type standardHealth struct {
	healthpb.UnimplementedHealthServer
	server *Server
}

// readinessNames are the services whose health is that of the pipeline.
var readinessNames = []string{
	"", "dbmazz",
	pb.HealthService_ServiceDesc.ServiceName, pb.CdcControlService_ServiceDesc.ServiceName,
	pb.CdcStatusService_ServiceDesc.ServiceName, pb.CdcMetricsService_ServiceDesc.ServiceName,
}

// of returns the health of one service.
func (h *standardHealth) of(ctx context.Context, service string) healthpb.HealthCheckResponse_ServingStatus {
	if service == LivenessService {
		return healthpb.HealthCheckResponse_SERVING
	}
	for _, name := range readinessNames {
		if name != service {
			continue
		}
		st := h.server.status(ctx)
		if st.Ready() {
			return healthpb.HealthCheckResponse_SERVING
		}
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
	return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
}

// Check returns the health of one service.
func (h *standardHealth) Check(
	ctx context.Context, req *healthpb.HealthCheckRequest,
) (*healthpb.HealthCheckResponse, error) {
	health := h.of(ctx, req.GetService())
	if health == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Errorf(codes.NotFound, "unknown service; want dbmazz or %s", LivenessService)
	}
	return &healthpb.HealthCheckResponse{Status: health}, nil
}

// List returns the health of all services.
func (h *standardHealth) List(ctx context.Context, _ *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	pipeline := &healthpb.HealthCheckResponse{Status: h.of(ctx, "")}
	statuses := map[string]*healthpb.HealthCheckResponse{
		LivenessService: {Status: healthpb.HealthCheckResponse_SERVING},
	}
	for _, name := range readinessNames {
		statuses[name] = pipeline
	}
	return &healthpb.HealthListResponse{Statuses: statuses}, nil
}

// Watch sends the health of one service now and whenever it changes.
func (h *standardHealth) Watch(
	req *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse],
) error {
	ctx := stream.Context()
	ticker := time.NewTicker(healthPollInterval)
	defer ticker.Stop()
	last := healthpb.HealthCheckResponse_UNKNOWN
	for {
		if health := h.of(ctx, req.GetService()); health != last {
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: health}); err != nil {
				return err
			}
			last = health
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-h.server.stopping:
			return h.farewell(stream)
		case <-ticker.C:
		}
	}
}

// farewell tells a watcher that the server goes.
func (*standardHealth) farewell(stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	gone := &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING}
	if err := stream.Send(gone); err != nil {
		return err
	}
	return errStopping
}

var errStopping = status.Error(codes.Unavailable, "dbmazz is stopping")
