package cdc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/vmihailenco/msgpack/v5"
)

const (
	// headroom is left free at the start of a frame's buffer for checksum and header. A
	// longer header, which takes schema definitions to be, costs one copy of the frame.
	headroom = 512
	// keepRecords bounds the room for records that is kept for the next frame.
	keepRecords = 4 << 20
)

// Writer builds frames from the changes of a slot, in order. It numbers the changes of
// each transaction, repeats the begin mark at the start of a frame that goes on with a
// transaction, and leaves transactions without changes out.
//
// Writing a row allocates nothing once the buffer has its size: StartRow, then the
// values of each tuple through StartTuple, Null, Unchanged and Text.
type Writer struct {
	epoch string
	buf   []byte   // the records so far, as they are written
	out   []byte   // room for the frame
	last  Position // of the last change written or skipped
	prev  Position
	end   LSN
	total uint64

	schemas    []SchemaRef
	index      map[*Schema]int
	lastSchema *Schema
	lastIndex  int
	sent       map[Fingerprint]bool
	changes    int
	records    int

	txn txn
}

// txn is the open transaction.
type txn struct {
	open       bool
	marked     bool // this frame has its begin mark
	touched    bool // it has changes, in whatever frame
	commit     LSN
	commitTime int64
	xid        uint32
	ordinal    uint64
}

// NewWriter returns a writer for a stream whose last frame ended at last, with
// everything up to end complete. For an empty stream last is the slot's confirmed LSN
// with ordinal zero.
func NewWriter(epoch string, last Position, end LSN) *Writer {
	return &Writer{epoch: epoch, last: last, prev: last, end: end, index: map[*Schema]int{}, sent: map[Fingerprint]bool{}}
}

// Continue says how many changes the stream holds already, for Header.Total.
func (w *Writer) Continue(total uint64) { w.total = total }

// Reset starts the next frame, which Seal makes in the memory of out if that is large
// enough; its content is discarded. It must be called before the first record and after
// each Seal.
func (w *Writer) Reset(out []byte) {
	w.out = out
	if cap(w.buf) > keepRecords {
		w.buf = nil
	}
	w.buf = w.buf[:0]
	w.prev = w.last
	w.schemas = w.schemas[:0]
	clear(w.index)
	w.lastSchema = nil
	w.changes, w.records = 0, 0
	w.txn.marked = false
}

// Begin opens a transaction: its commit LSN, the time of the commit in microseconds
// since 1970 UTC, and its id.
func (w *Writer) Begin(commit LSN, commitTime int64, xid uint32) {
	w.txn = txn{open: true, commit: commit, commitTime: commitTime, xid: xid}
}

// InTransaction reports whether Begin was called without Commit, or BeginSnapshot without
// EndSnapshot.
func (w *Writer) InTransaction() bool { return w.txn.open }

// Next returns the position that the next change will have.
func (w *Writer) Next() Position {
	return Position{Commit: w.txn.commit, Ordinal: w.txn.ordinal + 1}
}

// Skip counts a change that the stream already holds.
func (w *Writer) Skip() {
	w.txn.ordinal++
	w.txn.touched = true
}

// SkipTo counts all changes before the one with an ordinal as Skip does.
func (w *Writer) SkipTo(ordinal uint64) {
	if ordinal > w.txn.ordinal+1 {
		w.txn.ordinal = ordinal - 1
		w.txn.touched = true
	}
}

// Commit closes the transaction. A transaction that has no changes, or whose end the
// stream already holds, leaves no trace but its end LSN.
func (w *Writer) Commit(end LSN) {
	if w.txn.touched && end > w.end {
		w.closes(end)
	}
	w.end = max(w.end, end)
	w.txn.open = false
}

// closes writes the commit mark.
func (w *Writer) closes(end LSN) {
	w.mark()
	w.buf = append(w.buf, codeFixArray|2, byte(KindCommit))
	w.buf = appendUint(w.buf, uint64(end))
	w.records++
}

// mark writes the begin mark unless this frame has it.
func (w *Writer) mark() {
	if w.txn.marked {
		return
	}
	w.txn.marked = true
	w.buf = append(w.buf, codeFixArray|5, byte(KindBegin))
	w.buf = appendUint(w.buf, uint64(w.txn.commit))
	w.buf = appendInt(w.buf, w.txn.commitTime)
	w.buf = appendUint(w.buf, uint64(w.txn.xid))
	w.buf = appendUint(w.buf, w.txn.ordinal)
	w.records++
}

func (w *Writer) change() {
	w.mark()
	w.txn.ordinal++
	w.txn.touched = true
	w.last = Position{Commit: w.txn.commit, Ordinal: w.txn.ordinal}
	w.changes++
	w.total++
	w.records++
}

// Insert starts an insert; one tuple must follow.
func (w *Writer) Insert(s *Schema) {
	w.change()
	w.buf = append(w.buf, codeFixArray|3, byte(KindInsert))
	w.buf = appendUint(w.buf, uint64(w.schema(s)))
}

// Update starts an update. Unless old is OldNone the tuple of the old row must follow,
// then in every case that of the new one.
func (w *Writer) Update(s *Schema, old OldKind) {
	w.change()
	w.buf = append(w.buf, codeFixArray|5, byte(KindUpdate))
	w.buf = appendUint(w.buf, uint64(w.schema(s)))
	w.buf = append(w.buf, byte(old))
	if old&^oldLoose == OldNone {
		w.buf = append(w.buf, codeNil)
	}
}

// LooseUpdate starts an update as Update does, of a table that is not copied completely.
// It is for updates with Unchanged values; whoever writes one sees to it that the row
// follows as a whole later, see [Record].
func (w *Writer) LooseUpdate(s *Schema, old OldKind) { w.Update(s, old|oldLoose) }

// Delete starts a delete; the tuple of the old row must follow.
func (w *Writer) Delete(s *Schema, old OldKind) {
	w.change()
	w.buf = append(w.buf, codeFixArray|4, byte(KindDelete))
	w.buf = appendUint(w.buf, uint64(w.schema(s)))
	w.buf = append(w.buf, byte(old))
}

// BeginSnapshot opens a sequence of rows of a snapshot. They take the positions behind
// the last change that was written, or behind after if that is later: a position that was
// applied once must not be given to another change, even if the end of the stream that
// had it is lost.
//
// They belong to the transaction of that position, which must be complete, or its changes
// would be taken for those that the stream has: BeginSnapshot reports false, and does
// nothing, inside a transaction and as long as End is not behind the position's commit.
//
// commitTime is what the rows are shown with, in microseconds since 1970 UTC. Times in
// the stream must not go back, so it is that of the last transaction that was passed.
func (w *Writer) BeginSnapshot(after Position, commitTime int64) bool {
	if w.last.After(after) {
		after = w.last
	}
	if w.txn.open || after.Commit >= w.end {
		return false
	}
	w.txn = txn{open: true, commit: after.Commit, commitTime: commitTime, ordinal: after.Ordinal}
	return true
}

// SnapshotRow starts a row of a snapshot; one tuple without Unchanged values must follow.
// Frames may be cut between the rows.
func (w *Writer) SnapshotRow(s *Schema) {
	w.change()
	w.buf = append(w.buf, codeFixArray|3, byte(KindSnapshot))
	w.buf = appendUint(w.buf, uint64(w.schema(s)))
}

// EndSnapshot closes the sequence. It does not move End: nothing of it came from the slot.
func (w *Writer) EndSnapshot() {
	if w.txn.touched {
		w.closes(w.end)
	}
	w.txn.open = false
}

// Truncate writes a truncate of several tables, one change.
func (w *Writer) Truncate(flags uint8, tables []*Schema) {
	w.change()
	w.buf = appendArrayHeader(w.buf, 2+len(tables))
	w.buf = append(w.buf, byte(KindTruncate))
	w.buf = appendUint(w.buf, uint64(flags))
	for _, s := range tables {
		w.buf = appendUint(w.buf, uint64(w.schema(s)))
	}
}

// Message writes a message of pg_logical_emit_message. It is not a change and has no
// ordinal.
func (w *Writer) Message(lsn LSN, prefix string, content []byte) {
	w.mark()
	w.buf = append(w.buf, codeFixArray|4, byte(KindMessage))
	w.buf = appendUint(w.buf, uint64(lsn))
	w.buf = append(appendStrHeader(w.buf, len(prefix)), prefix...)
	w.buf = append(appendStrHeader(w.buf, len(content)), content...)
	w.txn.touched = true
	w.records++
}

// StartTuple starts a tuple of n values.
func (w *Writer) StartTuple(n int) { w.buf = appendArrayHeader(w.buf, n) }

// Values writes all values of a tuple that is in wire form already.
func (w *Writer) Values(t Tuple) { w.buf = append(w.buf, t...) }

// Null writes SQL NULL.
func (w *Writer) Null() { w.buf = append(w.buf, codeNil) }

// Unchanged writes the mark of an unchanged TOAST value.
func (w *Writer) Unchanged() { w.buf = append(w.buf, codeFalse) }

// Text writes a value as PostgreSQL printed it.
func (w *Writer) Text(value []byte) {
	w.buf = append(appendStrHeader(w.buf, len(value)), value...)
}

// schema returns the index of s in this frame.
func (w *Writer) schema(s *Schema) int {
	if s == w.lastSchema {
		return w.lastIndex
	}
	i, ok := w.index[s]
	if !ok {
		i = len(w.schemas)
		w.schemas = append(w.schemas, SchemaRef{Fingerprint: s.Fingerprint()})
		w.index[s] = i
	}
	w.lastSchema, w.lastIndex = s, i
	return i
}

// Len returns the bytes of the records so far, before they are packed.
func (w *Writer) Len() int { return len(w.buf) }

// Changes returns the changes of the frame so far.
func (w *Writer) Changes() int { return w.changes }

// Empty reports whether the frame has no record.
func (w *Writer) Empty() bool { return w.records == 0 }

// Last returns the position of the last change that was written, End the end LSN of
// the last complete transaction.
func (w *Writer) Last() Position { return w.last }

// End returns the end LSN of the last complete transaction, empty ones included.
func (w *Writer) End() LSN { return w.end }

// Seal closes the frame and packs its records if that makes it smaller. The data is in
// the memory that Reset was given, or in more if that was too little.
func (w *Writer) Seal() (data []byte, header Header, err error) {
	header = Header{
		Version: FormatVersion, Epoch: w.epoch, Prev: w.prev, Last: w.last, End: w.end,
		Open: w.txn.open && w.txn.marked, Changes: w.changes, Total: w.total, CommitTime: w.txn.commitTime,
		Schemas: append([]SchemaRef(nil), w.schemas...),
	}
	for s, i := range w.index {
		if w.sent[s.Fingerprint()] {
			continue
		}
		if header.Schemas[i].Definition, err = MarshalSchema(s); err != nil {
			return nil, header, err
		}
		w.sent[s.Fingerprint()] = true
	}
	data, header.Packing = pack(w.out, w.buf)
	head, err := msgpack.Marshal(&header)
	if err != nil {
		return nil, header, fmt.Errorf("encode frame header: %w", err)
	}
	if need := checksumSize + len(head); need > headroom {
		data = append(make([]byte, need, need+len(data)-headroom), data[headroom:]...)
	} else {
		data = data[headroom-need:]
	}
	copy(data[checksumSize:], head)
	data[0] = codeUint32
	binary.BigEndian.PutUint32(data[1:], crc32.Checksum(data[checksumSize:], castagnoli))
	return data, header, nil
}
