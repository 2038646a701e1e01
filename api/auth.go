package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// gate lets calls with the right bearer token pass. Without a token all pass.
type gate struct {
	digest [sha256.Size]byte
	open   bool
	log    *slog.Logger
	quiet  throttle
}

func newGate(token string, log *slog.Logger) *gate {
	return &gate{digest: sha256.Sum256([]byte(token)), open: token == "", log: log}
}

// allows compares digests, so that neither content nor length shows in the time taken.
func (g *gate) allows(authorization []string) bool {
	if g.open {
		return true
	}
	if len(authorization) != 1 {
		return false
	}
	scheme, token, ok := strings.Cut(authorization[0], " ")
	digest := sha256.Sum256([]byte(strings.TrimLeft(token, " ")))
	return subtle.ConstantTimeCompare(digest[:], g.digest[:]) == 1 && ok && strings.EqualFold(scheme, "bearer")
}

// check is for gRPC. The standard health service is exempt: probes cannot carry a token.
func (g *gate) check(ctx context.Context, method string) error {
	if strings.HasPrefix(method, "/"+healthpb.Health_ServiceDesc.ServiceName+"/") {
		return nil
	}
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if g.allows(values) {
		return nil
	}
	if g.quiet.allow(time.Now()) {
		from := "unknown"
		if p, ok := peer.FromContext(ctx); ok {
			from = p.Addr.String()
		}
		g.log.WarnContext(ctx, "call refused, since its token is missing or wrong", "method", method, "peer", from)
	}
	return status.Error(codes.Unauthenticated, "a valid token is needed: authorization: Bearer <GRPC_TOKEN>")
}

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := g.check(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handle(ctx, req)
}

func (g *gate) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := g.check(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(srv, stream)
}

// protect is for HTTP: the token where there is one, and a verified client certificate
// where there is a client CA.
func (g *gate) protect(next http.Handler, needCertificate bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if needCertificate && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) {
			http.Error(w, "a client certificate is needed", http.StatusForbidden)
			return
		}
		if !g.allows(r.Header.Values("Authorization")) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="dbmazz"`)
			http.Error(w, "a valid token is needed: Authorization: Bearer <GRPC_TOKEN>", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
