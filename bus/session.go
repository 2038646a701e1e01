package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// session is the goroutine behind a Publisher. Every message knows the sequence that
// it will have and, through its id, the message that it follows; the server stores it
// there or not at all. So sending the same messages again can neither store one twice
// nor out of order, and whatever goes wrong is dealt with in the same way: stop, look
// how far the stream has got, check that it is our message which is there, and send
// the rest again.
//
// The expected sequence alone would not keep a second writer out: with many messages
// under way, its second message finds the sequence that our first one has made true.
// A server on its own therefore also compares the id. Those of a cluster must not be
// asked to: a replica that was brought up to date by copying does not know the id of
// its last message (nats-server 2.15.2, processCatchupMsg), so it refuses what the
// others store and is out until it is restarted. There, one message at a time is under
// way, and the sequence alone is enough.
type session struct {
	p    *Publisher
	b    *Bus
	name string

	queue []*outgoing // not known to be stored, in order
	sent  int         // how many of them are under way
	bytes int         // of these
	// last is the sequence and lastID the id of the last stored message.
	last   uint64
	lastID string
	lost   uint64 // readable end, if the sequences up to last are used up
	// clustered tells that the stream belongs to a cluster, of any size.
	clustered bool
	prev      *cdc.Position
	// admitted tells that prev is of a frame of this session.
	admitted bool

	inbox    string
	acks     chan *nats.Msg
	sub      *nats.Subscription
	status   chan nats.Status
	round    int // of sending; answers to an older one are known by it
	refused  int // of those under way in this round
	cause    error
	retries  int // pauses since something was stored
	doubts   int // refusals for no good reason since then
	waiters  []chan struct{}
	timer    *time.Timer
	deadline time.Time // when to stop waiting for answers
	hold     time.Time // when to go on; zero if not holding
	pace     pace
}

// outgoing is one message on its way.
type outgoing struct {
	sequence uint64
	msg      *nats.Msg
	frame    *frame // set on the frame's last message
}

// errHold is a cause that is not doubt: the stream has no room.
var errHold = errors.New("no room")

const (
	holdMin       = 20 * time.Millisecond
	holdMax       = time.Second
	closePatience = 2 * time.Second
	// doubtsMax bounds how often the same message is refused although the
	// stream ends where it should.
	doubtsMax = 20
)

func newSession(p *Publisher, name string, t tail) (*session, error) {
	s := &session{
		p: p, b: p.b, name: name, last: t.Sequence, lastID: t.id, clustered: t.clustered,
		inbox: nats.NewInbox(), acks: make(chan *nats.Msg, 4*p.b.cfg.Window+64),
		timer: time.NewTimer(time.Hour), pace: newPace(&p.b.cfg),
	}
	if t.readable < t.Sequence {
		s.lastID, s.lost = "", t.readable
	}
	if !t.Empty {
		s.prev = &t.Last
	}
	var err error
	if s.sub, err = s.b.nc.ChanSubscribe(s.inbox+".*.*", s.acks); err != nil {
		return nil, fmt.Errorf("subscribe to answers: %w", err)
	}
	s.status = s.b.nc.StatusChanged(nats.CONNECTED)
	return s, nil
}

// run is the session's life.
func (s *session) run() {
	err := s.loop()
	if errors.Is(err, ErrClosed) {
		s.settle()
	}
	s.timer.Stop()
	s.b.nc.RemoveStatusListener(s.status)
	_ = s.sub.Unsubscribe()
	s.p.err = err
	s.p.setState(StateClosed)
	close(s.p.dead)
}

func (s *session) loop() error {
	for {
		if err := s.send(); err != nil {
			return err
		}
		in := s.p.in
		if s.busy() || s.paced(time.Now()) {
			in = nil
		}
		s.resetTimer()
		select {
		case f := <-in:
			if err := s.admit(f); err != nil {
				return err
			}
		case w := <-s.p.flushes:
			s.waiters = append(s.waiters, w)
		case m := <-s.acks:
			if err := s.answer(m); err != nil {
				return err
			}
		case _, ok := <-s.status:
			if !ok {
				s.status = nil
			}
			// Answers to what was sent over the old connection never come.
			if s.sent > 0 {
				s.cause = errors.Join(s.cause, nats.ErrConnectionReconnecting)
				s.deadline = time.Now()
			}
		case <-s.timer.C:
		case <-s.p.quit:
			return ErrClosed
		}
		s.wake()
		if err := s.checkDeadline(); err != nil {
			return err
		}
	}
}

// busy reports whether there is no room in the window for another frame.
func (s *session) busy() bool {
	return s.sent < len(s.queue) || !s.hold.IsZero() || s.cause != nil ||
		len(s.queue) >= s.b.cfg.Window || s.bytes >= s.b.cfg.WindowBytes
}

// paced reports whether memory is too short for another frame. What is queued goes out.
func (s *session) paced(now time.Time) bool {
	paced := s.pace.wait(now)
	switch state := s.p.State(); {
	case paced && state == StatePublishing:
		s.p.setState(StatePaced)
	case !paced && state == StatePaced:
		s.p.setState(StatePublishing)
	}
	return paced
}

// wake tells those who wait in Flush.
func (s *session) wake() {
	if len(s.queue) > 0 {
		return
	}
	for _, w := range s.waiters {
		close(w)
	}
	s.waiters = nil
}

func (s *session) resetTimer() {
	next := s.deadline
	if !s.hold.IsZero() {
		next = s.hold
	}
	if at := s.pace.next; s.p.State() == StatePaced && (next.IsZero() || at.Before(next)) {
		next = at
	}
	if next.IsZero() {
		s.timer.Stop()
		return
	}
	s.timer.Reset(max(0, time.Until(next)))
}

// admit queues the messages of a frame.
func (s *session) admit(f *frame) error {
	if s.prev != nil && f.header.Prev != *s.prev && !s.newStretch(f.header.Prev) {
		return fmt.Errorf("publish frame up to %s: it follows %s, the stream ends at %s", f.header.Last, f.header.Prev, *s.prev)
	}
	s.prev, s.admitted = &f.header.Last, true
	s.pace.spend(len(f.data))
	size := int(s.b.nc.MaxPayload()) - headerAllowance
	n := max(1, (len(f.data)+size-1)/size)
	base := frameHeader(&f.header)
	for i := range n {
		header := base
		if n > 1 {
			header = maps.Clone(base)
			header.Set(HeaderPart, strconv.Itoa(i+1)+"/"+strconv.Itoa(n))
		}
		o := &outgoing{sequence: s.last + uint64(len(s.queue)) + 1} //nolint:gosec // A length.
		header.Set(headerExpectSeq, strconv.FormatUint(o.sequence-1, 10))
		header.Set(headerID, messageID(s.name, o.sequence))
		switch {
		case len(s.queue) > 0:
			header.Set(headerPrevID, messageID(s.name, o.sequence-1))
		case s.lastID != "":
			header.Set(headerPrevID, s.lastID)
		case s.lost > 0:
			header.Set(headerAfter, strconv.FormatUint(s.lost, 10))
		}
		o.msg = &nats.Msg{Subject: s.b.cfg.subject(), Header: header, Data: f.data[i*size : min(len(f.data), (i+1)*size)]}
		if i == n-1 {
			o.frame = f
		}
		s.queue = append(s.queue, o)
	}
	return nil
}

// newStretch reports whether the session's first frame says that it does not follow the
// stream's end: what came between was lost with the end of the stream, and is nowhere to
// be had any more. Apply has it, or refuses.
func (s *session) newStretch(prev cdc.Position) bool {
	return !s.admitted && prev.Ordinal == 0 && prev.After(*s.prev)
}

// send puts messages under way while the window has room.
func (s *session) send() error {
	if !s.hold.IsZero() {
		if time.Now().Before(s.hold) {
			return nil
		}
		s.hold = time.Time{}
	}
	for s.cause == nil && s.sent < len(s.queue) && s.room() {
		if s.diskFull() {
			s.pause(StateDiskFull)
			return nil
		}
		o := s.queue[s.sent]
		if id := o.msg.Header.Get(headerPrevID); id != "" && !s.clustered {
			o.msg.Header.Set(headerExpectID, id)
		} else {
			o.msg.Header.Del(headerExpectID)
		}
		o.msg.Reply = s.inbox + "." + strconv.Itoa(s.round) + "." + strconv.FormatUint(o.sequence, 10)
		if err := s.b.nc.PublishMsg(o.msg); err != nil {
			if errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, nats.ErrBadSubject) {
				return fmt.Errorf("publish to stream %s: %w", s.b.cfg.streamName(), err)
			}
			s.cause = fmt.Errorf("publish to stream %s: %w", s.b.cfg.streamName(), err)
			s.deadline = time.Now()
			return nil
		}
		killpoint.Reached("bus.sent")
		s.sent++
		s.bytes += len(o.msg.Data)
		s.deadline = time.Now().Add(s.answerTime())
	}
	return nil
}

// answerTime is how long an answer may take before somebody looks. In a cluster it is
// shorter: there it is more often lost, with the server that should have given it.
func (s *session) answerTime() time.Duration {
	if s.clustered {
		return s.b.patience * 2 / 5
	}
	return s.b.patience
}

// room reports whether one more message may be under way. After a refusal one message
// at a time probes; in a cluster it is always one.
func (s *session) room() bool {
	if s.sent == 0 {
		return true
	}
	return !s.clustered && s.retries == 0 && s.sent < s.b.cfg.Window && s.bytes < s.b.cfg.WindowBytes
}

func (s *session) diskFull() bool {
	if !s.b.local() || s.b.cfg.DiskReserve < 0 {
		return false
	}
	free, err := freeBytes(s.b.cfg.DataDir)
	return err == nil && free < s.b.cfg.DiskReserve
}

// pause holds with a growing delay.
func (s *session) pause(state State) {
	if s.p.State() != state {
		s.b.log.Warn("publisher holds", "state", string(state))
	}
	s.p.setState(state)
	s.hold = time.Now().Add(min(holdMax, holdMin<<min(s.retries, 10)))
	s.retries++
}

// answer handles what the server said to one message.
func (s *session) answer(m *nats.Msg) error {
	round, sequence, ok := s.token(m.Subject)
	if !ok {
		return nil
	}
	var ack struct {
		Stream   string              `json:"stream"`
		Sequence uint64              `json:"seq"`
		Error    *jetstream.APIError `json:"error"`
	}
	var problem error
	switch err := json.Unmarshal(m.Data, &ack); {
	case m.Header.Get("Status") == "503":
		problem = jetstream.ErrNoStreamResponse
	case err != nil || (ack.Error == nil && ack.Sequence == 0):
		problem = jetstream.ErrInvalidJSAck
	case ack.Error != nil:
		problem = ack.Error
	case ack.Sequence != sequence:
		return fmt.Errorf("publish to stream %s: sequence %d was stored as %d: %w", s.b.cfg.streamName(), sequence, ack.Sequence, ErrFenced)
	default:
		// The chain of ids makes this the proof for all before it, too.
		s.storedUpTo(sequence)
		return nil
	}
	if round != s.round || sequence <= s.last {
		return nil
	}
	s.refused++
	if s.cause == nil {
		if s.cause = problem; isFull(problem) {
			s.cause = errHold
		}
	}
	if s.refused >= s.sent {
		s.deadline = time.Now()
	}
	return nil
}

// token reads round and sequence from the subject of an answer.
func (s *session) token(subject string) (round int, sequence uint64, ok bool) {
	rest, ok := strings.CutPrefix(subject, s.inbox+".")
	if !ok {
		return 0, 0, false
	}
	roundText, sequenceText, _ := strings.Cut(rest, ".")
	round, err1 := strconv.Atoi(roundText)
	sequence, err2 := strconv.ParseUint(sequenceText, 10, 64)
	return round, sequence, err1 == nil && err2 == nil
}

// storedUpTo takes the messages up to the sequence off the queue.
func (s *session) storedUpTo(sequence uint64) {
	for len(s.queue) > 0 && s.queue[0].sequence <= sequence {
		o := s.queue[0]
		s.queue[0] = nil
		s.queue = s.queue[1:]
		if s.sent > 0 {
			s.sent--
			s.bytes -= len(o.msg.Data)
		}
		s.last, s.lastID, s.lost = o.sequence, o.msg.Header.Get(headerID), 0
		s.retries, s.doubts = 0, 0
		killpoint.Reached("bus.stored")
		s.p.setStored(o.sequence, o.frame)
		if f := o.frame; f != nil && f.stored != nil {
			f.stored(f.data)
		}
		s.deadline = time.Now().Add(s.answerTime())
	}
	if s.sent == 0 && s.cause == nil {
		s.deadline = time.Time{}
		s.p.setState(StatePublishing)
	}
}

// isFull reports whether the stream refused a message because it has no room.
func isFull(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case codeStoreFailed:
		return strings.Contains(api.Description, "maximum bytes") || strings.Contains(api.Description, "maximum messages")
	case codeInsufficientResources, codeStorageExceeded, codeAccountExceeded, codeTooManyRequests:
		return true
	}
	return false
}

// Codes of the server that the client library does not name.
const (
	codeAccountExceeded       = 10002
	codeInsufficientResources = 10023
	codeStorageExceeded       = 10047
	codeStoreFailed           = 10077
	codeTooManyRequests       = 10167
)

// patience returns a context for one question to the server.
func (s *session) patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), s.b.patience) //nolint:forbidigo // The session ends by Close.
}
