package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Leases is the state bucket in the form that package roster needs: every call is one
// question to the server, and what is not there is no error.
type Leases struct{ b *Bus }

// Leases returns the store of the pipeline's leaderships.
func (b *Bus) Leases() Leases { return Leases{b} }

// Get returns the value of the key and its revision: zero if there never was such a
// key, the revision of its deletion and no value if it was deleted.
func (l Leases) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	subject := "$KV." + l.b.cfg.bucketName() + "." + key
	stream, err := l.b.js.Stream(ctx, "KV_"+l.b.cfg.bucketName())
	if err != nil {
		return nil, 0, fmt.Errorf("read key %s: %w", key, l.heal(ctx, err))
	}
	m, err := stream.GetLastMsgForSubject(ctx, subject)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, 0, nil
	case err != nil:
		return nil, 0, fmt.Errorf("read key %s: %w", key, l.heal(ctx, err))
	case m.Header.Get("KV-Operation") != "":
		return nil, m.Sequence, nil
	}
	return m.Data, m.Sequence, nil
}

// Update sets the key if it has the revision. Other than [Bus.Update] it does not find
// out what an answer that did not come would have said.
func (l Leases) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	next, err := l.b.bucket.Update(ctx, key, value, revision)
	if err != nil {
		return 0, fmt.Errorf("update key %s at revision %d: %w", key, revision, l.heal(ctx, err))
	}
	return next, nil
}

// heal has the embedded server looked after if it did not answer. The start of a large
// store takes longer than a question may.
func (l Leases) heal(ctx context.Context, err error) error {
	if !isDoubt(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	return errors.Join(err, l.b.heal(ctx))
}

// Watch sends whenever the key may have changed, until ctx is done or the bus is closed.
func (l Leases) Watch(ctx context.Context, key string) (<-chan struct{}, error) {
	entries, err := l.b.Watch(ctx, key)
	if err != nil {
		return nil, err
	}
	changed := make(chan struct{}, 1)
	go func() {
		defer close(changed)
		for range entries {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, nil
}
