package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// session is one run from the checkpoint until something ends it: the reader takes
// messages from the stream, the collector gathers them, the loader applies batches.
type session struct {
	*Apply
	reader
	ledger *ledger

	frames chan delivered // bound 2: a frame is up to a few hundred kilobytes
	want   chan struct{}  // the loader is free
	cut    chan batch     // what it gets

	limit limit // how far a replay may go at present; live apply has none
}

// session connects and works until ctx is done or an error ends it. work is the
// context of calls that may outlive ctx for a while.
func (a *Apply) session(ctx, work context.Context) error {
	l, err := a.openLedger(ctx)
	if err != nil {
		return err
	}
	a.update(func(s *Status) {
		s.State, s.Detail, s.Ready = Connecting, "Connecting to sink", false
		s.Checkpoint = l.state.Checkpoint
	})
	a.left(l)
	load := a.newLoader(ctx, work, l)
	if err := load.attempt(false, "connect to the sink", a.sink.Check); err != nil {
		return err
	}
	if load.letters != nil {
		if err := load.letters.open(); err != nil {
			return err
		}
	}
	s := &session{
		Apply: a, ledger: l, reader: reader{stream: a.stream, schemas: map[cdc.Fingerprint]*cdc.Schema{}},
		frames: make(chan delivered, 2), want: make(chan struct{}), cut: make(chan batch),
	}
	tables, err := s.begin(ctx)
	if err != nil {
		return err
	}
	if err := s.open(ctx, l.state.Checkpoint.Position); err != nil {
		return err
	}
	defer s.consumer.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.read(ctx) })
	group.Go(func() error { return s.collect(ctx) })
	group.Go(func() error { return s.load(ctx, work, load, tables) })
	return group.Wait()
}

// begin returns where the schemas of the tables are announced that have to be prepared
// before their first row; for a replay nowhere.
func (s *session) begin(ctx context.Context) (<-chan []*cdc.Schema, error) {
	if s.replay != nil {
		return nil, s.replay.begin(s)
	}
	tables, err := s.Apply.stream.Tables(ctx)
	if err != nil {
		return nil, fmt.Errorf("watch the list of tables: %w", err)
	}
	s.update(func(s *Status) { s.Detail = "Waiting for the list of tables" })
	return tables, nil
}

func (a *Apply) newLoader(ctx, work context.Context, l *ledger) *loader {
	load := &loader{
		sink: a.sink, ledger: l, replay: a.replay, parallel: a.config.Parallel,
		prepared: map[uint32]cdc.Fingerprint{}, now: time.Now, loaded: a.loaded, left: a.left,
		enter: func() error { return a.enter(ctx) },
		attempt: func(changes bool, what string, call func(context.Context) error) error {
			return a.attempt(ctx, work, changes, what, call)
		},
	}
	if a.config.DeadLetters != nil {
		load.letters = &letterer{
			store: a.config.DeadLetters, life: l.state.Pipeline, refusedMax: a.config.RefusedMax, attempt: load.attempt,
			put: func(letter *DeadLetter) {
				if letter.Kind != LetterPassed {
					a.update(func(s *Status) { s.Letters++ })
				}
			},
		}
	}
	return load
}

func (a *Apply) loaded(b *TableBatch, r Result) {
	if a.replay != nil {
		a.replay.loaded(b, r)
	}
	a.update(func(s *Status) {
		s.Loads += uint64(max(r.Loads, 0))     //nolint:gosec // A count.
		s.Retries += uint64(max(r.Retries, 0)) //nolint:gosec // A count.
		s.Bytes += uint64(max(r.Bytes, 0))     //nolint:gosec // A count.
		s.Nulled += uint64(max(r.Nulled, 0))   //nolint:gosec // A count.
	})
}

// read passes opened messages on.
func (s *session) read(ctx context.Context) error {
	for {
		d, err := s.next(ctx)
		if err != nil {
			return err
		}
		select {
		case s.frames <- d:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// collect gathers frames and hands a batch to the loader when one is due and the
// loader is free.
func (s *session) collect(ctx context.Context) error {
	checkpoint := s.ledger.state.Checkpoint
	c := newCollector(s.Apply.stream.Epoch(), checkpoint)
	if s.replay != nil {
		c.only, c.replay = s.replay.tables, true
	}
	p := pacer{planned: s.ledger.state.Plan}
	var done *ahead
	for {
		settings, paused, draining, changed := s.controls()
		c.limit = s.limited()
		n, due, wait, err := p.due(c, pace{
			Settings: settings, config: s.config, paused: paused, draining: draining,
			more: len(s.frames) > 0 || s.consumer.Pending() > 0, now: time.Now(),
		})
		if err != nil {
			return err
		}
		if c.empty() && len(s.frames) == 0 && s.consumer.Pending() == 0 {
			s.recovered()
		}
		gains := due && p.planned == nil && s.gains(c, n, done)
		if gains {
			wait = s.config.MinSpacing // A loader that asks sooner has nothing to wait for.
		}
		frames, want, timer := s.frames, s.want, time.NewTimer(wait)
		if !p.room(c, s.config) {
			frames = nil
		}
		reached := p.planned == nil && c.reached()
		if !due && !reached {
			want = nil
		}
		select {
		case d := <-frames:
			err = c.add(&d.frame, d.schemas, d.sequence)
			p.added(time.Now())
			s.waiting(c)
		case <-want:
			if reached && !due {
				s.cut <- batch{reached: c.limit}
				break
			}
			b := c.cut(n, checkpoint)
			if done.fits(b.changes, time.Now()) {
				b.ahead = done
			}
			done = nil
			checkpoint = b.checkpoint
			p.taken(time.Now(), c)
			s.waiting(c)
			s.cut <- b
		case <-timer.C:
			if gains {
				done = s.ahead(c.changes[:n])
			}
		case <-changed:
		case <-ctx.Done():
			err = ctx.Err()
		}
		timer.Stop()
		if err != nil {
			return err
		}
	}
}

func (s *session) controls() (settings Settings, paused, draining bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings, s.paused && !s.draining, s.draining, s.changed
}

// limited returns how far batches may go at present.
func (s *session) limited() limit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit
}

// allow moves the limit.
func (s *session) allow(ctx context.Context, at cdc.Position) error {
	to, err := s.reader.limit(ctx, at)
	if err == nil {
		s.control(func() { s.limit = to })
	}
	return err
}

// recovered forgets the error that ended the session before, once this one has caught
// up. A batch that is applied does the same.
func (s *session) recovered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Err != "" && s.status.errOf == "" {
		s.status.clear("")
		s.log.forget("")
		s.signal()
	}
}

// waiting shows how much is collected and not yet taken.
func (s *session) waiting(c *collector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Waiting, s.collected = len(c.changes), commitTime(c.frames)
	s.status.oldest(s.collected, s.loading)
}

// taken shows the batch that is being applied, nil after the last one.
func (s *session) taken(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loading = time.Time{}
	if b != nil && len(b.changes) > 0 {
		s.loading = commitTime(b.frames)
	}
	s.status.oldest(s.collected, s.loading)
}

// commitTime returns that of the first frame which has changes, zero if none has.
func commitTime(frames []frameEnd) time.Time {
	for _, f := range frames {
		if f.changes > 0 {
			return time.UnixMicro(f.commitTime)
		}
	}
	return time.Time{}
}

// load asks for batches and applies them, and prepares tables in between.
func (s *session) load(ctx, work context.Context, load *loader, tables <-chan []*cdc.Schema) error {
	r := newRoll(s, load, tables)
	for {
		if err := r.prepare(ctx); err != nil {
			return err
		}
		select {
		case list, ok := <-tables:
			if !ok {
				return errors.New("the list of tables cannot be watched any more")
			}
			if err := r.take(ctx, list); err != nil {
				return err
			}
		case s.want <- struct{}{}:
			if err := s.batch(ctx, work, load, <-s.cut); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// batch applies one batch, or learns that a replay has come to the end of what it may do.
func (s *session) batch(ctx, work context.Context, load *loader, b batch) error {
	if b.reached.set {
		if b.reached != s.limited() {
			return nil // It was moved in the meantime.
		}
		return s.replay.reached(ctx, s)
	}
	s.taken(&b)
	if err := load.load(work, &b); err != nil {
		return err
	}
	s.applied(&b, time.Now())
	s.log.forget("")
	s.taken(nil)
	if s.replay != nil {
		s.replay.applied(&b)
	}
	if err := s.consumer.Ack(work, b.checkpoint.Sequence); err != nil {
		return fmt.Errorf("acknowledge message %d: %w", b.checkpoint.Sequence, err)
	}
	killpoint.Reached("apply.acknowledged")
	b.release()
	return nil
}
