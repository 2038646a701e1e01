package pgoutput

import "encoding/binary"

// Kind is the first byte of a message.
type Kind byte

// The messages of protocol version 1, then those that version 2 adds.
const (
	KindBegin    Kind = 'B'
	KindCommit   Kind = 'C'
	KindOrigin   Kind = 'O'
	KindRelation Kind = 'R'
	KindType     Kind = 'Y'
	KindInsert   Kind = 'I'
	KindUpdate   Kind = 'U'
	KindDelete   Kind = 'D'
	KindTruncate Kind = 'T'
	KindMessage  Kind = 'M'

	KindStreamStart  Kind = 'S'
	KindStreamStop   Kind = 'E'
	KindStreamCommit Kind = 'c'
	KindStreamAbort  Kind = 'A'
)

// String names the message as PostgreSQL's documentation does.
func (k Kind) String() string {
	switch k {
	case KindBegin:
		return "Begin"
	case KindCommit:
		return "Commit"
	case KindOrigin:
		return "Origin"
	case KindRelation:
		return "Relation"
	case KindType:
		return "Type"
	case KindInsert:
		return "Insert"
	case KindUpdate:
		return "Update"
	case KindDelete:
		return "Delete"
	case KindTruncate:
		return "Truncate"
	case KindMessage:
		return "Message"
	case KindStreamStart:
		return "Stream Start"
	case KindStreamStop:
		return "Stream Stop"
	case KindStreamCommit:
		return "Stream Commit"
	case KindStreamAbort:
		return "Stream Abort"
	}
	return "unknown"
}

// The flags of a Truncate message.
const (
	TruncateCascade         = 1
	TruncateRestartIdentity = 2
)

// OldKind says which tuple an Update or Delete gives of the row before it.
type OldKind byte

// The kinds of old tuples.
const (
	OldNone OldKind = 0
	OldKey  OldKind = 'K' // the columns of the replica identity, NULL for the others
	OldRow  OldKind = 'O' // the whole row, under REPLICA IDENTITY FULL
)

// Message is one decoded message. Which fields are set depends on Kind; the others are
// zero. Byte slices point into the decoded input.
type Message struct {
	Kind Kind

	// LSN is that of the commit record for Begin, Commit and Stream Commit, that of
	// the message for Message, that of the commit at the origin for Origin.
	LSN uint64
	// EndLSN is the end of the commit record, for Commit and Stream Commit.
	EndLSN uint64
	// Time is that of the commit in microseconds since 2000-01-01 UTC, for Begin,
	// Commit and Stream Commit.
	Time int64
	// XID is that of the transaction, for Begin and the messages about streams. For
	// a message inside a stream it is that of the transaction or subtransaction
	// that made the change.
	XID uint32
	// SubXID is what was rolled back, for Stream Abort: XID itself or one of its
	// subtransactions.
	SubXID uint32
	// First tells that the stream has not been sent before, for Stream Start.
	First bool

	// Relation is the OID of the table, for Relation, Insert, Update and Delete.
	// For Type it is the OID of the type.
	Relation uint32
	// Namespace and Name are those of the table, type or origin. PostgreSQL sends
	// an empty namespace for pg_catalog.
	Namespace, Name []byte
	// ReplicaIdentity is pg_class.relreplident, for Relation.
	ReplicaIdentity byte
	// Columns are those of a Relation, still packed.
	Columns Columns

	OldKind  OldKind
	Old, New Tuple

	// Flags are those of Truncate, or 1 for a transactional Message.
	Flags byte
	// Relations are the OIDs that a Truncate names, still packed.
	Relations OIDs

	// Content is that of a Message; its prefix is Name.
	Content []byte
}

// Tuple is the packed column values of one row.
type Tuple struct {
	n    int
	data []byte
}

// Len returns the number of columns.
func (t Tuple) Len() int { return t.n }

// ValueKind says how a column value is sent.
type ValueKind byte

// The kinds of values.
const (
	Null      ValueKind = 'n'
	Unchanged ValueKind = 'u' // a TOASTed value that the update did not touch
	Text      ValueKind = 't'
)

// Next splits off the first value. ok is false after the last. The value is nil unless
// kind is Text.
func (t *Tuple) Next() (kind ValueKind, value []byte, ok bool) {
	if t.n == 0 || len(t.data) == 0 {
		return 0, nil, false
	}
	t.n--
	kind = ValueKind(t.data[0])
	if kind != Text {
		t.data = t.data[1:]
		return kind, nil, true
	}
	// The walk of Decode has checked that the value is there.
	end := valueHeader + int(binary.BigEndian.Uint32(t.data[1:valueHeader]))
	value = t.data[valueHeader:end:end]
	t.data = t.data[end:]
	return kind, value, true
}

// valueHeader is the kind and the length before a text value.
const valueHeader = 5

// Columns is the packed column list of a Relation.
type Columns struct {
	n    int
	data []byte
}

// Len returns the number of columns.
func (c Columns) Len() int { return c.n }

// Bytes returns the packed list, to compare two of them.
func (c Columns) Bytes() []byte { return c.data }

// Column is one column of a Relation.
type Column struct {
	Name []byte
	// Identity tells whether old keys carry the column.
	Identity bool
	OID      uint32
	Mod      int32
}

// Next splits off the first column. ok is false after the last.
func (c *Columns) Next() (col Column, ok bool) {
	if c.n == 0 {
		return Column{}, false
	}
	c.n--
	r := reader{data: c.data}
	col.Identity = r.byte()&1 != 0
	col.Name = r.name()
	col.OID = r.uint32()
	col.Mod = int32(r.uint32()) //nolint:gosec // The sign is part of the format.
	c.data = c.data[r.at:]
	return col, !r.failed
}

// OIDs is a packed list of OIDs.
type OIDs []byte

// Len returns the number of OIDs.
func (o OIDs) Len() int { return len(o) / 4 }

// At returns the OID at index i.
func (o OIDs) At(i int) uint32 { return binary.BigEndian.Uint32(o[4*i:]) }
