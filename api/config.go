package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Defaults of Config.
const (
	DefaultAddr                 = "127.0.0.1:50051"
	DefaultShutdownTimeout      = 5 * time.Second
	DefaultStatusTimeout        = 2 * time.Second
	DefaultMaxMessageBytes      = 1 << 20
	DefaultMaxConcurrentStreams = 100
	DefaultMaxConnections       = 256
	DefaultHandshakeTimeout     = 10 * time.Second
)

// Config says where and to whom the server talks. The zero value of a field means its
// default.
type Config struct {
	// Addr is the host:port of the gRPC server. Port 0 takes a free one.
	// Defaults to 127.0.0.1:50051.
	Addr string
	// Token, when set, must come with every call as "authorization: Bearer <token>".
	Token string
	// TLSCertFile and TLSKeyFile are the server's certificate chain and key (PEM).
	// They are read again when they change. Both or neither.
	TLSCertFile string
	TLSKeyFile  string
	// TLSClientCAFile holds the certificates (PEM) that client certificates must be
	// signed by. It needs TLSCertFile.
	TLSClientCAFile string
	// Insecure allows an address other than loopback without token or client CA.
	Insecure bool
	// MetricsAddr is the host:port of the HTTP endpoint with /metrics, /healthz and
	// /readyz. Defaults to none.
	MetricsAddr string
	// FlightRecorder is how much of the process's execution trace is kept for
	// /debug/flightrecorder of the HTTP endpoint from the beginning on. Defaults to
	// nothing.
	FlightRecorder time.Duration
	// Version is shown in the status and in dbmazz_build_info.
	Version string
	// ShutdownTimeout bounds the wait for running calls when stopping.
	// Defaults to 5 s.
	ShutdownTimeout time.Duration
	// StatusTimeout bounds one Pipeline.Status call. Defaults to 2 s.
	StatusTimeout time.Duration
	// MaxMessageBytes bounds a request. Defaults to 1 MiB.
	MaxMessageBytes int
	// MaxConcurrentStreams bounds the calls on one connection. Defaults to 100.
	MaxConcurrentStreams uint32
	// MaxConnections bounds the connections of each listener; one more is closed
	// at once. Defaults to 256.
	MaxConnections int
	// HandshakeTimeout is how long a new connection may take until it has said who
	// it is and what it wants. Defaults to 10 s.
	HandshakeTimeout time.Duration
	// Logger receives lifecycle messages. Defaults to none.
	Logger *slog.Logger
}

// Validate reports every problem of the configuration.
func (c Config) Validate() error {
	var problems []error
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		problems = append(problems, errors.New("a TLS certificate and its key must be set together"))
	}
	if c.TLSClientCAFile != "" && c.TLSCertFile == "" {
		problems = append(problems, errors.New("a client CA needs a TLS certificate and key"))
	}
	if strings.ContainsAny(c.Token, " \t\r\n") {
		problems = append(problems, errors.New("the token must not contain white space"))
	}
	problems = append(problems, c.checkAddr("gRPC", c.Addr), c.checkAddr("metrics", c.MetricsAddr))
	if c.FlightRecorder < 0 || c.FlightRecorder > FlightRecorderMax {
		problems = append(problems, fmt.Errorf("the flight recorder keeps at most %s", FlightRecorderMax))
	}
	if c.MaxMessageBytes < 0 || c.MaxConnections < 0 || c.ShutdownTimeout < 0 || c.StatusTimeout < 0 || c.HandshakeTimeout < 0 {
		problems = append(problems, errors.New("limits and timeouts must not be negative"))
	}
	return errors.Join(problems...)
}

func (c Config) checkAddr(what, addr string) error {
	if addr == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return fmt.Errorf("%s address: %w", what, err)
	}
	if isLoopback(addr) || c.Token != "" || c.TLSClientCAFile != "" || c.Insecure {
		return nil
	}
	return fmt.Errorf("%s address %s is not loopback: set a token or a client CA, "+
		"or say explicitly that it is meant to be insecure", what, addr)
}

// isLoopback tells whether only processes of the same machine reach a host:port. A
// name other than localhost counts as reachable from elsewhere, since what it
// resolves to may change.
func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func (c Config) withDefaults() Config {
	if c.Addr == "" {
		c.Addr = DefaultAddr
	}
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = DefaultShutdownTimeout
	}
	if c.StatusTimeout == 0 {
		c.StatusTimeout = DefaultStatusTimeout
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if c.MaxConcurrentStreams == 0 {
		c.MaxConcurrentStreams = DefaultMaxConcurrentStreams
	}
	if c.HandshakeTimeout == 0 {
		c.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = DefaultMaxConnections
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}
