package oracle_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
)

// The adapters here do for the stages what cmd/dbmazz does.

// bucket is one key of the bus as a stage's own state.
type bucket struct {
	bus *bus.Bus
	key string
}

func (b bucket) LoadState(ctx context.Context) (value []byte, revision uint64, err error) {
	value, revision, err = b.bus.Get(ctx, b.key)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, 0, nil
	}
	return value, revision, err
}

func (b bucket) SaveState(ctx context.Context, value []byte, revision uint64) (uint64, error) {
	return b.bus.Update(ctx, b.key, value, revision)
}

// captureStream is the bus as capture sees it.
type captureStream struct {
	*bus.Bus
	bucket
}

func (s captureStream) Open(ctx context.Context) (capture.Publisher, error) {
	return s.Publisher(ctx)
}

const keyTables = "tables"

func (s captureStream) PutTables(ctx context.Context, schemas []*cdc.Schema) error {
	fingerprints := make([]string, 0, len(schemas))
	for _, schema := range schemas {
		if err := s.PutSchema(ctx, schema); err != nil {
			return err
		}
		fingerprints = append(fingerprints, schema.Fingerprint().String())
	}
	value, err := json.Marshal(fingerprints)
	if err != nil {
		return err
	}
	_, err = s.Put(ctx, keyTables, value)
	return err
}

// applyStream is the bus as apply sees it.
type applyStream struct {
	*bus.Bus
	bucket
	failed func(error)
}

func (s applyStream) Consumer(ctx context.Context, after uint64) (apply.Consumer, error) {
	c, err := s.Bus.Consumer(ctx, after)
	if purged, ok := errors.AsType[*bus.PurgedError](err); ok {
		c, err = s.Bus.Consumer(ctx, purged.First-1)
	}
	if err != nil {
		return nil, err
	}
	return consumer{c}, nil
}

func (s applyStream) Tables(ctx context.Context) (<-chan []*cdc.Schema, error) {
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
				if ctx.Err() == nil {
					s.failed(err)
				}
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

func (s applyStream) tables(ctx context.Context, value []byte) ([]*cdc.Schema, error) {
	var fingerprints []string
	if err := json.Unmarshal(value, &fingerprints); err != nil {
		return nil, err
	}
	var list []*cdc.Schema
	for _, text := range fingerprints {
		fingerprint, err := cdc.ParseFingerprint(text)
		if err != nil {
			return nil, err
		}
		schema, err := s.Schema(ctx, fingerprint)
		if err != nil {
			return nil, err
		}
		list = append(list, schema)
	}
	return list, nil
}

type consumer struct{ *bus.Consumer }

func (c consumer) Next(ctx context.Context) (apply.Message, error) {
	m, err := c.Consumer.Next(ctx)
	return apply.Message{Sequence: m.Sequence, Data: m.Data, StoredAt: m.StoredAt}, err
}

// progress follows apply's checkpoint.
type progress struct {
	mu         sync.Mutex
	checkpoint cdc.Checkpoint
	changed    chan struct{}
}

func (p *progress) Checkpoint() (c cdc.Checkpoint, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checkpoint, p.checkpoint.End > 0
}

func (p *progress) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *progress) follow(ctx context.Context, b *bus.Bus, loaded func()) error {
	entries, err := b.Watch(ctx, keyApply)
	if err != nil {
		return err
	}
	for entry := range entries {
		c, err := apply.ParseCheckpoint(entry.Value)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.checkpoint = c
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		loaded()
	}
	return nil
}
