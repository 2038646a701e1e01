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
