package api_test

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/dbmazz/dbmazz/api"
)

// TestClientsThatSayNothingAreCutOff has connections that take every place and then send
// nothing, or half a request: whoever has something to say gets in after a moment.
func TestClientsThatSayNothingAreCutOff(t *testing.T) {
	t.Parallel()
	const places = 3
	tls := tlsFiles(t, newAuthority(t), nil)
	for name, cfg := range map[string]api.Config{"plain": {}, "tls": tls} {
		cfg.MaxConnections, cfg.HandshakeTimeout, cfg.MetricsAddr = places, 300*time.Millisecond, "127.0.0.1:0"
		server := start(t, cfg, &fakePipeline{})
		for _, addr := range []net.Addr{server.Addr(), server.MetricsAddr()} {
			for i := range places {
				conn, err := net.Dial("tcp", addr.String())
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				_, _ = fmt.Fprint(conn, []string{"", "GET /metrics HTTP/1.1\r\nHost: x\r\n", "PRI * HT"}[i]) // It may be cut off already.
				if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
					t.Fatal(err)
				}
				// Whatever it is told first, in the end it is cut off.
				for buf := make([]byte, 1024); ; {
					if _, err := conn.Read(buf); err != nil {
						if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // Not wrapped.
							t.Errorf("%s %s: connection %d is still there", name, addr, i)
						}
						break
					}
				}
			}
		}
		if name == "tls" {
			continue
		}
		if _, err := healthpb.NewHealthClient(dial(t, server.Addr())).Check(soon(t), &healthpb.HealthCheckRequest{Service: api.LivenessService}); status.Code(err) != codes.OK {
			t.Errorf("a client with something to say: %v", err)
		}
		if code, _ := fetch(t, nil, "http://"+server.MetricsAddr().String()+"/healthz", ""); code != http.StatusOK {
			t.Errorf("a probe: %d", code)
		}
	}
}
