package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// coalescing reads as capture does: it lets the socket fill up between reads. docs/adr/0021 has the reasons and the
// numbers.
type coalescing struct {
	file *os.File // keeps the descriptor open
	fd   int
}

// newCoalescing takes the descriptor of a connection for reads that block, outside of the runtime's poller.
func newCoalescing(conn net.Conn) (coalescer, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return plain{conn}, nil
	}
	file, err := tcp.File()
	if err != nil {
		return nil, fmt.Errorf("copy the connection: %w", err)
	}
	fd := int(file.Fd())
	err = errors.Join(unix.SetNonblock(fd, false), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 256<<10))
	if err != nil {
		return nil, fmt.Errorf("set up the connection: %w", err)
	}
	return &coalescing{file: file, fd: fd}, nil
}

func (c *coalescing) inside() int {
	n, err := unix.IoctlGetInt(c.fd, unix.SIOCINQ)
	if err != nil {
		return 0
	}
	return n
}

// nap implements coalescer.
func (c *coalescing) nap(message int) {
	const tick = time.Millisecond
	if message >= 2<<10 {
		sleep(tick)
		return
	}
	if c.inside() >= 64<<10 {
		return
	}
	last, still := 0, 0
	for took := time.Duration(0); took < 40*time.Millisecond; took += tick {
		sleep(tick)
		n := c.inside()
		if n > last {
			last, still = n, 0
		} else {
			still++
		}
		switch {
		case n >= 16<<10 && still >= 2:
			sleep(20 * time.Millisecond)
			return
		case took >= 5*time.Millisecond && n < 16<<10:
			return
		}
	}
}

// sleep has the thread sleep: a timer would wake another one.
func sleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // A signal ends it early.
}

// Read implements io.Reader; it waits as long as nothing comes.
func (c *coalescing) Read(p []byte) (int, error) {
	for {
		n, err := syscall.Read(c.fd, p)
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
