package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"regexp"
	"time"
)

// Defaults and bounds of [Config].
const (
	DefaultMaxBytes   = 10 << 30
	DefaultWindow     = 16
	DefaultFetchBytes = 8 << 20

	// MinMaxBytes leaves room for a few frames of the largest ordinary size and
	// for the last complete frame, which is never purged.
	MinMaxBytes = 1 << 20

	defaultWindowBytes   = 8 << 20
	defaultDiskReserve   = 256 << 20
	defaultJanitorPeriod = 2 * time.Second

	// MaxPayload is the largest message of the embedded server. The server's
	// authors warn about more.
	MaxPayload = 8 << 20
)

// Config of a [Bus]. The zero value of a field means its default.
type Config struct {
	// Pipeline names the pipeline; it is the name of the replication slot and of
	// the same form: 1 to 63 of a-z, 0-9 and underscore. The stream is
	// DBMAZZ_<pipeline>, the bucket dbmazz_<pipeline>, the subject
	// dbmazz.<pipeline>.cdc.
	Pipeline string

	// DataDir is the folder of the embedded server, created when missing. It
	// must be on a local disk. Required unless URL is set.
	DataDir string

	// Listen is the address, host:port, on which the embedded server takes
	// connections of other hosts. They authenticate with the key of the data
	// folder, see [KeyFile]. Empty means no TCP listener; processes of this host
	// can attach all the same.
	Listen string
	// ListenTLS makes the listener demand TLS. With CAFile, clients must show a
	// certificate of that authority. The files are read again when they change.
	ListenTLS TLSFiles

	// Attach connects to the process that has DataDir open instead of starting
	// a server. Both must run on the same host, under the same user.
	Attach bool

	// URL lists the servers of an existing NATS installation, or the listener
	// of another process, with commas between. Empty means DataDir.
	URL string
	// Auth is how to authenticate with URL. At most one way may be given,
	// beside a user and password inside the URL.
	Auth Auth
	// TLS is for connections to URL. Any file makes TLS mandatory, as the
	// scheme tls:// does.
	TLS TLSFiles
	// Replicas of stream and bucket on the servers of URL. Zero leaves what
	// exists as it is, and means 1 for what is created.
	Replicas int

	// Existing forbids to create or change stream and bucket: Open returns
	// ErrNoStream while they are not there.
	Existing bool

	// MaxBytes bounds the stream. A full stream holds the publisher back; nothing
	// is discarded. One frame may take at most a quarter of it. Defaults to 10 GiB.
	MaxBytes int64
	// DeadLetterBytes bounds what is set aside, see [DeadLetters]. Defaults to 1 GiB.
	DeadLetterBytes int64
	// DiskReserve is what the publisher leaves free on the disk of the embedded
	// server: below it, it holds, so that the state bucket can still be written
	// and apply can make room. -1 means no reserve. Defaults to 256 MiB.
	DiskReserve int64
	// Retention is how long acknowledged messages are kept for replay. Zero
	// purges them at once; the last complete frame always stays.
	Retention time.Duration
	// JanitorPeriod is the time between two looks of [Bus.RunJanitor].
	// Defaults to 2 seconds.
	JanitorPeriod time.Duration

	// Window bounds the messages that are published but not yet stored.
	// Defaults to 16.
	Window int
	// WindowBytes bounds the same in bytes; one message may always be under
	// way. Defaults to 8 MiB.
	WindowBytes int
	// FetchBytes bounds what is delivered to a consumer ahead of its Next. The
	// server's largest message always fits. Defaults to 8 MiB; above 48 MiB the
	// server's delivery collapses, so that is refused.
	FetchBytes int

	// MemoryUse tells what part of the memory that the process may use is in use. From
	// two thirds on the publisher is slowed, the more the more is in use: so that the
	// embedded server, which keeps the last ten seconds of the stream, has KeepBytes of
	// them at most, and a part of it as use comes near 1. It is called for every frame.
	// Nil means that memory has no limit. They matter only with DataDir.
	MemoryUse func() float64
	KeepBytes int64

	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

const fetchBytesMax = 48 << 20

var pipelineForm = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// withDefaults returns a copy in which every field is set.
func (c Config) withDefaults() Config {
	c.MaxBytes = orDefault(c.MaxBytes, DefaultMaxBytes)
	c.DeadLetterBytes = orDefault(c.DeadLetterBytes, DefaultDeadLetterBytes)
	c.DiskReserve = orDefault(c.DiskReserve, defaultDiskReserve)
	c.JanitorPeriod = orDefault(c.JanitorPeriod, defaultJanitorPeriod)
	c.Window = orDefault(c.Window, DefaultWindow)
	c.WindowBytes = orDefault(c.WindowBytes, defaultWindowBytes)
	c.FetchBytes = orDefault(c.FetchBytes, DefaultFetchBytes)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !pipelineForm.MatchString(c.Pipeline) {
		bad("pipeline name %q: use 1 to 63 characters of a-z, 0-9 and _, as for a replication slot", c.Pipeline)
	}
	errs = append(errs, c.checkServer()...)
	if c.MaxBytes < MinMaxBytes || c.MaxBytes > math.MaxInt64/4 {
		bad("stream limit of %d bytes: use at least %d", c.MaxBytes, MinMaxBytes)
	}
	if c.DeadLetterBytes < MinMaxBytes || c.DeadLetterBytes > math.MaxInt64/4 {
		bad("dead-letter limit of %d bytes: use at least %d", c.DeadLetterBytes, MinMaxBytes)
	}
	if c.Retention < 0 {
		bad("retention of %s: use 0 or more", c.Retention)
	}
	if c.JanitorPeriod < 0 {
		bad("janitor period of %s: use 0 or more", c.JanitorPeriod)
	}
	if c.Window < 1 || c.Window > 4096 {
		bad("publish window of %d messages: use 1 to 4096", c.Window)
	}
	if c.WindowBytes < 1 {
		bad("publish window of %d bytes: use at least 1", c.WindowBytes)
	}
	if c.FetchBytes < 1 || c.FetchBytes > fetchBytesMax {
		bad("fetch bound of %d bytes: use 1 to %d", c.FetchBytes, fetchBytesMax)
	}
	return errors.Join(errs...)
}

func (c *Config) streamName() string   { return "DBMAZZ_" + c.Pipeline }
func (c *Config) bucketName() string   { return "dbmazz_" + c.Pipeline }
func (c *Config) bucketStream() string { return "KV_" + c.bucketName() }
func (c *Config) subject() string      { return "dbmazz." + c.Pipeline + ".cdc" }

// checkServer returns what is wrong with the choice of the server.
func (c *Config) checkServer() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.URL == "" && c.DataDir == "" {
		bad("no data folder for the embedded server: set one, or the URL of a NATS server")
	}
	if c.URL != "" && (c.Listen != "" || c.Attach) {
		bad("a NATS URL together with an embedded server that listens or is attached to: choose one")
	}
	if c.Attach && c.Listen != "" {
		bad("listen address %s of a process that attaches to another: the one that has the data folder open listens", c.Listen)
	}
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			bad("listen address %q is not host:port", c.Listen)
		}
	}
	if c.Listen == "" && c.ListenTLS != (TLSFiles{}) {
		bad("TLS files for a listener without a listen address")
	}
	if c.URL == "" && (c.Auth != (Auth{}) || c.TLS != (TLSFiles{})) {
		bad("credentials or TLS files for a NATS URL, but no URL")
	}
	if c.URL == "" && c.Replicas > 1 {
		bad("%d replicas with the embedded server: replicas need the URL of a NATS cluster", c.Replicas)
	}
	if c.Replicas < 0 || c.Replicas > 5 {
		bad("%d replicas: use 1 to 5", c.Replicas)
	}
	if c.URL != "" {
		_, err := parseServers(c.URL)
		errs = append(errs, err)
	}
	return append(errs, c.Auth.check(), c.TLS.check("NATS"), c.ListenTLS.checkListener())
}
