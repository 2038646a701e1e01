package api_test

import (
	"slices"
	"testing"

	"google.golang.org/grpc"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/dbmazz/dbmazz/api"
)

var wantServices = []string{
	"dbmazz.CdcControlService", "dbmazz.CdcMetricsService", "dbmazz.CdcStatusService", "dbmazz.HealthService",
	"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
}

// Old clients ask v1alpha and new ones v1. The messages are the same, so that one type
// serves for both here.
func TestBothReflectionVersionsDescribeTheServices(t *testing.T) {
	t.Parallel()
	conn := dial(t, start(t, api.Config{}, &fakePipeline{}).Addr())
	for _, service := range []string{"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} {
		t.Run(service, func(t *testing.T) {
			desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
			stream, err := conn.NewStream(soon(t), desc, "/"+service+"/ServerReflectionInfo")
			if err != nil {
				t.Fatal(err)
			}
			ask := func(req *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
				t.Helper()
				if err := stream.SendMsg(req); err != nil {
					t.Fatal(err)
				}
				var got reflectionpb.ServerReflectionResponse
				if err := stream.RecvMsg(&got); err != nil {
					t.Fatal(err)
				}
				return &got
			}
			list := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
			var names []string
			for _, service := range list.GetListServicesResponse().GetService() {
				names = append(names, service.GetName())
			}
			slices.Sort(names)
			if !slices.Equal(names, wantServices) {
				t.Errorf("got %v, want %v", names, wantServices)
			}
			files := ask(&reflectionpb.ServerReflectionRequest{
				MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "dbmazz.CdcStatusService"},
			}).GetFileDescriptorResponse().GetFileDescriptorProto()
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
			if err := stream.CloseSend(); err != nil {
				t.Error(err)
			}
		})
	}
}
