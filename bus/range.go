package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// ClockSlack is by how much commit times may step back along the stream without
// [Bus.LocateTime] missing anything. Transactions are ordered by their commit records;
// the times in these are taken a moment before, by a clock that can be set.
const ClockSlack = time.Minute

// ErrNoFrames means that nothing was ever published to the stream.
var ErrNoFrames = errors.New("the stream holds no frames")

// Mark describes one frame of the stream.
type Mark struct {
	// Sequence is that of the frame's first message; a reader that is to start
	// with the frame starts after Sequence-1. LastSequence is that of its last
	// message; they differ for a frame that was split.
	Sequence, LastSequence uint64
	// Prev is the position that the frame follows: what comes after it is available
	// from this frame on.
	Prev cdc.Position
	// First and Last are the positions of the frame's first and last change; both
	// are Prev for a frame that carries only the end of a transaction.
	First, Last cdc.Position
	// End is the end LSN of the last transaction that is complete with the frame.
	End cdc.LSN
	// CommitTime is that of the frame's last transaction, by the clock of the source.
	CommitTime time.Time
}

// Oldest describes the first frame that is retained, or returns ErrNoFrames.
func (b *Bus) Oldest(ctx context.Context) (Mark, error) {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return Mark{}, fmt.Errorf("find oldest frame: %w", err)
	}
	m, err := b.markFrom(ctx, info.State.FirstSeq, &info.State)
	if err != nil {
		return Mark{}, fmt.Errorf("find oldest frame: %w", err)
	}
	return m, nil
}

// Newest describes the last complete frame, or returns ErrNoFrames.
func (b *Bus) Newest(ctx context.Context) (Mark, error) {
	t, err := b.tail(ctx)
	if err != nil {
		return Mark{}, fmt.Errorf("find newest frame: %w", err)
	}
	if t.Empty {
		return Mark{}, fmt.Errorf("find newest frame: %w", ErrNoFrames)
	}
	m, err := b.MarkAt(ctx, t.first)
	if err != nil {
		return Mark{}, fmt.Errorf("find newest frame: %w", err)
	}
	return m, nil
}

// MarkAt describes the frame that the message with the sequence belongs to; if that is
// of a frame that was cut off by a crash, or is not there, the first complete frame
// behind it. Errors are *PurgedError and *LostTailError if the stream does not reach
// that far back or ahead.
func (b *Bus) MarkAt(ctx context.Context, sequence uint64) (Mark, error) {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return Mark{}, fmt.Errorf("find frame of sequence %d: %w", sequence, err)
	}
	state := &info.State
	switch {
	case sequence > state.LastSeq:
		err = &LostTailError{After: sequence, Last: state.LastSeq}
	case sequence < state.FirstSeq:
		err = b.purged(ctx, max(sequence, 1)-1, state.FirstSeq)
	default:
		var m Mark
		if m, err = b.markFrom(ctx, sequence, state); err == nil {
			return m, nil
		}
	}
	return Mark{}, fmt.Errorf("find frame of sequence %d: %w", sequence, err)
}

// LocateTime finds where to start for everything that was committed at or after the
// time: the first frame that a binary search finds whose last transaction committed no
// earlier than ClockSlack before it. Provided that commit times do not step back by more
// than ClockSlack from one transaction to any later one, no transaction before that
// frame committed at or after the time; some in it and behind it committed earlier. If
// all did, the mark is that of an empty frame behind the last: its Sequence is the next
// one, its positions are where the stream ends, its CommitTime is zero.
//
// If the stream was purged and it cannot be ruled out that what is gone was committed at
// or after the time, the error is a *PurgedError whose Time is the earliest that can be
// asked for.
func (b *Bus) LocateTime(ctx context.Context, at time.Time) (Mark, error) {
	m, err := b.locateTime(ctx, at)
	if err != nil {
		return Mark{}, fmt.Errorf("find %s in the stream: %w", at.UTC().Format(time.RFC3339Nano), err)
	}
	return m, nil
}

func (b *Bus) locateTime(ctx context.Context, at time.Time) (Mark, error) {
	newest, err := b.Newest(ctx)
	if err != nil {
		return Mark{}, err
	}
	info, err := b.streamInfo(ctx)
	if err != nil {
		return Mark{}, err
	}
	cutoff := at.Add(-ClockSlack)
	low, high := info.State.FirstSeq, newest.LastSequence+1
	for low < high {
		middle := low + (high-low)/2
		m, ok, err := b.messageFrom(ctx, middle)
		if err != nil {
			return Mark{}, err
		}
		if !ok || m.sequence >= high {
			high = middle
			continue
		}
		committed, err := time.Parse(time.RFC3339Nano, m.header.Get(HeaderCommitTime))
		if err != nil {
			return Mark{}, fmt.Errorf("read header of sequence %d: %w", m.sequence, err)
		}
		if committed.Before(cutoff) {
			low = m.sequence + 1
		} else {
			high = middle
		}
	}
	if low > newest.LastSequence {
		next := newest.LastSequence + 1
		return Mark{Sequence: next, LastSequence: next, Prev: newest.Last, First: newest.Last, Last: newest.Last, End: newest.End}, nil
	}
	found, err := b.markFrom(ctx, low, &info.State)
	if err != nil {
		return Mark{}, err
	}
	oldest, err := b.Oldest(ctx)
	if err != nil {
		return Mark{}, err
	}
	if info.State.FirstSeq > 1 && found.Sequence <= oldest.Sequence {
		return Mark{}, &PurgedError{
			After: oldest.Sequence - 1, First: oldest.Sequence, Oldest: oldest,
			Time: oldest.CommitTime.Add(ClockSlack + time.Microsecond),
		}
	}
	return found, nil
}

// markFrom describes the frame of the first message at or after the sequence, or the
// next that is complete.
func (b *Bus) markFrom(ctx context.Context, sequence uint64, state *jetstream.StreamState) (Mark, error) {
	if state.Msgs == 0 {
		return Mark{}, ErrNoFrames
	}
	for {
		m, ok, err := b.messageFrom(ctx, sequence)
		if err != nil {
			return Mark{}, err
		}
		if !ok {
			return Mark{}, fmt.Errorf("no complete frame from sequence %d on: %w", sequence, ErrNoFrames)
		}
		i, n, err := partOf(m.header)
		if err != nil {
			return Mark{}, err
		}
		first := m.sequence - uint64(i) + 1 //nolint:gosec // At least 1.
		data, complete, err := b.frameAt(ctx, first, n)
		if err != nil {
			return Mark{}, err
		}
		if complete {
			return b.markOf(first, first+uint64(n)-1, data) //nolint:gosec // At least 1.
		}
		sequence = m.sequence + 1
	}
}

// frameAt reads the frame whose n messages begin with the sequence. complete is false
// if they are not all there, as after a crash in between.
func (b *Bus) frameAt(ctx context.Context, first uint64, n int) (data []byte, complete bool, err error) {
	session := ""
	for k := range n {
		m, ok, err := b.message(ctx, first+uint64(k)) //nolint:gosec // Not negative.
		if err != nil || !ok {
			return nil, false, err
		}
		i, of, err := partOf(m.header)
		if err != nil {
			return nil, false, err
		}
		if k == 0 {
			session = sessionOf(m.header)
		}
		if i != k+1 || of != n || sessionOf(m.header) != session {
			return nil, false, nil
		}
		data = append(data, m.data...)
	}
	return data, true, nil
}

func (b *Bus) markOf(first, last uint64, data []byte) (Mark, error) {
	f, err := cdc.Open(data)
	if err != nil {
		return Mark{}, fmt.Errorf("open frame of sequence %d: %w", last, err)
	}
	h := &f.Header
	if h.Epoch != b.epoch {
		return Mark{}, fmt.Errorf("open frame of sequence %d: it was made for epoch %s, the stream is of %s", last, h.Epoch, b.epoch)
	}
	m := Mark{
		Sequence: first, LastSequence: last, Prev: h.Prev, First: h.Prev, Last: h.Last, End: h.End,
		CommitTime: time.UnixMicro(h.CommitTime).UTC(),
	}
	if h.Last.After(h.Prev) {
		if m.First, err = firstChange(&f); err != nil {
			return Mark{}, fmt.Errorf("read frame of sequence %d: %w", last, err)
		}
	}
	return m, nil
}

// firstChange returns the position of the frame's first change.
func firstChange(f *cdc.Frame) (cdc.Position, error) {
	// Only a begin record can come first, and it needs no schema.
	schemas := make([]*cdc.Schema, len(f.Header.Schemas))
	for i := range schemas {
		schemas[i] = new(cdc.Schema)
	}
	r, err := f.Reader(schemas)
	if err != nil {
		return cdc.Position{}, err
	}
	var rec cdc.Record
	for {
		ok, err := r.Next(&rec)
		if err != nil || !ok {
			return cdc.Position{}, err
		}
		if rec.Kind == cdc.KindBegin {
			return cdc.Position{Commit: rec.Position.Commit, Ordinal: rec.Position.Ordinal + 1}, nil
		}
	}
}

// purged returns the error for a sequence that is not retained any more.
func (b *Bus) purged(ctx context.Context, after, first uint64) error {
	oldest, err := b.Oldest(ctx)
	if err != nil {
		// What is known without it says enough.
		oldest = Mark{}
	}
	return &PurgedError{After: after, First: first, Oldest: oldest}
}

// purgedOr returns a *PurgedError if a hole in the stream reaches from its beginning,
// and the problem as it was otherwise.
func (b *Bus) purgedOr(ctx context.Context, gap *GapError, problem error) error {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return errors.Join(problem, err)
	}
	if first := info.State.FirstSeq; first > gap.Expected {
		return b.purged(ctx, gap.Expected-1, first)
	}
	return problem
}

// Reader opens a session that delivers what follows the sequence, beside the consumer of
// live apply and without a trace on the server that outlives it for long: Ack does
// nothing. While it is open, a hold keeps the janitor from purging what the reader has
// yet to deliver; a reader whose process died keeps it for BoardTTL. Errors are those of
// [Bus.Consumer]; Next returns a *PurgedError if the stream was purged all the same, and a
// *GapError where a frame says that what comes before it was lost with the end of the
// stream. Whether the first frame is what the caller wants to begin with shows in its Prev.
func (b *Bus) Reader(ctx context.Context, after uint64) (*Consumer, error) {
	id := strings.ToLower(rand.Text()[:12])
	c := &Consumer{
		b: b, name: "reader_" + id, owner: rand.Text(), acked: after,
		frame: assembly{last: after}, done: make(chan struct{}),
		hold: &hold{b: b, name: holdPrefix + id, quit: make(chan struct{}), done: make(chan struct{})},
	}
	// The hold comes first, so that what is found is still there when it is read.
	if err := b.Announce(ctx, c.hold.name, c.hold.value(after)); err != nil {
		return nil, fmt.Errorf("open reader: hold the history: %w", err)
	}
	c.hold.after.Store(after)
	go c.hold.run() //nolint:contextcheck // It lives until Close.
	if err := b.attachReader(ctx, c, after); err != nil {
		c.hold.end()
		return nil, fmt.Errorf("open reader: %w", err)
	}
	return c, nil
}

func (b *Bus) attachReader(ctx context.Context, c *Consumer, after uint64) error {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return err
	}
	if last := info.State.LastSeq; after > last {
		return &LostTailError{After: after, Last: last}
	}
	if first := info.State.FirstSeq; info.State.LastSeq > 0 && first > after+1 {
		return b.purged(ctx, after, first)
	}
	return c.attach(ctx)
}

// readerIdle is how long the server keeps a reader that does not ask.
const readerIdle = 2 * time.Minute

func readerConfig(name, owner string, after uint64) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Name:              name,
		Description:       "a reader of the history, such as a replay",
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       after + 1,
		AckPolicy:         jetstream.AckNonePolicy,
		InactiveThreshold: readerIdle,
		Replicas:          1,
		Metadata:          map[string]string{metaOwner: owner},
	}
}

// passed notes that a reader delivers the frame that ends with the message, and that
// everything before is delivered. Live apply knows what it has applied; a reader has
// nothing but the stream, so for it a frame that does not follow the one before is the end.
func (c *Consumer) passed(sequence uint64, header nats.Header) error {
	prev, errPrev := cdc.ParsePosition(header.Get(HeaderPrev))
	last, errLast := cdc.ParsePosition(header.Get(HeaderLast))
	end, errEnd := cdc.ParseLSN(header.Get(HeaderEnd))
	if err := errors.Join(errPrev, errLast, errEnd); err != nil {
		return fmt.Errorf("read header of sequence %d: %w", sequence, err)
	}
	h := c.hold
	if h.begun && prev.After(h.last) && prev.Commit > h.upTo {
		return &GapError{Expected: sequence, Found: sequence, Reason: fmt.Sprintf(
			"the history between %s and %s is missing, it was lost with the end of the stream", h.last, prev)}
	}
	h.begun, h.last, h.upTo = true, last, end
	c.mu.Lock()
	c.acked = max(c.acked, sequence)
	c.mu.Unlock()
	h.after.Store(sequence)
	return nil
}

// endReading removes a reader's traces; what cannot be removed goes by itself.
func (c *Consumer) endReading() {
	c.hold.end()
	ctx, cancel := context.WithTimeout(context.Background(), boardPatience) //nolint:forbidigo // Close has no context.
	defer cancel()
	if err := c.b.js.DeleteConsumer(ctx, c.b.cfg.streamName(), c.name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		c.b.log.DebugContext(ctx, "reader is left to the server", "err", err)
	}
}
