package capture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/dbmazz/dbmazz/internal/tlsfiles"
)

// source connects to the server: for SQL, on one connection that is kept, and for
// replication, on a new one each time.
type source struct {
	cfg *Config
	// epoch is that of the stream that this capture publishes to.
	epoch func() string
	addr  string
	turn  chan struct{} // holds one token: the right to use conn
	conn  *pgx.Conn

	mu      sync.Mutex
	sql     *pgx.ConnConfig // of the last connection
	problem string          // with the files that the URL names
}

func newSource(cfg *Config, epoch func() string) (*source, error) {
	sql, err := parseSource(cfg)
	if err != nil {
		// The error may quote parts of the URL, the password among them.
		return nil, errors.New("source URL is not a valid PostgreSQL connection URL: want postgres://user:password@host:5432/database, with special characters in user and password percent-encoded")
	}
	s := &source{cfg: cfg, epoch: epoch, sql: sql, addr: hosts(&sql.Config), turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s, nil
}

func parseSource(cfg *Config) (*pgx.ConnConfig, error) {
	sql, err := pgx.ParseConfig(cfg.SourceURL)
	if err != nil {
		return nil, err
	}
	if sql.ConnectTimeout == 0 {
		sql.ConnectTimeout = cfg.ConnectTimeout
	}
	sql.DialFunc = dial
	delete(sql.RuntimeParams, "replication")
	return sql, nil
}

// config is that of the next connection. The files that the URL names (sslrootcert,
// sslcert, sslkey, the password file) are read again each time; while they cannot be used,
// as in the middle of a renewal, what was read before is.
func (s *source) config() *pgx.ConnConfig {
	s.mu.Lock()
	defer s.mu.Unlock()
	sql, err := parseSource(s.cfg)
	problem := ""
	if err == nil {
		s.sql = sql
	} else {
		// The whole error may quote parts of the URL.
		problem = "a file that it names cannot be used"
		if file, ok := errors.AsType[*fs.PathError](err); ok {
			problem = file.Error()
		}
	}
	if problem != s.problem && problem != "" {
		s.cfg.Logger.Warn("changed files of the source url cannot be used, the previous ones stay in use", "err", problem)
	}
	s.problem = problem
	return s.sql.Copy()
}

// dial opens a connection that notices a dead peer by itself: nothing above it may set
// deadlines while it waits for changes.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 6}}
	conn, err := d.DialContext(ctx, network, addr)
	if err == nil {
		tuneSocket(conn)
	}
	return conn, err
}

// hosts prints where a configuration leads to, without user and password.
func hosts(c *pgconn.Config) string {
	list := []string{hostPort(c.Host, c.Port)}
	for _, f := range c.Fallbacks {
		if h := hostPort(f.Host, f.Port); !slices.Contains(list, h) {
			list = append(list, h)
		}
	}
	return strings.Join(list, ",")
}

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// settings fix the text form of values, which is the form they travel in, and the
// meaning of the texts that are sent, whatever the server's, database's or role's
// defaults are.
var settings = map[string]string{
	"client_encoding":    "UTF8",
	"DateStyle":          "ISO, YMD",
	"IntervalStyle":      "postgres",
	"TimeZone":           "UTC",
	"extra_float_digits": "3",
	"bytea_output":       "hex",
	"lc_monetary":        "C",
	// regclass and its like print names with their schema then, which say the same
	// everywhere. The names of types in a schema's description are made here too.
	"search_path":           "pg_catalog",
	"quote_all_identifiers": "off",
	// Keys and conditions of publications are sent back to the server.
	"standard_conforming_strings": "on",
	"array_nulls":                 "on",
	"transform_null_equals":       "off",
}

// untimed are the limits of time that no connection has: a role's default could end a long
// decode or copy with them, or a transaction of a few statements on a busy machine. Not
// every version has all of them.
var untimed = map[string]string{"idle_session_timeout": "0", "idle_in_transaction_session_timeout": "0", "transaction_timeout": "0"}

// unhurried is for connections whose statements last.
var unhurried = map[string]string{"statement_timeout": "0"}

// connectSQL opens a connection for statements.
func (s *source) connectSQL(ctx context.Context) (*pgx.Conn, error) {
	cfg := s.config()
	maps.Copy(cfg.RuntimeParams, settings)
	maps.Copy(cfg.RuntimeParams, map[string]string{
		"application_name":  applicationName(s.epoch(), s.cfg.Slot, s.cfg.Instance),
		"statement_timeout": strconv.FormatInt(s.cfg.StatementTimeout.Milliseconds(), 10),
		"lock_timeout":      strconv.FormatInt(s.cfg.LockTimeout.Milliseconds(), 10),
	})
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, s.connectError(err)
	}
	return conn, s.pin(ctx, conn.PgConn(), nil)
}

// connectCopy opens a connection to read tables, which prints values as the stream does.
func (s *source) connectCopy(ctx context.Context) (*pgx.Conn, error) {
	cfg := s.config()
	maps.Copy(cfg.RuntimeParams, settings)
	maps.Copy(cfg.RuntimeParams, map[string]string{
		"application_name":  applicationName(s.epoch(), s.cfg.Slot, s.cfg.Instance),
		"statement_timeout": "0",
		"lock_timeout":      strconv.FormatInt(s.cfg.LockTimeout.Milliseconds(), 10),
		// An error is better than rows that are missing.
		"row_security": "off",
		// The index of the key gives the rows in order at a cost per row that stays
		// the same, however large the table is.
		"enable_sort": "off", "jit": "off", "max_parallel_workers_per_gather": "0",
	})
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, s.connectError(err)
	}
	return conn, s.pin(ctx, conn.PgConn(), unhurried)
}

// connectReplication opens a connection that speaks the replication protocol.
func (s *source) connectReplication(ctx context.Context) (*pgconn.PgConn, error) {
	cfg := &s.config().Config
	maps.Copy(cfg.RuntimeParams, settings)
	maps.Copy(cfg.RuntimeParams, map[string]string{
		"application_name": applicationName(s.epoch(), s.cfg.Slot, s.cfg.Instance), "replication": "database", "statement_timeout": "0",
	})
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, s.connectError(err)
	}
	return conn, s.pin(ctx, conn, unhurried)
}

// noEncoding is a database whose bytes mean nothing to the server, which converts none.
const noEncoding = "SQL_ASCII"

// pin makes the settings those that are wanted, and more of them, as far as the server
// has them. The connection has asked for most of them when it began, but a login event
// trigger comes after that. On an error the connection is closed.
//
// The bytes of an SQL_ASCII database are taken as they are. As UTF-8 the server would
// check them and end the stream at the first row with others, with nothing to say which;
// the sink names it.
func (s *source) pin(ctx context.Context, conn *pgconn.PgConn, more map[string]string) error {
	wanted := maps.Clone(settings)
	maps.Copy(wanted, untimed)
	maps.Copy(wanted, more)
	if conn.ParameterStatus("server_encoding") == noEncoding {
		wanted["client_encoding"] = noEncoding
	}
	values := make([]string, 0, len(wanted))
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		values = append(values, "('"+name+"', '"+wanted[name]+"')")
	}
	_, err := conn.Exec(ctx, "SELECT pg_catalog.set_config(w.name, w.value, false) FROM (VALUES "+strings.Join(values, ", ")+
		") w (name, value) JOIN pg_catalog.pg_settings s ON s.name OPERATOR(pg_catalog.=) w.name").ReadAll()
	if err == nil {
		return nil
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(closing) // It is given up whatever Close says.
	return fmt.Errorf("fix the settings of the session: %w", err)
}

// connectError says where connecting failed and why, never with which password.
func (s *source) connectError(err error) error {
	cause := oneLine(err)
	if connErr, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		if _, isServer := errors.AsType[*pgconn.PgError](err); !isServer && connErr.Unwrap() != nil {
			cause = oneLine(connErr.Unwrap())
		}
	}
	if remedy := tlsfiles.Remedy(err, settingsOfURL); remedy != "" {
		cause += ": " + remedy
	}
	return setupProblem("PostgreSQL connection failed to '%s': %s", s.addr, cause)
}

// settingsOfURL name what an operator sets about TLS to the source.
var settingsOfURL = tlsfiles.Settings{Address: "SOURCE_URL", CA: "sslrootcert of SOURCE_URL", Cert: "sslcert and sslkey of SOURCE_URL"}

// with runs f with the connection that is kept, which it opens when needed. After an
// error the connection is closed, so that the next use starts afresh.
func (s *source) with(ctx context.Context, f func(*pgx.Conn) error) error {
	select {
	case <-s.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.turn <- struct{}{} }()
	if s.conn != nil && s.conn.IsClosed() {
		s.conn = nil
	}
	if s.conn == nil {
		conn, err := s.connectSQL(ctx)
		if err != nil {
			return err
		}
		s.conn = conn
	}
	err := f(s.conn)
	if err != nil {
		s.drop(ctx)
	}
	return err
}

// close closes the connection that is kept, when nobody uses it any more.
func (s *source) close(ctx context.Context) {
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	if s.conn != nil {
		s.drop(ctx)
	}
}

func (s *source) drop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // It is given up whatever Close says.
	s.conn = nil
}
