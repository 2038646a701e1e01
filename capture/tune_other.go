//go:build !linux

package capture

import "net"

// tuneSocket leaves the system's defaults.
func tuneSocket(net.Conn) {}

// quieten returns a function that does nothing: a nap is less worth here.
func quieten(net.Conn) func(on bool) { return func(bool) {} }

// unheard tells nothing here.
func unheard(net.Conn) bool { return false }

// insideBytes tells nothing here.
func insideBytes(net.Conn) (inside func() int, records bool) { return nil, false }

// narrow changes nothing here.
func narrow(net.Conn) bool { return false }
