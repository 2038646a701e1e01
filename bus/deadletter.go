package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// DefaultDeadLetterBytes bounds the dead letters of a pipeline.
const DefaultDeadLetterBytes = 1 << 30

var (
	// ErrLetterExists means that there is a dead letter with the same id and another
	// content.
	ErrLetterExists = errors.New("a dead letter with this id and another content exists")
	// ErrLettersFull means that there is no room for another dead letter. Nothing is
	// discarded to make some.
	ErrLettersFull = errors.New("dead-letter stream is full")
)

// Letter is something that could not be applied, set aside.
type Letter struct {
	// ID names the letter for ever: the same id is the same letter. Any bytes, 1 to
	// 1024 of them.
	ID string
	// Header says what it is about: table, key, reason. Names are of a-z, A-Z, 0-9
	// and hyphen, and do not begin with Nats- or Dbmazz-Letter-; values are any
	// bytes. The ordinary nats tool shows them as headers, long ones shortened.
	Header map[string]string
	// Data is the letter itself. List leaves it out.
	Data []byte

	// Sequence and StoredAt are set by the stream, Bytes is the size of Data.
	Sequence uint64
	StoredAt time.Time
	Bytes    int
	// Damaged is set by List if a part with the header is gone, as when a Delete was
	// cut off; Header is then what the tool shows. Such a letter can be deleted.
	Damaged bool
}

// DeadLetters are the letters of one pipeline, in the stream DBMAZZ_<pipeline>_DLQ. Its
// methods may be called concurrently.
//
// A letter is one message on the subject dbmazz.<pipeline>.dlq.letter.<hash of the id>;
// the server keeps one for each subject and refuses another. What does not fit into one
// message is put before it on dbmazz.<pipeline>.dlq.part.<hash>.<attempt>.<number>.
type DeadLetters struct {
	b *Bus

	mu     sync.Mutex
	stream jetstream.Stream
}

// DeadLetters returns the dead letters of the pipeline. It does no I/O: the first Put
// makes the stream.
func (b *Bus) DeadLetters() *DeadLetters { return &DeadLetters{b: b} }

func (c *Config) lettersName() string { return c.streamName() + "_DLQ" }

func (c *Config) lettersSubject() string { return "dbmazz." + c.Pipeline + ".dlq" }

func (d *DeadLetters) letterSubject(id string) string {
	return d.b.cfg.lettersSubject() + ".letter." + hashOf(id)
}

func (d *DeadLetters) partSubject(id, attempt string, number int) string {
	return fmt.Sprintf("%s.part.%s.%s.%d", d.b.cfg.lettersSubject(), hashOf(id), attempt, number)
}

func hashOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// open returns the stream, nil if there is none and it is not to be made.
func (d *DeadLetters) open(ctx context.Context, create bool) (jetstream.Stream, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stream != nil {
		return d.stream, nil
	}
	name := d.b.cfg.lettersName()
	var stream jetstream.Stream
	err := d.b.ask(ctx, func(ctx context.Context) (err error) {
		stream, err = d.b.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) && create {
			stream, err = d.b.js.CreateStream(ctx, d.config())
		}
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open dead-letter stream %s: %w", name, err)
	}
	have := stream.CachedInfo().Config
	if err := d.check(&have); err != nil {
		return nil, fmt.Errorf("use dead-letter stream %s: %w; it was changed or made by another program: put its configuration right", name, err)
	}
	if want := d.config(); create && (have.MaxBytes != want.MaxBytes || have.Replicas != want.Replicas || have.AllowDirect != want.AllowDirect) {
		have.MaxBytes, have.Replicas, have.AllowDirect = want.MaxBytes, want.Replicas, want.AllowDirect
		if stream, err = d.b.js.UpdateStream(ctx, have); err != nil {
			return nil, fmt.Errorf("update dead-letter stream %s: %w", name, err)
		}
	}
	d.stream = stream
	return stream, nil
}

func (d *DeadLetters) config() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        d.b.cfg.lettersName(),
		Description: "what the dbmazz pipeline " + d.b.cfg.Pipeline + " could not apply",
		Subjects:    []string{d.b.cfg.lettersSubject() + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		Storage:     jetstream.FileStorage,
		Replicas:    d.b.replicas(),
		MaxBytes:    d.b.cfg.DeadLetterBytes,
		MaxMsgs:     -1, MaxConsumers: -1,
		MaxMsgsPerSubject:    1,
		DiscardNewPerSubject: true,
		Duplicates:           time.Second,
		// A direct get may be answered by a follower that lags behind.
		AllowDirect: d.b.replicas() == 1,
		Metadata:    map[string]string{metaPipeline: d.b.cfg.Pipeline},
	}
}

// check refuses a stream that could lose or change letters.
func (d *DeadLetters) check(cfg *jetstream.StreamConfig) error {
	switch {
	case cfg.Storage != jetstream.FileStorage:
		return errors.New("it is not kept in files")
	case cfg.Retention != jetstream.LimitsPolicy, cfg.Discard != jetstream.DiscardNew, cfg.MaxAge != 0, cfg.NoAck, cfg.Sealed:
		return errors.New("it may discard or refuse letters")
	case cfg.MaxMsgsPerSubject > 1 || (cfg.MaxMsgsPerSubject == 1 && !cfg.DiscardNewPerSubject):
		return errors.New("it does not keep the first letter of each id")
	case cfg.SubjectTransform != nil || cfg.Mirror != nil || len(cfg.Sources) > 0:
		return errors.New("it copies or transforms")
	}
	return nil
}

// Put stores the letter, which is durable when it returns. A letter with the same id,
// header and data that is there already is success; one with others is ErrLetterExists.
// Without room the error is ErrLettersFull. After another error the letter may be stored
// or not: put it again.
func (d *DeadLetters) Put(ctx context.Context, l Letter) error {
	if err := d.put(ctx, &l); err != nil {
		return fmt.Errorf("set aside letter %q: %w", l.ID, err)
	}
	return nil
}

func (d *DeadLetters) put(ctx context.Context, l *Letter) error {
	if err := l.validate(); err != nil {
		return err
	}
	stream, err := d.open(ctx, true)
	if err != nil {
		return err
	}
	subject := d.letterSubject(l.ID)
	have, err := d.last(ctx, stream, subject)
	if err != nil {
		return err
	}
	if have != nil {
		return l.sameAs(have)
	}
	head, parts, err := l.messages(subject, int(d.b.nc.MaxPayload()))
	if err != nil {
		return err
	}
	// Parts are of this attempt alone. They count for nothing until the head is
	// there, and the server takes one head only.
	attempt := head.Header.Get(headerLetterAttempt)
	for i, part := range parts {
		part.Subject = d.partSubject(l.ID, attempt, i+1)
		// Nobody else writes there: a conflict is our own message, whose answer
		// was lost.
		if err := d.publish(ctx, part); err != nil && !isConflict(err) {
			return errors.Join(err, d.dropParts(ctx, stream, l.ID, layout{attempt: attempt, parts: i + 1}))
		}
	}
	problem := d.publish(ctx, head)
	if problem == nil {
		return nil
	}
	// Refused because there is one, or no answer: what is there counts.
	if have, err = d.last(ctx, stream, subject); err != nil {
		return errors.Join(problem, err)
	}
	if have != nil && have.Header.Get(headerLetterAttempt) == attempt {
		return nil
	}
	if have != nil {
		problem = l.sameAs(have)
	} else if isDoubt(problem) {
		return problem // It may still arrive, and needs its parts then.
	}
	return errors.Join(problem, d.dropParts(ctx, stream, l.ID, layout{attempt: attempt, parts: len(parts)}))
}

// publish stores one message if there is none on its subject.
func (d *DeadLetters) publish(ctx context.Context, m *nats.Msg) error {
	err := d.b.ask(ctx, func(ctx context.Context) error {
		_, err := d.b.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(0), jetstream.WithExpectStream(d.b.cfg.lettersName()))
		return err
	})
	if isFull(err) && !isConflict(err) {
		return fmt.Errorf("%w: it holds %d bytes at most: retry or drop letters with dbmazz dlq, or allow more: %w",
			ErrLettersFull, d.b.cfg.DeadLetterBytes, err)
	}
	return err
}

// last returns the message on a subject, nil if there is none.
func (d *DeadLetters) last(ctx context.Context, stream jetstream.Stream, subject string) (*jetstream.RawStreamMsg, error) {
	var m *jetstream.RawStreamMsg
	err := d.b.ask(ctx, func(ctx context.Context) (err error) {
		m, err = stream.GetLastMsgForSubject(ctx, subject)
		return err
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read dead-letter stream: %w", err)
	}
	return m, nil
}

// dropParts deletes the parts of one attempt.
func (d *DeadLetters) dropParts(ctx context.Context, stream jetstream.Stream, id string, lay layout) error {
	for i := range lay.parts {
		m, err := d.last(ctx, stream, d.partSubject(id, lay.attempt, i+1))
		if err != nil {
			return err
		}
		if m == nil {
			continue
		}
		if err := d.erase(ctx, stream, m.Sequence); err != nil {
			return err
		}
	}
	return nil
}

// erase deletes a message and overwrites its bytes.
func (d *DeadLetters) erase(ctx context.Context, stream jetstream.Stream, sequence uint64) error {
	err := d.b.ask(ctx, func(ctx context.Context) error {
		err := stream.SecureDeleteMsg(ctx, sequence)
		if _, gone := stream.GetMsg(ctx, sequence); errors.Is(gone, jetstream.ErrMsgNotFound) {
			return nil // by this call, or by one before it
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("delete message %d of dead-letter stream: %w", sequence, err)
	}
	return nil
}
