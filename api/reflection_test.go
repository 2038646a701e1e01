package api_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/dbmazz/dbmazz/api"
)

var wantServices = []string{
	"dbmazz.CdcControlService", "dbmazz.CdcMetricsService", "dbmazz.CdcStatusService", "dbmazz.HealthService",
	"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
}

// checkFile parses the file descriptor that describes a service.
func checkFile(t *testing.T, files [][]byte) {
	t.Helper()
	if len(files) != 1 {
		t.Fatalf("got %d files, want 1: the contract imports nothing", len(files))
	}
	var file descriptorpb.FileDescriptorProto
	if err := proto.Unmarshal(files[0], &file); err != nil {
		t.Fatal(err)
	}
	if file.GetPackage() != "dbmazz" || len(file.GetService()) != 4 {
		t.Errorf("got package %s with %d services", file.GetPackage(), len(file.GetService()))
	}
}

func TestReflectionV1DescribesTheServices(t *testing.T) {
	t.Parallel()
	conn := dial(t, start(t, api.Config{}, &fakePipeline{}).Addr())
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionv1.ServerReflectionRequest) *reflectionv1.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	list := ask(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	var names []string
	for _, service := range list.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	slices.Sort(names)
	if !slices.Equal(names, wantServices) {
		t.Errorf("got %v, want %v", names, wantServices)
	}
	file := ask(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "dbmazz.CdcStatusService"},
	})
	checkFile(t, file.GetFileDescriptorResponse().GetFileDescriptorProto())
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
}

func TestReflectionV1AlphaDescribesTheServices(t *testing.T) {
	t.Parallel()
	conn := dial(t, start(t, api.Config{}, &fakePipeline{}).Addr())
	stream, err := reflectionalpha.NewServerReflectionClient(conn).ServerReflectionInfo(soon(t))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(req *reflectionalpha.ServerReflectionRequest) *reflectionalpha.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	list := ask(&reflectionalpha.ServerReflectionRequest{MessageRequest: &reflectionalpha.ServerReflectionRequest_ListServices{}})
	var names []string
	for _, service := range list.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	slices.Sort(names)
	if !slices.Equal(names, wantServices) {
		t.Errorf("got %v, want %v", names, wantServices)
	}
	file := ask(&reflectionalpha.ServerReflectionRequest{
		MessageRequest: &reflectionalpha.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "dbmazz.HealthService"},
	})
	checkFile(t, file.GetFileDescriptorResponse().GetFileDescriptorProto())
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
}
