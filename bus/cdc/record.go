package cdc

// Kind says what a record is. The numbers are part of the stream format.
type Kind uint8

// The kinds of records and their form on the wire. A tuple is an array of column
// values; schema is an index into the schemas of the frame's header.
const (
	// KindBegin opens a transaction, or goes on with one at the start of a frame:
	// [1, commit LSN, commit time, xid, ordinal of the change before the next].
	KindBegin Kind = 1
	// KindCommit closes a transaction: [2, end LSN]. The end LSN is what may be
	// confirmed to PostgreSQL once everything up to here is applied.
	KindCommit Kind = 2
	// KindInsert is [3, schema, tuple].
	KindInsert Kind = 3
	// KindUpdate is [4, schema, old kind, old, tuple]: old is nil for OldNone,
	// else a tuple with the columns that OldKind names; the others are nil. Four is
	// added to the old kind if the update is loose.
	KindUpdate Kind = 4
	// KindDelete is [5, schema, old kind, old].
	KindDelete Kind = 5
	// KindTruncate is [6, flags, schema...]: flag 1 is CASCADE, 2 RESTART IDENTITY.
	KindTruncate Kind = 6
	// KindSnapshot is [7, schema, tuple]: a row that was there before the change
	// stream told of it, as it is after the transaction of its position. No value
	// is Unchanged. It makes no difference whether the sink has the row already.
	KindSnapshot Kind = 7
	// KindMessage is [8, LSN, prefix, content]: pg_logical_emit_message.
	KindMessage Kind = 8
)

// String names the kind for logs and errors.
func (k Kind) String() string {
	switch k {
	case KindBegin:
		return "begin"
	case KindCommit:
		return "commit"
	case KindInsert:
		return "insert"
	case KindUpdate:
		return "update"
	case KindDelete:
		return "delete"
	case KindTruncate:
		return "truncate"
	case KindSnapshot:
		return "snapshot row"
	case KindMessage:
		return "message"
	}
	return "unknown"
}

// IsRow reports whether a record of this kind changes one row, or is one of a snapshot.
func (k Kind) IsRow() bool {
	return k == KindInsert || k == KindUpdate || k == KindDelete || k == KindSnapshot
}

// OldKind says what an update or delete tells of the row before it.
type OldKind uint8

// What is known of the old row.
const (
	OldNone OldKind = iota // nothing: the key did not change
	OldKey                 // the columns of the replica identity; others are nil
	OldFull                // the whole row (REPLICA IDENTITY FULL)
)

// oldLoose is added to the old kind of a loose update.
const oldLoose = 4

// Record is one change or mark of a frame. Its tuples point into the frame's bytes
// and are valid as long as those are.
type Record struct {
	Kind Kind
	// Position is that of the change; for marks that of the change before.
	Position Position
	// Schema indexes Header.Schemas, for rows.
	Schema int
	// New is the row after an insert or update, Old what is known of the row before.
	New, Old Tuple
	OldKind  OldKind
	// Loose tells of an update that the copy of its table is not complete: the row
	// may not be where the changes before have left it. If the sink lacks the
	// values that the update has left out, it is passed over: a later record has
	// the whole row.
	Loose bool

	// CommitTime is in microseconds since 1970 UTC and XID the transaction's id,
	// both as of the last begin mark.
	CommitTime int64
	XID        uint32
	// End is the end LSN of the transaction, for KindCommit.
	End LSN
	// Truncated lists the schemas of a truncate, valid until the next record.
	Truncated     []int
	TruncateFlags uint8
	// Prefix and Content are those of a message.
	Prefix, Content []byte
	MessageLSN      LSN
}

// Tuple is the column values of one row in wire form, without the array's header.
type Tuple []byte

// ValueKind says what a value is.
type ValueKind uint8

// The kinds of values.
const (
	Null      ValueKind = iota // SQL NULL
	Unchanged                  // an unchanged TOAST value that was not sent
	Text                       // the text that PostgreSQL printed
)

// Value is one column value. Bytes is set for Text and points into the frame.
type Value struct {
	Kind  ValueKind
	Bytes []byte
}

// Next splits the first value off the tuple. The tuple must have been walked before,
// as [Reader.Next] does with each; on malformed bytes ok is false.
func (t Tuple) Next() (v Value, rest Tuple, ok bool) {
	if len(t) == 0 {
		return Value{}, nil, false
	}
	var size int
	head := 1
	switch c := t[0]; {
	case c == codeNil:
		return Value{Kind: Null}, t[1:], true
	case c == codeFalse:
		return Value{Kind: Unchanged}, t[1:], true
	case c >= codeFixStr && c <= codeFixStr|31:
		size = int(c & 31)
	case c == codeStr8 && len(t) >= 2:
		size, head = int(t[1]), 2
	case c == codeStr16 && len(t) >= 3:
		size, head = int(t[1])<<8|int(t[2]), 3
	case c == codeStr32 && len(t) >= 5:
		size, head = int(t[1])<<24|int(t[2])<<16|int(t[3])<<8|int(t[4]), 5
	default:
		return Value{}, nil, false
	}
	if len(t)-head < size {
		return Value{}, nil, false
	}
	return Value{Kind: Text, Bytes: t[head : head+size : head+size]}, t[head+size:], true
}

// HasUnchanged reports whether a value of the tuple is Unchanged.
func (t Tuple) HasUnchanged() bool {
	for len(t) > 0 {
		v, rest, ok := t.Next()
		if !ok {
			return false
		}
		if v.Kind == Unchanged {
			return true
		}
		t = rest
	}
	return false
}

// AppendValue appends one value in wire form.
func (t Tuple) AppendValue(v Value) Tuple {
	switch v.Kind {
	case Null:
		return append(t, codeNil)
	case Unchanged:
		return append(t, codeFalse)
	default:
		return append(appendStrHeader(t, len(v.Bytes)), v.Bytes...)
	}
}
