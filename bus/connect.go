package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/dbmazz/dbmazz/internal/tlsfiles"
)

// connect opens the connection, once; from then on it reconnects by itself for ever.
func (b *Bus) connect() error {
	var options []nats.Option
	var err error
	url, remedy := "", ""
	where := servers{}
	switch {
	case b.server != nil:
		options = append(options, nats.InProcessServer(b.server), keyOption(b.server.key))
		where.hosts = []string{"the embedded NATS server"}
	case b.cfg.Attach:
		key, err := folderKey(b.cfg.DataDir, false)
		if errors.Is(err, fs.ErrNotExist) {
			return &ConnectError{Server: b.cfg.DataDir, Err: err, Remedy: remedyAttach}
		}
		if err != nil {
			return err
		}
		options = append(options, nats.InProcessServer(attachment{b.cfg.DataDir}), keyOption(key))
		where.hosts, remedy = []string{filepath.Join(b.cfg.DataDir, SocketFile)}, remedyAttach
	default:
		if options, where, err = b.cfg.remote(); err != nil {
			return err
		}
		url, remedy = b.cfg.URL, remedyURL
		options = append(options, nats.SetCustomDialer(&b.link.dialer), nats.PingInterval(clientPing))
	}
	options = append(options, b.reconnecting(where)...)
	b.link.dialer.reset()
	if b.nc, err = nats.Connect(url, options...); err != nil {
		if errors.Is(err, nats.ErrNoServers) {
			err = errors.Join(err, b.link.dialer.last())
		}
		if !b.local() && (errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired)) {
			remedy = remedyAuth
		}
		if better := tlsfiles.Remedy(err, settings); better != "" && !b.local() {
			remedy = better
		}
		return &ConnectError{Server: where.String(), Err: where.redacted(err), Remedy: remedy}
	}
	if b.js, err = jetstream.New(b.nc); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	return nil
}

const (
	remedyAttach = "start the process that has the data folder open first (dbmazz capture), under the same user"
	remedyAuth   = "the server does not let this client in: set BUS_NKEY_FILE (for a dbmazz process that listens, to a copy of its BUS_DATA_DIR/" + KeyFile + "), or BUS_CREDS_FILE, or BUS_USER and BUS_PASSWORD"
	remedyURL    = "check BUS_URL, that the server runs and takes this client's credentials and certificates"

	// clientPing and two of them unanswered end a connection that nothing comes
	// from. Shorter would end slow ones: a pong waits behind what is fetched.
	clientPing     = 10 * time.Second
	connectTimeout = 5 * time.Second
)

func keyOption(key nkeys.KeyPair) nats.Option {
	public, err := key.PublicKey()
	if err != nil {
		return func(*nats.Options) error { return err }
	}
	return nats.Nkey(public, key.Sign)
}

// remote returns the options for the servers of the URL.
func (c *Config) remote() ([]nats.Option, servers, error) {
	where, err := parseServers(c.URL)
	if err != nil {
		return nil, where, err
	}
	auth, err := c.Auth.options()
	if err != nil {
		return nil, where, err
	}
	files, err := c.TLS.options(c.Logger)
	return append(auth, files...), where, err
}

// reconnecting returns the options that keep the connection for ever and say what
// becomes of it.
func (b *Bus) reconnecting(where servers) []nats.Option {
	return []nats.Option{
		nats.Name("dbmazz " + b.cfg.Pipeline),
		nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		// A key that is refused may be put right while we wait.
		nats.IgnoreAuthErrorAbort(),
		// What is published while there is no connection is an error at once;
		// the publisher sends it again in order.
		nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.log.Warn("nats connection", "err", where.redacted(err))
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("connection to the bus is lost", "server", where.String(), "err", where.redacted(err))
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil && b.link.news(err.Error()) {
				b.log.Warn("bus is not reachable", "server", where.String(), "err", where.redacted(err), "remedy", tlsfiles.Remedy(err, settings))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			b.link.news("")
			b.log.Info("connected to the bus again", "server", nc.ConnectedAddr())
		}),
	}
}

// link is what is remembered about the connection to somebody else's server.
type link struct {
	dialer dialer

	mu       sync.Mutex
	trouble  string
	received uint64
	since    time.Time
}

// news reports whether the trouble is another than before.
func (l *link) news(trouble string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := l.trouble != trouble
	l.trouble = trouble
	return changed
}

// check is called when an answer is overdue. If nothing at all has come over the
// connection since it was called before, at least the patience ago, it connects again:
// to another server, if there are several.
func (l *link) check(nc *nats.Conn, patience time.Duration) {
	received := nc.Stats().InBytes
	l.mu.Lock()
	silent := !l.since.IsZero() && received == l.received && time.Since(l.since) >= patience
	if silent || received != l.received || l.since.IsZero() || time.Since(l.since) > 10*patience {
		l.received, l.since = received, time.Now()
	}
	l.mu.Unlock()
	if silent && nc.IsConnected() {
		_ = nc.ForceReconnect() // Fails only if the connection is closed.
	}
}

// dialer remembers why a server could not be reached: the client forgets it.
type dialer struct {
	mu  sync.Mutex
	err error
}

func (d *dialer) reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = nil
}

func (d *dialer) last() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: connectTimeout, KeepAlive: 15 * time.Second}).Dial(network, address)
	if err != nil {
		d.mu.Lock()
		d.err = err
		d.mu.Unlock()
	}
	return conn, err
}
