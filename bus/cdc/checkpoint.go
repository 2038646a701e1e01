package cdc

import "time"

// Checkpoint is how far a sink has got: everything at or before Position is committed
// there. Apply stores it in the pipeline's state bucket under the key "apply" (inside
// its state); capture reads it to confirm End to PostgreSQL.
type Checkpoint struct {
	// Epoch is that of the stream in which Sequence counts.
	Epoch string `json:"epoch"`
	// Position is that of the last change that the sink has committed.
	Position Position `json:"position"`
	// End is the end LSN of the last transaction that is complete in the sink.
	// Only this may be confirmed to PostgreSQL.
	End LSN `json:"end"`
	// Sequence is that of the last message of the stream whose frame is applied
	// as a whole.
	Sequence uint64 `json:"sequence"`
	// Total counts the changes of the epoch up to here, see [Header].
	Total uint64 `json:"total"`
	// At is when the checkpoint was reached, by the clock of apply's host.
	At time.Time `json:"at"`
}

// Tail describes the last complete frame of a stream.
type Tail struct {
	// Sequence is that of the last message, complete frame or not.
	Sequence uint64
	// Empty tells that no complete frame is stored; Last and End are then zero.
	Empty bool
	Last  Position
	End   LSN
	// Total counts the changes of the epoch up to here, see [Header].
	Total uint64
}
