package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Entry is the value of a key at a revision.
type Entry struct {
	Key   string
	Value []byte
	// Revision is zero if there is no such key.
	Revision uint64
}

// Get returns the value of a key of the state bucket and its revision, or
// ErrNotFound.
func (b *Bus) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	var entry jetstream.KeyValueEntry
	err = b.ask(ctx, func(ctx context.Context) error {
		entry, err = b.bucket.Get(ctx, key)
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		// In another bucket of the same name nothing would be found, either.
		if err := b.sameBucket(ctx); err != nil {
			return nil, 0, fmt.Errorf("read key %s: %w", key, err)
		}
		return nil, 0, fmt.Errorf("read key %s: %w", key, ErrNotFound)
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, 0, fmt.Errorf("read key %s: %w", key, b.lost("the state bucket of stream %s is not there any more", b.cfg.streamName()))
	case err != nil:
		return nil, 0, fmt.Errorf("read key %s: %w", key, err)
	}
	return entry.Value(), entry.Revision(), nil
}

// sameBucket makes sure that the bucket is the one that was opened.
func (b *Bus) sameBucket(ctx context.Context) error {
	bucket, err := b.findStream(ctx, b.cfg.bucketStream())
	switch {
	case err != nil:
		return err
	case bucket == nil:
		return b.lost("the state bucket of stream %s is not there any more", b.cfg.streamName())
	case bucket.CachedInfo().Config.Metadata[metaEpoch] != b.epoch:
		return b.lost("the state bucket of stream %s was replaced by another", b.cfg.streamName())
	}
	return nil
}

// Put sets a key whatever it was before. After an error the value may be set or not;
// with one writer per key, Update tells.
func (b *Bus) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	attempt, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	revision, err := b.bucket.Put(attempt, key, value)
	if err != nil {
		return 0, b.writeFailed(ctx, key, err)
	}
	return revision, nil
}

// Update sets a key that has the given revision, zero for one that must not exist;
// ErrConflict if it has another. When the answer does not come, the key is read back:
// the same bytes under a newer revision are success.
func (b *Bus) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	doubt := false
	for delay := holdMin; ; delay = min(2*delay, holdMax) {
		next, err := b.tryUpdate(ctx, key, value, revision)
		conflict := isConflict(err)
		switch {
		case err == nil:
			return next, nil
		case conflict && !doubt:
			return 0, fmt.Errorf("update key %s at revision %d: %w", key, revision, ErrConflict)
		case !conflict && !isDoubt(err):
			return 0, b.writeFailed(ctx, key, err)
		}
		doubt = true
		if !conflict {
			if err := b.heal(ctx); err != nil {
				return 0, b.writeFailed(ctx, key, err)
			}
		}
		have, current, err := b.Get(ctx, key)
		switch {
		case errors.Is(err, ErrNotFound):
			current = 0
		case isLost(err):
			return 0, err
		case err == nil && current > revision && bytes.Equal(have, value):
			return current, nil
		}
		if err == nil && current != revision {
			return 0, fmt.Errorf("update key %s at revision %d: it has %d: %w", key, revision, current, ErrConflict)
		}
		if err := b.pause(ctx, delay); err != nil {
			return 0, fmt.Errorf("update key %s: %w", key, err)
		}
	}
}

func (b *Bus) tryUpdate(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	if revision == 0 {
		return b.bucket.Create(ctx, key, value)
	}
	return b.bucket.Update(ctx, key, value, revision)
}

func isConflict(err error) bool {
	var api *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) {
		return true
	}
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongLastSequenceConstant)
}

// codeWrongLastSequenceConstant is what replicated streams say instead.
const codeWrongLastSequenceConstant = 10164

// isDoubt reports whether the write may have happened: no answer, or none that says
// no.
func isDoubt(err error) bool {
	var api *jetstream.APIError
	return err != nil && !errors.As(err, &api) && !errors.Is(err, jetstream.ErrInvalidKey)
}

// writeFailed names the key, and has a look at the server if it did not answer.
func (b *Bus) writeFailed(ctx context.Context, key string, err error) error {
	if isDoubt(err) && ctx.Err() == nil {
		err = errors.Join(err, b.heal(ctx))
	}
	return fmt.Errorf("write key %s: %w", key, err)
}

// Watch delivers the value of a key, first as it is (revision 0 if there is none), and
// then whenever it has changed. A slow receiver gets the latest value only. The
// channel is closed when ctx is done or the bus is closed.
func (b *Bus) Watch(ctx context.Context, key string) (<-chan Entry, error) {
	watcher, err := b.bucket.Watch(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("watch key %s: %w", key, err)
	}
	w := &watch{b: b, key: key, out: make(chan Entry, 1)}
	go w.run(ctx, watcher)
	return w.out, nil
}

// watch bridges one watcher of the client to one channel.
type watch struct {
	b     *Bus
	key   string
	out   chan Entry
	last  uint64
	begun bool
}

func (w *watch) run(ctx context.Context, watcher jetstream.KeyWatcher) {
	defer close(w.out)
	for {
		ended := w.follow(ctx, watcher)
		_ = watcher.Stop()
		if ended {
			return
		}
		for delay := holdMin; ; delay = min(2*delay, holdMax) {
			if w.b.pause(ctx, delay) != nil {
				return
			}
			var err error
			if watcher, err = w.b.bucket.Watch(ctx, w.key); err == nil {
				break
			}
			w.b.log.WarnContext(ctx, "watch is interrupted", "key", w.key, "err", err)
		}
	}
}

// follow reports whether the watch has ended for good.
func (w *watch) follow(ctx context.Context, watcher jetstream.KeyWatcher) bool {
	status := w.b.nc.StatusChanged(nats.CONNECTED)
	defer w.b.nc.RemoveStatusListener(status)
	for {
		select {
		case <-status:
			// The client would notice by missing heartbeats, much later.
			return false
		case entry, ok := <-watcher.Updates():
			if !ok {
				return false
			}
			w.entry(entry)
		case <-w.b.done:
			return true
		case <-ctx.Done():
			return true
		}
	}
}

// entry passes on what is new. A nil entry marks the end of what was there.
func (w *watch) entry(entry jetstream.KeyValueEntry) {
	e := Entry{Key: w.key}
	if entry != nil {
		if entry.Revision() <= w.last {
			return
		}
		w.last = entry.Revision()
		if entry.Operation() == jetstream.KeyValuePut {
			e.Value, e.Revision = entry.Value(), entry.Revision()
		}
	} else if w.begun {
		return
	}
	w.begun = true
	for {
		select {
		case w.out <- e:
			return
		default:
		}
		select {
		case <-w.out:
		default:
		}
	}
}

func schemaKey(f cdc.Fingerprint) string { return "schema." + f.String() }

// PutSchema keeps a schema under its fingerprint. It is idempotent.
func (b *Bus) PutSchema(ctx context.Context, s *cdc.Schema) error {
	data, err := cdc.MarshalSchema(s)
	if err != nil {
		return err
	}
	key := schemaKey(s.Fingerprint())
	_, err = b.Update(ctx, key, data, 0)
	if !errors.Is(err, ErrConflict) {
		return err
	}
	have, _, err := b.Get(ctx, key)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, data) {
		return fmt.Errorf("keep schema of %s: key %s has another content", s.Name(), key)
	}
	return nil
}

// Schema returns the schema with the fingerprint, which is verified, or ErrNotFound.
func (b *Bus) Schema(ctx context.Context, f cdc.Fingerprint) (*cdc.Schema, error) {
	data, _, err := b.Get(ctx, schemaKey(f))
	if err != nil {
		return nil, err
	}
	s, err := cdc.UnmarshalSchema(data)
	if err != nil {
		return nil, fmt.Errorf("read schema %s: %w", f, err)
	}
	if s.Fingerprint() != f {
		return nil, fmt.Errorf("read schema %s: its content has the fingerprint %s: %w", f, s.Fingerprint(), cdc.ErrCorrupt)
	}
	return s, nil
}
