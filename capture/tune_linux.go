package capture

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// tuneSocket makes unanswered data, a report for example, break the connection after
// a minute instead of a quarter of an hour. Without it the system's defaults hold.
func tuneSocket(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	const userTimeout = 60_000 // milliseconds
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
	})
}

// unheard reports whether the peer has not acknowledged what was sent, although it was
// sent again.
func unheard(conn net.Conn) bool {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	lost := false
	if raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		lost = err == nil && info.Unacked > 0 && info.Retransmits > 0
	}) != nil {
		return false
	}
	return lost
}

// napLowWater is how much must have come in for the kernel to wake somebody during a
// nap.
const napLowWater = napBytes

// waitingBytes returns a function that tells how much a connection beneath TLS has
// received and not read yet, nil for a connection without TLS.
func waitingBytes(conn net.Conn) func() int {
	t, ok := conn.(interface{ NetConn() net.Conn })
	if !ok {
		return nil
	}
	tcp, ok := t.NetConn().(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	n := 0
	get := func(fd uintptr) {
		var err error
		if n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ); err != nil {
			n = 0
		}
	}
	return func() int {
		if raw.Control(get) != nil {
			return 0
		}
		return n
	}
}

// quieten returns a function that switches wake-ups of a connection off and on. Without
// it the runtime's poller wakes for every packet, nap or not. The low-water mark lets the
// receive buffer grow, too.
func quieten(conn net.Conn) func(on bool) {
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn() // beneath TLS
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return func(bool) {}
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return func(bool) {}
	}
	mark := 1
	set := func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, mark) }
	return func(on bool) {
		mark = 1
		if on {
			mark = napLowWater
		}
		_ = raw.Control(set)
	}
}
