package capture

import (
	"net"
	"syscall"
	"time"

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
	tcp, _, ok := plain(conn)
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
// nap. Linux makes it half of the receive buffer at most.
const napLowWater = 1 << 20

const (
	// nearRTT is the round trip up to which a server is near.
	nearRTT = time.Millisecond
	// nearBuffer is the receive buffer for a near server, which Linux doubles for what
	// packets take besides their bytes. It must hold several segments: they have 64 KiB on
	// a loopback, and a window that never has room for one lets nothing through.
	nearBuffer = 256 << 10
)

// plain returns the TCP connection, which may be beneath TLS.
func plain(conn net.Conn) (c *net.TCPConn, tls, ok bool) {
	t, tls := conn.(interface{ NetConn() net.Conn })
	if tls {
		conn = t.NetConn()
	}
	c, ok = conn.(*net.TCPConn)
	return c, tls, ok
}

// narrow gives the connection a receive buffer of a fixed size if the server is near, where
// the rate does not depend on how much may be under way. The buffer of others grows as the
// system sees fit.
func narrow(conn net.Conn) (done bool) {
	tcp, _, ok := plain(conn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { // It only costs time.
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil && time.Duration(info.Min_rtt)*time.Microsecond <= nearRTT {
			done = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, nearBuffer) == nil
		}
	})
	return done
}

// insideBytes returns a function that tells how much a connection has received and not
// read yet, nil if that is not known. records tells that it is beneath TLS.
func insideBytes(conn net.Conn) (inside func() int, records bool) {
	tcp, records, ok := plain(conn)
	if !ok {
		return nil, false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil, false
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
	}, records
}

// quieten returns a function that switches wake-ups of a connection off and on. Without
// it the runtime's poller wakes for every packet, nap or not.
func quieten(conn net.Conn) func(on bool) {
	tcp, _, ok := plain(conn)
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
