// Package freeport finds ports for servers that must know theirs before they listen: those
// of a cluster, and those that are killed and come back where they were.
//
// A port that the kernel picks (port 0) is of the range that outgoing connections take theirs
// from, so that one of these may have it before the server does, or while the server is down.
package freeport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
)

const (
	lowest = 10000
	// usualRange is where the ports of outgoing connections begin if the system does not say;
	// Linux has 32768 here, others more.
	usualRange = 32768
	rangeFile  = "/proc/sys/net/ipv4/ip_local_port_range"
	attempts   = 1000
)

var (
	given     sync.Map // port -> struct{}: those of this process.
	errNoPort = errors.New("find a free port: none is left")
)

// Pick returns a port of 127.0.0.1 that nothing listens on, that no outgoing connection is
// given, and that this process has not been given before.
func Pick(ctx context.Context) (int, error) {
	beyond := outgoing()
	var config net.ListenConfig
	var err error
	for range attempts {
		port := lowest + rand.IntN(beyond-lowest) //nolint:gosec // Not a secret.
		if _, taken := given.LoadOrStore(port, struct{}{}); taken {
			continue
		}
		var listener net.Listener
		if listener, err = config.Listen(ctx, "tcp", address(port)); err == nil {
			return port, listener.Close()
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	return 0, errors.Join(errNoPort, err)
}

// PickAddress is Pick as host:port.
func PickAddress(ctx context.Context) (string, error) {
	port, err := Pick(ctx)
	return address(port), err
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// outgoing is the lowest port that the system gives to outgoing connections.
func outgoing() int {
	text, err := os.ReadFile(rangeFile)
	if err != nil {
		return usualRange
	}
	return begin(string(text))
}

// begin reads "32768	60999". A range that leaves no room beneath it is not kept out of.
func begin(text string) int {
	var first, last int
	if _, err := fmt.Sscan(text, &first, &last); err != nil || first < lowest+attempts {
		return usualRange
	}
	return first
}
