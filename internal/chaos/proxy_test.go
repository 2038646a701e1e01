package chaos_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// condition is what a proxy does to connections.
type condition int

const (
	// passing forwards both directions.
	passing condition = iota
	// slow forwards a little at a time.
	slow
	// halfOpen takes everything and forwards nothing, so that both ends believe in the connection.
	halfOpen
	// cut resets what is open and what is tried.
	cut
)

// proxy stands between dbmazz and a server.
type proxy struct {
	listener net.Listener
	mu       sync.Mutex
	target   string
	how      condition
	changed  chan struct{} // closed when how changes
	open     map[net.Conn]bool
	closed   bool
}

// startProxy listens on a loopback address; it forwards once it has a target.
func startProxy(t *testing.T, host string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, changed: make(chan struct{}), open: map[net.Conn]bool{}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.set(cut)
		serving.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// forward sets the server behind the proxy.
func (p *proxy) forward(target string) *proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
	return p
}

// set changes what happens to connections, those that are open included. Healing a half
// open connection ends it, as a router that has come back does.
func (p *proxy) set(how condition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.how
	p.how = how
	close(p.changed)
	p.changed = make(chan struct{})
	if how == cut || before == halfOpen {
		for conn := range p.open {
			reset(conn)
		}
	}
}

// reset ends a connection without a goodbye.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // It may be closed already.
	}
	_ = conn.Close()
}

func (p *proxy) state() (how condition, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.how, p.changed
}

func (p *proxy) serve(near net.Conn) {
	defer p.forget(near)
	p.mu.Lock()
	how, target, closed := p.how, p.target, p.closed
	p.open[near] = true
	p.mu.Unlock()
	if how == cut || closed {
		reset(near)
		return
	}
	far, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(context.Background(), "tcp", target)
	if err != nil {
		reset(near)
		return
	}
	defer p.forget(far)
	p.mu.Lock()
	p.open[far] = true
	closed = p.closed
	p.mu.Unlock()
	if closed {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(far, near) })
	both.Go(func() { p.pump(near, far) })
	both.Wait()
}

func (p *proxy) forget(conn net.Conn) {
	p.mu.Lock()
	delete(p.open, conn)
	p.mu.Unlock()
	_ = conn.Close()
}

// pump forwards one direction until either end is gone.
func (p *proxy) pump(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		for sent := 0; sent < n; {
			how, changed := p.state()
			switch how {
			case halfOpen:
				<-changed
				continue
			case slow:
				timer := time.NewTimer(2 * time.Millisecond)
				<-timer.C
			default:
			}
			step := n - sent
			if how == slow {
				step = min(step, 2048)
			}
			if _, err := to.Write(buffer[sent : sent+step]); err != nil {
				_ = from.Close()
				return
			}
			sent += step
		}
		if errors.Is(err, io.EOF) {
			if tcp, ok := to.(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // The other direction may go on.
			}
			return
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}
