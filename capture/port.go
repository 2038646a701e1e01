package capture

import (
	"context"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Stream is the queue that frames go to and the bucket that capture's state lives in.
type Stream interface {
	// Epoch names this life of the stream.
	Epoch() string
	// Tail returns the last complete frame of the stream. It is called before Open
	// in each session, and must see everything that an earlier session has stored.
	Tail(ctx context.Context) (cdc.Tail, error)
	// Open starts a writing session after the tail. At most one is open at a time;
	// a writer elsewhere must be fenced off by the stream.
	Open(ctx context.Context) (Publisher, error)
	// PutSchema stores a schema durably by its fingerprint. It is called before the
	// first frame that uses the schema, and again with the same one after a restart.
	PutSchema(ctx context.Context, s *cdc.Schema) error
	// PutTables stores the schemas of the configured tables, so that a sink can
	// prepare its targets. It is called once the stream has everything that was
	// committed before they were read from the source, and without any until then.
	PutTables(ctx context.Context, schemas []*cdc.Schema) error
	// LoadState returns what SaveState stored last, and its revision; nil and zero
	// when there is nothing.
	LoadState(ctx context.Context) (value []byte, revision uint64, err error)
	// SaveState stores the state durably if revision is still the last one, zero
	// meaning that there is none. A conflict is an error.
	SaveState(ctx context.Context, value []byte, revision uint64) (uint64, error)
}

// Publisher is one writing session. It is used by one goroutine.
type Publisher interface {
	// Publish hands over a frame, in order, and returns before it is stored. It
	// blocks while too many frames are outstanding or the stream is full. Once the
	// frame is durable stored is called with it, in the order of Publish and from
	// any goroutine; the bytes are the caller's again. After an error nothing more
	// is stored and every further call answers an error.
	Publish(ctx context.Context, frame []byte, h cdc.Header, stored func([]byte)) error
	// Flush returns when every published frame is stored, or the error that
	// prevents it.
	Flush(ctx context.Context) error
	// Close gives the session up without waiting. Frames that are outstanding may
	// or may not get stored.
	Close()
}

// Progress is what the sink has committed. Its methods may be called from any
// goroutine.
type Progress interface {
	// Checkpoint returns the stored checkpoint; ok is false if the sink has never
	// committed anything. A checkpoint of an earlier run must be loaded before
	// capture runs. Its End is durable in the sink.
	Checkpoint() (c cdc.Checkpoint, ok bool)
	// Changed returns a channel that becomes ready at the next change of the
	// checkpoint after the call.
	Changed() <-chan struct{}
}

// Table names a table of the source.
type Table struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// String prints schema and name as they are, for people.
func (t Table) String() string { return t.Schema + "." + t.Name }
