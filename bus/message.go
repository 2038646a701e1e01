package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Headers of every message, for people with the nats tool and for the bus itself.
// Positions and LSNs are in their text form.
const (
	HeaderPrev       = "Dbmazz-Prev"        // position that the frame follows
	HeaderLast       = "Dbmazz-Last"        // position of its last change
	HeaderEnd        = "Dbmazz-End"         // end LSN of the last complete transaction
	HeaderChanges    = "Dbmazz-Changes"     // rows and truncates in the frame
	HeaderCommitTime = "Dbmazz-Commit-Time" // of the last transaction, RFC 3339
	HeaderPart       = "Dbmazz-Part"        // i/n, for a frame split over n messages

	// headerAfter is set on the first message of a session if the end of the
	// stream before it was lost in a way that left its sequences used up: the
	// sequence of the last message that can still be read.
	headerAfter = "Dbmazz-After"
	// headerPrevID is the id of the message that this one follows.
	headerPrevID = "Dbmazz-Previous-Id"

	headerID         = jetstream.MsgIDHeader
	headerExpectID   = jetstream.ExpectedLastMsgIDHeader
	headerExpectSeq  = jetstream.ExpectedLastSeqHeader
	headerAllowance  = 4096 // bytes of a message that are not payload
	messageIDDivider = "."
)

// stored is a message as the stream has it.
type stored struct {
	sequence uint64
	at       time.Time
	header   nats.Header
	data     []byte
}

// partOf returns which part of a frame the message is: 1, 1 for a whole frame.
func partOf(header nats.Header) (i, n int, err error) {
	text := header.Get(HeaderPart)
	if text == "" {
		return 1, 1, nil
	}
	iText, nText, _ := strings.Cut(text, "/")
	i, errI := strconv.Atoi(iText)
	n, errN := strconv.Atoi(nText)
	if errI != nil || errN != nil || i < 1 || n < 2 || i > n {
		return 0, 0, fmt.Errorf("%w: message has the part %q", cdc.ErrCorrupt, text)
	}
	return i, n, nil
}

// sessionOf returns the publisher's session that wrote the message.
func sessionOf(header nats.Header) string {
	session, _, _ := strings.Cut(header.Get(headerID), messageIDDivider)
	return session
}

func messageID(session string, sequence uint64) string {
	return session + messageIDDivider + strconv.FormatUint(sequence, 10)
}

// frameHeader returns what all messages of a frame carry.
func frameHeader(h *cdc.Header) nats.Header {
	return nats.Header{
		HeaderPrev:       {h.Prev.String()},
		HeaderLast:       {h.Last.String()},
		HeaderEnd:        {h.End.String()},
		HeaderChanges:    {strconv.Itoa(h.Changes)},
		HeaderCommitTime: {time.UnixMicro(h.CommitTime).UTC().Format(time.RFC3339Nano)},
	}
}

// message reads one message; ok is false if there is none with this sequence.
func (b *Bus) message(ctx context.Context, sequence uint64) (m stored, ok bool, err error) {
	return b.read(ctx, sequence)
}

// messageFrom reads the first message at or after the sequence.
func (b *Bus) messageFrom(ctx context.Context, sequence uint64) (m stored, ok bool, err error) {
	return b.read(ctx, sequence, jetstream.WithGetMsgSubject(b.cfg.subject()))
}

func (b *Bus) read(ctx context.Context, sequence uint64, options ...jetstream.GetMsgOpt) (m stored, ok bool, err error) {
	var raw *jetstream.RawStreamMsg
	err = b.askStream(ctx, func(ctx context.Context, stream jetstream.Stream) error {
		raw, err = stream.GetMsg(ctx, sequence, options...)
		return err
	})
	return b.readResult(raw, err)
}

// lastMessage reads the last message that can be read.
func (b *Bus) lastMessage(ctx context.Context) (m stored, ok bool, err error) {
	var raw *jetstream.RawStreamMsg
	err = b.askStream(ctx, func(ctx context.Context, stream jetstream.Stream) error {
		raw, err = stream.GetLastMsgForSubject(ctx, b.cfg.subject())
		return err
	})
	return b.readResult(raw, err)
}

// askStream asks with the handle of Open first. If nobody listens, the stream may have
// got more replicas since and does not answer direct gets any more; a fresh handle knows.
func (b *Bus) askStream(ctx context.Context, question func(ctx context.Context, stream jetstream.Stream) error) error {
	stream := b.stream
	return b.ask(ctx, func(ctx context.Context) error {
		err := question(ctx, stream)
		if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
			if fresh, err := b.js.Stream(ctx, b.cfg.streamName()); err == nil {
				stream = fresh
			}
		}
		return err
	})
}

func (b *Bus) readResult(raw *jetstream.RawStreamMsg, err error) (stored, bool, error) {
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return stored{}, false, nil
	}
	if err != nil {
		return stored{}, false, fmt.Errorf("read message of stream %s: %w", b.cfg.streamName(), err)
	}
	return stored{sequence: raw.Sequence, at: raw.Time, header: raw.Header, data: raw.Data}, true, nil
}
