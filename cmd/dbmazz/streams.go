package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
)

// The keys of the state bucket.
const (
	keyCapture = "capture" // capture's identity
	keyApply   = "apply"   // apply's checkpoint and plan
	keyTables  = "tables"  // fingerprints of the schemas of the configured tables
	keyControl = "control" // what was asked for over the API
	keySink    = "sink"    // what the checkpoint is about
	keyCopy    = "copy"    // how far the copying of existing rows is
)

// bucket is one key of the bus as a stage's own state.
type bucket struct {
	bus *bus.Bus
	key string
}

// LoadState returns the value and its revision, nil and zero if there is none.
func (b bucket) LoadState(ctx context.Context) (value []byte, revision uint64, err error) {
	value, revision, err = b.bus.Get(ctx, b.key)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, 0, nil
	}
	return value, revision, err
}

// SaveState stores the value if the revision is still the last one.
func (b bucket) SaveState(ctx context.Context, value []byte, revision uint64) (uint64, error) {
	revision, err := b.bus.Update(ctx, b.key, value, revision)
	if errors.Is(err, bus.ErrConflict) {
		return 0, fmt.Errorf("another process works on this pipeline (its state %q was changed by somebody else): stop one of them: %w", b.key, err)
	}
	return revision, err
}

// captureStream is the bus as capture sees it.
type captureStream struct {
	*bus.Bus
	bucket

	mu        sync.Mutex
	publisher *bus.Publisher
	total     uint64 // changes that are stored, of the epoch
}

func newCaptureStream(b *bus.Bus) *captureStream {
	return &captureStream{Bus: b, bucket: bucket{b, keyCapture}}
}

// Open starts a writing session.
func (s *captureStream) Open(ctx context.Context) (capture.Publisher, error) {
	p, err := s.Publisher(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publisher = p
	return p, nil
}

// Tail returns the end of the stream.
func (s *captureStream) Tail(ctx context.Context) (cdc.Tail, error) {
	t, err := s.Bus.Tail(ctx)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.total = t.Total
	}
	return t, err
}

// stored returns how many changes of the epoch the stream has got.
func (s *captureStream) stored() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher == nil {
		return s.total
	}
	return max(s.total, s.publisher.Stored().Total)
}

// waiting says what the publisher waits for, empty when it does not.
func (s *captureStream) waiting() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher == nil {
		return ""
	}
	if state := s.publisher.State(); state != bus.StatePublishing && state != bus.StateClosed {
		return string(state)
	}
	return ""
}

// PutTables announces the configured tables to apply.
func (s *captureStream) PutTables(ctx context.Context, schemas []*cdc.Schema) error {
	fingerprints := make([]string, 0, len(schemas))
	for _, schema := range schemas {
		if err := s.PutSchema(ctx, schema); err != nil {
			return err
		}
		fingerprints = append(fingerprints, schema.Fingerprint().String())
	}
	value, err := json.Marshal(fingerprints)
	if err != nil {
		return fmt.Errorf("encode the list of tables: %w", err)
	}
	_, err = s.Put(ctx, keyTables, value)
	return err
}

// applyStream is the bus as apply sees it.
type applyStream struct {
	*bus.Bus
	bucket
	log *slog.Logger
}

func newApplyStream(b *bus.Bus, log *slog.Logger) *applyStream {
	return &applyStream{Bus: b, bucket: bucket{b, keyApply}, log: log}
}

// Consumer delivers what follows the sequence. Where the messages right after it are
// purged, it begins with the first that is there: whether a change is missing shows in
// the positions, not in the sequences.
func (s *applyStream) Consumer(ctx context.Context, after uint64) (apply.Consumer, error) {
	c, err := s.Bus.Consumer(ctx, after)
	if purged, ok := errors.AsType[*bus.PurgedError](err); ok {
		c, err = s.Bus.Consumer(ctx, purged.First-1)
	}
	if err != nil {
		return nil, err
	}
	return consumer{c}, nil
}

// Acknowledged returns the last sequence that live apply has acknowledged.
func (s *applyStream) Acknowledged(ctx context.Context) (uint64, error) {
	info, err := s.Info(ctx)
	return info.AckFloor, err
}

// Tables follows the list that capture announces.
func (s *applyStream) Tables(ctx context.Context) (<-chan []*cdc.Schema, error) {
	entries, err := s.Watch(ctx, keyTables)
	if err != nil {
		return nil, err
	}
	lists := make(chan []*cdc.Schema)
	go func() {
		defer close(lists)
		for entry := range entries {
			if entry.Revision == 0 {
				continue
			}
			list, err := s.tables(ctx, entry.Value)
			if err != nil {
				// The session ends with the channel and starts again.
				s.log.ErrorContext(ctx, "list of tables cannot be read", "err", err)
				return
			}
			select {
			case lists <- list:
			case <-ctx.Done():
				return
			}
		}
	}()
	return lists, nil
}

func (s *applyStream) tables(ctx context.Context, value []byte) ([]*cdc.Schema, error) {
	var fingerprints []string
	if err := json.Unmarshal(value, &fingerprints); err != nil {
		return nil, fmt.Errorf("decode the list of tables: %w", err)
	}
	list := make([]*cdc.Schema, 0, len(fingerprints))
	for _, text := range fingerprints {
		fingerprint, err := cdc.ParseFingerprint(text)
		if err != nil {
			return nil, err
		}
		schema, err := s.Schema(ctx, fingerprint)
		if err != nil {
			return nil, fmt.Errorf("find schema %s: %w", fingerprint, err)
		}
		list = append(list, schema)
	}
	return list, nil
}

// consumer adapts the message type.
type consumer struct{ *bus.Consumer }

// Next returns the next frame.
func (c consumer) Next(ctx context.Context) (apply.Message, error) {
	m, err := c.Consumer.Next(ctx)
	return apply.Message{Sequence: m.Sequence, Data: m.Data, StoredAt: m.StoredAt}, err
}

// progress follows apply's checkpoint through the bus, so that it makes no difference
// in which process apply runs.
type progress struct {
	mu         sync.Mutex
	checkpoint cdc.Checkpoint
	known      bool
	changed    chan struct{}
}

func newProgress() *progress { return &progress{changed: make(chan struct{})} }

// Checkpoint returns the last one.
func (p *progress) Checkpoint() (c cdc.Checkpoint, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checkpoint, p.known
}

// Changed returns a channel that is closed with the next change.
func (p *progress) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// follow takes the checkpoint from the bus until ctx is done. loaded is closed when
// the present one is known.
func (p *progress) follow(ctx context.Context, b *bus.Bus, loaded chan<- struct{}) error {
	entries, err := watched(ctx, b, keyApply)
	if err != nil {
		return fmt.Errorf("watch the checkpoint: %w", err)
	}
	for entry := range entries {
		c, err := apply.ParseCheckpoint(entry.Value)
		if err != nil {
			return err
		}
		p.set(c)
		if loaded != nil {
			close(loaded)
			loaded = nil
		}
	}
	if ctx.Err() == nil {
		return errors.New("watch the checkpoint: the bus is closed")
	}
	return nil
}

// load reads the checkpoint as it is stored now.
func (p *progress) load(ctx context.Context, b *bus.Bus) error {
	value, _, err := bucket{b, keyApply}.LoadState(ctx)
	if err != nil {
		return fmt.Errorf("load the checkpoint: %w", err)
	}
	c, err := apply.ParseCheckpoint(value)
	if err != nil {
		return err
	}
	p.set(c)
	return nil
}

// reached returns the last position that the sink may hold changes of.
func (b bucket) reached(ctx context.Context) (cdc.Position, error) {
	value, _, err := b.LoadState(ctx)
	if err != nil {
		return cdc.Position{}, fmt.Errorf("load how far apply is: %w", err)
	}
	live, err := apply.ParseLive(value)
	return live.Reached, err
}

// set takes a checkpoint in. One that is older than what is known was read before it.
func (p *progress) set(c cdc.Checkpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.End < p.checkpoint.End {
		return
	}
	p.checkpoint, p.known = c, c.End > 0
	close(p.changed)
	p.changed = make(chan struct{})
}

// sequence returns that of the last message that is in the sink, zero if none of this
// life of the stream is.
func (p *progress) sequence(epoch string) uint64 {
	c, ok := p.Checkpoint()
	if !ok || c.Epoch != epoch {
		return 0
	}
	return c.Sequence
}
