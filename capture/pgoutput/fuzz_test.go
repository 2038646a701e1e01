package pgoutput_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/capture/pgoutput"
)

// plain is a message with nothing packed, from which its bytes can be written.
type plain struct {
	Kind            pgoutput.Kind
	LSN, EndLSN     uint64
	Time            int64
	XID, SubXID     uint32
	First           bool
	Relation        uint32
	Namespace, Name string
	Identity        byte
	Columns         []column
	OldKind         pgoutput.OldKind
	Old, New        []value
	Flags           byte
	Relations       []uint32
	Content         string
	Streamed        bool
}

type column struct {
	Flags byte
	Name  string
	OID   uint32
	Mod   int32
}

type value struct {
	Kind pgoutput.ValueKind
	Text string
}

// bytesOf writes a message as "Logical Replication Message Formats" of PostgreSQL's
// documentation has it.
func bytesOf(p *plain) []byte {
	out := []byte{byte(p.Kind)}
	u32 := func(n uint32) { out = binary.BigEndian.AppendUint32(out, n) }
	u64 := func(n uint64) { out = binary.BigEndian.AppendUint64(out, n) }
	name := func(s string) { out = append(append(out, s...), 0) }
	if p.Streamed && p.Kind != pgoutput.KindStreamStop && p.Kind != pgoutput.KindOrigin {
		u32(p.XID)
	}
	switch p.Kind {
	case pgoutput.KindBegin:
		u64(p.LSN)
		u64(uint64(p.Time)) //nolint:gosec // Two's complement is the format.
		u32(p.XID)
	case pgoutput.KindStreamCommit, pgoutput.KindCommit:
		if p.Kind == pgoutput.KindStreamCommit {
			u32(p.XID)
		}
		out = append(out, 0)
		u64(p.LSN)
		u64(p.EndLSN)
		u64(uint64(p.Time)) //nolint:gosec // Two's complement is the format.
	case pgoutput.KindStreamStart:
		u32(p.XID)
		out = append(out, p.Flags)
	case pgoutput.KindStreamAbort:
		u32(p.XID)
		u32(p.SubXID)
	case pgoutput.KindOrigin:
		u64(p.LSN)
		name(p.Name)
	case pgoutput.KindType:
		u32(p.Relation)
		name(p.Namespace)
		name(p.Name)
	case pgoutput.KindMessage:
		out = append(out, p.Flags)
		u64(p.LSN)
		name(p.Name)
		u32(uint32(len(p.Content))) //nolint:gosec // Short.
		out = append(out, p.Content...)
	case pgoutput.KindTruncate:
		u32(uint32(len(p.Relations))) //nolint:gosec // Few.
		out = append(out, p.Flags)
		for _, oid := range p.Relations {
			u32(oid)
		}
	case pgoutput.KindRelation:
		u32(p.Relation)
		name(p.Namespace)
		name(p.Name)
		out = append(out, p.Identity)
		out = binary.BigEndian.AppendUint16(out, uint16(len(p.Columns))) //nolint:gosec // Few.
		for _, c := range p.Columns {
			out = append(out, c.Flags)
			name(c.Name)
			u32(c.OID)
			u32(uint32(c.Mod)) //nolint:gosec // Two's complement is the format.
		}
	case pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete:
		u32(p.Relation)
		if p.OldKind != pgoutput.OldNone {
			out = append(out, byte(p.OldKind))
			out = appendTuple(out, p.Old)
		}
		if p.Kind != pgoutput.KindDelete {
			out = append(out, 'N')
			out = appendTuple(out, p.New)
		}
	case pgoutput.KindStreamStop:
	}
	return out
}

func appendTuple(out []byte, values []value) []byte {
	out = binary.BigEndian.AppendUint16(out, uint16(len(values))) //nolint:gosec // Few.
	for _, v := range values {
		out = append(out, byte(v.Kind))
		if v.Kind == pgoutput.Text {
			out = binary.BigEndian.AppendUint32(out, uint32(len(v.Text))) //nolint:gosec // Short.
			out = append(out, v.Text...)
		}
	}
	return out
}

// unpack is what was decoded with nothing packed.
func unpack(t *testing.T, m *pgoutput.Message, streamed bool) *plain {
	t.Helper()
	p := &plain{
		Kind: m.Kind, LSN: m.LSN, EndLSN: m.EndLSN, Time: m.Time, XID: m.XID, SubXID: m.SubXID, First: m.First,
		Relation: m.Relation, Namespace: string(m.Namespace), Name: string(m.Name), Identity: m.ReplicaIdentity,
		OldKind: m.OldKind, Old: valuesOf(t, m.Old), New: valuesOf(t, m.New), Flags: m.Flags, Content: string(m.Content), Streamed: streamed,
	}
	for i := range m.Relations.Len() {
		p.Relations = append(p.Relations, m.Relations.At(i))
	}
	for columns := m.Columns; ; {
		c, ok := columns.Next()
		if !ok {
			break
		}
		flags := byte(0)
		if c.Identity {
			flags = 1
		}
		p.Columns = append(p.Columns, column{Flags: flags, Name: string(c.Name), OID: c.OID, Mod: c.Mod})
	}
	if len(p.Columns) != m.Columns.Len() {
		t.Fatalf("%d columns of %d", len(p.Columns), m.Columns.Len())
	}
	return p
}

func valuesOf(t *testing.T, tuple pgoutput.Tuple) (out []value) {
	t.Helper()
	for n := tuple.Len(); ; {
		kind, text, ok := tuple.Next()
		if !ok {
			if len(out) != n {
				t.Fatalf("%d values of %d", len(out), n)
			}
			return out
		}
		out = append(out, value{kind, string(text)})
	}
}

// choices makes decisions of the fuzzer's bytes; without any left all are zero.
type choices []byte

func (c *choices) n(below int) int {
	if len(*c) == 0 || below < 1 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b) % below
}

func (c *choices) u64() uint64 {
	var b [8]byte
	*c = (*c)[copy(b[:], *c):]
	return binary.BigEndian.Uint64(b[:])
}

func (c *choices) u32() uint32 { return uint32(c.u64() >> 32) } //nolint:gosec // The upper half.

func (c *choices) text() string {
	n := min(c.n(40), len(*c))
	text := string((*c)[:n])
	*c = (*c)[n:]
	return text
}

// name has no zero byte, which would end it.
func (c *choices) name() string { return string(bytes.ReplaceAll([]byte(c.text()), []byte{0}, nil)) }

func (c *choices) values() (out []value) {
	kinds := []pgoutput.ValueKind{pgoutput.Text, pgoutput.Null, pgoutput.Unchanged}
	for range c.n(8) {
		v := value{Kind: kinds[c.n(len(kinds))]}
		if v.Kind == pgoutput.Text {
			v.Text = c.text()
		}
		out = append(out, v)
	}
	return out
}

var kinds = []pgoutput.Kind{
	pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete, pgoutput.KindRelation, pgoutput.KindTruncate, pgoutput.KindType,
	pgoutput.KindOrigin, pgoutput.KindMessage,
	// These are never inside of a stream, but for the last.
	pgoutput.KindBegin, pgoutput.KindCommit, pgoutput.KindStreamStart, pgoutput.KindStreamCommit, pgoutput.KindStreamAbort, pgoutput.KindStreamStop,
}

// message makes any message that a server could send.
func (c *choices) message() *plain {
	p := &plain{Kind: kinds[c.n(len(kinds))]}
	p.Streamed = c.n(2) == 1 && (p.Kind == pgoutput.KindStreamStop || !bytes.ContainsRune([]byte("BCScA"), rune(p.Kind)))
	if p.Streamed && p.Kind != pgoutput.KindStreamStop && p.Kind != pgoutput.KindOrigin {
		p.XID = c.u32()
	}
	switch p.Kind {
	case pgoutput.KindBegin:
		p.LSN, p.Time, p.XID = c.u64(), int64(c.u64()), c.u32() //nolint:gosec // Any.
	case pgoutput.KindStreamCommit:
		p.XID = c.u32()
		fallthrough
	case pgoutput.KindCommit:
		p.LSN, p.EndLSN, p.Time = c.u64(), c.u64(), int64(c.u64()) //nolint:gosec // Any.
	case pgoutput.KindStreamStart:
		p.XID, p.First = c.u32(), c.n(2) == 1
	case pgoutput.KindStreamAbort:
		p.XID, p.SubXID = c.u32(), c.u32()
	case pgoutput.KindOrigin:
		p.LSN, p.Name = c.u64(), c.name()
	case pgoutput.KindType:
		p.Relation, p.Namespace, p.Name = c.u32(), c.name(), c.name()
	case pgoutput.KindMessage:
		p.Flags, p.LSN, p.Name, p.Content = byte(c.n(2)), c.u64(), c.name(), c.text()
	case pgoutput.KindTruncate:
		p.Flags = byte(c.n(4))
		for range c.n(6) {
			p.Relations = append(p.Relations, c.u32())
		}
	case pgoutput.KindRelation:
		p.Relation, p.Namespace, p.Name, p.Identity = c.u32(), c.name(), c.name(), "dnfi"[c.n(4)]
		for range c.n(8) {
			p.Columns = append(p.Columns, column{byte(c.n(2)), c.name(), c.u32(), int32(c.u32())}) //nolint:gosec // Any.
		}
	default:
		p.row(c)
	}
	return p
}

// row makes the rest of an insert, update or delete.
func (p *plain) row(c *choices) {
	if p.Kind == pgoutput.KindStreamStop {
		return
	}
	p.Relation = c.u32()
	if p.Kind == pgoutput.KindDelete || (p.Kind == pgoutput.KindUpdate && c.n(2) == 1) {
		p.OldKind = []pgoutput.OldKind{pgoutput.OldKey, pgoutput.OldRow}[c.n(2)]
		p.Old = c.values()
	}
	if p.Kind != pgoutput.KindDelete {
		p.New = c.values()
	}
}

// FuzzMessage states that every message that a server can write is read as it was meant,
// and that one which is cut short or too long is refused.
func FuzzMessage(f *testing.F) {
	for kind := range kinds {
		for streamed := range byte(2) {
			f.Add(append([]byte{byte(kind), streamed}, "\x01\x02\x03\x04\x05\x06\x07\x08\x03\x00\x02hi\x01\x02\x00\x05world"...))
		}
	}
	f.Fuzz(func(t *testing.T, seed []byte) {
		c := choices(seed)
		want := c.message()
		wire := *want
		if wire.First {
			wire.Flags = 1
		}
		data := bytesOf(&wire)
		decode := pgoutput.Decode
		if want.Streamed {
			decode = pgoutput.DecodeStreamed
		}
		var m pgoutput.Message
		if err := decode(data, &m); err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if diff := cmp.Diff(want, unpack(t, &m, want.Streamed)); diff != "" {
			t.Fatal(diff)
		}
		cut := data[:c.n(len(data))]
		if err := decode(cut, &m); !errors.Is(err, pgoutput.ErrMalformed) {
			t.Fatalf("%d bytes of %d of %+v: %v", len(cut), len(data), want, err)
		}
		if err := decode(append(bytes.Clone(data), 0), &m); !errors.Is(err, pgoutput.ErrMalformed) {
			t.Fatalf("a byte too many after %+v: %v", want, err)
		}
	})
}

// sameBytes states that what was read is all that there was to read.
func sameBytes(t *testing.T, data []byte, m *pgoutput.Message, streamed bool) {
	t.Helper()
	p := unpack(t, m, streamed)
	switch p.Kind {
	case pgoutput.KindStreamStart:
		p.Flags = data[len(data)-1] // Only 1 means something.
	case pgoutput.KindRelation:
		if again := bytesOf(p); len(again) != len(data) {
			t.Fatalf("%d bytes were read as %d: %+v", len(data), len(again), p)
		}
		return // Flags of a column beside the first bit mean nothing.
	default:
	}
	if again := bytesOf(p); !bytes.Equal(again, data) {
		t.Fatalf("%q was read as %q: %+v", data, again, p)
	}
}
