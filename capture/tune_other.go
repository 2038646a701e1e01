//go:build !linux

package capture

import "net"

// tuneSocket leaves the system's defaults.
func tuneSocket(net.Conn) {}
