package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// reached is called when everything up to the session's limit is in the sink. It moves
// the limit, waits a while, or ends the session with errFinished.
func (r *Replay) reached(ctx context.Context, s *session) error {
	at := s.limited().at
	to := s.ledger.state.Replay.To
	switch {
	case r.quiet.on():
		return r.finish(ctx, s)
	case !r.config.Guarded && !to.IsZero() && at == to:
		return r.finish(ctx, s)
	case !r.config.Guarded && !to.IsZero():
		return s.allow(ctx, to)
	}
	live, err := r.config.Live(ctx)
	if err != nil {
		return fmt.Errorf("read how far live apply has got: %w", err)
	}
	end := live.Checkpoint.Position
	if !to.IsZero() && end.After(to) {
		end = to
	}
	// The second reading is the end: live apply may go on for good.
	if end.After(at) && r.rounds < 2 {
		r.rounds++
		return s.allow(ctx, end)
	}
	if r.config.Quiet == nil || !r.config.Guarded || !to.IsZero() {
		return r.finish(ctx, s)
	}
	return r.last(ctx, s)
}

// last goes on to the end while live apply waits.
func (r *Replay) last(ctx context.Context, s *session) error {
	live, err := r.wait(ctx)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil
	}
	if err != nil {
		return err
	}
	r.quiet.last(live.Checkpoint.Position)
	s.update(func(st *Status) { st.Detail = "Replaying the last changes while live apply waits" })
	return s.allow(ctx, live.Checkpoint.Position)
}

// wait makes live apply wait at the end of a batch.
func (r *Replay) wait(ctx context.Context) (Live, error) {
	r.apply.update(func(st *Status) { st.Detail = "Waiting until live apply has finished its batch" })
	asked, cancel := context.WithTimeout(ctx, r.config.QuietWait)
	defer cancel()
	quiet, release, err := r.config.Quiet(asked)
	if err != nil {
		return Live{}, fmt.Errorf("make live apply wait: %w", err)
	}
	live, err := r.config.Live(quiet)
	if err == nil && live.Reached.After(live.Checkpoint.Position) {
		err = fmt.Errorf("it has a batch under way up to %s", live.Reached)
	}
	if err != nil {
		release()
		return Live{}, fmt.Errorf("make live apply wait: %w", err)
	}
	r.quiet.begin(quiet, release)
	return live, nil
}

// alone makes live apply wait while a batch is applied that removes rows.
func (r *Replay) alone(l *loader, b *batch) error {
	removes := func(ch change) bool {
		return ch.kind != cdc.KindInsert && ch.kind != cdc.KindSnapshot && (ch.kind != cdc.KindUpdate || ch.oldKind != cdc.OldNone)
	}
	if !r.config.Guarded || !r.config.HardDeletes || r.quiet.on() || !slices.ContainsFunc(b.changes, removes) {
		return nil
	}
	err := l.attempt(false, "make live apply wait", func(ctx context.Context) error {
		_, err := r.wait(ctx)
		return err
	})
	r.apply.update(func(st *Status) { st.Detail = "Replaying" })
	return err
}

// together lets live apply go on after a batch, unless it was among the last.
func (r *Replay) together() {
	if r.quiet.on() && r.quiet.until.IsZero() {
		r.quiet.end()
	}
}

func (r *Replay) finish(ctx context.Context, s *session) error {
	if err := s.ledger.finished(ctx); err != nil {
		return err
	}
	return errFinished
}

// quiet is the time in which live apply waits.
type quiet struct {
	mu      sync.Mutex
	check   func() error
	release func()
	until   cdc.Position // the end of the replay, zero if it goes on after the batch
}

func (q *quiet) begin(ctx context.Context, release func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.check, q.release, q.until = ctx.Err, release, cdc.Position{}
}

// last makes the quiet one that lasts until the end of the replay.
func (q *quiet) last(until cdc.Position) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.until = until
}

func (q *quiet) on() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.check != nil
}

// err tells that live apply may go on although the replay has not finished.
func (q *quiet) err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.check == nil || q.check() == nil {
		return nil
	}
	return errors.New("live apply goes on, and the last changes are not replayed yet")
}

// end lets live apply go on.
func (q *quiet) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.check != nil {
		q.release()
		q.check, q.release = nil, nil
	}
}

// rows returns the rows of a batch as they are replayed.
func (r *Replay) rows(schema *cdc.Schema, rows []Row, p plan) []Row {
	if !r.config.Guarded {
		return rows
	}
	out := make([]Row, len(rows))
	for i := range rows {
		out[i] = rows[i]
		out[i].Position = r.version(schema, rows[i].Position, p)
	}
	return out
}

// version returns the position with which a change is written. That of a transaction
// which goes on after the batch is one less: what live apply has made of its rows is
// later, although it has the same version.
func (r *Replay) version(schema *cdc.Schema, pos cdc.Position, p plan) cdc.Position {
	if r.config.Guarded && p.Open && pos.Commit == p.To.Commit && len(schema.Key) > 0 {
		pos.Commit--
	}
	return pos
}

// loaded counts the rows of a batch that the sink has committed.
func (r *Replay) loaded(b *TableBatch, result Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.summary.Tables[b.Schema.Name()]
	t.Rows += int64(len(b.Rows))
	t.Left += result.Left
	r.summary.Tables[b.Schema.Name()] = t
	r.summary.Rows += int64(len(b.Rows))
	r.summary.Left += result.Left
}

// applied counts the changes of a batch.
func (r *Replay) applied(b *batch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range b.changes {
		name := b.changes[i].schema.Name()
		t := r.summary.Tables[name]
		t.Changes++
		r.summary.Tables[name] = t
	}
}

// Survey is what a replay would find in its range.
type Survey struct {
	Frames      int
	Changes     uint64
	Bytes       uint64 // of the rows in the stream
	First, Last cdc.Position
	// FirstTime and LastTime are when the transactions of First and Last were
	// committed at the source.
	FirstTime, LastTime time.Time
	Tables              map[string]TableSurvey // by schema.table
}

// TableSurvey counts the changes of a table.
type TableSurvey struct {
	Inserts, Updates, Deletes, Truncates, SnapshotRows, Bytes uint64
}

// Explore reads the range of a replay without touching a sink or keeping a state. It ends
// at the end of the stream at the latest.
func Explore(ctx context.Context, config ReplayConfig, stream Stream) (Survey, error) {
	r := NewReplay(config, stream, nil)
	if err := r.config.check(); err != nil {
		return Survey{}, err
	}
	end := r.config.To
	if r.config.Live != nil {
		live, err := r.config.Live(ctx)
		if err != nil {
			return Survey{}, fmt.Errorf("read how far live apply has got: %w", err)
		}
		if end.IsZero() || (r.config.Guarded && end.After(live.Checkpoint.Position)) {
			end = live.Checkpoint.Position
		}
	}
	from := cdc.Checkpoint{Position: r.config.From}
	c := newCollector(stream.Epoch(), from)
	c.only, c.replay = r.tables, true
	in := reader{stream: stream, schemas: map[cdc.Fingerprint]*cdc.Schema{}}
	var err error
	if c.limit, err = in.limit(ctx, end); err != nil {
		return Survey{}, err
	}
	if err := in.open(ctx, r.config.From); err != nil {
		return Survey{}, err
	}
	defer in.consumer.Close()
	survey := Survey{Tables: map[string]TableSurvey{}}
	for !c.exhausted() && in.consumer.Pending() > 0 {
		d, err := in.next(ctx)
		if err != nil {
			return survey, err
		}
		if err := c.add(&d.frame, d.schemas, d.sequence); err != nil {
			return survey, err
		}
		survey.Frames++
		n, _ := c.until(end)
		survey.count(c.changes[:n])
		c.cut(len(c.changes), from)
	}
	return survey, nil
}

func (s *Survey) count(changes []change) {
	for i := range changes {
		ch := &changes[i]
		at := time.UnixMicro(ch.commitTime).UTC()
		if s.Changes == 0 {
			s.First, s.FirstTime = ch.pos, at
		}
		s.Last, s.LastTime = ch.pos, at
		size := uint64(len(ch.new) + len(ch.old)) //nolint:gosec // A length.
		s.Changes, s.Bytes = s.Changes+1, s.Bytes+size
		t := s.Tables[ch.schema.Name()]
		t.Bytes += size
		switch ch.kind {
		case cdc.KindInsert:
			t.Inserts++
		case cdc.KindUpdate:
			t.Updates++
		case cdc.KindDelete:
			t.Deletes++
		case cdc.KindTruncate:
			t.Truncates++
		case cdc.KindSnapshot:
			t.SnapshotRows++
		default: // Marks are no changes.
		}
		s.Tables[ch.schema.Name()] = t
	}
}
