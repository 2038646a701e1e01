package cdc

import "fmt"

// Reader walks the records of a frame. It allocates nothing per record.
type Reader struct {
	header  *Header
	size    int // of all records
	in      wire
	columns []int
	pos     Position
	last    Position // of the last change
	time    int64
	xid     uint32
	inTxn   bool
	changes int
	truncs  []int
}

// Reader returns a reader at the first record. schemas are those that the header
// refers to, in its order; every tuple is checked to have their number of columns. The
// records are unpacked into memory that is new for each reader; tuples point into it.
func (f *Frame) Reader(schemas []*Schema) (*Reader, error) {
	if len(schemas) != len(f.Header.Schemas) {
		return nil, fmt.Errorf("read frame: %d schemas given, %d needed", len(schemas), len(f.Header.Schemas))
	}
	columns := make([]int, len(schemas))
	for i, s := range schemas {
		columns[i] = len(s.Columns)
	}
	records, err := unpack(f.body, f.Header.Packing)
	if err != nil {
		return nil, err
	}
	return &Reader{header: &f.Header, size: len(records), in: wire{rest: records}, columns: columns, pos: f.Header.Prev}, nil
}

// Next reads the next record into rec. It returns false at the end of the frame. Every
// deviation from the format, and a frame that does not end where its header says, is
// an error that wraps ErrCorrupt.
func (r *Reader) Next(rec *Record) (bool, error) {
	if len(r.in.rest) == 0 {
		return false, r.finish()
	}
	before := len(r.in.rest)
	*rec = Record{}
	r.record(rec)
	if r.in.err != nil {
		return false, fmt.Errorf("%w: %s record at byte %d of %d, after %s: %w",
			ErrCorrupt, rec.Kind, r.size-before, r.size, r.pos, r.in.err)
	}
	rec.Position, rec.CommitTime, rec.XID = r.pos, r.time, r.xid
	return true, nil
}

func (r *Reader) record(rec *Record) {
	n := r.in.array()
	rec.Kind = Kind(r.in.byte())
	if rec.Kind != KindBegin && !r.inTxn {
		r.in.fail()
		return
	}
	switch {
	case rec.Kind == KindBegin && n == 5:
		r.begin()
	case rec.Kind == KindCommit && n == 2:
		rec.End = LSN(r.in.uint())
		r.inTxn = false
	case rec.Kind == KindInsert && n == 3:
		rec.Schema = r.schema()
		rec.New = r.in.tuple(r.columnCount(rec.Schema))
		r.change()
	case rec.Kind == KindSnapshot && n == 3:
		rec.Schema = r.schema()
		if rec.New = r.in.tuple(r.columnCount(rec.Schema)); rec.New.HasUnchanged() {
			r.in.fail()
		}
		r.change()
	case rec.Kind == KindUpdate && n == 5:
		rec.Schema = r.schema()
		r.old(rec)
		rec.New = r.in.tuple(r.columnCount(rec.Schema))
		r.change()
	case rec.Kind == KindDelete && n == 4:
		rec.Schema = r.schema()
		if r.old(rec); rec.OldKind == OldNone {
			r.in.fail()
		}
		r.change()
	case rec.Kind == KindTruncate && n >= 2:
		r.truncate(rec, n-2)
	case rec.Kind == KindMessage && n == 4:
		rec.MessageLSN = LSN(r.in.uint())
		rec.Prefix, rec.Content = r.in.str(), r.in.str()
	default:
		r.in.fail()
	}
}

func (r *Reader) begin() {
	commit := LSN(r.in.uint())
	r.time = r.in.int()
	r.xid = uint32(r.in.uint()) //nolint:gosec // Written from 32 bits.
	next := Position{Commit: commit, Ordinal: r.in.uint()}
	// A transaction starts after everything before it, or goes on where it was.
	if r.inTxn || next.Compare(r.pos) < 0 {
		r.in.fail()
		return
	}
	r.inTxn, r.pos = true, next
}

func (r *Reader) change() {
	r.pos.Ordinal++
	r.last = r.pos
	r.changes++
}

func (r *Reader) old(rec *Record) {
	rec.OldKind = OldKind(r.in.byte())
	if rec.Kind == KindUpdate {
		rec.Loose = rec.OldKind&oldLoose != 0
		rec.OldKind &^= oldLoose
	}
	switch {
	case rec.OldKind > OldFull:
		r.in.fail()
	case rec.OldKind != OldNone:
		rec.Old = r.in.tuple(r.columnCount(rec.Schema))
	case rec.Kind == KindUpdate && !r.in.isNil():
		r.in.fail()
	}
}

func (r *Reader) truncate(rec *Record, tables int) {
	rec.TruncateFlags = uint8(r.in.uint()) //nolint:gosec // Two flags.
	r.truncs = r.truncs[:0]
	for range tables {
		if r.in.err != nil {
			return
		}
		r.truncs = append(r.truncs, r.schema())
	}
	rec.Truncated = r.truncs
	r.change()
}

func (r *Reader) schema() int {
	n := r.in.uint()
	if n >= uint64(len(r.columns)) {
		r.in.fail()
		return 0
	}
	return int(n) //nolint:gosec // Below the number of schemas.
}

func (r *Reader) columnCount(schema int) int {
	if r.in.err != nil {
		return 0
	}
	return r.columns[schema]
}

func (r *Reader) finish() error {
	h := r.header
	if r.changes != h.Changes || (h.Changes > 0 && r.last != h.Last) || (r.inTxn != h.Open) {
		return fmt.Errorf("%w: %d changes up to %s, its header says %d up to %s", ErrCorrupt, r.changes, r.last, h.Changes, h.Last)
	}
	return nil
}
