package api

import (
	"context"
	"fmt"
	"time"
)

// Pipeline is what the server shows and steers. Its methods are called concurrently.
//
// The control methods return a *StateError when the present state does not allow the
// change and an *InvalidError when the argument is wrong; both are answers to the
// caller. They return once the change is in force or, for Drain and Stop, begun: the
// answer must reach the caller before the process ends.
type Pipeline interface {
	// Status returns one consistent picture of both stages. It must come from what
	// the process knows, within about a second, whatever is down.
	Status(ctx context.Context) Status
	// Pause stops applying; capture goes on into the queue.
	Pause(ctx context.Context) error
	// Resume goes on applying after Pause.
	Resume(ctx context.Context) error
	// Drain begins to apply all that is committed; the process ends afterwards.
	Drain(ctx context.Context) error
	// Stop begins to end the process; queue, slot and checkpoint stay.
	Stop(ctx context.Context) error
	// StartSnapshot begins to copy the existing rows of the tables, written as in
	// TABLES, or of all; those that are being copied begin anew.
	StartSnapshot(ctx context.Context, tables []string) error
	// PauseSnapshot holds the copy; ResumeSnapshot goes on with it. Both hold over a
	// restart.
	PauseSnapshot(ctx context.Context) error
	ResumeSnapshot(ctx context.Context) error
	// Reload changes settings and returns those now in force.
	Reload(ctx context.Context, change Reload) (Settings, error)
}

// State is what control calls change. The zero value is StateRunning.
type State uint8

// The states of the pipeline.
const (
	StateRunning State = iota
	StatePaused
	StateDraining
	StateStopped
)

// String returns the name that control messages show: Running.
func (s State) String() string {
	switch s {
	case StateRunning:
		return "Running"
	case StatePaused:
		return "Paused"
	case StateDraining:
		return "Draining"
	case StateStopped:
		return "Stopped"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Stage is the phase of the pipeline's life.
type Stage uint8

// The phases. They begin with StageInit, the zero value.
const (
	StageInit Stage = iota
	StageSetup
	StageCDC
	StageSnapshot
)

// The stage details of the contract, for Status.StageDetail.
const (
	DetailInitializing         = "Initializing"
	DetailStartingServer       = "Starting gRPC server"
	DetailSetup                = "Running automatic setup"
	DetailLoadingCheckpoint    = "Loading checkpoint"
	DetailConnectingSource     = "Connecting to PostgreSQL"
	DetailStartingReplication  = "Starting replication stream"
	DetailConnectingSink       = "Connecting to sink"
	DetailInitializingPipeline = "Initializing pipeline"
	DetailSetupFailed          = "Setup failed"
	DetailReplicating          = "Replicating"
	DetailCopying              = "Copying existing rows while changes flow"
	DetailCopyPaused           = "Replicating; the copy of existing rows is paused"
)

// WorkState is what one of the two stages does.
type WorkState uint8

// The states of capture and apply.
const (
	WorkUnknown WorkState = iota
	WorkStarting
	WorkRunning
	WorkPaused
	WorkRetrying
	WorkDraining
	WorkStopped
	WorkFailed
	WorkStandby
	WorkSilent
)

var workNames = [...]string{
	"unknown", "starting", "running", "paused", "retrying", "draining", "stopped", "failed", "standby", "silent",
}

// String returns the lower-case name: running.
func (w WorkState) String() string {
	if int(w) < len(workNames) {
		return workNames[w]
	}
	return fmt.Sprintf("WorkState(%d)", uint8(w))
}

func (w WorkState) healthy() bool {
	return w == WorkRunning || w == WorkPaused || w == WorkDraining
}

// Work is one of the two stages.
type Work struct {
	State WorkState
	// Detail says more about the state; Error what is wrong and what to do. Neither
	// holds row values or credentials.
	Detail string
	Error  string
	// LastActivity is the last progress or sign of life of the peer, Since the
	// moment the stage came into this state.
	LastActivity time.Time
	Since        time.Time
	// Restarts counts restarts after errors since the process started.
	Restarts uint64
	// Instance is the process that does the work, Heard when it was heard of last.
	Instance string
	Heard    time.Time
}

// Process is one process of the pipeline.
type Process struct {
	Instance string
	Host     string
	PID      int
	Version  string
	Started  time.Time
	// Capture and Apply are "active", "standby" or empty.
	Capture string
	Apply   string
	Heard   time.Time
	// Silent tells that it is taken for gone.
	Silent bool
}

// Queue is the durable queue between the stages.
type Queue struct {
	// Messages and Bytes count all that is stored, BytesMax is where capture waits
	// for room (0 means no limit).
	Messages uint64
	Bytes    uint64
	BytesMax uint64
	// FirstSequence and LastSequence bound what is stored, AckedSequence is the
	// last message that the sink acknowledged.
	FirstSequence uint64
	LastSequence  uint64
	AckedSequence uint64
	// Pending counts what the sink has not acknowledged, OldestAge is how long the
	// first of it has been waiting.
	PendingMessages uint64
	PendingBytes    uint64
	PendingRows     uint64
	OldestAge       time.Duration
}

// Counters are totals since the process started; they never go backwards. A row is one
// row change or one truncate, never a protocol message.
type Counters struct {
	RowsCaptured         uint64
	RowsApplied          uint64
	TransactionsCaptured uint64
	BytesCaptured        uint64
	BytesApplied         uint64
	BatchesApplied       uint64
	LoadsFailed          uint64
	LoadsRetried         uint64
	// ValuesNulled counts values that the sink could not hold and that became NULL.
	ValuesNulled uint64
}

// Snapshot is the copy of existing rows.
type Snapshot struct {
	Active bool
	Paused bool
	// Detail is what the copy waits for, empty when it does not.
	Detail string
	Tables []TableSnapshot
}

// TableSnapshot is the copy of one table.
type TableSnapshot struct {
	Table string
	// State is "none", "waiting", "copying", "done" or "failed".
	State       string
	ChunksTotal uint64
	ChunksDone  uint64
	Rows        uint64
	// RowsEstimated is by the server's statistics, at least Rows.
	RowsEstimated uint64
	Bytes         uint64
	RowsPerSecond float64
	// Waiting is what the copy waits for, Error that of the last attempt.
	Waiting string
	Error   string
	Started time.Time
	// Finished is zero until all is in the queue.
	Finished time.Time
}

// left is how long the copy of the table takes at the present speed, zero if that is not
// known or nothing is left.
func (t *TableSnapshot) left() time.Duration {
	if t.RowsPerSecond <= 0 || t.RowsEstimated <= t.Rows {
		return 0
	}
	return time.Duration(float64(t.RowsEstimated-t.Rows) / t.RowsPerSecond * float64(time.Second))
}

// sums adds up what the tables have.
type sums struct {
	rows, rowsEstimated, bytes, chunks, chunksTotal uint64
	rowsPerSecond                                   float64
	left                                            time.Duration
}

func (s *Snapshot) sums() (sum sums) {
	var missing uint64
	for i := range s.Tables {
		t := &s.Tables[i]
		sum.rows += t.Rows
		sum.rowsEstimated += t.RowsEstimated
		sum.bytes += t.Bytes
		sum.chunks += t.ChunksDone
		sum.chunksTotal += t.ChunksTotal
		if t.Finished.IsZero() {
			sum.rowsPerSecond += t.RowsPerSecond
			missing += t.RowsEstimated - min(t.Rows, t.RowsEstimated)
		}
	}
	if s.Active && sum.rowsPerSecond > 0 {
		sum.left = time.Duration(float64(missing) / sum.rowsPerSecond * float64(time.Second))
	}
	return sum
}

// Settings are the settings in force that Reload can change.
type Settings struct {
	// FlushSize is rows per batch, FlushInterval the longest wait for it to fill.
	FlushSize     uint64
	FlushInterval time.Duration
	// Tables are the replicated tables as schema.table, quoted where SQL needs it.
	Tables []string
	// SnapshotWorkers is how many tables are copied at a time, SnapshotChunkRows how
	// many rows one query copies, SnapshotRate the rows per second at most, zero for
	// no bound.
	SnapshotWorkers   uint32
	SnapshotChunkRows uint64
	SnapshotRate      uint64
}

// Status is one consistent picture of the pipeline.
type Status struct {
	State State
	Stage Stage
	// StageDetail is one of the Detail constants or more exact. ErrorDetail is what
	// keeps the pipeline from working and what to do about it; when it is empty, the
	// errors of the stages are shown instead.
	StageDetail string
	ErrorDetail string

	Capture  Work
	Apply    Work
	Queue    Queue
	Counters Counters
	Snapshot Snapshot
	Settings Settings

	// ReceivedLSN is how far the source's log was received, ConfirmedLSN how far it
	// was confirmed to the source, ServerLSN the head of the log as last heard.
	ReceivedLSN  uint64
	ConfirmedLSN uint64
	ServerLSN    uint64
	// CapturedPosition and AppliedPosition are positions as text, empty when none.
	CapturedPosition string
	AppliedPosition  string

	// Lag is the age of the oldest committed change that is not in the sink, zero
	// when there is none. LagP50 and LagP99 are the times from commit at the source
	// to commit at the sink over the last minute.
	Lag    time.Duration
	LagP50 time.Duration
	LagP99 time.Duration

	// Processes are those of the pipeline, the one that answers first.
	Processes []Process
	// DeadLetters counts the rows that were set aside.
	DeadLetters uint64

	SourceType      string
	SinkType        string
	SlotName        string
	PublicationName string
	FlushBytes      uint64
	// MemoryLimit is in bytes, 0 means that none is set.
	MemoryLimit uint64
	StartedAt   time.Time
	// PausedSince is zero unless the pipeline is paused.
	PausedSince time.Time
}

// Ready tells whether both stages do what an operator wants of them: replicating, or
// paused or draining by a control call. A stage that waits to try again is not ready.
func (s *Status) Ready() bool {
	return s.State != StateStopped &&
		(s.Stage == StageCDC || s.Stage == StageSnapshot) &&
		s.ErrorDetail == "" &&
		s.Capture.State.healthy() && s.Apply.State.healthy()
}

// errorText is what to show as the error of the whole pipeline.
func (s *Status) errorText() string {
	switch {
	case s.ErrorDetail != "":
		return s.ErrorDetail
	case s.Capture.Error != "" && s.Apply.Error != "":
		return "capture: " + s.Capture.Error + "; apply: " + s.Apply.Error
	case s.Capture.Error != "":
		return "capture: " + s.Capture.Error
	case s.Apply.Error != "":
		return "apply: " + s.Apply.Error
	}
	return ""
}

// lagBytes is how much log the source must keep for the slot.
func (s *Status) lagBytes() uint64 {
	head := max(s.ServerLSN, s.ReceivedLSN)
	if s.ConfirmedLSN == 0 || head < s.ConfirmedLSN {
		return 0
	}
	return head - s.ConfirmedLSN
}

// Reload names the settings to change; zero values keep what is.
type Reload struct {
	FlushSize     uint64
	FlushInterval time.Duration
	// Tables is the complete new list, written as in TABLES.
	Tables []string
	// The settings of the copy of existing rows; nil rate keeps what is, zero is no
	// bound.
	SnapshotWorkers   uint32
	SnapshotChunkRows uint64
	SnapshotRate      *uint64
}

// Snapshot tells whether a setting of the copy of existing rows is to change.
func (r *Reload) Snapshot() bool {
	return r.SnapshotWorkers > 0 || r.SnapshotChunkRows > 0 || r.SnapshotRate != nil
}

// StateError refuses a control call that the present state does not allow.
type StateError struct {
	// State is the present state, Wanted the one that was asked for.
	State  State
	Wanted State
}

// Error describes the refusal.
func (e *StateError) Error() string {
	return fmt.Sprintf("cannot change state from %s to %s", e.State, e.Wanted)
}

// InvalidError refuses a wrong argument of a control call.
type InvalidError struct {
	// Field is the name of the argument in the contract, Problem what is wrong with
	// it and what is right.
	Field   string
	Problem string
}

// Error names the argument and the problem.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }
