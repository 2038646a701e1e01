package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	reflectv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// reflected is a client that knows nothing but what the server's reflection tells, as
// grpcurl does.
type reflected struct {
	t     *testing.T
	conn  *grpc.ClientConn
	names []string
	file  protoreflect.FileDescriptor
}

// newReflected asks for the services and the file that describes them.
func newReflected(t *testing.T, s *service) *reflected {
	t.Helper()
	stream, err := reflectv1.NewServerReflectionClient(s.conn).ServerReflectionInfo(s.call())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(request *reflectv1.ServerReflectionRequest) *reflectv1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(request); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	r := &reflected{t: t, conn: s.conn}
	list := ask(&reflectv1.ServerReflectionRequest{MessageRequest: &reflectv1.ServerReflectionRequest_ListServices{}})
	for _, found := range list.GetListServicesResponse().GetService() {
		r.names = append(r.names, found.GetName())
	}
	answer := ask(&reflectv1.ServerReflectionRequest{
		MessageRequest: &reflectv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "dbmazz.HealthService"},
	})
	files := answer.GetFileDescriptorResponse().GetFileDescriptorProto()
	if len(files) != 1 {
		t.Fatalf("%d files describe the service, want one: %v", len(files), answer)
	}
	var description descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(files[0], &description); err != nil {
		t.Fatal(err)
	}
	if r.file, err = protodesc.NewFile(&description, nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// call invokes service/method with a request in JSON, and returns up to n answers in
// JSON.
func (r *reflected) call(ctx context.Context, path, request string, n int) ([]map[string]any, error) {
	r.t.Helper()
	name, method, _ := strings.Cut(path, "/")
	described := r.file.Services().ByName(protoreflect.Name(strings.TrimPrefix(name, "dbmazz."))).Methods().ByName(protoreflect.Name(method))
	in := dynamicpb.NewMessage(described.Input())
	if err := protojson.Unmarshal([]byte(request), in); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/"+path)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(stream.SendMsg(in), stream.CloseSend()); err != nil {
		return nil, err
	}
	var answers []map[string]any
	for len(answers) < n {
		out := dynamicpb.NewMessage(described.Output())
		if err := stream.RecvMsg(out); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return answers, err
		}
		text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(out)
		if err != nil {
			r.t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			r.t.Fatal(err)
		}
		answers = append(answers, fields)
	}
	return answers, nil
}

// originals are the calls of the original's README with the fields that its answers
// have, and in what order they can be made against one process.
var originals = []struct {
	path, request string
	answers       int
	fields        []string
	values        map[string]any
}{
	{"dbmazz.HealthService/Check", "{}", 1, []string{"status", "stage", "stageDetail", "errorDetail"}, map[string]any{"status": "SERVING", "stage": "STAGE_CDC", "stageDetail": "Replicating"}},
	{"dbmazz.HealthService/Check", `{"service": "dbmazz"}`, 1, []string{"status"}, map[string]any{"status": "SERVING"}},
	{"dbmazz.CdcStatusService/GetStatus", "{}", 1, []string{"state", "currentLsn", "confirmedLsn", "pendingEvents", "slotName", "tables"}, map[string]any{"state": "RUNNING"}},
	{
		"dbmazz.CdcMetricsService/StreamMetrics", `{"interval_ms": 100}`, 3,
		[]string{"timestamp", "eventsPerSecond", "lagBytes", "lagEvents", "memoryBytes", "totalEventsProcessed", "totalBatchesSent", "cpuMillicores"},
		nil,
	},
	{"dbmazz.CdcControlService/Pause", "{}", 1, nil, map[string]any{"success": true, "message": "CDC paused successfully"}},
	{"dbmazz.CdcStatusService/GetStatus", "{}", 1, nil, map[string]any{"state": "PAUSED"}},
	{"dbmazz.CdcControlService/Resume", "{}", 1, nil, map[string]any{"success": true, "message": "CDC resumed successfully"}},
	{"dbmazz.CdcControlService/ReloadConfig", `{"flush_size": 2000, "flush_interval_ms": 3000}`, 1, nil, map[string]any{"success": true, "message": "Configuration reloaded: flush_size=2000, flush_interval_ms=3000"}},
	{"dbmazz.CdcControlService/ReloadConfig", `{"flush_size": "5000"}`, 1, nil, map[string]any{"success": true, "message": "Configuration reloaded: flush_size=5000"}},
	{"dbmazz.CdcControlService/ReloadConfig", `{"tables": ["mark", "item"]}`, 1, nil, map[string]any{"success": true}},
	{"dbmazz.CdcControlService/StartSnapshot", "{}", 1, []string{"message"}, map[string]any{"success": true, "message": "Snapshot started"}},
	{"dbmazz.CdcControlService/PauseSnapshot", "{}", 1, nil, map[string]any{"success": true, "message": "Snapshot paused"}},
	{"dbmazz.CdcControlService/ResumeSnapshot", "{}", 1, nil, map[string]any{"success": true, "message": "Snapshot resumed"}},
	{"dbmazz.CdcControlService/DrainAndStop", "{}", 1, nil, map[string]any{"success": true, "message": "CDC is draining and will stop"}},
}

func TestEveryCallOfTheOriginalAnswersInShape(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	s := r.start()
	r.db.Exec("INSERT INTO item VALUES (1)")
	r.settle(s)
	client := newReflected(t, s)
	for _, service := range []string{
		"dbmazz.HealthService", "dbmazz.CdcControlService", "dbmazz.CdcStatusService", "dbmazz.CdcMetricsService",
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
	} {
		if !slices.Contains(client.names, service) {
			t.Errorf("reflection does not list %s, only %v", service, client.names)
		}
	}
	for _, call := range originals {
		answers, err := client.call(s.call(), call.path, call.request, call.answers)
		if err != nil || len(answers) != call.answers {
			t.Errorf("%s %s: %d answers, want %d: %v", call.path, call.request, len(answers), call.answers, err)
			continue
		}
		for _, field := range call.fields {
			if _, ok := answers[0][field]; !ok {
				t.Errorf("%s: no field %s in %v", call.path, field, answers[0])
			}
		}
		for field, want := range call.values {
			if got := answers[0][field]; got != want {
				t.Errorf("%s %s: %s is %v, want %v (%v)", call.path, call.request, field, got, want, answers[0])
			}
		}
	}
	if code := s.exitCode(patience); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	r.equal("item")
}

// TestReflectionIsServedInBothVersions: older clients know only v1alpha.
func TestReflectionIsServedInBothVersions(t *testing.T) {
	t.Parallel()
	s := setup(t, "SELECT 1").up()
	stream, err := reflectv1alpha.NewServerReflectionClient(s.conn).ServerReflectionInfo(s.call())
	if err != nil {
		t.Fatal(err)
	}
	request := &reflectv1alpha.ServerReflectionRequest{ //nolint:staticcheck // As above.
		MessageRequest: &reflectv1alpha.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "dbmazz.CdcStatusService.GetStatus"}, //nolint:staticcheck // As above.
	}
	if err := stream.Send(request); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil || len(answer.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 { //nolint:staticcheck // As above.
		t.Fatalf("answer %v, %v", answer, err)
	}
	if names := newReflected(t, s).names; len(names) < 7 {
		t.Errorf("v1 lists only %v", names)
	}
}

// TestTokenProtectsTheAPI, calls that steer it included.
func TestTokenProtectsTheAPI(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	const token = "a-token-of-forty-characters-0123456789ab"
	r.secrets = append(r.secrets, token)
	s := r.set("GRPC_TOKEN", token).up()
	for _, header := range []string{"", "Bearer wrong", token} {
		ctx := metadata.AppendToOutgoingContext(s.call(), "authorization", header)
		if _, err := s.status.GetStatus(ctx, &pb.StatusRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("with %q the answer is %v, want UNAUTHENTICATED", header, err)
		}
		if _, err := s.control.Stop(ctx, &pb.StopRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("with %q a stop is answered %v, want UNAUTHENTICATED", header, err)
		}
	}
	ctx := metadata.AppendToOutgoingContext(s.call(), "authorization", "Bearer "+token)
	if _, err := s.status.GetStatus(ctx, &pb.StatusRequest{}); err != nil {
		t.Errorf("with the token: %v", err)
	}
}
