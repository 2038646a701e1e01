package starrockstest

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// Part is one listener of the stand-in.
type Part string

// The listeners.
const (
	PartFE    Part = "fe"
	PartBE    Part = "be"
	PartMySQL Part = "mysql"
	PartAdmin Part = "admin"
)

var dataParts = []Part{PartFE, PartBE, PartMySQL}

// Server is a stand-in for a StarRocks cluster of one front end and one back end.
type Server struct {
	opts   Options
	ver    version
	store  *store
	faults *faultScript
	ready  chan struct{}
	stop   chan struct{}
	// running counts the requests for loads that are under way.
	running gauge

	mu      sync.Mutex
	parts   map[Part]*endpoint
	serving sync.WaitGroup
	closing bool
}

// New checks the options and makes a server that does not listen yet.
func New(opts Options) (*Server, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("set up stand-in: %w", err)
	}
	v, err := parseVersion(opts.Version)
	if err != nil {
		return nil, fmt.Errorf("set up stand-in: %w", err)
	}
	s := &Server{
		opts: opts, ver: v, store: newStore(opts, v), faults: newFaultScript(),
		ready: make(chan struct{}), stop: make(chan struct{}), parts: make(map[Part]*endpoint),
	}
	s.parts[PartFE] = &endpoint{addr: opts.FEHTTP, handler: &frontEnd{srv: s}}
	s.parts[PartBE] = &endpoint{addr: opts.BEHTTP, handler: &backEnd{srv: s}}
	s.parts[PartAdmin] = &endpoint{addr: opts.Admin, handler: s.adminHandler()}
	s.parts[PartMySQL] = &endpoint{addr: opts.MySQL, mysql: s.serveMySQL}
	return s, nil
}

// Start runs a server for the length of a test.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	s, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
	case err := <-done:
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop stand-in: %v", err)
		}
	})
	return s
}

// Run replays the data folder if there is one, listens, and serves until ctx is done. It may be called once.
func (s *Server) Run(ctx context.Context) (err error) {
	if s.opts.Data != "" {
		if err := s.store.openLog(s.opts.Data); err != nil {
			return fmt.Errorf("run stand-in: %w", err)
		}
		defer func() { err = errors.Join(err, s.store.closeLog()) }()
	}
	defer s.serving.Wait()
	defer close(s.stop)
	defer s.shut()
	if err := s.Up(PartFE, PartBE, PartMySQL, PartAdmin); err != nil {
		return fmt.Errorf("run stand-in: %w", err)
	}
	s.store.setAddresses(s.FEHTTP(), s.bePublic(), s.MySQL())
	close(s.ready)
	<-ctx.Done()
	return nil
}

// Ready is closed once all listeners accept connections.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// FEHTTP is the address of the front end's HTTP listener.
func (s *Server) FEHTTP() string { return s.address(PartFE) }

// BEHTTP is the address of the back end's HTTP listener.
func (s *Server) BEHTTP() string { return s.address(PartBE) }

// bePublic is the address that clients are told for the back end.
func (s *Server) bePublic() string {
	if s.opts.BEPublic != "" {
		return s.opts.BEPublic
	}
	return s.BEHTTP()
}

// MySQL is the address of the MySQL protocol listener.
func (s *Server) MySQL() string { return s.address(PartMySQL) }

// Admin is the address of the listener for faults and figures.
func (s *Server) Admin() string { return s.address(PartAdmin) }

func (s *Server) address(p Part) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts[p].addr
}

// Up opens listeners that are closed, on the ports they had. Without arguments it opens all but the admin port.
func (s *Server) Up(parts ...Part) error {
	if len(parts) == 0 {
		parts = dataParts
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil
	}
	for _, p := range parts {
		e, ok := s.parts[p]
		if !ok {
			return fmt.Errorf("open listener: unknown part %q", p)
		}
		if err := e.open(&s.serving); err != nil {
			return fmt.Errorf("open %s listener: %w", p, err)
		}
	}
	return nil
}

// shut closes everything for good.
func (s *Server) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for _, e := range s.parts {
		e.close()
	}
}

// Down closes listeners and their connections; loads in flight go on to their end. Without arguments it closes all
// but the admin port.
func (s *Server) Down(parts ...Part) {
	if len(parts) == 0 {
		parts = dataParts
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts {
		if e, ok := s.parts[p]; ok {
			e.close()
		}
	}
}

// bounce closes a part and opens it again after d; zero leaves it closed.
func (s *Server) bounce(p Part, d time.Duration) {
	s.serving.Go(func() {
		s.Down(p)
		if d <= 0 {
			return
		}
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.stop:
			return
		}
		if err := s.Up(p); err != nil {
			s.opts.Logger.Error("reopen listener", "part", string(p), "err", err)
		}
	})
}

// pause waits for d, or until the request or the server ends.
func (s *Server) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-s.stop:
	}
}

// hold waits for d, or with zero until the gate opens, or until the server ends. It outlives the client on purpose.
func (s *Server) hold(d time.Duration, gate <-chan struct{}) {
	if d > 0 {
		s.pause(context.Background(), d)
		return
	}
	select {
	case <-gate:
	case <-s.stop:
	}
}

func (s *Server) checkPassword(user, password string) bool {
	okUser := subtle.ConstantTimeCompare([]byte(accountName(user)), []byte(s.opts.User))
	okPassword := subtle.ConstantTimeCompare([]byte(password), []byte(s.opts.Password))
	return okUser&okPassword == 1
}

// endpoint is one listener with what serves it.
type endpoint struct {
	addr    string
	handler httpHandler
	mysql   func(net.Listener, *connSet)
	closer  func()
}

func (e *endpoint) open(serving *sync.WaitGroup) error {
	if e.closer != nil {
		return nil
	}
	ln, err := listen(e.addr)
	if err != nil {
		return err
	}
	e.addr = ln.Addr().String()
	serving.Add(1)
	if e.mysql != nil {
		conns := newConnSet()
		e.closer = func() {
			_ = ln.Close()
			conns.closeAll()
		}
		go func() {
			defer serving.Done()
			e.mysql(ln, conns)
		}()
		return nil
	}
	server := newHTTPServer(e.handler)
	e.closer = func() { _ = server.Close() }
	go func() {
		defer serving.Done()
		_ = server.Serve(ln) // Always returns an error, of the closing above.
	}()
	return nil
}

func (e *endpoint) close() {
	if e.closer != nil {
		e.closer()
		e.closer = nil
	}
}
