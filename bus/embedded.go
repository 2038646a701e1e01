package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// embedded is the server inside the process. It has no listener: connections are
// pipes in memory. It can be replaced by a fresh one over the same files while the
// connection of the bus lives on and reconnects; the server remembers a write error
// (a full disk) for ever, so that is the only way out of one.
type embedded struct {
	folder string
	log    *slog.Logger
	lock   *os.File

	mu      sync.Mutex
	srv     *server.Server
	closed  bool
	started time.Time
}

var errServerDown = errors.New("embedded NATS server is not running")

// startEmbedded locks the folder and starts the server.
func startEmbedded(ctx context.Context, folder string, log *slog.Logger) (*embedded, error) {
	lock, err := lockFolder(folder)
	if err != nil {
		return nil, err
	}
	e := &embedded{folder: folder, log: log, lock: lock}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return e, nil
}

// start runs a new server; the caller holds mu.
func (e *embedded) start(ctx context.Context) error {
	srv, err := server.NewServer(&server.Options{
		ServerName:             "dbmazz",
		DontListen:             true,
		JetStream:              true,
		StoreDir:               filepath.Join(e.folder, "nats"),
		SyncAlways:             true,
		NoSigs:                 true,
		MaxPayload:             MaxPayload,
		JetStreamMaxMemory:     64 << 20, // consumers of watches; streams are on disk
		JetStreamMaxStore:      1 << 60,  // MaxBytes of the stream is the limit
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return fmt.Errorf("configure embedded NATS server: %w", err)
	}
	srv.SetLoggerV2(serverLog{e.log}, false, false, false)
	go srv.Start()
	deadline := startTimeout
	if d, ok := ctx.Deadline(); ok {
		deadline = min(deadline, time.Until(d))
	}
	if !srv.ReadyForConnections(deadline) || !srv.JetStreamEnabled() {
		srv.Shutdown()
		srv.WaitForShutdown()
		return fmt.Errorf("start embedded NATS server in %s: not ready within %s; see its messages in the log", e.folder, deadline.Round(time.Millisecond))
	}
	e.srv, e.started = srv, time.Now()
	return nil
}

// startTimeout is generous: after a crash the server reads the whole store.
const startTimeout = 10 * time.Minute

// InProcessConn implements nats.InProcessConnProvider with the server of the moment.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	srv := e.srv
	e.mu.Unlock()
	if srv == nil {
		return nil, errServerDown
	}
	return srv.InProcessConn()
}

// restart replaces a server that has stopped answering. The files are as after a
// crash, which is always safe. A server younger than minAge is left alone, so that
// callers who noticed the same trouble restart it once.
func (e *embedded) restart(ctx context.Context, minAge time.Duration, reason string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	if e.srv != nil && time.Since(e.started) < minAge {
		return nil
	}
	e.log.WarnContext(ctx, "restarting embedded server", "reason", reason)
	if old := e.srv; old != nil {
		e.srv = nil
		old.Shutdown()
		old.WaitForShutdown()
	}
	return e.start(ctx)
}

// healthError returns what the server says is wrong with it.
func (e *embedded) healthError() error {
	e.mu.Lock()
	srv := e.srv
	e.mu.Unlock()
	if srv == nil {
		return errServerDown
	}
	if h := srv.Healthz(nil); h.Error != "" {
		return errors.New(h.Error)
	}
	return nil
}

// stop ends the server, waiting for its files to be closed until ctx is done.
func (e *embedded) stop(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.closed = true
		if e.srv != nil {
			e.srv.Shutdown()
			e.srv.WaitForShutdown()
			e.srv = nil
		}
		done <- e.lock.Close()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("stop embedded NATS server: %w", ctx.Err())
	}
}

// serverLog hands the server's messages to slog. Its notices are about its start.
type serverLog struct{ log *slog.Logger }

func (l serverLog) emit(level slog.Level, format string, args []any) {
	ctx := context.Background() //nolint:forbidigo // The server's logger has no context.
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "nats server", "text", fmt.Sprintf(format, args...))
	}
}

// Noticef implements server.Logger.
func (l serverLog) Noticef(format string, v ...any) { l.emit(slog.LevelDebug, format, v) }

// Warnf implements server.Logger.
func (l serverLog) Warnf(format string, v ...any) { l.emit(slog.LevelWarn, format, v) }

// Fatalf implements server.Logger. It does not end the process; the start fails.
func (l serverLog) Fatalf(format string, v ...any) { l.emit(slog.LevelError, format, v) }

// Errorf implements server.Logger.
func (l serverLog) Errorf(format string, v ...any) { l.emit(slog.LevelError, format, v) }

// Debugf implements server.Logger.
func (l serverLog) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (l serverLog) Tracef(string, ...any) {}
