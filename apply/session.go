package apply

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// session is one run from the checkpoint until something ends it: the reader takes
// messages from the stream, the collector gathers them, the loader applies batches.
type session struct {
	*Apply
	ledger   *ledger
	consumer Consumer
	schemas  map[cdc.Fingerprint]*cdc.Schema

	frames chan delivered // bound 2: a frame is up to a few hundred kilobytes
	want   chan struct{}  // the loader is free
	cut    chan batch     // what it gets
}

// delivered is an opened message.
type delivered struct {
	frame    cdc.Frame
	schemas  []*cdc.Schema
	sequence uint64
}

// session connects and works until ctx is done or an error ends it. work is the
// context of calls that may outlive ctx for a while.
func (a *Apply) session(ctx, work context.Context) error {
	l, err := openLedger(ctx, a.stream)
	if err != nil {
		return err
	}
	a.update(func(s *Status) {
		s.State, s.Detail, s.Ready = Connecting, "Connecting to sink", false
		s.Checkpoint = l.state.Checkpoint
	})
	load := &loader{
		sink: a.sink, ledger: l, parallel: a.config.Parallel, prepared: map[cdc.Fingerprint]bool{}, now: time.Now,
		attempt: func(changes bool, what string, call func(context.Context) error) error {
			return a.attempt(ctx, work, changes, what, call)
		},
		loaded: a.loaded,
	}
	if err := load.attempt(false, "connect to the sink", a.sink.Check); err != nil {
		return err
	}
	s := &session{
		Apply: a, ledger: l, schemas: map[cdc.Fingerprint]*cdc.Schema{},
		frames: make(chan delivered, 2), want: make(chan struct{}), cut: make(chan batch),
	}
	if s.consumer, err = s.open(ctx); err != nil {
		return err
	}
	defer s.consumer.Close()
	tables, err := a.stream.Tables(ctx)
	if err != nil {
		return fmt.Errorf("watch the list of tables: %w", err)
	}
	a.update(func(s *Status) { s.Detail = "Waiting for the list of tables" })
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.read(ctx) })
	group.Go(func() error { return s.collect(ctx) })
	group.Go(func() error { return s.load(ctx, work, load, tables) })
	return group.Wait()
}

// announced prepares the tables that capture is set to. Apply is ready once it has done
// so for the first time.
func (s *session) announced(load *loader, tables []*cdc.Schema) error {
	for _, t := range tables {
		if err := load.prepare(t); err != nil {
			return err
		}
	}
	s.update(func(st *Status) { st.Ready, st.State, st.Detail = true, Applying, "Replicating" })
	return nil
}

func (a *Apply) loaded(r Result) {
	a.update(func(s *Status) {
		s.Loads += uint64(max(r.Loads, 0))     //nolint:gosec // A count.
		s.Retries += uint64(max(r.Retries, 0)) //nolint:gosec // A count.
		s.Bytes += uint64(max(r.Bytes, 0))     //nolint:gosec // A count.
	})
}

// open positions the consumer behind the checkpoint. It goes by position: when the end of
// the stream was lost and published again, a sequence is no longer what it was.
func (s *session) open(ctx context.Context) (Consumer, error) {
	after, err := s.stream.Locate(ctx, s.ledger.state.Checkpoint.Position)
	if err != nil {
		return nil, fmt.Errorf("find %s in the stream: %w", s.ledger.state.Checkpoint.Position, err)
	}
	c, err := s.stream.Consumer(ctx, after)
	if err != nil {
		return nil, fmt.Errorf("consume from message %d: %w", after+1, err)
	}
	return c, nil
}

// read opens messages and resolves their schemas.
func (s *session) read(ctx context.Context) error {
	for {
		m, err := s.consumer.Next(ctx)
		if err != nil {
			return fmt.Errorf("read from the stream: %w", err)
		}
		d := delivered{sequence: m.Sequence}
		if d.frame, err = cdc.Open(m.Data); err != nil {
			return fmt.Errorf("read message %d: %w", m.Sequence, err)
		}
		for _, ref := range d.frame.Header.Schemas {
			schema, err := s.schema(ctx, ref)
			if err != nil {
				return fmt.Errorf("read message %d: %w", m.Sequence, err)
			}
			d.schemas = append(d.schemas, schema)
		}
		select {
		case s.frames <- d:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) schema(ctx context.Context, ref cdc.SchemaRef) (*cdc.Schema, error) {
	if known, ok := s.schemas[ref.Fingerprint]; ok {
		return known, nil
	}
	var schema *cdc.Schema
	var err error
	if ref.Definition != nil {
		schema, err = cdc.UnmarshalSchema(ref.Definition)
	} else {
		schema, err = s.stream.Schema(ctx, ref.Fingerprint)
	}
	if err != nil {
		return nil, fmt.Errorf("find schema %s: %w", ref.Fingerprint, err)
	}
	if schema.Fingerprint() != ref.Fingerprint {
		return nil, fmt.Errorf("schema %s of table %s has the fingerprint %s: %w", ref.Fingerprint, schema.Name(), schema.Fingerprint(), cdc.ErrCorrupt)
	}
	s.schemas[ref.Fingerprint] = schema
	return schema, nil
}

// collect gathers frames and hands a batch to the loader when one is due and the
// loader is free.
func (s *session) collect(ctx context.Context) error {
	checkpoint := s.ledger.state.Checkpoint
	c := newCollector(s.stream.Epoch(), checkpoint)
	p := pacer{planned: s.ledger.state.Plan}
	for {
		settings, paused, draining, changed := s.controls()
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
		frames, want, timer := s.frames, s.want, time.NewTimer(wait)
		if !p.room(c, s.config) {
			frames = nil
		}
		if !due {
			want = nil
		}
		select {
		case d := <-frames:
			err = c.add(&d.frame, d.schemas, d.sequence)
			p.added(time.Now())
			s.waiting(c)
		case <-want:
			b := c.cut(n, checkpoint)
			checkpoint = b.checkpoint
			p.taken(time.Now(), c)
			s.waiting(c)
			s.cut <- b
		case <-timer.C:
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

// recovered forgets the error that ended the session before, once this one has caught
// up. A batch that is applied does the same.
func (s *session) recovered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Err != "" && s.status.errOf == "" {
		s.status.clear("")
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
	for {
		var b batch
		select {
		case list, ok := <-tables:
			if !ok {
				return errors.New("the list of tables cannot be watched any more")
			}
			if err := s.announced(load, list); err != nil {
				return err
			}
			continue
		case s.want <- struct{}{}:
			b = <-s.cut
		case <-ctx.Done():
			return ctx.Err()
		}
		s.taken(&b)
		if err := load.load(work, &b); err != nil {
			return err
		}
		s.applied(&b, time.Now())
		s.taken(nil)
		if err := s.consumer.Ack(work, b.checkpoint.Sequence); err != nil {
			return fmt.Errorf("acknowledge message %d: %w", b.checkpoint.Sequence, err)
		}
	}
}
