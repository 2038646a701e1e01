package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// listPage bounds what one request of List brings: headers of up to 64 KiB each.
const listPage = 256

// List returns the letters behind the sequence in the order in which they were stored,
// without their data, at most limit of them. The next call goes on behind the last one's
// Sequence; fewer than limit are all that there are. It asks the server once for some
// hundred letters; long or odd headers cost one question more each.
func (d *DeadLetters) List(ctx context.Context, after uint64, limit int) ([]Letter, error) {
	stream, err := d.open(ctx, false)
	if err != nil || stream == nil {
		return nil, err
	}
	var letters []Letter
	for len(letters) < limit {
		want := min(limit-len(letters), listPage)
		var heads []*jetstream.RawStreamMsg
		err := d.b.ask(ctx, func(ctx context.Context) (err error) {
			heads, err = d.heads(ctx, stream, after, want)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list dead letters: %w", err)
		}
		for _, head := range heads {
			l, ok, err := d.listed(ctx, stream, head)
			if err != nil {
				return nil, fmt.Errorf("list dead letters: %w", err)
			}
			if ok {
				letters = append(letters, l)
			}
			after = head.Sequence
		}
		if len(heads) < want {
			break
		}
	}
	return letters, nil
}

// heads returns the headers of the next heads behind the sequence: as many as wanted, or
// all that there are.
func (d *DeadLetters) heads(ctx context.Context, stream jetstream.Stream, after uint64, want int) ([]*jetstream.RawStreamMsg, error) {
	name := "list_" + rand.Text()
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Name: name, Description: "a list of dead letters",
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: after + 1,
		FilterSubject: d.b.cfg.lettersSubject() + ".letter.*",
		AckPolicy:     jetstream.AckNonePolicy, HeadersOnly: true,
		InactiveThreshold: 2 * d.b.patience, Replicas: 1,
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.DeleteConsumer(ctx, name) }() // Or it goes by itself.
	pending := consumer.CachedInfo().NumPending
	if pending == 0 {
		return nil, nil
	}
	if pending < uint64(want) { //nolint:gosec // Not negative.
		want = int(pending) //nolint:gosec // Less than that.
	}
	batch, err := consumer.Fetch(want, jetstream.FetchContext(ctx))
	if err != nil {
		return nil, err
	}
	var heads []*jetstream.RawStreamMsg
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		heads = append(heads, &jetstream.RawStreamMsg{
			Subject: m.Subject(), Sequence: meta.Sequence.Stream, Time: meta.Timestamp, Header: m.Headers(),
		})
		if pending = meta.NumPending; pending == 0 {
			break // Some were deleted meanwhile.
		}
	}
	if len(heads) < want && pending > 0 {
		return nil, errors.Join(batch.Error(), context.DeadlineExceeded)
	}
	return heads, nil
}

// listed makes a letter of the headers of its head. ok is false if it was deleted.
func (d *DeadLetters) listed(ctx context.Context, stream jetstream.Stream, head *jetstream.RawStreamMsg) (l Letter, ok bool, err error) {
	lay, err := layoutOf(head)
	if err != nil {
		return Letter{}, false, err
	}
	var body []byte
	if lay.exact > 0 {
		whole, err := d.last(ctx, stream, head.Subject)
		if err != nil || whole == nil {
			return Letter{}, false, err
		}
		body, err = d.body(ctx, stream, whole, lay.exact)
		if err != nil && !errors.Is(err, errLetterDamaged) {
			return Letter{}, false, err
		}
	}
	l, err = letterOf(head, lay, body)
	return l, err == nil, err
}

// body returns at least so many bytes of the letter's body if it has them.
func (d *DeadLetters) body(ctx context.Context, stream jetstream.Stream, head *jetstream.RawStreamMsg, want int) ([]byte, error) {
	lay, err := layoutOf(head)
	if err != nil || lay.parts == 0 {
		return head.Data, err
	}
	prefix := d.b.cfg.lettersSubject() + ".letter."
	var body []byte
	for i := 0; i < lay.parts && len(body) < want; i++ {
		subject := fmt.Sprintf("%s.part.%s.%s.%d", d.b.cfg.lettersSubject(), head.Subject[len(prefix):], lay.attempt, i+1)
		part, err := d.last(ctx, stream, subject)
		if err != nil {
			return nil, err
		}
		if part == nil {
			return nil, fmt.Errorf("read message %d of dead-letter stream: part %d of %d is not there: %w", head.Sequence, i+1, lay.parts, errLetterDamaged)
		}
		body = append(body, part.Data...)
	}
	return body, nil
}

// Get returns the letter with its data, which is verified, or ErrNotFound.
func (d *DeadLetters) Get(ctx context.Context, id string) (Letter, error) {
	l, err := d.get(ctx, id)
	if err != nil {
		return Letter{}, fmt.Errorf("read letter %q: %w", id, err)
	}
	return l, nil
}

func (d *DeadLetters) get(ctx context.Context, id string) (Letter, error) {
	stream, err := d.open(ctx, false)
	if err != nil {
		return Letter{}, err
	}
	if stream == nil {
		return Letter{}, ErrNotFound
	}
	head, err := d.last(ctx, stream, d.letterSubject(id))
	if err != nil {
		return Letter{}, err
	}
	if head == nil {
		return Letter{}, ErrNotFound
	}
	lay, err := layoutOf(head)
	if err != nil {
		return Letter{}, err
	}
	body, err := d.body(ctx, stream, head, lay.exact+lay.bytes)
	if err != nil {
		return Letter{}, err
	}
	l, err := letterOf(head, lay, body)
	if err != nil {
		return Letter{}, err
	}
	l.Data = body[lay.exact:]
	if l.ID != id || l.sum() != head.Header.Get(headerLetterSum) {
		return Letter{}, errLetterDamaged
	}
	return l, nil
}

// Delete removes the letter and overwrites its bytes on the disk. One that is not there
// is no error. After an error it may be there as a whole, or damaged: delete it again. A
// letter that was deleted can be put again.
func (d *DeadLetters) Delete(ctx context.Context, id string) error {
	if err := d.delete(ctx, id); err != nil {
		return fmt.Errorf("delete letter %q: %w", id, err)
	}
	return nil
}

func (d *DeadLetters) delete(ctx context.Context, id string) error {
	stream, err := d.open(ctx, false)
	if err != nil || stream == nil {
		return err
	}
	head, err := d.last(ctx, stream, d.letterSubject(id))
	if err != nil || head == nil {
		return err
	}
	lay, err := layoutOf(head)
	if err != nil {
		return errors.Join(err, d.erase(ctx, stream, head.Sequence))
	}
	// The head goes last: as long as it is there, the parts can be found.
	if err := d.dropParts(ctx, stream, id, lay); err != nil {
		return err
	}
	return d.erase(ctx, stream, head.Sequence)
}

// Count returns how many letters there are.
func (d *DeadLetters) Count(ctx context.Context) (uint64, error) {
	stream, err := d.open(ctx, false)
	if err != nil || stream == nil {
		return 0, err
	}
	var info *jetstream.StreamInfo
	err = d.b.ask(ctx, func(ctx context.Context) error {
		// A handle of its own: Info writes to the handle's cache.
		handle, err := d.b.js.Stream(ctx, d.b.cfg.lettersName())
		if err == nil {
			info, err = handle.Info(ctx, jetstream.WithSubjectFilter(d.b.cfg.lettersSubject()+".part.>"))
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	return info.State.Msgs - uint64(len(info.State.Subjects)), nil
}
