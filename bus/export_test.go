package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// SetPatience shortens the wait for answers. It must be called before the bus is used.
func SetPatience(b *Bus, d time.Duration) { b.patience = d }

// RestartServer replaces the embedded server, as after a write error.
func RestartServer(ctx context.Context, b *Bus) error { return b.server.restart(ctx, 0, "test") }

// Assembly is the part of a consumer that puts frames together.
type Assembly struct{ a assembly }

// Add takes a message.
func (x *Assembly) Add(sequence uint64, header nats.Header, data string) (Message, bool, error) {
	return x.a.add(sequence, header, []byte(data))
}

// ReadHeader returns the headers of one message.
func ReadHeader(ctx context.Context, b *Bus, sequence uint64) (nats.Header, error) {
	m, ok, err := b.message(ctx, sequence)
	return m.header, errors.Join(err, errNoMessage(sequence, ok))
}

func (b *Bus) Status() string { return b.nc.Status().String() + b.nc.ConnectedAddr() }
