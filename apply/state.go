package apply

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/killpoint"
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
	// Replay is set in the state of a replay, which has one of its own.
	Replay *replayState `json:"replay,omitempty"`
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
	// Open tells that the interval ends inside a transaction.
	Open bool `json:"open,omitempty"`
	// Aside, by table OID, lists the rows of the batch that follow dead letters, so
	// that they are left out again although the letters may be gone by then.
	Aside map[uint32][]int `json:"aside,omitempty"`
	// Parts, by table OID, tells that the sink has refused a row of the batch, and
	// how far the batch has got in parts.
	Parts map[uint32]parts `json:"parts,omitempty"`
}

// parts is how far a batch has got that is sent in parts. The next part is
// units [Done, End) of the batch. It is stored before the part is sent, so that every
// unit is in one part that the sink commits, whatever happens in between.
type parts struct {
	Done    int `json:"done"` // units that are stored or among the dead letters
	End     int `json:"end"`
	Refused int `json:"refused"` // of Done those among the dead letters
}

// ParseCheckpoint reads the checkpoint out of apply's state, for those who watch it.
// Data that holds no state yet answers a zero checkpoint.
func ParseCheckpoint(data []byte) (cdc.Checkpoint, error) {
	live, err := ParseLive(data)
	return live.Checkpoint, err
}

// Live is how far live apply has got.
type Live struct {
	Checkpoint cdc.Checkpoint
	// Reached is up to where the sink may hold changes: the end of the batch that
	// is under way, or the checkpoint's position if none is.
	Reached cdc.Position
}

// ParseLive reads out of apply's state how far it has got. Data that holds no state yet
// answers zero positions.
func ParseLive(data []byte) (Live, error) {
	if len(data) == 0 {
		return Live{}, nil
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return Live{}, fmt.Errorf("decode apply's state: %w", err)
	}
	live := Live{Checkpoint: s.Checkpoint, Reached: s.Checkpoint.Position}
	if s.Plan != nil {
		live.Reached = later(live.Reached, s.Plan.To)
	}
	return live, nil
}

// ledger keeps the state and its revision. The state is changed by one goroutine, but
// for the parts of tables.
type ledger struct {
	stream   Stream
	fence    func() error
	mu       sync.Mutex
	state    state
	revision uint64
}

// openLedger loads the state, or starts the one that fresh fills in.
func (a *Apply) openLedger(ctx context.Context) (*ledger, error) {
	data, revision, err := a.stream.LoadState(ctx)
	if err != nil {
		return nil, fmt.Errorf("load the checkpoint: %w", err)
	}
	l := &ledger{stream: a.stream, fence: a.fence, revision: revision}
	if len(data) == 0 {
		if err := a.checkUnused(ctx); err != nil {
			return nil, err
		}
		l.state.Pipeline = rand.Text()[:12]
		l.state.Checkpoint.Epoch = a.stream.Epoch()
		if a.replay != nil {
			l.state.Replay = a.replay.fresh()
			l.state.Checkpoint.Position = l.state.Replay.From
		}
		return l, l.save(ctx)
	}
	if err := json.Unmarshal(data, &l.state); err != nil {
		return nil, fmt.Errorf("decode apply's state: %w", err)
	}
	return l, nil
}

// checkUnused refuses to begin where another apply has been at work.
func (a *Apply) checkUnused(ctx context.Context) error {
	used, ok := a.stream.(Acknowledger)
	if !ok || a.replay != nil {
		return nil
	}
	sequence, err := used.Acknowledged(ctx)
	if err != nil {
		return fmt.Errorf("ask what was acknowledged: %w", err)
	}
	if sequence > 0 {
		return fmt.Errorf("%w: nothing is known to be applied, but message %d of the stream was acknowledged: %s", ErrGap, sequence, checkpointLost)
	}
	return nil
}

// save stores the state, unless somebody else has, or may have by now.
func (l *ledger) save(ctx context.Context) error {
	if err := l.fence(); err != nil {
		return err
	}
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
	killpoint.Reached("apply.planning")
	if err := l.save(ctx); err != nil {
		return err
	}
	killpoint.Reached("apply.planned")
	return nil
}

// again makes the plan be carried out under another ID for a table.
func (l *ledger) again(ctx context.Context, oid uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := *l.state.Plan
	next.Attempts = maps.Clone(next.Attempts)
	if next.Attempts == nil {
		next.Attempts = map[uint32]int{}
	}
	next.Attempts[oid]++
	l.state.Plan = &next
	return l.save(ctx)
}

// part records the next part of a table's batch before it is sent.
func (l *ledger) part(ctx context.Context, oid uint32, next parts) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := *l.state.Plan
	p.Parts = maps.Clone(p.Parts)
	if p.Parts == nil {
		p.Parts = map[uint32]parts{}
	}
	p.Parts[oid] = next
	l.state.Plan = &p
	return l.save(ctx)
}

// finished records that a replay is done.
func (l *ledger) finished(ctx context.Context) error {
	next := *l.state.Replay
	next.Finished = true
	l.state.Replay = &next
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
	killpoint.Reached("apply.finishing")
	if err := l.save(ctx); err != nil {
		return err
	}
	killpoint.Reached("apply.checkpointed")
	return nil
}
