package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// coalescing returns a reader of the connection that wakes once much has come in, or after a few milliseconds.
func coalescing(conn net.Conn) (io.Reader, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	// A copy of the descriptor for reads that block, outside of the runtime's poller.
	file, err := tcp.File()
	if err != nil {
		return nil, fmt.Errorf("copy the connection: %w", err)
	}
	fd := int(file.Fd())
	const lowWater, waitMicroseconds = 256 << 10, 5000
	err = errors.Join(
		unix.SetNonblock(fd, false),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, lowWater),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: waitMicroseconds}),
	)
	if err != nil {
		return nil, fmt.Errorf("set up the connection: %w", err)
	}
	return &blocking{file: file, fd: fd}, nil
}

// blocking reads from a descriptor that blocks.
type blocking struct {
	file *os.File // keeps the descriptor open
	fd   int
}

// Read implements io.Reader; it waits as long as nothing comes.
func (b *blocking) Read(p []byte) (int, error) {
	for {
		n, err := syscall.Read(b.fd, p)
		switch {
		case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
