package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

const (
	grpcHostDefault = "127.0.0.1"
	sinkPortDefault = "8030"
	busPortDefault  = "4222"
)

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$`)

// checkHost accepts a name or an IP address without brackets.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil || hostPattern.MatchString(host) {
		return nil
	}
	return fmt.Errorf("%s is not a host name or IP address", show(host))
}

func checkPort(port string) error {
	if number, err := strconv.ParseUint(port, 10, 16); err != nil || (number == 0 && port != "0") {
		return fmt.Errorf("%s is not a port; want 0 to 65535", show(port))
	}
	return nil
}

// splitAddr reads host, host:port, [v6], [v6]:port or a bare IPv6 address. The host may
// be empty, which means every interface.
func splitAddr(value string) (host, port string, err error) {
	if ip, parseErr := netip.ParseAddr(value); parseErr == nil {
		return ip.String(), "", nil
	}
	if inner, ok := strings.CutPrefix(value, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
		return host, "", checkHost(host)
	}
	if !strings.Contains(value, ":") {
		return value, "", checkHost(value)
	}
	host, port, err = net.SplitHostPort(value)
	if err != nil {
		return "", "", fmt.Errorf("%s is not host:port", show(value))
	}
	if host != "" {
		if err := checkHost(host); err != nil {
			return "", "", err
		}
	}
	return host, port, checkPort(port)
}

func setGRPCAddr(c *Config, value string) error {
	host, port, err := splitAddr(value)
	if err != nil {
		return fmt.Errorf("%w; want host or host:port", err)
	}
	// An empty port is filled in from GRPC_PORT when all variables are known.
	c.GRPCAddr = net.JoinHostPort(host, port)
	return nil
}

func setMetricsAddr(c *Config, value string) error {
	host, port, err := splitAddr(value)
	if err == nil && port == "" {
		err = fmt.Errorf("%s has no port", show(value))
	}
	if err != nil {
		return fmt.Errorf("%w; want host:port", err)
	}
	c.MetricsAddr = net.JoinHostPort(host, port)
	return nil
}

// serverURL says which URLs lead to a kind of server.
type serverURL struct {
	schemes [2]string // the first is the default
	port    string    // the default
	// credentials are the variables for what must not be in the URL, want is an
	// example of what may be.
	credentials, want string
}

// parse returns scheme://host:port. It keeps quiet about what it does not understand: that
// may hold a password.
func (u *serverURL) parse(value string) (string, error) {
	if !strings.Contains(value, "://") {
		value = u.schemes[0] + "://" + value
	}
	parsed, err := url.Parse(value)
	switch {
	case err != nil:
		return "", errors.New("it is not a URL; " + u.want)
	case parsed.Scheme != u.schemes[0] && parsed.Scheme != u.schemes[1]:
		return "", fmt.Errorf("the scheme %s is not supported; %s", show(parsed.Scheme), u.want)
	case parsed.User != nil:
		return "", fmt.Errorf("it holds a user name; put that into %s; %s", u.credentials, u.want)
	case parsed.Path != "" && parsed.Path != "/", parsed.RawQuery != "", parsed.Fragment != "":
		return "", errors.New("it has something after the host and port; " + u.want)
	}
	if err := checkHost(parsed.Hostname()); err != nil {
		return "", fmt.Errorf("%w; %s", err, u.want)
	}
	port := parsed.Port()
	if port == "" {
		port = u.port
	}
	if err := checkPort(port); err != nil || port == "0" {
		return "", fmt.Errorf("the port %s is out of range; %s", show(port), u.want)
	}
	return parsed.Scheme + "://" + net.JoinHostPort(parsed.Hostname(), port), nil
}

var (
	busURL = serverURL{
		schemes: [2]string{"nats", "tls"}, port: busPortDefault, credentials: "BUS_USER and BUS_PASSWORD",
		want: "want nats://host:4222 or tls://host:4222, separated by commas",
	}
	sinkURL = serverURL{
		schemes: [2]string{"http", "https"}, port: sinkPortDefault, credentials: "SINK_USER and SINK_PASSWORD",
		want: "want http://host:8030 or https://host:8030",
	}
)

func setBusURL(c *Config, value string) error {
	var servers []string
	for element := range strings.SplitSeq(value, ",") {
		element = strings.TrimSpace(element)
		if element == "" {
			continue
		}
		server, err := busURL.parse(element)
		if err != nil {
			return err
		}
		servers = append(servers, server)
	}
	if len(servers) == 0 {
		return errors.New("it names no server; " + busURL.want)
	}
	c.BusURL = strings.Join(servers, ",")
	return nil
}

func setBusListen(c *Config, value string) error {
	if strings.EqualFold(value, BusOff) {
		c.BusListen = BusOff
		return nil
	}
	host, port, err := splitAddr(value)
	if err != nil {
		return fmt.Errorf("%w; want host:port or off", err)
	}
	if port == "" {
		port = busPortDefault
	}
	c.BusListen = net.JoinHostPort(host, port)
	return nil
}

func setSinkBEHosts(c *Config, value string) error {
	var problems []error
	for element := range strings.SplitSeq(value, ",") {
		element = strings.TrimSpace(element)
		if element == "" {
			continue
		}
		host, port, err := splitAddr(element)
		switch {
		case err != nil:
			problems = append(problems, err)
		case host == "":
			problems = append(problems, fmt.Errorf("%s has no host", show(element)))
		case port == "":
			c.SinkBEHosts = append(c.SinkBEHosts, host)
		default:
			c.SinkBEHosts = append(c.SinkBEHosts, net.JoinHostPort(host, port))
		}
	}
	if err := joinLine(problems); err != nil {
		return fmt.Errorf("%w; want host or host:port, separated by commas", err)
	}
	return nil
}

func setSinkURL(c *Config, value string) (err error) {
	c.SinkURL, err = sinkURL.parse(value)
	return err
}

var tokenPattern = regexp.MustCompile(`^[!-~]+$`)

func setToken(c *Config, value string) error {
	if !tokenPattern.MatchString(value) {
		return errors.New("it holds white space or characters outside ASCII; want a token such as `openssl rand -hex 32` prints")
	}
	c.GRPCToken = Secret{value}
	return nil
}

// isLoopback tells whether only processes of the same machine reach a host:port. A name
// other than localhost may resolve to anything.
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
