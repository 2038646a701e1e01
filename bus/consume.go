package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// consumerName is that of apply's durable consumer.
const consumerName = "apply"

const metaOwner = "dbmazz_owner"

// Message is one frame as it was published.
type Message struct {
	// FirstSequence is that of the frame's first message, Sequence that of its
	// last; they differ for a frame that was split.
	FirstSequence, Sequence uint64
	// Data is the frame. It belongs to the receiver.
	Data []byte
	// StoredAt is when the stream stored the frame's last message, by the clock
	// of the server.
	StoredAt time.Time
}

// Consumer delivers the frames of the stream in order, each once. Next and TryNext are
// for one goroutine; the other methods may be called from any.
type Consumer struct {
	b     *Bus
	name  string // of the server's side
	owner string
	pull  *puller
	frame assembly
	hold  *hold // of a reader, which leaves nothing on the server; else nil

	mu      sync.Mutex
	acked   uint64
	pending uint64
	replies []reply // delivered and not acknowledged
	closed  bool
	done    chan struct{}
}

// reply is where to acknowledge a message.
type reply struct {
	sequence uint64
	subject  string
}

// Consumer opens a session that delivers what follows the sequence: everything that
// the caller has not yet committed. It replaces the consumer of the session before,
// whose idea of what is acknowledged is not used: after a crash it can be ahead of the
// stream. Errors are *LostTailError and *PurgedError if the stream does not reach that
// far or back.
func (b *Bus) Consumer(ctx context.Context, after uint64) (*Consumer, error) {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return nil, fmt.Errorf("open consumer: %w", err)
	}
	if last := info.State.LastSeq; after > last {
		return nil, fmt.Errorf("open consumer: %w", &LostTailError{After: after, Last: last})
	}
	if first := info.State.FirstSeq; info.State.LastSeq > 0 && first > after+1 {
		return nil, fmt.Errorf("open consumer: %w", b.purged(ctx, after, first))
	}
	c := &Consumer{b: b, name: consumerName, owner: rand.Text(), acked: after, frame: assembly{last: after}, done: make(chan struct{})}
	err = b.ask(ctx, func(ctx context.Context) error {
		if err := b.js.DeleteConsumer(ctx, b.cfg.streamName(), consumerName); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return fmt.Errorf("delete the one before: %w", err)
		}
		err := c.attach(ctx)
		if err != nil && c.pull != nil {
			c.pull.close()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open consumer: %w", err)
	}
	return c, nil
}

// attach creates the server's side, behind what is acknowledged, and starts pulling.
func (c *Consumer) attach(ctx context.Context) error {
	c.mu.Lock()
	acked := c.acked
	c.mu.Unlock()
	created, err := c.create(ctx, acked)
	if err != nil {
		return fmt.Errorf("create consumer %s: %w", c.name, err)
	}
	pull, err := newPuller(c.b, c.name)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		pull.close()
		return ErrClosed
	}
	pull.leader, pull.last = leaderOf(created.CachedInfo()), acked
	c.pull = pull
	c.pending = created.CachedInfo().NumPending
	// The addresses were those of the consumer before. What they stood for is
	// delivered again.
	c.replies = c.replies[:0]
	c.mu.Unlock()
	return pull.request()
}

const (
	// createAttempts and createPause bound the wait for the state of a consumer before.
	createAttempts = 40
	createPause    = 50 * time.Millisecond
)

// create makes the server's side anew. nats-server deletes a consumer's state while a
// write of it may be under way, which then makes the file again; a consumer that is created
// under the same name at that moment takes it for its own, and never delivers what the one
// before had under way. It shows in what it has delivered before it was asked for anything.
// Or else the creation fails, since the folder of the state goes while it is being written.
func (c *Consumer) create(ctx context.Context, after uint64) (jetstream.Consumer, error) {
	var failed error
	for range createAttempts {
		created, err := c.b.js.CreateConsumer(ctx, c.b.cfg.streamName(), c.serverConfig(after))
		if api := (*jetstream.APIError)(nil); errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeConsumerCreate {
			// The files of the one before went while those of this one came.
			if !pauseFor(ctx, createPause) {
				return nil, err
			}
			failed = err
			continue
		}
		if err != nil {
			return nil, err
		}
		delivered := created.CachedInfo().Delivered.Stream
		if delivered <= after {
			return created, nil
		}
		info, err := c.b.streamInfo(ctx)
		if err != nil {
			return nil, err
		}
		if delivered < info.State.FirstSeq { // It begins where the stream does.
			return created, nil
		}
		if err := c.b.js.DeleteConsumer(ctx, c.b.cfg.streamName(), c.name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, fmt.Errorf("delete one with the state of the one before: %w", err)
		}
		c.b.log.DebugContext(ctx, "a consumer came with the state of the one before", "consumer", c.name)
		if !pauseFor(ctx, createPause) {
			return nil, ctx.Err()
		}
	}
	if failed != nil {
		return nil, failed
	}
	return nil, errors.New("it comes with the state of the one before, however often it is deleted")
}

// pauseFor reports whether ctx lasted for so long.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// serverConfig is what the server keeps of a session that starts after the sequence.
func (c *Consumer) serverConfig(after uint64) jetstream.ConsumerConfig {
	if c.hold != nil {
		return readerConfig(c.name, c.owner, after)
	}
	return jetstream.ConsumerConfig{
		Durable:       consumerName,
		Description:   "the apply stage; its checkpoint is in the state bucket",
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   after + 1,
		AckPolicy:     jetstream.AckAllPolicy,
		// Nothing is delivered twice by a clock: what is lost on the way shows
		// as a hole, which is answered by attaching again.
		AckWait:       30 * 24 * time.Hour,
		MaxAckPending: -1,
		Metadata:      map[string]string{metaOwner: c.owner},
	}
}

// reattach starts over after deliveries were lost: a connection that broke, a server
// that was restarted. What was delivered before is dropped when it comes again.
func (c *Consumer) reattach(ctx context.Context) error {
	c.pull.close()
	for delay := holdMin; ; delay = min(2*delay, holdMax) {
		select {
		case <-c.done:
			return ErrClosed
		case <-c.b.done:
			return ErrClosed
		default:
		}
		err := c.tryReattach(ctx)
		if err == nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrClosed) || isLost(err) {
			return err
		}
		c.b.log.WarnContext(ctx, "consumer is not reachable", "err", err)
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-c.done:
			timer.Stop()
		case <-c.b.done:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func (c *Consumer) tryReattach(ctx context.Context) error {
	if _, err := c.b.streamInfo(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.b.patience)
	defer cancel()
	old, err := c.b.stream.Consumer(ctx, c.name)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
	case err != nil:
		return fmt.Errorf("read consumer: %w", err)
	case old.CachedInfo().Config.Metadata[metaOwner] != c.owner:
		return fmt.Errorf("consumer %s was made anew by another session: %w", c.name, ErrFenced)
	default:
		if err := c.b.js.DeleteConsumer(ctx, c.b.cfg.streamName(), c.name); err != nil {
			return fmt.Errorf("delete consumer: %w", err)
		}
	}
	return c.attach(ctx)
}

// Next waits for the next frame. A hole in the stream is a *GapError: what was stored
// is gone, and nothing behind it may be applied.
func (c *Consumer) Next(ctx context.Context) (Message, error) {
	for {
		m, err := c.pull.wait(ctx, c.done, c.Pending() > 0)
		if err != nil && !errors.Is(err, errInterrupted) {
			return Message{}, err
		}
		message, ok, err := c.deliver(ctx, m, err)
		if ok || err != nil {
			return message, err
		}
	}
}

// TryNext returns the next frame if it is here. If the server is known to have more it
// waits a moment for it; it does not wait for something to be published.
func (c *Consumer) TryNext(ctx context.Context) (Message, bool, error) {
	for {
		m := c.pull.poll(c.Pending() > 0)
		if m == nil {
			return Message{}, false, ctx.Err()
		}
		message, ok, err := c.deliver(ctx, m, nil)
		if ok || err != nil {
			return message, ok, err
		}
	}
}

// deliver takes in one message of the subscription, or an interruption of it.
func (c *Consumer) deliver(ctx context.Context, m *nats.Msg, interrupted error) (Message, bool, error) {
	if interrupted != nil {
		return Message{}, false, c.reattach(ctx)
	}
	payload, err := c.pull.accept(m)
	if errors.Is(err, errInterrupted) {
		return Message{}, false, c.reattach(ctx)
	}
	if err != nil || !payload {
		return Message{}, false, err
	}
	meta, err := (&nats.Msg{Reply: m.Reply, Sub: m.Sub}).Metadata()
	if err != nil {
		return Message{}, false, fmt.Errorf("read message of consumer %s: %w", c.name, err)
	}
	sequence := meta.Sequence.Stream
	c.pull.last = max(c.pull.last, sequence)
	c.mu.Lock()
	c.pending = meta.NumPending
	if c.hold == nil {
		c.replies = append(c.replies, reply{sequence: sequence, subject: m.Reply})
	}
	c.mu.Unlock()
	message, ok, err := c.frame.add(sequence, m.Header, m.Data)
	if err != nil {
		return Message{}, false, c.checkGap(ctx, err)
	}
	message.StoredAt = meta.Timestamp
	if ok && c.hold != nil {
		if err := c.passed(message.Sequence, m.Header); err != nil {
			return Message{}, false, err
		}
	}
	return message, ok, nil
}

// checkGap finds out whether a hole is in the stream or only in the delivery.
func (c *Consumer) checkGap(ctx context.Context, problem error) error {
	var gap *GapError
	if !errors.As(problem, &gap) || gap.Found <= gap.Expected {
		return problem
	}
	_, ok, err := c.b.message(ctx, gap.Expected)
	if err != nil {
		return errors.Join(problem, err)
	}
	if !ok {
		return c.b.purgedOr(ctx, gap, problem)
	}
	return c.reattach(ctx)
}

// Pending returns how many messages are stored that were not yet returned, as of the
// last one. It counts messages; a frame that was split is several.
func (c *Consumer) Pending() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending
}

// Ack tells the server that everything up to the sequence is committed, and returns
// when the server has noted it. It is for people and for [Bus.Info]: where to start
// again is the caller's checkpoint.
func (c *Consumer) Ack(ctx context.Context, sequence uint64) error {
	c.mu.Lock()
	c.acked = max(c.acked, sequence)
	var subject string
	n := 0
	for n < len(c.replies) && c.replies[n].sequence <= sequence {
		subject = c.replies[n].subject
		n++
	}
	c.replies = append(c.replies[:0], c.replies[n:]...)
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if subject == "" {
		// Acknowledged before, or to be delivered again to a new consumer,
		// which starts behind it.
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.b.patience)
	defer cancel()
	if _, err := c.b.nc.RequestWithContext(ctx, subject, []byte("+ACK")); err != nil {
		return fmt.Errorf("acknowledge sequence %d: %w", sequence, err)
	}
	return nil
}

// Close ends the session. What was not acknowledged is delivered to the next one.
func (c *Consumer) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	close(c.done)
	c.pull.close()
	if c.hold != nil {
		c.endReading()
	}
}
