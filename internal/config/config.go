package config

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

// What SINK_DELETE_MODE, SNAPSHOT, SOURCE_PARTITIONS, SINK_REFUSED_ROWS and LOG_FORMAT can be.
const (
	DeleteSoft        = "soft"
	DeleteHard        = "hard"
	SnapshotInitial   = "initial"
	SnapshotNever     = "never"
	SnapshotOnly      = "only"
	PartitionsRoot    = "root"
	PartitionsLeaf    = "leaf"
	RefusedStop       = "stop"
	RefusedDeadLetter = "dead-letter"
	LogText           = "text"
	LogJSON           = "json"
)

// BusOff is the value of Config.BusListen that says not to listen.
const BusOff = "off"

// Parts are the stages that a command runs, which is what decides about the variables
// that must be set.
type Parts uint8

// The stages.
const (
	Capture Parts = 1 << iota
	Apply
)

// Config is the configuration with every default filled in. The table of variables says
// what each field means.
type Config struct {
	// SourceType is always "postgres".
	SourceType      string
	SourceURL       SourceURL
	SlotName        string
	PublicationName string
	// Tables selects something where capture runs.
	Tables Selection
	// TablesInterval is how often the source is asked for tables that came or went.
	TablesInterval time.Duration
	// Partitions is PartitionsRoot or PartitionsLeaf.
	Partitions string
	// SourceStreaming asks for large transactions before they commit.
	SourceStreaming bool
	// SourceHeartbeat is zero for none.
	SourceHeartbeat time.Duration
	// Snapshot is SnapshotInitial, SnapshotNever or SnapshotOnly.
	Snapshot          string
	SnapshotWorkers   int
	SnapshotChunkRows int
	// SnapshotRate is in rows per second, zero for no bound.
	SnapshotRate int

	// SinkType is always "starrocks".
	SinkType string
	// SinkURL is scheme://host:port, without a path.
	SinkURL      string
	SinkPort     int
	SinkDatabase string
	SinkUser     string
	SinkPassword Secret
	// SinkDeleteMode is DeleteSoft or DeleteHard.
	SinkDeleteMode string
	// SinkTableName is empty for the default.
	SinkTableName string
	// SinkBEHosts are host or host:port, as given.
	SinkBEHosts     []string
	SinkLoadTimeout time.Duration
	SinkTLSCAFile   string
	SinkTLSCertFile string
	SinkTLSKeyFile  string
	// SinkSQLTLS demands TLS of the MySQL protocol.
	SinkSQLTLS bool
	// SinkTypeOverrides has no column twice.
	SinkTypeOverrides []TypeOverride
	// SinkRefusedRows is RefusedStop or RefusedDeadLetter.
	SinkRefusedRows string

	FlushSize       int
	FlushInterval   time.Duration
	FlushBytes      int64
	FlushBytesSet   bool // FLUSH_BYTES is set, so the memory limit does not change it
	MinLoadInterval time.Duration

	// GRPCAddr is host:port, GRPC_PORT included.
	GRPCAddr            string
	GRPCToken           Secret
	GRPCTLSCertFile     string
	GRPCTLSKeyFile      string
	GRPCTLSClientCAFile string
	GRPCInsecure        bool
	// MetricsAddr is host:port, or empty when there is no metrics endpoint.
	MetricsAddr string
	// FlightRecorder is how much of the execution trace is kept, zero for none.
	FlightRecorder time.Duration

	BusDataDir   string
	BusMaxBytes  int64
	BusRetention time.Duration
	// BusURL is empty for the server inside dbmazz.
	BusURL string
	// BusListen is host:port, BusOff, or empty for the default of the command.
	BusListen      string
	BusNKeyFile    string
	BusCredsFile   string
	BusUser        string
	BusPassword    Secret
	BusTLSCAFile   string
	BusTLSCertFile string
	BusTLSKeyFile  string
	// BusReplicas is zero for what there is.
	BusReplicas int

	SpoolDir string
	// Instance is empty for the default.
	Instance string
	// HandoverAfter is zero where a process keeps a stage that it fails at.
	HandoverAfter time.Duration
	// MemoryLimit is zero for the default.
	MemoryLimit int64

	LogLevel slog.Level
	// LogFormat is LogText or LogJSON.
	LogFormat       string
	ShutdownTimeout time.Duration

	// grpcPort is GRPC_PORT, which is folded into GRPCAddr.
	grpcPort int
}

const redacted = "[redacted]"

// Secret is a text that shows itself only through Reveal.
type Secret struct{ text string }

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text.
func (s Secret) Reveal() string { return s.text }

// IsZero tells whether there is no secret.
func (s Secret) IsZero() bool { return s.text == "" }

// Format hides the text from every verb of package fmt, %d and %x included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String hides the text.
func (s Secret) String() string { return redacted }

// GoString hides the text.
func (s Secret) GoString() string { return redacted }

// LogValue hides the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// SourceURL is a connection string. It shows itself without the password.
type SourceURL struct {
	text    string
	display string
}

// Reveal returns the connection string with its password.
func (u SourceURL) Reveal() string { return u.text }

// Format writes what String returns, whatever the verb.
func (u SourceURL) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, u.display) }

// String returns postgres://user@host:port/database.
func (u SourceURL) String() string { return u.display }

// GoString returns what String does.
func (u SourceURL) GoString() string { return u.display }

// LogValue returns what String does.
func (u SourceURL) LogValue() slog.Value { return slog.StringValue(u.display) }

// MarshalText returns what String does.
func (u SourceURL) MarshalText() ([]byte, error) { return []byte(u.display), nil }

// Table names one table of the source. Both parts are exact, not folded.
type Table struct {
	Schema string
	Name   string
}

// String returns schema.table as TABLES takes it. It is not quoted enough for SQL: a key
// word such as order stays bare.
func (t Table) String() string { return quoteIdentifier(t.Schema) + "." + quoteIdentifier(t.Name) }
