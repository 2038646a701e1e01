package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// Bounds of a connection that nobody needs to change.
const (
	keepaliveInterval  = time.Minute
	keepaliveTimeout   = 20 * time.Second
	keepaliveMinClient = 10 * time.Second
	headerBytesMax     = 16 << 10
	responseBytesMax   = 16 << 20
	sampleInterval     = time.Second
)

// Server is the gRPC server and, when configured, the HTTP endpoint beside it.
type Server struct {
	cfg      Config
	pipeline Pipeline
	log      *slog.Logger
	gate     *gate
	samples  *sampler
	flight   *flightRecorder

	ready    chan struct{}
	stopping chan struct{}
	// The addresses are set before ready is closed.
	addr        net.Addr
	metricsAddr net.Addr
}

// New returns a server that does not listen yet. The error is about the configuration.
func New(cfg Config, pipeline Pipeline) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("check API configuration: %w", err)
	}
	if cfg.Version == "" {
		cfg.Version = buildVersion()
	}
	log := cfg.Logger.With("component", "api")
	return &Server{
		cfg:      cfg,
		pipeline: pipeline,
		log:      log,
		gate:     newGate(cfg.Token, log),
		samples:  &sampler{pipeline: pipeline, timeout: cfg.StatusTimeout},
		flight:   &flightRecorder{log: log},
		ready:    make(chan struct{}),
		stopping: make(chan struct{}),
	}, nil
}

// Ready is closed when the server listens.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr is where the gRPC server listens. It is valid once Ready is closed.
func (s *Server) Addr() net.Addr { return s.addr }

// MetricsAddr is where the HTTP endpoint listens, nil when there is none. It is valid
// once Ready is closed.
func (s *Server) MetricsAddr() net.Addr { return s.metricsAddr }

// Run listens and serves until ctx ends, then waits for running calls at most for the
// shutdown timeout. It returns nil when it was asked to stop. Run is called once.
func (s *Server) Run(ctx context.Context) error {
	var certificates *certificates
	if s.cfg.TLSCertFile != "" {
		var err error
		if certificates, err = loadCertificates(s.cfg, s.log); err != nil {
			return err
		}
	}
	listener, err := s.listen(ctx, "gRPC", s.cfg.Addr)
	if err != nil {
		return err
	}
	s.addr = listener.Addr()
	var metrics net.Listener
	if s.cfg.MetricsAddr != "" {
		if metrics, err = s.listen(ctx, "metrics", s.cfg.MetricsAddr); err != nil {
			return errors.Join(err, listener.Close())
		}
		s.metricsAddr = metrics.Addr()
	}
	s.announce(ctx)
	group, running := errgroup.WithContext(ctx)
	if metrics != nil {
		group.Go(func() error { return s.serveHTTP(running, metrics, certificates) })
		group.Go(func() error { s.flight.run(running, s.cfg.FlightRecorder); return nil })
	}
	group.Go(func() error { return s.serveGRPC(running, listener, certificates) })
	group.Go(func() error { s.samples.run(running, sampleInterval); return nil })
	close(s.ready)
	return group.Wait()
}

func (s *Server) announce(ctx context.Context) {
	s.log.InfoContext(ctx, "api listens", "addr", s.addr.String(), "tls", s.cfg.TLSCertFile != "",
		"token", s.cfg.Token != "", "client_ca", s.cfg.TLSClientCAFile != "", "metrics_addr", s.cfg.MetricsAddr)
	if s.cfg.Token == "" && s.cfg.TLSClientCAFile == "" && !isLoopback(s.cfg.Addr) {
		s.log.WarnContext(ctx, "anybody who reaches the api address can control the pipeline", "addr", s.addr.String())
	}
}

func (s *Server) listen(ctx context.Context, what, addr string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on the %s address: %w", what, err)
	}
	return newLimitListener(listener, s.cfg.MaxConnections, s.log), nil
}

// serveGRPC serves until ctx ends.
func (s *Server) serveGRPC(ctx context.Context, listener net.Listener, certificates *certificates) error {
	server := s.newGRPC(certificates)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve gRPC: %w", err)
	case <-ctx.Done():
	}
	close(s.stopping)
	stopped := make(chan struct{})
	go func() { server.GracefulStop(); close(stopped) }()
	bound := time.NewTimer(s.cfg.ShutdownTimeout)
	defer bound.Stop()
	select {
	case <-stopped:
	case <-bound.C:
		server.Stop() // Handlers that do not look at their context are left behind.
	}
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC until the end: %w", err)
	}
	return nil
}

func (s *Server) newGRPC(certificates *certificates) *grpc.Server {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(s.cfg.MaxMessageBytes),
		grpc.MaxSendMsgSize(responseBytesMax),
		grpc.MaxConcurrentStreams(s.cfg.MaxConcurrentStreams),
		grpc.MaxHeaderListSize(headerBytesMax),
		grpc.ConnectionTimeout(s.cfg.HandshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveInterval, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinClient, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(s.gate.unary),
		grpc.StreamInterceptor(s.gate.stream),
	}
	if certificates != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(certificates.config(certificates.required(), "h2"))))
	}
	server := grpc.NewServer(options...)
	pb.RegisterHealthServiceServer(server, &healthService{server: s})
	pb.RegisterCdcControlServiceServer(server, &controlService{server: s})
	pb.RegisterCdcStatusServiceServer(server, &statusService{server: s})
	pb.RegisterCdcMetricsServiceServer(server, &metricsService{server: s})
	healthpb.RegisterHealthServer(server, &standardHealth{server: s})
	reflection.Register(server) // Both v1 and v1alpha.
	return server
}

// serveHTTP serves until ctx ends.
func (s *Server) serveHTTP(ctx context.Context, listener net.Listener, certificates *certificates) error {
	server := &http.Server{
		Handler:           s.httpHandler(),
		ReadHeaderTimeout: s.cfg.HandshakeTimeout,
		ReadTimeout:       s.cfg.HandshakeTimeout, // No request has a body that is read.
		IdleTimeout:       keepaliveInterval,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() {
		if certificates == nil {
			failed <- server.Serve(listener)
			return
		}
		// Probes have no certificate; what needs one is checked in the handler.
		server.TLSConfig = certificates.config(certificates.optional(), "h2", "http/1.1")
		failed <- server.ServeTLS(listener, "", "")
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve metrics: %w", err)
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.ShutdownTimeout)
	defer cancel()
	if server.Shutdown(bound) != nil {
		// The bound is over; what still runs is cut off, which is what was asked for.
		_ = server.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics until the end: %w", err)
	}
	return nil
}

// status asks the pipeline within the bound.
func (s *Server) status(ctx context.Context) Status {
	bound, cancel := context.WithTimeout(ctx, s.cfg.StatusTimeout)
	defer cancel()
	return s.pipeline.Status(bound)
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
