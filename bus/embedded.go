package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// embedded is the server inside the process. Its own process reaches it through a pipe
// in memory, others of the host through a socket in the folder, and with Config.Listen
// other hosts over TCP; all with the folder's key. It can be replaced by a fresh one
// over the same files while the connections reconnect; the server remembers a write
// error (a full disk) for ever, so that is the only way out of one.
type embedded struct {
	folder  string
	listen  string
	tls     *tls.Config
	key     nkeys.KeyPair
	log     *slog.Logger
	lock    *os.File
	socket  *socket
	watcher sync.WaitGroup

	mu      sync.Mutex
	srv     *server.Server
	closed  bool
	started time.Time
}

var errServerDown = errors.New("embedded NATS server is not running")

// startEmbedded locks the folder and starts the server.
func startEmbedded(ctx context.Context, cfg *Config, log *slog.Logger) (*embedded, error) {
	lock, err := lockFolder(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	e := &embedded{folder: cfg.DataDir, listen: cfg.Listen, log: log, lock: lock}
	if err := e.open(ctx, cfg); err != nil {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return nil, errors.Join(err, e.stop(bounded))
	}
	return e, nil
}

func (e *embedded) open(ctx context.Context, cfg *Config) error {
	var err error
	if e.key, err = folderKey(cfg.DataDir, true); err != nil {
		return err
	}
	if e.tls, err = cfg.ListenTLS.listener(e.log); err != nil {
		return err
	}
	e.mu.Lock()
	err = e.start(ctx)
	e.mu.Unlock()
	if err != nil {
		return err
	}
	e.socket, err = serveSocket(cfg.DataDir, e.InProcessConn, e.log)
	return err
}

// Limits of the embedded server. A pipeline has a handful of clients.
const (
	maxConnections = 256
	pingInterval   = 30 * time.Second
	// writeDeadline is how long a client may take nothing before it is cut off;
	// what waits for it is bounded by its own pull requests.
	writeDeadline = 60 * time.Second
	stopTimeout   = 10 * time.Second
)

func (e *embedded) options(ctx context.Context) (*server.Options, error) {
	public, err := e.key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("use key of data folder: %w", err)
	}
	options := &server.Options{
		ServerName:             "dbmazz",
		DontListen:             e.listen == "",
		Nkeys:                  []*server.NkeyUser{{Nkey: public}},
		JetStream:              true,
		StoreDir:               filepath.Join(e.folder, "nats"),
		SyncAlways:             true,
		NoSigs:                 true,
		MaxConn:                maxConnections,
		MaxPayload:             MaxPayload,
		PingInterval:           pingInterval,
		WriteDeadline:          writeDeadline,
		JetStreamMaxMemory:     64 << 20, // the live board and consumers of watches; the rest is on disk
		JetStreamMaxStore:      1 << 60,  // MaxBytes of the stream is the limit
		DisableJetStreamBanner: true,
	}
	if e.listen == "" {
		return options, nil
	}
	host, port, err := net.SplitHostPort(e.listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", e.listen, err)
	}
	if options.Port, err = net.DefaultResolver.LookupPort(ctx, "tcp", port); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", e.listen, err)
	}
	if options.Port == 0 {
		options.Port = server.RANDOM_PORT
	}
	options.Host = orDefault(host, "0.0.0.0")
	if e.tls != nil {
		options.TLS, options.TLSConfig, options.TLSVerify = true, e.tls, e.tls.ClientCAs != nil
		options.TLSTimeout = 10 // seconds
	}
	return options, nil
}

// start runs a new server; the caller holds mu.
func (e *embedded) start(ctx context.Context) error {
	options, err := e.options(ctx)
	if err != nil {
		return err
	}
	removed, err := removeHalfMade(options.StoreDir)
	if err != nil {
		return fmt.Errorf("start embedded NATS server: %w", err)
	}
	if len(removed) > 0 {
		e.log.WarnContext(ctx, "streams whose creation was cut short are made again", "streams", removed)
	}
	srv, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("configure embedded NATS server: %w", err)
	}
	fatal := make(chan error, 1)
	srv.SetLoggerV2(serverLog{log: e.log, fatal: fatal}, false, false, false)
	go srv.Start()
	if err := e.awaitReady(ctx, srv, fatal); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return err
	}
	if addr := srv.Addr(); addr != nil && e.listen != "" {
		// A port that was left to the system stays the same over a restart.
		e.listen = addr.String()
	}
	e.srv, e.started = srv, time.Now()
	return nil
}

func (e *embedded) awaitReady(ctx context.Context, srv *server.Server, fatal <-chan error) error {
	begun := time.Now()
	for !srv.ReadyForConnections(50*time.Millisecond) || !srv.JetStreamEnabled() {
		select {
		case err := <-fatal:
			if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EACCES) {
				return fmt.Errorf("listen on %s: %w: choose another BUS_LISTEN, or stop the program that uses it", e.listen, err)
			}
			return fmt.Errorf("start embedded NATS server in %s: %w", e.folder, err)
		case <-ctx.Done():
			return fmt.Errorf("start embedded NATS server in %s: %w", e.folder, ctx.Err())
		default:
		}
		if time.Since(begun) > startTimeout {
			return fmt.Errorf("start embedded NATS server in %s: not ready within %s; see its messages in the log", e.folder, startTimeout)
		}
	}
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
		end(ctx, old)
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
	h := srv.Healthz(nil)
	// A server that is only busy is not ready within the millisecond that it is given.
	if h.Error == "" || strings.Contains(h.Error, "ready for connections") {
		return nil
	}
	return errors.New(h.Error)
}

// watch looks after the server until done is closed: with nothing but clients of other
// processes, nobody here would notice that it has stopped answering.
func (e *embedded) watch(done <-chan struct{}) {
	e.watcher.Go(func() {
		ticker := time.NewTicker(watchInterval)
		defer ticker.Stop()
		var before error
		for {
			select {
			case <-ticker.C:
			case <-done:
				return
			}
			problem := e.healthError()
			// Once may be a stream that is just being made or deleted.
			if problem != nil && before != nil {
				ctx, cancel := context.WithTimeout(context.Background(), startTimeout) //nolint:forbidigo // The server outlives its callers.
				stop := afterDone(done, cancel)
				if err := e.restart(ctx, watchInterval, problem.Error()); err != nil {
					e.log.WarnContext(ctx, "embedded server is not restarted", "err", err)
				}
				stop()
				cancel()
			}
			before = problem
		}
	})
}

const watchInterval = 10 * time.Second

// afterDone calls cancel when done is closed, unless stop is called before.
func afterDone(done <-chan struct{}, cancel func()) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		select {
		case <-done:
			cancel()
		case <-stopped:
		}
	}()
	return sync.OnceFunc(func() { close(stopped) })
}

// stop ends the server, waiting for its files to be closed until ctx is done.
func (e *embedded) stop(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		e.socket.close()
		e.watcher.Wait()
		e.mu.Lock()
		defer e.mu.Unlock()
		e.closed = true
		if e.srv != nil {
			end(ctx, e.srv)
			e.srv = nil
		}
		done <- errors.Join(e.socket.remove(), e.lock.Close())
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("stop embedded NATS server: %w", ctx.Err())
	}
}

// end stops a server once it has carried out what it was asked for. A stream that it
// creates while it is being stopped it forgets: that stream's store would stay open and
// write its index into a folder that the next server has taken by then.
func end(ctx context.Context, srv *server.Server) {
	if clients, err := srv.Connz(&server.ConnzOptions{Limit: maxConnections}); err == nil {
		for _, c := range clients.Conns {
			_ = srv.DisconnectClientByID(c.Cid) // The error says that it has gone by itself.
		}
	}
	patience, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for patience.Err() == nil {
		// A server that has given up its streams has nothing under way.
		if js, err := srv.Jsz(nil); err != nil || js.Disabled || js.API.Inflight == 0 {
			break
		}
		select {
		case <-ticker.C:
		case <-patience.Done():
		}
	}
	srv.Shutdown()
	srv.WaitForShutdown()
}

// endPatience bounds the wait for requests: a broken server is stopped all the same.
const endPatience = 3 * time.Second

// serverLog hands the server's messages to slog. Its notices are about its start.
type serverLog struct {
	log   *slog.Logger
	fatal chan<- error // the first fatal message
}

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
func (l serverLog) Fatalf(format string, v ...any) {
	err := fmt.Errorf(format, v...) //nolint:err113 // The server's own words.
	for _, arg := range v {
		if cause, ok := arg.(error); ok {
			err = cause
		}
	}
	select {
	case l.fatal <- err:
	default:
	}
}

// Errorf implements server.Logger.
func (l serverLog) Errorf(format string, v ...any) { l.emit(slog.LevelError, format, v) }

// Debugf implements server.Logger.
func (l serverLog) Debugf(string, ...any) {}

// Tracef implements server.Logger.
func (l serverLog) Tracef(string, ...any) {}
