package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/dbmazz/dbmazz/internal/config"
)

// healthCmd asks grpc.health.v1, which needs no token.
type healthCmd struct {
	Liveness bool          `help:"Ask only whether the process runs, whatever the source and the sink do."`
	Timeout  time.Duration `default:"3s" help:"Longest wait for the answer."`
}

// Run asks the API at the configured address.
func (h *healthCmd) Run(ctx context.Context, s *streams) error {
	c, _, err := load(s.environ, 0)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	conn, err := dial(c)
	if err != nil {
		return err
	}
	defer conn.Close()
	request := &grpc_health_v1.HealthCheckRequest{}
	if h.Liveness {
		request.Service = "liveness"
	}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.GRPCAddr, err)
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("%s is %s", c.GRPCAddr, answer.GetStatus())
	}
	_, err = fmt.Fprintln(s.stdout, answer.GetStatus())
	return err
}

// dial connects to the API of this host. An address that listens everywhere is asked
// on loopback. The certificate is this pipeline's own, so it is not verified by name.
func dial(c config.Config) (*grpc.ClientConn, error) {
	host, port, err := net.SplitHostPort(c.GRPCAddr)
	if err != nil {
		return nil, fmt.Errorf("read GRPC_ADDR: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	creds := insecure.NewCredentials()
	if c.GRPCTLSCertFile != "" {
		own, err := tls.LoadX509KeyPair(c.GRPCTLSCertFile, c.GRPCTLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("load the API's certificate: %w", err)
		}
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{own}}) //nolint:gosec // A probe of the own process.
	}
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(host, port), grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.GRPCAddr, err)
	}
	return conn, nil
}
