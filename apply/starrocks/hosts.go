package starrocks

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
)

// endpoint is the HTTP side of a node of the cluster.
type endpoint struct {
	host string
	port string
}

// directory lists the nodes that StarRocks says are its own.
type directory interface {
	nodes(ctx context.Context) ([]endpoint, error)
	// frontEnd returns the HTTP address of a front end, the leader if there is one.
	frontEnd(ctx context.Context) (endpoint, error)
}

// hosts decides where credentials and rows may go. Stream Load redirects to a back end
// that the answer names; only one that is known to belong to the cluster is followed.
type hosts struct {
	base      *url.URL
	mysqlHost string
	trusted   map[string]bool
	directory directory

	mu    sync.Mutex
	known map[string]bool // host:port
}

func newHosts(config *Config, base *url.URL, d directory) *hosts {
	h := &hosts{base: base, trusted: map[string]bool{}, directory: d}
	h.mysqlHost, _, _ = net.SplitHostPort(config.MySQLAddr)
	for _, host := range config.TrustedHosts {
		h.trusted[strings.ToLower(strings.TrimSpace(host))] = true
	}
	return h
}

// allow returns the address to go on with from a Location, or an error that names its
// host and the remedy.
func (h *hosts) allow(ctx context.Context, location *url.URL) (*url.URL, error) {
	if (location.Scheme != "http" && location.Scheme != "https") || location.Hostname() == "" {
		return nil, permanent(fmt.Errorf("follow redirect to %q: not an http address", location.Redacted()))
	}
	next := *location
	next.User = nil
	// An all-in-one image knows itself as 127.0.0.1, which from here is another host.
	if isLoopback(next.Hostname()) && !isLoopback(h.base.Hostname()) {
		next.Host = net.JoinHostPort(h.base.Hostname(), portOf(&next))
	}
	if h.isTrusted(&next) {
		return &next, nil
	}
	if h.base.Scheme == "https" && next.Scheme != "https" {
		return nil, permanent(fmt.Errorf("follow redirect from https to %s://%s: credentials and rows would travel without encryption; if that is meant, name the host in SINK_BE_HOSTS",
			next.Scheme, next.Host))
	}
	if strings.EqualFold(next.Hostname(), h.base.Hostname()) {
		return &next, nil
	}
	known, err := h.isKnown(ctx, &next)
	if known {
		return &next, nil
	}
	text := "follow redirect to %s: the host is neither the configured one nor listed by SHOW BACKENDS, SHOW COMPUTE NODES or SHOW FRONTENDS; if it belongs to the cluster, name it in SINK_BE_HOSTS"
	if err != nil {
		return nil, fmt.Errorf(text+" (those could not be asked: %w)", next.Host, err)
	}
	return nil, permanent(fmt.Errorf(text, next.Host))
}

func (h *hosts) isTrusted(u *url.URL) bool {
	return h.trusted[strings.ToLower(u.Hostname())] || h.trusted[strings.ToLower(net.JoinHostPort(u.Hostname(), portOf(u)))]
}

func (h *hosts) isKnown(ctx context.Context, u *url.URL) (bool, error) {
	key := strings.ToLower(net.JoinHostPort(u.Hostname(), portOf(u)))
	h.mu.Lock()
	known := h.known[key]
	h.mu.Unlock()
	if known {
		return true, nil
	}
	nodes, err := h.directory.nodes(ctx)
	if err != nil {
		return false, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known = map[string]bool{}
	for _, n := range nodes {
		h.known[strings.ToLower(net.JoinHostPort(n.host, n.port))] = true
	}
	return h.known[key], nil
}

// frontEnd returns the address of a front end for a sink whose URL is a back end.
func (h *hosts) frontEnd(ctx context.Context) (*url.URL, error) {
	n, err := h.directory.frontEnd(ctx)
	if err != nil {
		return nil, err
	}
	if isLoopback(n.host) && !isLoopback(h.mysqlHost) {
		n.host = h.mysqlHost
	}
	if h.base.Scheme == "https" && !h.trusted[strings.ToLower(n.host)] {
		return nil, permanent(fmt.Errorf("ask front end %s without encryption: SINK_URL is https but that of a back end; use the address of a front end, or name the host in SINK_BE_HOSTS", n.host))
	}
	return &url.URL{Scheme: "http", Host: net.JoinHostPort(n.host, n.port)}, nil
}

func portOf(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	default:
		return "80"
	}
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
