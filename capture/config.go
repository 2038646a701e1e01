package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Config says what to capture and how. The zero value of an optional field means its
// default.
type Config struct {
	// SourceURL is a PostgreSQL connection URL; sslmode and the other parameters of
	// libpq work in it. Required.
	SourceURL string
	// Slot and Publication are created when they do not exist. Required.
	Slot, Publication string
	// Tables, Patterns and Except are the [Selection] to begin with, not an empty one.
	Tables           []Table
	Patterns, Except []Pattern
	// Leaves asks for the leaves of partitioned tables, each as a table of its own, also
	// where the root is named or matched. Otherwise a partitioned table is one table,
	// and patterns do not match its partitions.
	Leaves bool
	// TablesInterval is how often the server is asked for tables that came, went or were
	// made anew. Defaults to 30 s.
	TablesInterval time.Duration

	// Target returns what a table is called in the sink. Two tables with one name are
	// refused, and one that joins later is left out. Defaults to not looking at that.
	Target func(Table) string

	// FrameBytes closes a frame by the size of its records before they are packed; one
	// record may exceed it. Larger frames cost less per row and wait longer for the disk.
	// Defaults to 960 KiB, so that most frames are one message of a NATS server, whose
	// default is 1 MiB.
	FrameBytes int
	// FrameDelay is how long a frame that is not empty waits for more once nothing
	// comes in. While changes keep coming it may wait five times as long. Defaults
	// to 2 ms.
	FrameDelay time.Duration
	// FrameSpacing is the least time from one frame that is not full to the next: each
	// costs a sync of the disk, and under load the server does not get the processor
	// for longer than FrameDelay now and then. A lone change does not wait. Defaults to
	// 20 ms.
	FrameSpacing time.Duration
	// Window is how many frame buffers are kept for reuse; it should match the
	// number of frames that the stream takes before it blocks. Defaults to 8.
	Window int
	// ReadBytes is the size of the socket buffer in this process. It grows for a
	// single larger message and shrinks again. Defaults to 1 MiB.
	ReadBytes int
	// StatusInterval is the longest pause between two reports to the server. It is
	// cut to a third of the server's wal_sender_timeout. Defaults to 10 s.
	StatusInterval time.Duration
	// ConnectTimeout bounds connecting. A connect_timeout in the URL wins.
	// Defaults to 10 s.
	ConnectTimeout time.Duration
	// StatementTimeout bounds each statement of setup and of catalog look-ups.
	// Defaults to 30 s.
	StatementTimeout time.Duration
	// LockTimeout bounds the wait of DDL on the publication for its locks, which
	// others queue up behind. Defaults to 5 s.
	LockTimeout time.Duration
	// SlotTimeout bounds the creation of the slot, which waits for every
	// transaction that is running. Defaults to 60 s.
	SlotTimeout time.Duration
	// BackoffMin and BackoffMax bound the wait before the next attempt after an
	// error. They default to 250 ms and 15 s.
	BackoffMin, BackoffMax time.Duration

	// Instance names this process among those that may work on the pipeline. It is
	// part of the application_name that the server shows. Defaults to none.
	Instance string
	// Takeover says that Run is only called while this process is the one that has
	// been chosen to capture. A connection of another dbmazz of this pipeline that
	// still holds the slot is then ended. Defaults to false: wait until it is free.
	Takeover bool
	// Fence answers an error as soon as this process may no longer be the one that
	// captures. It is asked before anything is changed on the server, before the
	// stream is opened, and before every report to the server. Nil means that there
	// is no other process. It must not block.
	Fence func() error
	// Heartbeat is how often a message without content is written to the source's
	// WAL while capture streams, for a server that counts WAL as unread although
	// nothing happens in the database. 0 means never, which is the default: the
	// slot follows the server without it.
	Heartbeat time.Duration

	// CatalogInterval is how often it is looked whether tables have changed of which
	// no rows do. Defaults to 10 s.
	CatalogInterval time.Duration

	// Streaming asks a server that can, PostgreSQL 14 and later, to send large
	// transactions while they run instead of after their commit. Nothing of them is
	// published before the commit.
	Streaming bool
	// SpoolDir is the folder that such transactions are kept in until then. A file
	// in it has no name and is gone with the process. Defaults to os.TempDir.
	SpoolDir string
	// SpoolBytes bounds that file; the last twentieth of a file system is not used
	// in any case. When it is full streaming is given up for a while and the server
	// keeps the transactions. Zero is no bound, which is the default.
	SpoolBytes int64
	// SpoolMemory bounds what is kept of all such transactions in memory, besides
	// one message. Defaults to 16 MiB.
	SpoolMemory int

	// Snapshot says which existing rows are copied by themselves. Defaults to
	// SnapshotNever.
	Snapshot SnapshotMode
	// SnapshotWorkers, SnapshotChunkRows and SnapshotRate are the settings to begin
	// with; see SnapshotSettings. Zero rate is no bound.
	SnapshotWorkers, SnapshotChunkRows, SnapshotRate int
	// SnapshotBacklog is how many bytes of copied rows may be in the stream that the
	// sink has not applied; four chunks a worker come on top. It should be well below
	// what the stream holds, so that rows wait and not changes. Defaults to 256 MiB.
	SnapshotBacklog int
	// SnapshotStore keeps the progress. Without it nothing can be copied.
	SnapshotStore SnapshotStore
	// Reached returns the last position that the sink may know of, in a batch that
	// it has begun: no other row may get one before it. Nil means that this is the
	// position of the checkpoint.
	Reached func(context.Context) (cdc.Position, error)

	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	c.FrameBytes = cmp.Or(c.FrameBytes, 960<<10)
	c.FrameDelay = cmp.Or(c.FrameDelay, 2*time.Millisecond)
	c.FrameSpacing = cmp.Or(c.FrameSpacing, 20*time.Millisecond)
	c.Window = cmp.Or(c.Window, 8)
	c.ReadBytes = cmp.Or(c.ReadBytes, 1<<20)
	c.StatusInterval = cmp.Or(c.StatusInterval, 10*time.Second)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, 10*time.Second)
	c.StatementTimeout = cmp.Or(c.StatementTimeout, 30*time.Second)
	c.LockTimeout = cmp.Or(c.LockTimeout, 5*time.Second)
	c.SlotTimeout = cmp.Or(c.SlotTimeout, time.Minute)
	c.BackoffMin = cmp.Or(c.BackoffMin, 250*time.Millisecond)
	c.BackoffMax = cmp.Or(c.BackoffMax, 15*time.Second)
	c.CatalogInterval = cmp.Or(c.CatalogInterval, 10*time.Second)
	c.TablesInterval = cmp.Or(c.TablesInterval, 30*time.Second)
	c.spoolDefaults()
	c.snapshotDefaults()
	c.Logger = cmp.Or(c.Logger, slog.Default()).With("component", "capture")
	return c
}

// slotName is what PostgreSQL accepts (ReplicationSlotValidateName).
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// minReadBytes holds the longest message head and then some.
const minReadBytes = 4 << 10

func (c *Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.SourceURL != "", "source URL is empty")
	check(slotName.MatchString(c.Slot), "slot name %q: want 1 to 63 lower-case letters, digits and underscores", c.Slot)
	check(c.Publication != "" && len(c.Publication) <= 63, "publication name %q: want 1 to 63 bytes", c.Publication)
	selection := c.selection()
	errs = append(errs, selection.validate(), c.validateSpool(), c.validateSnapshot())
	check(c.FrameBytes > 0 && c.FrameDelay > 0 && c.Window > 0, "frame bytes, frame delay and window must be positive")
	check(c.ReadBytes >= minReadBytes, "read bytes %d: want at least %d", c.ReadBytes, minReadBytes)
	check(c.StatusInterval > 0 && c.ConnectTimeout > 0 && c.StatementTimeout > 0 && c.LockTimeout > 0 && c.SlotTimeout > 0 && c.CatalogInterval > 0,
		"timeouts must be positive")
	check(c.TablesInterval > 0, "tables interval must be positive")
	check(c.Heartbeat >= 0, "heartbeat must not be negative")
	check(c.BackoffMin > 0 && c.BackoffMax >= c.BackoffMin, "backoff: want 0 < min <= max")
	return errors.Join(errs...)
}

func (c *Config) selection() Selection {
	return Selection{Tables: c.Tables, Patterns: c.Patterns, Except: c.Except}
}

func validateTables(tables []Table) error {
	var errs []error
	for i, t := range tables {
		switch {
		case t.Schema == "" || t.Name == "":
			errs = append(errs, fmt.Errorf("table %q: want a schema and a name", t))
		case slices.Contains(tables[:i], t):
			errs = append(errs, fmt.Errorf("table %q is listed twice", t))
		}
	}
	return errors.Join(errs...)
}
