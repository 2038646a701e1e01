package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/internal/freeport"
)

const (
	superuser = "postgres"
	host      = "127.0.0.1"

	// startAttempts bounds how often Start looks for another port after somebody else took the first one.
	startAttempts = 5
	// readyWithin bounds the wait for a server that neither answers nor exits.
	readyWithin = 60 * time.Second
)

// Options say what server Start starts. The zero value is a server for tests of the default version.
type Options struct {
	// Major is PostgreSQL's major version. Defaults to DefaultMajor.
	Major int
	// DataDir is the data folder, which the caller removes; one that already holds a cluster is used as it is.
	// Defaults to a temporary folder that Close removes.
	DataDir string
	// Port is the TCP port on 127.0.0.1. Defaults to a free one.
	Port int
	// Password is the superuser's; it must be given when DataDir holds a cluster of another process.
	// Defaults to a random one.
	Password string
	// Settings go to postgresql.conf over the package's own: logical WAL and 50 slots and senders.
	Settings map[string]string
	// Fsync makes the server write to disk for certain. Defaults to false: a killed server loses nothing, only a
	// machine that loses power does.
	Fsync bool
}

// Server is a PostgreSQL server on 127.0.0.1. Its methods must not be called concurrently with
// each other, but for URL and the accessors.
type Server struct {
	major    int
	binDir   string
	dataDir  string
	port     int
	password string
	settings map[string]string
	fsync    bool
	account  account
	tempDir  bool // Close removes dataDir.

	mu      sync.Mutex
	process *process // Nil while stopped.
}

// Start makes a data folder if there is none and starts a server in it. It returns once the server takes
// connections. The context bounds the start only.
func Start(ctx context.Context, o Options) (*Server, error) {
	s, err := newServer(o)
	if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := s.create(ctx, o.Port == 0); err != nil {
		return nil, errors.Join(fmt.Errorf("start PostgreSQL %d: %w", s.major, err), s.removeData())
	}
	return s, nil
}

func newServer(o Options) (*Server, error) {
	major := o.Major
	if major == 0 {
		var err error
		if major, err = DefaultMajor(); err != nil {
			return nil, err
		}
	}
	binDir, err := BinDir(major)
	if err != nil {
		return nil, err
	}
	owner, err := serverAccount()
	if err != nil {
		return nil, err
	}
	if err := owner.reachable(binDir); err != nil {
		return nil, err
	}
	s := &Server{
		major: major, binDir: binDir, dataDir: o.DataDir, port: o.Port, password: o.Password,
		settings: o.Settings, fsync: o.Fsync, account: owner,
	}
	if s.dataDir != "" {
		s.dataDir, err = filepath.Abs(s.dataDir)
		return s, err
	}
	root, err := tempRoot()
	if err != nil {
		return nil, err
	}
	s.tempDir = true
	if s.dataDir, err = os.MkdirTemp(root, fmt.Sprintf("data-%d-", major)); err != nil {
		return nil, fmt.Errorf("make a data folder: %w", err)
	}
	return s, nil
}

func (s *Server) create(ctx context.Context, anyPort bool) error {
	if err := s.prepareData(ctx); err != nil {
		return err
	}
	var err error
	for range startAttempts {
		if anyPort {
			if s.port, err = freeport.Pick(ctx); err != nil {
				return err
			}
		}
		if err = s.start(ctx); err == nil || !anyPort || !s.portTaken() {
			break
		}
	}
	if err != nil {
		return err
	}
	if s.password == "" {
		s.password = processPassword()
		return nil
	}
	return s.setPassword(ctx)
}

// URL is the connection URL of a database for the superuser.
func (s *Server) URL(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(superuser, s.Password()),
		Host: net.JoinHostPort(host, strconv.Itoa(s.port)), Path: database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Major is the server's major version.
func (s *Server) Major() int { return s.major }

// Host is the address that the server listens on.
func (s *Server) Host() string { return host }

// Port is the TCP port; it stays the same over Restart.
func (s *Server) Port() int { return s.port }

// DataDir is the data folder.
func (s *Server) DataDir() string { return s.dataDir }

// BinDir is the folder with the server's binaries.
func (s *Server) BinDir() string { return s.binDir }

// Program is the path of one of PostgreSQL's client programs, such as pg_recvlogical: the server's own, else that of the
// newest other server that has it. The servers in the cache come without clients. It is the bare name if there is none.
func (s *Server) Program(name string) string {
	dirs := []string{s.binDir}
	for _, major := range slices.Backward(Majors()) {
		if dir, err := BinDir(major); err == nil {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	return name
}

// LogFile is the file that the server logs to.
func (s *Server) LogFile() string { return filepath.Join(s.dataDir, "server.log") }

// User is the superuser's name.
func (s *Server) User() string { return superuser }

// Password is the superuser's password.
func (s *Server) Password() string {
	if s.password == "" {
		return processPassword()
	}
	return s.password
}

// setPassword replaces the template's password, unless an earlier start of this data folder already did.
func (s *Server) setPassword(ctx context.Context) error {
	if conn, err := s.Connect(ctx, superuser); err == nil {
		return conn.Close(ctx)
	}
	wanted := s.password
	s.password = ""
	conn, err := s.Connect(ctx, superuser)
	s.password = wanted
	if err != nil {
		return fmt.Errorf("connect to set the superuser's password: %w", err)
	}
	var statement string
	err = conn.QueryRow(ctx, "SELECT format('ALTER USER %I PASSWORD %L', $1::text, $2::text)", superuser, wanted).Scan(&statement)
	if err == nil {
		_, err = conn.Exec(ctx, statement)
	}
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		return fmt.Errorf("set the superuser's password: %w", err)
	}
	return nil
}

// Connect opens a connection to a database as the superuser; the caller closes it.
func (s *Server) Connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, s.URL(database))
}

func (s *Server) removeData() error {
	if !s.tempDir {
		return nil
	}
	return os.RemoveAll(s.dataDir)
}
