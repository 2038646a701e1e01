package apply

import (
	"context"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Stream is the queue that frames come from and the bucket that apply's state lives
// in. Messages are delivered in order; a message is delivered again after a restart
// until it is acknowledged, and may be even then.
type Stream interface {
	// Epoch names this life of the stream. Sequences of different epochs have
	// nothing to do with each other; positions have.
	Epoch() string
	// Locate returns the sequence after which a consumer gets every frame that ends
	// at or after the position; what comes first may begin before it. If the
	// position is beyond the end of the stream that is the last sequence.
	Locate(ctx context.Context, position cdc.Position) (after uint64, err error)
	// Consumer delivers the messages after a sequence.
	Consumer(ctx context.Context, after uint64) (Consumer, error)
	// Schema returns the schema with this fingerprint, for frames that use one
	// without carrying its definition.
	Schema(ctx context.Context, fingerprint cdc.Fingerprint) (*cdc.Schema, error)
	// Tables delivers the schemas of the tables that capture is set to, as soon as
	// it has said and whenever that changes, so that targets are ready for tables
	// without rows too. Every change from before a table became what a list has
	// is in the stream by the time that the list is delivered. A list of no tables
	// takes back the one before. The channel is closed when ctx is done.
	Tables(ctx context.Context) (<-chan []*cdc.Schema, error)
	// Tail returns the end of the stream.
	Tail(ctx context.Context) (cdc.Tail, error)
	// LoadState returns what SaveState stored last, and its revision; nil and
	// zero when there is nothing.
	LoadState(ctx context.Context) (value []byte, revision uint64, err error)
	// SaveState stores the state durably if the revision is still the last one,
	// zero meaning that there is none. A conflict is an error: somebody else
	// applies the same pipeline.
	SaveState(ctx context.Context, value []byte, revision uint64) (uint64, error)
}

// Acknowledger is what a [Stream] may be besides. Where it is, apply refuses to begin anew,
// without a state, on a stream of which something was acknowledged: the state is lost.
type Acknowledger interface {
	// Acknowledged returns the last sequence that a consumer of live apply has
	// acknowledged, zero if none ever did.
	Acknowledged(ctx context.Context) (uint64, error)
}

// Consumer delivers messages. It is used by one goroutine at a time, but for Ack and
// Pending, which may be called from another.
type Consumer interface {
	// Next waits for the next message. A gap in the sequence is an error.
	Next(ctx context.Context) (Message, error)
	// Ack acknowledges everything up to a sequence. It is a service to those who
	// watch the stream and to its janitor; apply itself goes by its checkpoint.
	Ack(ctx context.Context, sequence uint64) error
	// Pending returns how many messages are stored but not delivered yet.
	Pending() uint64
	Close()
}

// Message is one whole frame.
type Message struct {
	// Sequence is that of the last message of the stream that is part of the frame.
	Sequence uint64
	Data     []byte
	StoredAt time.Time
}
