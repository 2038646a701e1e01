package api

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// limitListener closes connections above the limit at once, so that those who are
// connected go on undisturbed and the others get an error instead of silence.
type limitListener struct {
	net.Listener
	limit int64
	open  atomic.Int64
	log   *slog.Logger
	quiet throttle
}

func newLimitListener(listener net.Listener, limit int, log *slog.Logger) *limitListener {
	return &limitListener{Listener: listener, limit: int64(limit), log: log}
}

// Accept returns the next connection within the limit.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) <= l.limit {
			return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		_ = conn.Close() // Nothing was said on it yet.
		if l.quiet.allow(time.Now()) {
			l.log.Warn("connection refused, since too many are open", "connections_max", l.limit)
		}
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

// Close closes the connection and makes room for another one.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// throttle lets one log line through per interval, since others decide how often the
// cause happens.
type throttle struct{ last atomic.Int64 }

const throttleInterval = 10 * time.Second

func (t *throttle) allow(now time.Time) bool {
	last := t.last.Load()
	return (last == 0 || now.UnixNano()-last >= int64(throttleInterval)) && t.last.CompareAndSwap(last, now.UnixNano())
}
