package bus

import (
	"errors"
	"fmt"
	"time"
)

// What callers compare with.
var (
	// ErrFenced means that somebody else writes to the stream, or has taken over
	// the consumer. The session that gets it must not go on.
	ErrFenced = errors.New("another process has taken over")
	// ErrNotFound means that the bucket has no such key.
	ErrNotFound = errors.New("key not found")
	// ErrConflict means that the key was written by somebody else since the
	// revision that was given.
	ErrConflict = errors.New("key was changed by somebody else")
	// ErrClosed means that the bus, publisher or consumer is closed.
	ErrClosed = errors.New("bus is closed")
	// ErrNoStream means that the pipeline's stream and bucket are not there, or
	// not yet complete, and that this bus may not create them.
	ErrNoStream = errors.New("the pipeline's stream does not exist; the capture process creates it")
	// ErrFrameTooLarge means that a frame can never be stored under the limit.
	ErrFrameTooLarge = errors.New("frame is too large for the stream")
)

// LostTailError means that a consumer asked for what follows a message which the
// stream does not have any more: its end was lost. Apply decides by position what is
// missing; [Bus.Locate] finds where to go on.
type LostTailError struct {
	After uint64 // the sequence that was asked for
	Last  uint64 // the last sequence of the stream
}

// Error implements error.
func (e *LostTailError) Error() string {
	return fmt.Sprintf("the stream ends at sequence %d, before the acknowledged sequence %d: its end was lost", e.Last, e.After)
}

// PurgedError means that messages which a consumer asked for are no longer retained.
type PurgedError struct {
	After uint64 // the sequence that was asked for
	First uint64 // the first sequence that is available
	// Oldest describes the first frame that is available; zero if it could not be read.
	Oldest Mark
	// Time is set if a time was asked for: the earliest that can be.
	Time time.Time
}

// Error implements error.
func (e *PurgedError) Error() string {
	text := fmt.Sprintf("messages after sequence %d are no longer retained: the first available is %d", e.After, e.First)
	if e.Oldest.Sequence > 0 {
		text += fmt.Sprintf(", which follows position %s and was committed at %s",
			e.Oldest.Prev, e.Oldest.CommitTime.UTC().Format(time.RFC3339Nano))
	}
	if !e.Time.IsZero() {
		text += "; the earliest time that can be asked for is " + e.Time.UTC().Format(time.RFC3339Nano)
	}
	return text
}

// GapError means that the stream has a hole, or does not continue what was read
// before: messages that were stored are gone. Nothing after it may be applied.
type GapError struct {
	Expected uint64 // the sequence that should have come
	Found    uint64 // the sequence that came
	Reason   string
}

// Error implements error.
func (e *GapError) Error() string {
	return fmt.Sprintf("the stream has a gap: sequence %d expected, found %d: %s", e.Expected, e.Found, e.Reason)
}

// StreamLostError means that the stream or the state bucket, which must be there, is not,
// or that another one is in its place. Its text is the recovery procedure.
type StreamLostError struct {
	Where  string // the data folder or the servers
	Reason string

	stream, bucket string
	folder         bool
}

// Error implements error.
func (e *StreamLostError) Error() string {
	anew := fmt.Sprintf("delete both (nats stream rm %s; nats kv rm %s)", e.stream, e.bucket)
	whole := "both"
	if e.folder {
		anew, whole = "move the folder's content away, "+markerName+" included", "the whole folder"
	}
	return fmt.Sprintf("the stream in %s is lost: %s. Either restore %s from a backup of one moment, "+
		"or start a new stream: stop all processes of the pipeline, %s, and start again; "+
		"capture then reads everything that the sink has not committed again from the replication slot, "+
		"which is complete if the slot was only confirmed for what the sink had applied. "+
		"Tables without a key cannot be repaired so: copy them anew",
		e.Where, e.Reason, whole, anew)
}

func isLost(err error) bool {
	var lost *StreamLostError
	return errors.As(err, &lost)
}

// InUseError means that another process has the data folder open.
type InUseError struct {
	Folder string
	Owner  string // its process id, "unknown" if it cannot be told
}

// Error implements error.
func (e *InUseError) Error() string {
	return fmt.Sprintf("data folder is in use: process %s has %s open; stop it, or give this one a data folder of its own", e.Owner, e.Folder)
}

// ConnectError means that the server cannot be reached or does not let us in. It may
// pass: the caller can open another bus later.
type ConnectError struct {
	Server string // hosts or path, without credentials
	Err    error
	Remedy string
}

// Error implements error.
func (e *ConnectError) Error() string {
	return fmt.Sprintf("connect to %s: %v: %s", e.Server, e.Err, e.Remedy)
}

// Unwrap returns the cause.
func (e *ConnectError) Unwrap() error { return e.Err }
