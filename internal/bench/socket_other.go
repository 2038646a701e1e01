//go:build !linux

package main

import "net"

func newCoalescing(conn net.Conn) (coalescer, error) { return plain{conn}, nil }
