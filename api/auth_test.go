package api_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"

	"github.com/dbmazz/dbmazz/api"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

const token = "correct-horse-battery-staple"

// everyMethod calls each method of each service once and returns the errors by name. The
// list is made from the service descriptors, so that a method added later is in it.
func everyMethod(ctx context.Context, t *testing.T, conn *grpc.ClientConn) map[string]error {
	t.Helper()
	services := []grpc.ServiceDesc{
		pb.HealthService_ServiceDesc, pb.CdcControlService_ServiceDesc, pb.CdcStatusService_ServiceDesc,
		pb.CdcMetricsService_ServiceDesc, healthpb.Health_ServiceDesc,
		reflectionv1.ServerReflection_ServiceDesc, reflectionalpha.ServerReflection_ServiceDesc,
	}
	results := map[string]error{}
	for _, service := range services {
		for _, method := range service.Methods {
			name := "/" + service.ServiceName + "/" + method.MethodName
			results[name] = conn.Invoke(ctx, name, &pb.StatusRequest{}, &pb.StatusRequest{})
		}
		for _, desc := range service.Streams {
			name := "/" + service.ServiceName + "/" + desc.StreamName
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: desc.ClientStreams}, name)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.SendMsg(&pb.MetricsRequest{}); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			results[name] = stream.RecvMsg(&pb.StatusRequest{})
		}
	}
	return results
}

func TestEveryCallButHealthProbesNeedsTheToken(t *testing.T) {
	t.Parallel()
	var logged logBuffer
	conn := dial(t, start(t, api.Config{Token: token, Logger: logged.logger()}, &fakePipeline{}).Addr())
	const long = "correct-horse-battery-staple-and-more"
	tests := []struct {
		name   string
		values []string
		pass   bool
	}{
		{"none", nil, false},
		{"empty", []string{""}, false},
		{"wrong", []string{"Bearer mistaken"}, false},
		{"prefix", []string{"Bearer correct-horse"}, false},
		{"longer", []string{"Bearer " + long}, false},
		{"other scheme", []string{"Basic " + token}, false},
		{"bare", []string{token}, false},
		{"no token", []string{"Bearer"}, false},
		{"twice", []string{"Bearer " + token, "Bearer " + token}, false},
		{"right", []string{"Bearer " + token}, true},
		{"right, lower case", []string{"bearer " + token}, true},
	}
	for _, test := range tests {
		ctx := metadata.NewOutgoingContext(soon(t), metadata.MD{"authorization": test.values})
		results := everyMethod(ctx, t, conn)
		if len(results) != 16 {
			t.Errorf("%s: called %d methods, want 16", test.name, len(results))
		}
		for method, err := range results {
			want := !test.pass && !strings.HasPrefix(method, "/grpc.health.v1.Health/")
			if got := status.Code(err) == codes.Unauthenticated; got != want {
				t.Errorf("%s: %s: got %v, want refusal %v", test.name, method, err, want)
			}
		}
	}
	if text := logged.String(); strings.Contains(text, token) || strings.Contains(text, "mistaken") || !strings.Contains(text, "call refused") {
		t.Errorf("want refusals in the log and no token: %s", text)
	}
}

func TestWithoutATokenLoopbackIsOpen(t *testing.T) {
	t.Parallel()
	conn := dial(t, start(t, api.Config{}, &fakePipeline{}).Addr())
	for method, err := range everyMethod(soon(t), t, conn) {
		if status.Code(err) == codes.Unauthenticated {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestAnExposedAddressNeedsProtectionOrAWord(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		cfg api.Config
		ok  bool
	}{
		{api.Config{}, true},
		{api.Config{Addr: "localhost:1"}, true},
		{api.Config{Addr: "[::1]:1"}, true},
		{api.Config{Addr: "127.8.9.1:1"}, true},
		{api.Config{Addr: "[::ffff:127.0.0.1]:1"}, true},
		{api.Config{Addr: "0.0.0.0:1"}, false},
		{api.Config{Addr: ":1"}, false},
		{api.Config{Addr: "[::]:1"}, false},
		{api.Config{Addr: "127.0.0.1.example.com:1"}, false},
		{api.Config{Addr: "10.0.0.1:1"}, false},
		{api.Config{Addr: "0.0.0.0"}, false},
		{api.Config{MetricsAddr: "0.0.0.0:1"}, false},
		{api.Config{Addr: "0.0.0.0:1", TLSCertFile: "c", TLSKeyFile: "k"}, false},
		{api.Config{Addr: "0.0.0.0:1", Token: "t"}, true},
		{api.Config{Addr: "0.0.0.0:1", Token: "a b"}, false},
		{api.Config{Addr: "0.0.0.0:1", Insecure: true}, true},
		{api.Config{Addr: "0.0.0.0:1", TLSCertFile: "c", TLSKeyFile: "k", TLSClientCAFile: "a"}, true},
		{api.Config{Addr: "0.0.0.0:1", TLSClientCAFile: "a"}, false},
		{api.Config{TLSCertFile: "c"}, false},
		{api.Config{MaxConnections: -1}, false},
	} {
		if _, err := api.New(test.cfg, &fakePipeline{}); (err == nil) != test.ok {
			t.Errorf("%+v: got %v, want ok %v", test.cfg, err, test.ok)
		}
	}
}
