package starrocks

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/tlsfiles"
)

// DeleteMode is what a delete in the source does in StarRocks.
type DeleteMode string

// The delete modes.
const (
	// DeleteSoft keeps the row and sets its audit columns.
	DeleteSoft DeleteMode = "soft"
	// DeleteHard removes the row.
	DeleteHard DeleteMode = "hard"
)

// Config says where StarRocks is and how to write to it.
type Config struct {
	// URL is the HTTP address of a front end (port 8030 by default), or of a back
	// end (8040). A front end may move a load to any back end; a back end has no
	// failover.
	URL string
	// MySQLAddr is host:port of a front end's MySQL protocol, usually port 9030.
	MySQLAddr string
	// Database is where the tables are.
	Database string
	// CreateDatabase lets Prepare create the database if it is missing, for which
	// the user needs the privilege; otherwise it must exist.
	CreateDatabase bool
	User           string
	// Password is in no log, error or label.
	Password string
	// DeleteMode defaults to DeleteSoft.
	DeleteMode DeleteMode
	// TLS names the files for connections with TLS: those to https addresses and, with
	// SQLTLS, that of the MySQL protocol. They are read anew for each connection.
	TLS tlsfiles.Names
	// SQLTLS demands TLS of the MySQL protocol.
	SQLTLS bool
	// TrustedHosts are further hosts, or host:port, that a load may be redirected
	// to and that get the credentials then. The configured hosts and those that
	// StarRocks lists as its own need not be named.
	TrustedHosts []string
	// LoadTimeout is after what time StarRocks gives a load up. Defaults to 2 minutes.
	LoadTimeout time.Duration
	// MaxBodyBytes is at what size a load is cut; a longer row is a load of its
	// own. Loads of tables without a key are cut elsewhere, see appendBytesMax.
	// Defaults to 90 MiB.
	MaxBodyBytes int
	// Overrides are the columns that are not stored as the table of types has it.
	Overrides []Override
	// CreateTables lets Prepare create tables that are missing.
	CreateTables bool
	// TableName returns the name of a table in StarRocks. Defaults to DefaultTableName.
	TableName func(*cdc.Schema) string
	// Instance names this process towards StarRocks, as the User-Agent
	// dbmazz/<instance> of its loads. Defaults to none.
	Instance string
	// Logger defaults to one that discards.
	Logger *slog.Logger
}

const (
	defaultLoadTimeout  = 2 * time.Minute
	defaultMaxBodyBytes = 90 << 20
	minLoadTimeout      = time.Second
	maxLoadTimeout      = 72 * time.Hour // max_stream_load_timeout_second
)

// String leaves the password out.
func (c Config) String() string {
	return fmt.Sprintf("starrocks %s, mysql %s, database %s, user %s", redactedURL(c.URL), c.MySQLAddr, c.Database, c.User)
}

// GoString leaves the password out.
func (c Config) GoString() string { return c.String() }

// LogValue leaves the password out.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

func redactedURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "(invalid)"
	}
	return u.Redacted()
}

// agent is the User-Agent of requests.
func (c *Config) agent() string {
	if c.Instance == "" {
		return "dbmazz"
	}
	return "dbmazz/" + c.Instance
}

func (c *Config) withDefaults() {
	if c.DeleteMode == "" {
		c.DeleteMode = DeleteSoft
	}
	if c.LoadTimeout == 0 {
		c.LoadTimeout = defaultLoadTimeout
	}
	if c.MaxBodyBytes == 0 {
		c.MaxBodyBytes = defaultMaxBodyBytes
	}
	if c.TableName == nil {
		c.TableName = DefaultTableName
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func (c *Config) validate() (*url.URL, error) {
	var errs []error
	base, err := url.Parse(c.URL)
	switch {
	case err != nil:
		// The error of url.Parse shows the text, which may hold a password.
		errs = append(errs, errors.New("SINK_URL: not a URL: want http://host:8030"))
	case (base.Scheme != "http" && base.Scheme != "https") || base.Hostname() == "":
		errs = append(errs, errors.New("SINK_URL: want http://host:8030 or https://host:port"))
	case base.User != nil:
		errs = append(errs, errors.New("SINK_URL: credentials do not belong into it: use SINK_USER and SINK_PASSWORD"))
	}
	if host, port, err := net.SplitHostPort(c.MySQLAddr); err != nil || host == "" || !isPort(port) {
		errs = append(errs, fmt.Errorf("MySQL address %q: want host:port, such as starrocks:9030", c.MySQLAddr))
	}
	if c.Database == "" {
		errs = append(errs, errors.New("SINK_DATABASE: missing"))
	} else if strings.ContainsAny(c.Database, "/\\") || hasControl(c.Database) {
		errs = append(errs, fmt.Errorf("SINK_DATABASE: %q is not a name of a database", c.Database))
	}
	if c.User == "" || hasControl(c.User) {
		errs = append(errs, errors.New("SINK_USER: missing, or not a name"))
	}
	if c.DeleteMode != DeleteSoft && c.DeleteMode != DeleteHard {
		errs = append(errs, fmt.Errorf("SINK_DELETE_MODE: %q: want soft or hard", string(c.DeleteMode)))
	}
	if c.LoadTimeout < minLoadTimeout || c.LoadTimeout > maxLoadTimeout {
		errs = append(errs, fmt.Errorf("load timeout %s: want %s to %s", c.LoadTimeout, minLoadTimeout, maxLoadTimeout))
	}
	for _, o := range c.Overrides {
		if o.Policy != OverrideText && o.Policy != OverrideNull && o.Policy != OverrideRefuse {
			errs = append(errs, fmt.Errorf("override of column %q of %s: %q: want text, null or refuse", o.Column, o.table(), string(o.Policy)))
		}
	}
	if hasControl(c.Instance) {
		errs = append(errs, fmt.Errorf("instance %q: not a name", c.Instance))
	}
	if c.MaxBodyBytes < 1 {
		errs = append(errs, fmt.Errorf("largest body of %d bytes: want at least 1", c.MaxBodyBytes))
	}
	return base, errors.Join(errs...)
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// Sink writes to one database of StarRocks. It is safe for concurrent use as far as
// [apply.Sink] allows.
type Sink struct {
	config Config
	db     *sql.DB
	load   *loader
	retry  backoff

	mu      sync.Mutex
	layouts map[layoutKey]*layout
	owners  map[string]*cdc.Schema // by table in StarRocks
	// unpublished is the last label of a table that was committed but not seen to
	// be visible to queries.
	unpublished map[string]string
	// seen has the tables of which, since Prepare was called, a load was seen to be
	// visible to queries: so are all that were committed before it, by whomever.
	// missed is when a query missed rows of another table first.
	seen    map[string]bool
	missed  map[string]time.Time
	checked bool // CheckConfig was called
	// toldNulls has the tables of which it was logged that values became NULL.
	toldNulls map[string]bool
	// attempted is, by append table, up to where changes were in it when Prepare was
	// called, or were tried to be stored since.
	attempted map[string]cdc.Position
	buffers   sync.Pool
	// appendBytes bounds a load of an append table, in wire bytes of its rows.
	appendBytes int
}

type layoutKey struct {
	oid         uint32
	fingerprint cdc.Fingerprint
}

func keyOf(s *cdc.Schema) layoutKey { return layoutKey{s.OID, s.Fingerprint()} }

var _ apply.Sink = (*Sink)(nil)

// New returns a sink. It connects to nothing.
func New(config Config) (*Sink, error) {
	config.withDefaults()
	base, err := config.validate()
	if err != nil {
		return nil, err
	}
	files := tlsfiles.New(config.TLS, config.Logger)
	connector, err := newConnector(&config, files)
	if err != nil {
		return nil, err
	}
	s := &Sink{
		config: config, db: sql.OpenDB(connector), retry: defaultBackoff,
		layouts: map[layoutKey]*layout{}, owners: map[string]*cdc.Schema{}, unpublished: map[string]string{},
		seen: map[string]bool{}, attempted: map[string]cdc.Position{}, missed: map[string]time.Time{}, toldNulls: map[string]bool{}, appendBytes: appendBytesMax,
	}
	s.load = newLoader(&s.config, base, s, files)
	return s, nil
}

// Close gives connections back. No call may be in progress.
func (s *Sink) Close() {
	s.load.http.CloseIdleConnections()
	_ = s.db.Close() // Nothing that was written depends on it.
}
