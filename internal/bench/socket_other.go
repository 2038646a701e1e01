//go:build !linux

package main

import (
	"io"
	"net"
)

func coalescing(conn net.Conn) (io.Reader, error) { return conn, nil }
