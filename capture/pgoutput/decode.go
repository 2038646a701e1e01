package pgoutput

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is wrapped by every error of Decode.
var ErrMalformed = errors.New("malformed pgoutput message")

// Decode decodes one message from outside of a stream into m, which is overwritten.
func Decode(data []byte, m *Message) error {
	*m = Message{}
	if len(data) == 0 {
		return fmt.Errorf("%w: it is empty", ErrMalformed)
	}
	m.Kind = Kind(data[0])
	r := reader{data: data, at: 1}
	if !r.change(m) && !r.mark(m) {
		return fmt.Errorf("%w: unknown type %q", ErrMalformed, data[0])
	}
	return r.finish(m.Kind)
}

// DecodeStreamed decodes one message from between Stream Start and Stream Stop into m,
// which is overwritten. There the id of the transaction or subtransaction comes first in
// every message but Stream Stop and Origin.
func DecodeStreamed(data []byte, m *Message) error {
	*m = Message{}
	if len(data) == 0 {
		return fmt.Errorf("%w: it is empty", ErrMalformed)
	}
	m.Kind = Kind(data[0])
	r := reader{data: data, at: 1}
	switch m.Kind {
	case KindStreamStop:
	case KindOrigin:
		r.change(m)
	default:
		m.XID = r.uint32()
		if !r.change(m) {
			return fmt.Errorf("%w: type %q inside a stream", ErrMalformed, data[0])
		}
	}
	return r.finish(m.Kind)
}

// change decodes what may come inside of a stream and outside. It returns false if the
// message is something else.
func (r *reader) change(m *Message) bool {
	switch m.Kind {
	case KindInsert:
		m.Relation = r.uint32()
		r.expect('N')
		m.New = r.tuple()
	case KindUpdate:
		m.Relation = r.uint32()
		r.update(m)
	case KindDelete:
		m.Relation = r.uint32()
		m.OldKind = r.oldKind(r.byte())
		m.Old = r.tuple()
	case KindRelation:
		r.relation(m)
	case KindTruncate:
		n := r.uint32()
		m.Flags = r.byte()
		m.Relations = r.take(4 * uint64(n))
	case KindType:
		m.Relation = r.uint32()
		m.Namespace = r.name()
		m.Name = r.name()
	case KindOrigin:
		m.LSN = r.uint64()
		m.Name = r.name()
	case KindMessage:
		m.Flags = r.byte()
		m.LSN = r.uint64()
		m.Name = r.name()
		m.Content = r.take(uint64(r.uint32()))
	default:
		return false
	}
	return true
}

// mark decodes what begins and ends transactions and streams. It returns false if the
// message is something else.
func (r *reader) mark(m *Message) bool {
	switch m.Kind {
	case KindBegin:
		m.LSN = r.uint64()
		m.Time = r.int64()
		m.XID = r.uint32()
	case KindCommit:
		r.commit(m)
	case KindStreamStart:
		m.XID = r.uint32()
		m.First = r.byte() == 1
	case KindStreamStop:
	case KindStreamCommit:
		m.XID = r.uint32()
		r.commit(m)
	case KindStreamAbort:
		m.XID = r.uint32()
		m.SubXID = r.uint32()
	default:
		return false
	}
	return true
}

func (r *reader) commit(m *Message) {
	r.expect(0) // The flags are unused.
	m.LSN = r.uint64()
	m.EndLSN = r.uint64()
	m.Time = r.int64()
}

// reader walks a message. After a failure every further read answers zero and the
// place of the first failure is kept.
type reader struct {
	data   []byte
	at     int
	failed bool
	what   string
}

func (r *reader) finish(kind Kind) error {
	switch {
	case r.failed:
		return fmt.Errorf("%w: %s of %d bytes, at offset %d: %s", ErrMalformed, kind, len(r.data), r.at, r.what)
	case r.at != len(r.data):
		return fmt.Errorf("%w: %s of %d bytes, at offset %d: %d bytes too many", ErrMalformed, kind, len(r.data), r.at, len(r.data)-r.at)
	}
	return nil
}

func (r *reader) fail(what string) {
	if !r.failed {
		r.failed, r.what = true, what
	}
}

func (r *reader) take(n uint64) []byte {
	if r.failed || n > uint64(len(r.data)-r.at) {
		r.fail("it ends too early")
		return nil
	}
	start := r.at
	r.at += int(n) //nolint:gosec // At most the length of the message.
	return r.data[start:r.at:r.at]
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) expect(want byte) {
	if r.byte() != want {
		r.fail(fmt.Sprintf("want byte %#x before this", want))
	}
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *reader) int64() int64 { return int64(r.uint64()) } //nolint:gosec // Two's complement is the format.

// name reads a string that ends in a zero byte.
func (r *reader) name() []byte {
	if r.failed {
		return nil
	}
	for i, c := range r.data[r.at:] {
		if c == 0 {
			b := r.take(uint64(i)) //nolint:gosec // An index.
			r.at++
			return b
		}
	}
	r.fail("a name without an end")
	return nil
}

func (r *reader) oldKind(c byte) OldKind {
	k := OldKind(c)
	if k != OldKey && k != OldRow {
		r.fail("want K or O before the old tuple")
	}
	return k
}

func (r *reader) update(m *Message) {
	c := r.byte()
	if c != 'N' && !r.failed {
		m.OldKind = r.oldKind(c)
		m.Old = r.tuple()
		c = r.byte()
	}
	if c != 'N' {
		r.fail("want N before the new tuple")
	}
	m.New = r.tuple()
}

func (r *reader) tuple() Tuple {
	n := int(r.uint16())
	start := r.at
	for range n {
		switch kind := ValueKind(r.byte()); kind {
		case Null, Unchanged:
		case Text:
			r.take(uint64(r.uint32()))
		case 'b':
			r.fail("a column in binary form, which was not asked for")
		default:
			r.fail("unknown kind of column value")
		}
		if r.failed {
			return Tuple{}
		}
	}
	return Tuple{n: n, data: r.data[start:r.at]}
}

func (r *reader) relation(m *Message) {
	m.Relation = r.uint32()
	m.Namespace = r.name()
	m.Name = r.name()
	m.ReplicaIdentity = r.byte()
	n := int(r.uint16())
	start := r.at
	for range n {
		r.byte()
		r.name()
		r.take(8)
		if r.failed {
			return
		}
	}
	m.Columns = Columns{n: n, data: r.data[start:r.at]}
}
