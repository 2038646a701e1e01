package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// messageMax bounds a message of the server. PostgreSQL builds each in memory and
// cannot make one of more than a gigabyte.
const messageMax = 1<<30 + 1<<16

// errIdle is answered by fill when nothing came in time.
var errIdle = errors.New("nothing to read")

// socket reads and writes messages of the PostgreSQL protocol on a connection that is
// streaming. Reading is for one goroutine, writing for any.
type socket struct {
	conn net.Conn
	pace *pace

	base     []byte // the buffer of ordinary size
	buf      []byte // base, or a larger one for a large message
	start    int    // of what was not consumed
	end      int
	last     int // bytes of the last read
	messages int // since then
	deadline bool
	heard    atomic.Int64 // reads that returned something
	filling  atomic.Bool  // the reader is in fill, so nothing keeps it from reading
	called   *atomic.Bool // somebody has set a deadline in the past; nil if nobody does
	// unheard reports whether the server does not acknowledge what it is sent.
	unheard func() bool

	writing sync.Mutex
	out     []byte
}

func newSocket(conn net.Conn, readBytes int) *socket {
	base := make([]byte, readBytes)
	pace := newPace(quieten(conn))
	pace.inside, pace.records = insideBytes(conn)
	pace.narrow = narrow(conn)
	return &socket{conn: conn, pace: pace, base: base, buf: base, unheard: func() bool { return unheard(conn) }}
}

// messageHead is the type and the length before each message; the length counts itself.
const messageHead = 5

// next takes the next whole message from the buffer; ok is false if there is none.
// The payload is valid until fill is called.
func (s *socket) next() (kind byte, payload []byte, ok bool, err error) {
	in := s.buf[s.start:s.end]
	if len(in) < messageHead {
		return 0, nil, false, nil
	}
	size := int(binary.BigEndian.Uint32(in[1:]))
	if size < messageHead-1 || size > messageMax {
		return 0, nil, false, fmt.Errorf("read from server: message %q claims %d bytes", in[0], size)
	}
	if len(in) < 1+size {
		return 0, nil, false, nil
	}
	s.start += 1 + size
	s.messages++
	return in[0], in[messageHead : 1+size : 1+size], true, nil
}

// fill reads more. It waits that long for something to come, or for ever if wait is zero.
func (s *socket) fill(ctx context.Context, wait time.Duration) error {
	s.filling.Store(true)
	defer s.filling.Store(false)
	s.room()
	s.pace.wait(ctx, s.last/max(s.messages, 1))
	s.messages = 0
	var deadline time.Time
	if wait > 0 {
		// Counted from after the nap, or a nap that took long would leave no time
		// to read what has come meanwhile.
		deadline = s.pace.now().Add(wait)
	}
	if !deadline.IsZero() || s.deadline {
		if err := s.conn.SetReadDeadline(deadline); err != nil {
			return fmt.Errorf("read from server: %w", err)
		}
		s.deadline = !deadline.IsZero()
	}
	// Whoever cancels sets a deadline in the past afterwards; see session.
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.called != nil && s.called.Load() {
		s.deadline = true
		return errIdle
	}
	before := s.pace.now()
	n, err := s.conn.Read(s.buf[s.end:])
	s.end += n
	s.last = n
	if n > 0 {
		s.heard.Add(1)
		s.pace.read(s.pace.now().Sub(before))
		return nil // An error, if there is one, comes again.
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.deadline = true
		s.pace.idle()
		return errIdle
	case err != nil:
		return fmt.Errorf("read from server: %w", err)
	}
	return nil
}

const (
	// reliefBytes is how much relieve reads at a time: more than the sixteenth of a
	// receive buffer that must be free before Linux says that there is room again.
	reliefBytes = 4 << 20
	// reliefMax bounds what relieve keeps in memory.
	reliefMax = 64 << 20
)

// relieve reads a little, although nobody can take it yet, if the server does not
// acknowledge what it is sent. Once a receive buffer has overflowed, which many small
// packets do to one that should have had room for them, Linux takes every packet of the
// server for one that is out of order, the acknowledgements that are in them included,
// until something is read. Reports would be repeated one at a time, ever more slowly, and
// the server would give up the connection after wal_sender_timeout.
//
// It belongs to the goroutine that reads. Messages that next has returned stay as they
// are.
func (s *socket) relieve() {
	if s.end-s.start > reliefMax || !s.unheard() {
		return
	}
	s.deadline = true
	if s.conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)) != nil {
		return
	}
	for left := reliefBytes; left > 0; {
		if s.end == len(s.buf) {
			// Not in place: a message may be in use.
			grown := make([]byte, 2*len(s.buf)+reliefBytes)
			s.end = copy(grown, s.buf[s.start:s.end])
			s.buf, s.start = grown, 0
		}
		n, err := s.conn.Read(s.buf[s.end:min(len(s.buf), s.end+left)])
		s.end += n
		left -= n
		if err != nil || n == 0 {
			return // An error, if there is one, comes again.
		}
	}
}

// room makes sure that there is space to read into: it moves what is left to the front,
// grows the buffer for a message that does not fit, and goes back to the ordinary one.
func (s *socket) room() {
	rest := s.buf[s.start:s.end]
	switch {
	case len(rest) == 0:
		s.buf = s.base
	case len(rest) == len(s.buf):
		// Doubling as bytes really arrive keeps a wrong length from taking a
		// gigabyte at once.
		grown := make([]byte, min(2*len(s.buf), messageMax+1))
		copy(grown, rest)
		s.buf = grown
	case len(s.buf) > len(s.base) && 2*len(rest) <= len(s.base):
		copy(s.base, rest)
		s.buf = s.base
	case s.start > len(s.buf)/2 || s.end == len(s.buf):
		copy(s.buf, rest)
	default:
		return
	}
	s.start, s.end = 0, len(rest)
}

// write sends bytes to the server. It waits at most ten seconds: the server reads what
// it is sent also while its own sends are blocked.
func (s *socket) write(b []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return fmt.Errorf("write to server: %w", err)
	}
	if _, err := s.conn.Write(b); err != nil {
		return fmt.Errorf("write to server: %w", err)
	}
	return nil
}

// query sends a simple query, which is how a replication command is given.
func (s *socket) query(sql string) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	b := append([]byte{'Q'}, 0, 0, 0, 0)
	b = append(append(b, sql...), 0)
	binary.BigEndian.PutUint32(b[1:], uint32(len(b)-1)) //nolint:gosec // A short command.
	return s.write(b)
}

// epoch2000 is the epoch of PostgreSQL's timestamps in microseconds since 1970.
const epoch2000 = 946_684_800_000_000

// report sends a standby status update.
func (s *socket) report(lsn cdc.LSN, wantReply bool) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	const size = 1 + 8 + 8 + 8 + 8 + 1
	b := append(s.out[:0], 'd')
	b = binary.BigEndian.AppendUint32(b, 4+size)
	b = append(b, 'r')
	for range 3 { // written, flushed, applied
		b = binary.BigEndian.AppendUint64(b, uint64(lsn))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(time.Now().UnixMicro()-epoch2000)) //nolint:gosec // After 2000.
	if wantReply {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	s.out = b
	return s.write(b)
}

// leave ends the stream politely, so that the slot is free when it returns, and closes
// the connection in any case. What the server still sends is thrown away.
func (s *socket) leave(limit time.Duration) {
	defer func() { _ = s.conn.Close() }() // Nothing is left to lose.
	s.writing.Lock()
	err := s.write([]byte{'c', 0, 0, 0, 4})
	s.writing.Unlock()
	if err != nil || s.conn.SetReadDeadline(time.Now().Add(limit)) != nil {
		return
	}
	for {
		kind, _, ok, err := s.next()
		if err != nil || kind == 'E' {
			return
		}
		if ok && kind == 'Z' {
			s.writing.Lock()
			_ = s.write([]byte{'X', 0, 0, 0, 4}) // The close that follows says the same.
			s.writing.Unlock()
			return
		}
		if ok {
			continue
		}
		s.room()
		n, err := s.conn.Read(s.buf[s.end:])
		s.end += n
		if n == 0 && err != nil {
			return
		}
	}
}
