package capture

import (
	"errors"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// State says what capture is doing.
type State string

// The states of capture.
const (
	StateIdle       State = "idle"       // Run was not called, or has returned
	StateSetup      State = "setup"      // checking the server, setting up what is missing
	StateConnecting State = "connecting" // starting replication
	StateStreaming  State = "streaming"  // reading changes
	StateWaiting    State = "waiting"    // before the next attempt after an error
)

// Status is a moment of a capture.
type Status struct {
	State  State
	Detail string // what State is about, for people
	// LastError is that of the last session, empty while one streams. Refused
	// tells that it needs an operator, see [IdentityError]; Setup that it is about
	// the source's settings, see [SetupError].
	LastError      string
	Refused, Setup bool
	// Warning is what does not work although capture does, empty if all does.
	Warning string
	// TablesWarning is why it is not known whether tables came or went, empty if it is.
	// LeftOut are those that match but are not captured.
	TablesWarning string
	LeftOut       []LeftOut

	// Received is up to where the server has sent everything; ServerEnd is the
	// server's position as far as it is known.
	Received, ServerEnd cdc.LSN
	// Confirmed is what the server was told last.
	Confirmed cdc.LSN
	// Published is the position of the last change that is stored in the stream.
	Published cdc.Position
	// Rows counts row changes of configured tables since the process started,
	// Truncates truncates, Transactions transactions that have either, Frames and
	// Bytes what was published, Skipped changes that the stream already held.
	Rows, Truncates, Transactions, Frames, Bytes, Skipped uint64
	// Outstanding counts frames that are published but not stored yet.
	Outstanding int
	// LastActivity is when the last change was received.
	LastActivity time.Time
	// Restarts counts sessions after the first that got to streaming.
	Restarts int
	// Streaming tells of transactions that arrive before they are committed.
	Streaming StreamingStatus
	// Snapshot tells of existing rows that are being copied.
	Snapshot SnapshotStatus
	// WALStatus is the slot's pg_replication_slots.wal_status when it was last
	// looked at.
	WALStatus string
}

// Status returns the present status. It is cheap.
func (c *Capture) Status() Status {
	snapshot := c.snapshots.status()
	// Tables without rows have nothing else that the sink could make them from.
	snapshot.Done = snapshot.Done && c.announcements.next() == nil
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Outstanding = c.flow.published - c.flow.stored
	s.Snapshot = snapshot
	return s
}

func (c *Capture) setState(state State, detail string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.State, c.status.Detail = state, detail
}

func (c *Capture) setWarning(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Warning = text
}

func (c *Capture) setError(err error) {
	_, refused := errors.AsType[*IdentityError](err)
	_, setup := errors.AsType[*SetupError](err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.LastError, c.status.Refused, c.status.Setup = "", refused, setup
	if err != nil {
		c.status.LastError = err.Error()
	}
}

// streaming is called when a session starts to read.
func (c *Capture) streaming() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.State, c.status.Detail = StateStreaming, ""
	c.status.LastError, c.status.Refused, c.status.Setup = "", false, false
	if c.streamed {
		c.status.Restarts++
	}
	c.streamed = true
}

// totals are what a session has counted since it told last.
type totals struct {
	rows, truncates, transactions, frames, bytes, skipped uint64
}

// flow follows frames from the reader to the stream, to know up to where everything
// that the server has sent is stored.
type flow struct {
	published, stored int
	// clear is up to where everything has arrived; empty tells that nothing of it
	// is in an unpublished frame.
	clear cdc.LSN
	empty bool
	// through is up to where everything is stored.
	through cdc.LSN
}

func (f *flow) settle() {
	if f.empty && f.published == f.stored {
		f.through = max(f.through, f.clear)
	}
}
