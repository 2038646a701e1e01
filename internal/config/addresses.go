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

// setBusURL keeps quiet about what it does not understand: it may hold a password.
func setBusURL(c *Config, value string) error {
	const want = "want nats://host:4222 or tls://host:4222, separated by commas"
	var servers []string
	for element := range strings.SplitSeq(value, ",") {
		element = strings.TrimSpace(element)
		if element == "" {
			continue
		}
		if !strings.Contains(element, "://") {
			element = "nats://" + element
		}
		parsed, err := url.Parse(element)
		switch {
		case err != nil:
			return errors.New("it is not a URL; " + want)
		case parsed.Scheme != "nats" && parsed.Scheme != "tls":
			return fmt.Errorf("the scheme %s is not supported; %s", show(parsed.Scheme), want)
		case parsed.User != nil:
			return errors.New("it holds a user name; put that into BUS_USER and BUS_PASSWORD; " + want)
		case parsed.Path != "" && parsed.Path != "/", parsed.RawQuery != "", parsed.Fragment != "":
			return errors.New("it has something after the host and port; " + want)
		}
		if err := checkHost(parsed.Hostname()); err != nil {
			return fmt.Errorf("%w; %s", err, want)
		}
		port := parsed.Port()
		if port == "" {
			port = busPortDefault
		}
		if err := checkPort(port); err != nil || port == "0" {
			return fmt.Errorf("the port %s is out of range; %s", show(port), want)
		}
		servers = append(servers, parsed.Scheme+"://"+net.JoinHostPort(parsed.Hostname(), port))
	}
	if len(servers) == 0 {
		return errors.New("it names no server; " + want)
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

// setSinkURL keeps quiet about what it does not understand: it may hold a password.
func setSinkURL(c *Config, value string) error {
	const want = "want http://host:8030 or https://host:8030"
	if !strings.Contains(value, "://") {
		value = "http://" + value
	}
	parsed, err := url.Parse(value)
	if err != nil {
		return errors.New("it is not a URL; " + want)
	}
	switch {
	case parsed.Scheme != "http" && parsed.Scheme != "https":
		return fmt.Errorf("the scheme %s is not supported; %s", show(parsed.Scheme), want)
	case parsed.User != nil:
		return errors.New("it holds a user name; put that into SINK_USER and SINK_PASSWORD; " + want)
	case parsed.Path != "" && parsed.Path != "/", parsed.RawQuery != "", parsed.Fragment != "":
		return errors.New("it has something after the host and port; " + want)
	}
	if err := checkHost(parsed.Hostname()); err != nil {
		return fmt.Errorf("%w; %s", err, want)
	}
	port := parsed.Port()
	if port == "" {
		port = sinkPortDefault
	}
	if err := checkPort(port); err != nil || port == "0" {
		return fmt.Errorf("the port %s is out of range; %s", show(port), want)
	}
	c.SinkURL = parsed.Scheme + "://" + net.JoinHostPort(parsed.Hostname(), port)
	return nil
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
