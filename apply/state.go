package apply

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// state is what apply keeps in the bucket. One write moves the checkpoint and clears
// the plan; another sets the next plan. Every write is conditional on the revision
// before it, which keeps a second apply out.
type state struct {
	// Pipeline is a random name for this life of the pipeline. It is part of every
	// batch ID, so that labels of another life that happened to have the same
	// positions (a source restored from a backup) never count as ours.
	Pipeline   string         `json:"pipeline"`
	Checkpoint cdc.Checkpoint `json:"checkpoint"`
	// Plan is the batch that may be partly in the sink already.
	Plan *plan `json:"plan,omitempty"`
}

// plan says which changes the next batch holds: those of the interval (From, To].
// After a crash the same batch is formed again, with the same IDs and the same time,
// so that the sink recognises what it has already committed.
type plan struct {
	From     cdc.Position `json:"from"`
	To       cdc.Position `json:"to"`
	SyncedAt time.Time    `json:"synced_at"`
	// Attempts, by table OID, is part of the batch ID if it is not zero. It grows
	// when the sink has committed less than it was sent: under the same ID it would
	// say that all is done.
	Attempts map[uint32]int `json:"attempts,omitempty"`
}

// ParseCheckpoint reads the checkpoint out of apply's state, for those who watch it.
// Data that holds no state yet answers a zero checkpoint.
func ParseCheckpoint(data []byte) (cdc.Checkpoint, error) {
	if len(data) == 0 {
		return cdc.Checkpoint{}, nil
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return cdc.Checkpoint{}, fmt.Errorf("decode apply's state: %w", err)
	}
	return s.Checkpoint, nil
}

// ledger keeps the state and its revision.
type ledger struct {
	stream   Stream
	state    state
	revision uint64
}

// openLedger loads the state, or starts a new one.
func openLedger(ctx context.Context, stream Stream) (*ledger, error) {
	data, revision, err := stream.LoadState(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the checkpoint: %w", err)
	}
	l := &ledger{stream: stream, revision: revision}
	if len(data) == 0 {
		l.state.Pipeline = rand.Text()[:12]
		l.state.Checkpoint.Epoch = stream.Epoch()
		return l, l.save(ctx)
	}
	if err := json.Unmarshal(data, &l.state); err != nil {
		return nil, fmt.Errorf("decode apply's state: %w", err)
	}
	return l, nil
}

func (l *ledger) save(ctx context.Context) error {
	data, err := json.Marshal(&l.state)
	if err != nil {
		return fmt.Errorf("encode apply's state: %w", err)
	}
	revision, err := l.stream.SaveState(ctx, data, l.revision)
	if err != nil {
		return fmt.Errorf("save the checkpoint: %w", err)
	}
	l.revision = revision
	return nil
}

// begin records a plan before anything of it reaches the sink. A plan that is there
// already is the one that is carried out again.
func (l *ledger) begin(ctx context.Context, p plan) error {
	if l.state.Plan != nil {
		return nil
	}
	l.state.Plan = &p
	return l.save(ctx)
}

// again makes the plan be carried out under another ID for a table.
func (l *ledger) again(ctx context.Context, oids []uint32) error {
	next := *l.state.Plan
	next.Attempts = maps.Clone(next.Attempts)
	if next.Attempts == nil {
		next.Attempts = map[uint32]int{}
	}
	for _, oid := range oids {
		next.Attempts[oid]++
	}
	l.state.Plan = &next
	return l.save(ctx)
}

// finish moves the checkpoint after the sink has committed the plan.
func (l *ledger) finish(ctx context.Context, c cdc.Checkpoint) error {
	old := &l.state.Checkpoint
	if old.Position.After(c.Position) || old.End > c.End {
		return fmt.Errorf("move the checkpoint from %s (end %s) back to %s (end %s): refused", old.Position, old.End, c.Position, c.End)
	}
	l.state.Plan = nil
	l.state.Checkpoint = c
	return l.save(ctx)
}
