package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// ErrNobody is wrapped by the error of [Bus.Call] when no process serves the name.
var ErrNobody = errors.New("no process of the pipeline answers")

func (b *Bus) callSubject(name string) string {
	return "dbmazz." + b.cfg.Pipeline + ".call." + name
}

// Serve answers the calls to a name with what the function returns until ctx is done.
// Calls are answered concurrently. It is not durable: a call that is made while nobody
// serves the name fails at the caller. The name must be a valid part of a NATS subject.
func (b *Bus) Serve(ctx context.Context, name string, answer func(ctx context.Context, request []byte) []byte) error {
	sub, err := b.nc.Subscribe(b.callSubject(name), func(m *nats.Msg) {
		go func() {
			if err := m.Respond(answer(ctx, m.Data)); err != nil && ctx.Err() == nil {
				// The caller gets no answer and asks again.
				b.log.WarnContext(ctx, "answer to a call is not sent", "name", name, "err", err)
			}
		}()
	})
	if err != nil {
		return fmt.Errorf("serve calls to %s: %w", name, err)
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() }) // Fails only when the connection is closed.
	return nil
}

// Call asks whoever serves the name, in this process or another, and returns the answer.
// After an error other than ErrNobody it may have been carried out or not.
func (b *Bus) Call(ctx context.Context, name string, request []byte) ([]byte, error) {
	m, err := b.nc.RequestWithContext(ctx, b.callSubject(name), request)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("call %s: %w", name, ErrNobody)
	case err != nil:
		return nil, fmt.Errorf("call %s: %w", name, err)
	}
	return m.Data, nil
}
