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

// Steps lists the steps of a creation. Make takes one, as a process does that dies behind it.
var Steps = []step{stepMakeBucket, stepMakeStream, stepMakeNote}

// Make connects and takes the first n steps of a creation.
func Make(ctx context.Context, b *Bus, n int) error {
	if err := b.connect(); err != nil {
		return err
	}
	defer b.nc.Close()
	for _, s := range Steps[:n] {
		f, err := b.look(ctx)
		if err != nil {
			return err
		}
		if err := b.make(ctx, f, s); err != nil {
			return err
		}
	}
	return nil
}

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

// Redacted returns what an error looks like to somebody who may not know the URLs.
func Redacted(list string, err error) (string, error) {
	where, parseErr := parseServers(list)
	if parseErr != nil {
		return "", parseErr
	}
	return where.redacted(err).Error(), nil
}

// Room reports whether a session sends a message while so many are under way.
func Room(clustered bool, sent int) bool {
	s := session{b: &Bus{cfg: Config{}.withDefaults()}, clustered: clustered, sent: sent}
	return s.room()
}

// AttachAgain has the session take what the server has under its name, as after a deletion
// that had no effect.
func AttachAgain(ctx context.Context, c *Consumer) error {
	c.pull.close()
	return c.attach(ctx)
}
