package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// askAttempts bounds how often a question is asked; the first times soon, as a question
// to a server that has just died is lost, and the later ones with all the patience. That
// outlasts the election of a leader.
const askAttempts = 6

// ask asks a question that may be asked twice. A question or its answer is lost when
// the connection breaks or the server that should answer dies, so it waits for the
// patience only and asks again, with a pause.
func (b *Bus) ask(ctx context.Context, question func(ctx context.Context) error) error {
	var err error
	for attempt := range askAttempts {
		if attempt > 0 {
			if err := b.pause(ctx, min(holdMax, holdMin<<(2*attempt))); err != nil {
				return err
			}
		}
		if err = b.awaitConnection(ctx); err != nil {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, min(b.patience, b.patience/8<<attempt))
		err = question(bounded)
		cancel()
		if !isUnanswered(err) {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if problem := b.heal(ctx); problem != nil {
			return errors.Join(err, problem)
		}
	}
	return fmt.Errorf("no answer from the bus: %w", err)
}

// isUnanswered reports whether asking again may help.
func isUnanswered(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.ErrorCode == jetstream.JSErrCodeJetStreamNotEnabled || api.ErrorCode == codeNotAvailable || api.ErrorCode == codeNoQuorum
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrReconnectBufExceeded) ||
		errors.Is(err, nats.ErrConnectionReconnecting) || errors.Is(err, nats.ErrDisconnected)
}

// Codes of a cluster that has no leader at the moment.
const (
	codeNotAvailable = 10008
	codeNoQuorum     = 10009
)

// awaitConnection waits for the connection, for the patience.
func (b *Bus) awaitConnection(ctx context.Context) error {
	if b.nc.IsConnected() {
		return nil
	}
	status := b.nc.StatusChanged(nats.CONNECTED)
	defer b.nc.RemoveStatusListener(status)
	if b.nc.IsConnected() {
		return nil
	}
	timer := time.NewTimer(b.patience)
	defer timer.Stop()
	select {
	case <-status:
		return nil
	case <-timer.C:
		return nats.ErrDisconnected
	case <-b.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pause waits unless the bus is closed or the caller has gone.
func (b *Bus) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-b.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}
