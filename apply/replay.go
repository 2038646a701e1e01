package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// ErrRange is wrapped by errors that say that a replay cannot be done as it was asked.
var ErrRange = errors.New("replay is not possible like this")

// errFinished ends the session of a replay that is done.
var errFinished = errors.New("replay is finished")

// fruitlessMax is how many sessions in a row may end without any progress.
const fruitlessMax = 3

// ReplayConfig says what is replayed and how. Everything of [Config] holds as for live
// apply, but that a row that the sink refuses ends the replay unless there are dead
// letters, as does every other error that needs somebody to change something.
type ReplayConfig struct {
	Config
	// From is the position that the range follows. One of ordinal zero begins with
	// the first change of that transaction; the zero value means the oldest change
	// that the stream has.
	From cdc.Position
	// To is the last position of the range. The whole transaction that it lies in
	// belongs to the range. It must not be behind the end of the stream. The zero
	// value means what live apply has reached by the end of the replay.
	To cdc.Position
	// Tables names the tables, as schema.table, that are replayed; nil means all.
	Tables []string
	// Guarded is for the tables that live apply writes, while it runs or not: rows
	// that have a later version stay. Live must be set, and the replay does not go
	// further than live apply has committed. See [Replay].
	Guarded bool
	// HardDeletes tells that deleted rows disappear from the sink.
	HardDeletes bool
	// Live returns how far live apply has got, as [ParseLive] reads it from its
	// state. It may be nil if To is set and Guarded is not.
	Live func(ctx context.Context) (Live, error)
	// Quiet makes live apply wait for the last, short stretch of a guarded replay
	// that runs to the end, and with HardDeletes for every batch that removes rows.
	// It returns once live apply has no batch under way; it begins none until
	// release is called, or for some time after the context that is returned is
	// done, long enough for a call of the sink that is under way to end. ctx is that of the call alone: quiet must not be made from it. Quiet
	// must be set if HardDeletes is. See [Apply.Hold].
	Quiet func(ctx context.Context) (quiet context.Context, release func(), err error)
	// QuietWait is how long Quiet may take before it is asked again. Defaults to 5 s.
	QuietWait time.Duration
}

func (c *ReplayConfig) check() error {
	switch {
	case c.Guarded && c.Live == nil, c.To.IsZero() && c.Live == nil:
		return fmt.Errorf("%w: it is not known how far live apply has got", ErrRange)
	case c.Guarded && c.HardDeletes && c.Quiet == nil:
		return fmt.Errorf("%w: where deleted rows disappear, live apply must wait for its end, and it is not known how to make it wait", ErrRange)
	case c.Guarded && c.HardDeletes && !c.To.IsZero():
		return fmt.Errorf("%w: where deleted rows disappear, a replay into the live tables must run to the end, or rows that were deleted after it would come back: leave the end of the range out", ErrRange)
	case !c.To.IsZero() && c.To.Commit < c.From.Commit:
		return fmt.Errorf("%w: the range ends at %s, before its start %s", ErrRange, c.To, c.From)
	}
	return nil
}

// Replay applies a range of the stream again, through the same session as live apply:
// batches are planned in a ledger of its own, which the Stream keeps apart from that of
// live apply, so that it goes on where it was after a crash. It ends by itself.
//
// # Into the live tables
//
// Live apply, L, is not guarded: what it writes replaces what is there. A replay R is
// guarded, and never passes the position C that L has committed. Then the tables end as L
// alone would have left them, but for rows that they had lost, which come back. (A row
// stays lost if the range has only a part of it: its rest was in the tables before, or
// under a key that was used again since. Left counts such parts.)
//
//  1. What R writes for a key is a state of the key at a position <= C. If the sink has
//     the key's row, L has made it what it is at C or later, so its version is not lower,
//     and the sink leaves it as it is, or replaces it by the same state. That holds at
//     every moment since C only grows. One transaction gives all its rows one version, so
//     a batch of R that ends inside of a transaction writes the rows of that transaction
//     with the version before it.
//     A row of a snapshot is the state of its key after the transaction that its
//     position names, whatever stands before it, so this holds for it too.
//  2. A row that was marked as deleted has a version and is a case of 1. A row that has
//     disappeared has none: R brings it back, and removes it again when it comes to the
//     delete. Until then the row is there. Where rows disappear a sink may have to look
//     at a row's version first and remove the row later; so L waits, between two batches
//     of its own, while R applies a batch that removes rows.
//  3. R ends while L waits: when it has nearly caught up it makes L wait and goes on to
//     C. Then nothing is in the sink from beyond C, and R has been through everything up
//     to C, in order: what it brought back and L had deleted is removed.
//  4. Tables without a key get the positions that they lack, and only these; a truncate
//     is to them what a delete is in 2.
//
// A replay that was begun must therefore be finished. Where deletes leave marks the range
// may end earlier, or L not wait; only rows that the tables had lost, with their marks, are
// then what they were at the end of the range.
type Replay struct {
	config ReplayConfig
	apply  *Apply
	tables map[string]bool // nil for all
	rounds int             // how often the end was read
	quiet  quiet

	mu      sync.Mutex
	summary ReplaySummary
}

// ReplaySummary is what a replay has done since the process started.
type ReplaySummary struct {
	From, To cdc.Position // To is how far it has got
	Changes  uint64
	// Rows were sent to the sink, one for each key of a batch; Left of them did not
	// change anything, as far as the sink can tell. Letters are dead letters.
	Rows, Left       int64
	Batches, Letters uint64
	Tables           map[string]TableSummary // by schema.table
	Duration         time.Duration
	Finished         bool
}

// TableSummary is the share of a table.
type TableSummary struct {
	Changes    uint64
	Rows, Left int64
}

// replayState is what a replay keeps in its ledger.
type replayState struct {
	From     cdc.Position `json:"from"`
	To       cdc.Position `json:"to"`
	Tables   []string     `json:"tables,omitempty"`
	Guarded  bool         `json:"guarded,omitempty"`
	Hard     bool         `json:"hard,omitempty"`
	Finished bool         `json:"finished,omitempty"`
}

// NewReplay returns a replay. It does nothing before Run. The stream must keep the state
// of this replay apart from that of live apply and of other replays; it stands for the
// replay, and may be deleted only when it is finished or given up.
func NewReplay(config ReplayConfig, stream Stream, sink Sink) *Replay {
	def(&config.QuietWait, 5*time.Second)
	if !config.To.IsZero() {
		config.To.Ordinal = math.MaxUint64
	}
	config.Tables = slices.Sorted(slices.Values(config.Tables))
	r := &Replay{config: config, apply: New(config.Config, stream, sink)}
	r.apply.replay = r
	r.summary = ReplaySummary{From: config.From, Tables: map[string]TableSummary{}}
	if len(config.Tables) > 0 {
		r.tables = map[string]bool{}
		for _, name := range config.Tables {
			r.tables[name] = true
		}
	}
	return r
}

// Run replays until the range is done. Its error says why it is not; called again, in
// this process or another, it goes on where it was. The error of ctx means that it was
// told to stop.
func (r *Replay) Run(ctx context.Context) (ReplaySummary, error) {
	started := time.Now()
	err := r.config.check()
	if err == nil {
		err = r.run(ctx)
	}
	s := r.Summary()
	s.Duration = time.Since(started)
	s.Finished = err == nil
	return s, err
}

func (r *Replay) run(ctx context.Context) error {
	work, cancel := r.apply.graceful(ctx)
	defer cancel()
	backoff := r.apply.newBackoff()
	for fruitless := 0; ; {
		before := r.apply.Status().Changes
		err := r.apply.session(ctx, work)
		r.quiet.end()
		switch {
		case errors.Is(err, errFinished):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case r.apply.Status().Changes > before:
			fruitless = 0
		default:
			fruitless++
		}
		final := errors.Is(err, ErrRange) || errors.Is(err, ErrGap) || errors.Is(err, cdc.ErrCorrupt) || isRefusal(err)
		if final || fruitless >= fruitlessMax || r.apply.fence() != nil {
			return err
		}
		r.apply.failed("", err)
		r.apply.log.repeat(ctx, slog.LevelError, "replay session ended, it starts again", "", err)
		backoff.wait(ctx)
	}
}

// Status returns how the replay does at present: its checkpoint has the position and
// sequence that it has reached.
func (r *Replay) Status() Status { return r.apply.Status() }

// Summary returns what was done so far.
func (r *Replay) Summary() ReplaySummary {
	status := r.apply.Status()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.summary
	s.To, s.Changes, s.Batches, s.Letters = status.Checkpoint.Position, status.Changes, status.Batches, status.Letters
	s.Tables = maps.Clone(r.summary.Tables)
	return s
}

// fresh returns the state that a replay begins with.
func (r *Replay) fresh() *replayState {
	c := &r.config
	return &replayState{From: c.From, To: c.To, Tables: c.Tables, Guarded: c.Guarded, Hard: c.HardDeletes}
}

// begin checks that the ledger is that of this replay. Nothing is allowed yet.
func (r *Replay) begin(s *session) error {
	state, mine := s.ledger.state.Replay, r.fresh()
	if state == nil {
		return fmt.Errorf("%w: the state given is not that of a replay", ErrRange)
	}
	same := state.From == mine.From && state.To == mine.To && slices.Equal(state.Tables, mine.Tables) &&
		state.Guarded == mine.Guarded && state.Hard == mine.Hard
	if !same {
		return fmt.Errorf("%w: another one is under way, from %s to %s: finish it first, by running it again as it was", ErrRange, state.From, state.To)
	}
	if state.Finished {
		return errFinished
	}
	r.rounds = 0
	s.control(func() { s.limit = limit{set: true, at: s.ledger.state.Checkpoint.Position} })
	s.update(func(st *Status) { st.Ready, st.State, st.Detail = true, Applying, "Replaying" })
	return nil
}
