package bus

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// SocketFile is the name of the socket in the data folder through which other processes
// of the host reach its server.
const SocketFile = "bus.sock"

// acceptPause is the wait after a connection could not be accepted.
const acceptPause = 100 * time.Millisecond

// socket serves connections of other processes. Each is a pipe into the server, so the
// server's own rules hold: who connects must have the key of the folder.
type socket struct {
	folder   string
	listener *net.UnixListener
	log      *slog.Logger
	open     func() (net.Conn, error)
	running  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	done  bool
}

// serveSocket makes the socket, in place of one that a dead process left. The caller
// holds the folder's lock, so it is nobody else's. open connects to the server of the
// moment.
func serveSocket(folder string, open func() (net.Conn, error), log *slog.Logger) (*socket, error) {
	s := &socket{folder: folder, log: log, open: open, conns: map[net.Conn]struct{}{}}
	// Made under another name and renamed when its mode is right.
	const tmp = SocketFile + ".new"
	if err := os.Remove(filepath.Join(folder, tmp)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("make socket of data folder: %w", err)
	}
	err := inFolder(folder, tmp, func(path string) error {
		var err error
		s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make socket of data folder %s: %w; the folder must be on a local file system that takes sockets", folder, err)
	}
	s.listener.SetUnlinkOnClose(false)
	err = os.Chmod(filepath.Join(folder, tmp), 0o600)
	if err == nil {
		err = os.Rename(filepath.Join(folder, tmp), filepath.Join(folder, SocketFile))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make socket of data folder: %w", err), s.listener.Close())
	}
	s.running.Go(s.accept)
	return s, nil
}

// socketPathMax is less than any system's limit for the address of a socket: 108 bytes
// on Linux, 104 elsewhere.
const socketPathMax = 100

// inFolder calls f with a path of the file that fits into the address of a socket. Where
// the folder's own is too long it is one through its descriptor, which Linux has.
func inFolder(folder, name string, f func(path string) error) error {
	if path := filepath.Join(folder, name); len(path) <= socketPathMax {
		return f(path)
	}
	d, err := os.Open(folder) //nolint:gosec // A configured folder.
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()                                    // Opened to be named only.
	return f("/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + name) //nolint:gosec // A file descriptor.
}

func (s *socket) accept() {
	for {
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			// Too many open files, or a client that gave up: the next may come in.
			s.log.Warn("connection of another process is not accepted", "err", err)
			<-time.After(acceptPause)
			continue
		}
		s.running.Go(func() { s.splice(conn) })
	}
}

// splice moves bytes between the connection and the server until either ends.
func (s *socket) splice(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	inner, err := s.open()
	if err != nil {
		return // The server is being replaced; the client comes again.
	}
	if !s.add(conn, inner) {
		_ = inner.Close()
		return
	}
	defer s.forget(conn, inner)
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(conn, inner) // However it ends, both ends are closed.
		_ = conn.Close()
	})
	_, _ = io.Copy(inner, conn)
	_ = inner.Close()
	back.Wait()
}

func (s *socket) add(conns ...net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return false
	}
	for _, c := range conns {
		s.conns[c] = struct{}{}
	}
	return true
}

func (s *socket) forget(conns ...net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range conns {
		delete(s.conns, c)
	}
}

// close ends the listener and all connections; nil has none.
func (s *socket) close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	s.done = true
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	_ = s.listener.Close()
	s.running.Wait()
}

// remove takes the file away, while the folder's lock is still held.
func (s *socket) remove() error {
	if s == nil {
		return nil
	}
	if err := os.Remove(filepath.Join(s.folder, SocketFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove socket of data folder: %w", err)
	}
	return nil
}

// attachment connects to the server of another process through the folder's socket. It
// is a nats.InProcessConnProvider, which is asked again for every reconnect.
type attachment struct{ folder string }

// InProcessConn implements nats.InProcessConnProvider.
func (a attachment) InProcessConn() (conn net.Conn, err error) {
	err = inFolder(a.folder, SocketFile, func(path string) error {
		conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	return conn, err
}
