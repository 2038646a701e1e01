package starrockstest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// Options sets up a Server. The zero value listens on free loopback ports and keeps everything in memory.
type Options struct {
	// FEHTTP is the host:port of the front end's HTTP listener; port 0 picks a free one. Defaults to "127.0.0.1:0".
	FEHTTP string
	// BEHTTP is the host:port of the back end's HTTP listener. It differs from FEHTTP's host by default, so that
	// the redirect crosses hosts and an HTTP client drops its Authorization header. Defaults to "127.0.0.2:0".
	BEHTTP string
	// BEPublic is the host:port under which redirects and SHOW BACKENDS name the back end: a proxy before it.
	// Defaults to where it listens.
	BEPublic string
	// MySQL is the host:port of the MySQL protocol listener. Defaults to "127.0.0.1:0".
	MySQL string
	// Admin is the host:port of the listener for faults and figures. Defaults to "127.0.0.1:0".
	Admin string

	// MySQLTLS lets clients of the MySQL protocol ask for TLS; nil offers none.
	MySQLTLS *tls.Config

	// User is the only account. Defaults to "root".
	User string
	// Password of User. Defaults to the empty password.
	Password string

	// Version is the StarRocks version whose behaviour is shown. Defaults to "3.3.15".
	Version string
	// Data is the folder of the append-only log. Defaults to "", which keeps everything in memory.
	Data string
	// NoStore parses, checks and counts rows but does not keep them; labels are kept. COUNT(*) gives the rows that
	// arrived, other queries find nothing. For benchmarks.
	NoStore bool

	// LabelKeepMaxNum is how many transactions a database remembers. Defaults to 1000.
	LabelKeepMaxNum int
	// LabelKeepMax is how long a finished label is remembered. Defaults to 72 h.
	LabelKeepMax time.Duration
	// LabelCleanInterval is how often labels are evicted; negative evicts on every access. Defaults to 30 s.
	LabelCleanInterval time.Duration
	// DisableFastSchemaEvolution makes ADD and DROP COLUMN asynchronous jobs, as on older or shared-data clusters.
	DisableFastSchemaEvolution bool
	// AlterDuration is how long an asynchronous schema change runs. Defaults to 100 ms.
	AlterDuration time.Duration

	// Now is the clock of labels, timeouts and schema changes. Defaults to time.Now.
	Now func() time.Time
	// Logger receives lifecycle messages. Defaults to a logger that discards.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	setDefault(&o.FEHTTP, "127.0.0.1:0")
	setDefault(&o.BEHTTP, "127.0.0.2:0")
	setDefault(&o.MySQL, "127.0.0.1:0")
	setDefault(&o.Admin, "127.0.0.1:0")
	setDefault(&o.User, "root")
	setDefault(&o.Version, "3.3.15")
	setDefault(&o.LabelKeepMaxNum, 1000)
	setDefault(&o.LabelKeepMax, 72*time.Hour)
	setDefault(&o.LabelCleanInterval, 30*time.Second)
	setDefault(&o.AlterDuration, 100*time.Millisecond)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (o Options) validate() error {
	var errs []error
	for _, a := range []struct{ name, addr string }{
		{"FEHTTP", o.FEHTTP}, {"BEHTTP", o.BEHTTP}, {"MySQL", o.MySQL}, {"Admin", o.Admin},
	} {
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			errs = append(errs, fmt.Errorf("%s %q: want host:port: %w", a.name, a.addr, err))
		}
	}
	if _, err := parseVersion(o.Version); err != nil {
		errs = append(errs, err)
	}
	if o.LabelKeepMaxNum < 0 {
		errs = append(errs, fmt.Errorf("LabelKeepMaxNum %d: want a positive number", o.LabelKeepMaxNum))
	}
	return errors.Join(errs...)
}
