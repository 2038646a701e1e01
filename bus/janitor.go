package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// The stream is kept below high; from there, acknowledged messages go regardless of
// their age until it is at low.
const (
	highWater = 0.80
	lowWater  = 0.70
)

// RunJanitor makes room until ctx is done: it purges what is acknowledged and older
// than the retention, and when the stream runs full what is acknowledged, oldest
// first. It never purges what is not acknowledged, never a part of a frame, and never
// the last complete frame. acknowledged returns the last sequence up to which apply
// has committed everything, as its checkpoint says.
func (b *Bus) RunJanitor(ctx context.Context, acknowledged func() uint64) error {
	ticker := time.NewTicker(b.cfg.JanitorPeriod)
	defer ticker.Stop()
	var last uint64
	for {
		select {
		case <-ticker.C:
		case <-b.wanted:
		case <-ctx.Done():
			return nil
		case <-b.done:
			return nil
		}
		acked := acknowledged()
		if acked == last && b.cfg.Retention == 0 {
			continue
		}
		if err := b.purge(ctx, acked); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			// Nothing is lost by purging later.
			b.log.WarnContext(ctx, "purge is put off", "err", errors.Join(err, b.heal(ctx)))
			continue
		}
		last = acked
	}
}

// purge does what RunJanitor promises, once.
func (b *Bus) purge(ctx context.Context, acked uint64) error {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return err
	}
	state := &info.State
	if state.Msgs == 0 || acked < state.FirstSeq {
		return nil
	}
	keep := acked + 1 // the first sequence that stays
	if b.cfg.Retention > 0 {
		if keep, err = b.keepFrom(ctx, info, acked); err != nil {
			return err
		}
	}
	if keep <= state.FirstSeq {
		return nil
	}
	t, err := b.tail(ctx)
	if err != nil {
		return err
	}
	if t.Empty {
		return nil
	}
	if keep, err = b.frameStart(ctx, min(keep, t.first)); err != nil || keep <= state.FirstSeq {
		return err
	}
	killpoint.Reached("bus.purging")
	err = b.ask(ctx, func(ctx context.Context) error { return b.stream.Purge(ctx, jetstream.WithPurgeSequence(keep)) })
	if err != nil {
		return fmt.Errorf("purge stream %s: %w", b.cfg.streamName(), err)
	}
	killpoint.Reached("bus.purged")
	return nil
}

// keepFrom returns the first sequence to keep by age and by room.
func (b *Bus) keepFrom(ctx context.Context, info *jetstream.StreamInfo, acked uint64) (uint64, error) {
	state := &info.State
	keep := state.FirstSeq
	cutoff := time.Now().Add(-b.cfg.Retention)
	if state.FirstTime.Before(cutoff) {
		sequence, err := b.sequenceAt(ctx, state, cutoff)
		if err != nil {
			return 0, err
		}
		keep = sequence
	}
	limit := float64(info.Config.MaxBytes)
	if float64(state.Bytes) > highWater*limit {
		// By the mean size; the next look corrects it.
		surplus := float64(state.Bytes) - lowWater*limit
		keep = max(keep, state.FirstSeq+uint64(surplus/float64(state.Bytes)*float64(state.Msgs))+1)
	}
	return min(keep, acked+1), nil
}

// sequenceAt returns the sequence of the first message stored at or after the time,
// and the one after the last if there is none.
func (b *Bus) sequenceAt(ctx context.Context, state *jetstream.StreamState, at time.Time) (uint64, error) {
	low, high := state.FirstSeq, state.LastSeq+1
	for low < high {
		middle := low + (high-low)/2
		m, ok, err := b.messageFrom(ctx, middle)
		switch {
		case err != nil:
			return 0, err
		case !ok || m.sequence >= high || !m.at.Before(at):
			high = middle
		default:
			low = m.sequence + 1
		}
	}
	return low, nil
}

// frameStart moves a sequence back to the start of the frame that it is in.
func (b *Bus) frameStart(ctx context.Context, sequence uint64) (uint64, error) {
	m, ok, err := b.messageFrom(ctx, sequence)
	if err != nil || !ok {
		return sequence, errors.Join(err)
	}
	i, _, err := partOf(m.header)
	if err != nil {
		return 0, err
	}
	return min(sequence, m.sequence-uint64(i)+1), nil //nolint:gosec // At least 1.
}
