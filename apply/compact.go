package apply

import (
	"bytes"
	"fmt"
	"hash/maphash"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// compactor reduces the changes of one table in a batch to one row per key. What a key
// ends up with does not depend on where batches are cut: a delete keeps the last known
// values, a partial update is merged into the row before it, a change of key is a
// delete of the old key and an upsert of the new one.
type compactor struct {
	schema *cdc.Schema
	rows   []Row
	index  keyIndex
	arena  []byte // merged tuples
	keyBuf []byte
	null   bool // a column of the last key is NULL
}

// compact returns one row per key, in the order in which the keys were first seen; for
// a schema without a key one row per change, in their order. All changes must be of the
// schema's table.
func compact(schema *cdc.Schema, changes []*change) ([]Row, error) {
	c := compactor{schema: schema, rows: rowSlabs.take(len(changes))}
	add := c.append
	if len(schema.Key) > 0 {
		add = c.add
		c.index.init(len(changes))
		defer c.index.release()
	}
	for _, ch := range changes {
		if err := add(ch); err != nil {
			return nil, fmt.Errorf("change %s of table %s: %w", ch.pos, schema.Name(), err)
		}
	}
	return c.rows, nil
}

// append adds the row of one change of a table without a key. Such a table has REPLICA
// IDENTITY FULL if it is updated at all - PostgreSQL refuses the update otherwise - so
// that the old row has what an update did not send, and is there for a delete.
func (c *compactor) append(ch *change) (err error) {
	row := Row{Op: OpInsert, Tuple: ch.new, Position: ch.pos, commitTime: ch.commitTime}
	switch {
	case ch.kind == cdc.KindInsert || ch.kind == cdc.KindSnapshot:
	case ch.kind == cdc.KindUpdate:
		row.Op = OpUpdate
		if ch.oldKind == cdc.OldFull && ch.new.HasUnchanged() {
			row.Tuple, err = c.fill(ch.new, ch.old)
		}
	case ch.kind == cdc.KindDelete && ch.oldKind == cdc.OldFull:
		row.Op, row.Tuple = OpDelete, ch.old
	case ch.kind == cdc.KindDelete:
		err = fmt.Errorf("a delete from a table without a key has no old row: %w", cdc.ErrCorrupt)
	default:
		err = fmt.Errorf("%s is not a change of a row", ch.kind)
	}
	c.rows = append(c.rows, row)
	return err
}

func (c *compactor) add(ch *change) error {
	switch ch.kind {
	case cdc.KindInsert, cdc.KindSnapshot:
		return c.upsert(ch, OpInsert)
	case cdc.KindUpdate:
		if ch.oldKind != cdc.OldNone {
			return c.move(ch)
		}
		return c.upsert(ch, OpUpdate)
	case cdc.KindDelete:
		return c.remove(ch)
	default:
		return fmt.Errorf("%s is not a change of a row", ch.kind)
	}
}

// upsert makes the new row the state of its key.
func (c *compactor) upsert(ch *change, op Op) error {
	e, found, err := c.entry(ch.new)
	if err != nil {
		return err
	}
	next := Row{Op: op, Tuple: ch.new, Position: ch.pos, commitTime: ch.commitTime, Partial: ch.new.HasUnchanged()}
	if next.Partial && found {
		if e.Op == OpDelete {
			return fmt.Errorf("update of a row that is deleted: %w", cdc.ErrCorrupt)
		}
		if next.Tuple, err = c.fill(ch.new, e.Tuple); err != nil {
			return err
		}
		if next.Partial = next.Tuple.HasUnchanged(); next.Partial {
			next.MovedFrom, next.MovedBefore = e.MovedFrom, e.MovedBefore
		}
	}
	next.Optional = next.Partial && ch.loose && (!found || e.Optional)
	*e = next
	return nil
}

// move is an update that changed the key: the old key's row goes, the new key's comes.
func (c *compactor) move(ch *change) error {
	oldKey, err := c.key(ch.old)
	if err != nil {
		return err
	}
	before, known := Row{}, false
	if i, ok := c.index.find(oldKey); ok && !c.null {
		before, known = c.rows[i], true
	}
	if err := c.remove(ch); err != nil {
		return err
	}
	next := Row{Op: OpUpdate, Tuple: ch.new, Position: ch.pos, commitTime: ch.commitTime, Partial: ch.new.HasUnchanged()}
	if next.Partial && known {
		if next.Tuple, err = c.fill(ch.new, before.Tuple); err != nil {
			return err
		}
		next.Partial = next.Tuple.HasUnchanged()
	}
	next.Optional = next.Partial && ch.loose && (!known || before.Optional)
	if next.Partial {
		// What is still missing is in the sink, under the key that the row had
		// when the batch began.
		next.MovedFrom, next.MovedBefore = ch.old, ch.pos.Commit
		if known && before.MovedFrom != nil {
			next.MovedFrom, next.MovedBefore = before.MovedFrom, before.MovedBefore
		}
	}
	e, _, err := c.entry(ch.new)
	if err != nil {
		return err
	}
	*e = next
	return nil
}

// remove makes the old key deleted. It keeps the last values that are known. No sink has
// a row with NULL in its key.
func (c *compactor) remove(ch *change) error {
	key, err := c.key(ch.old)
	if err != nil || c.null {
		return err
	}
	e, found := c.at(key)
	next := Row{Tuple: ch.old, KeyOnly: ch.oldKind == cdc.OldKey}
	if next.KeyOnly && found {
		next = *e
	}
	next.Op, next.Position, next.commitTime = OpDelete, ch.pos, ch.commitTime
	*e = next
	return nil
}

// entry returns the row of the tuple's key, a new empty one if there is none. The
// pointer is valid until the next call.
func (c *compactor) entry(tuple cdc.Tuple) (e *Row, found bool, err error) {
	key, err := c.key(tuple)
	if err != nil {
		return nil, false, err
	}
	e, found = c.at(key)
	return e, found, nil
}

// at returns the row of the last key.
func (c *compactor) at(key []byte) (e *Row, found bool) {
	i := len(c.rows)
	if !c.null {
		i, found = c.index.put(key, i)
	}
	if !found {
		c.rows = append(c.rows, Row{})
	}
	return &c.rows[i], found
}

// key returns the wire bytes of the key columns, which delimit themselves. The slice
// is valid until the next call. c.null tells that one is NULL: the row is from before
// the table had this key, which only REPLICA IDENTITY FULL does not show. It is no state
// of a key then, and is for the sink to refuse.
func (c *compactor) key(tuple cdc.Tuple) ([]byte, error) {
	c.keyBuf, c.null = c.keyBuf[:0], false
	for _, k := range c.schema.Key {
		v, ok := column(tuple, k)
		c.null = c.null || v.Kind == cdc.Null
		if !ok || v.Kind != cdc.Text && v.Kind != cdc.Null {
			return nil, fmt.Errorf("key column %s has no value: %w", c.schema.Columns[k].Name, cdc.ErrCorrupt)
		}
		c.keyBuf = cdc.Tuple(c.keyBuf).AppendValue(v)
	}
	return c.keyBuf, nil
}

// column returns the value at an index.
func column(tuple cdc.Tuple, index int) (v cdc.Value, ok bool) {
	for range index + 1 {
		if v, tuple, ok = tuple.Next(); !ok {
			return v, false
		}
	}
	return v, true
}

// fill returns the tuple with its unchanged values taken from another, in the arena.
func (c *compactor) fill(tuple, from cdc.Tuple) (cdc.Tuple, error) {
	start := len(c.arena)
	for len(tuple) > 0 {
		v, rest, ok := tuple.Next()
		old, oldRest, okOld := from.Next()
		if !ok || !okOld {
			return nil, fmt.Errorf("rows of different width: %w", cdc.ErrCorrupt)
		}
		if v.Kind == cdc.Unchanged {
			v = old
		}
		c.arena = cdc.Tuple(c.arena).AppendValue(v)
		tuple, from = rest, oldRest
	}
	return cdc.Tuple(c.arena[start:len(c.arena):len(c.arena)]), nil
}

// keyIndex maps keys to row numbers: open addressing over one arena of key bytes, so
// that a key costs no allocation of its own.
type keyIndex struct {
	seed  maphash.Seed
	slots []slot
	keys  []byte
	used  int
}

// slot is 16 bytes, since there are two to four for each change.
type slot struct {
	start int // of the key in keys; it delimits itself
	hash  uint32
	row   uint32 // plus one; zero is a free slot
}

func (x *keyIndex) init(rows int) {
	size := 16
	for size < rows*2 {
		size *= 2
	}
	x.seed = maphash.MakeSeed()
	x.slots = slotSlabs.take(size)[:size]
	x.keys = keySlabs.take(rows)
}

// release gives the memory back; the index cannot be used any more.
func (x *keyIndex) release() {
	slotSlabs.give(x.slots)
	keySlabs.give(x.keys)
	x.slots, x.keys = nil, nil
}

// find returns the row of a key.
func (x *keyIndex) find(key []byte) (row int, ok bool) {
	s := x.probe(x.hash(key), key)
	return int(s.row) - 1, s.row != 0
}

// hash leaves the lower half of the hash out, which says nothing else.
func (x *keyIndex) hash(key []byte) uint32 { return uint32(maphash.Bytes(x.seed, key) >> 32) }

// put returns the row of a key, which becomes row if there is none.
func (x *keyIndex) put(key []byte, row int) (at int, found bool) {
	if x.used*2 >= len(x.slots) {
		x.grow()
	}
	hash := x.hash(key)
	s := x.probe(hash, key)
	if s.row != 0 {
		return int(s.row) - 1, true
	}
	start := len(x.keys)
	x.keys = append(x.keys, key...)
	*s = slot{hash: hash, start: start, row: uint32(row + 1)} //nolint:gosec // A batch has fewer rows than bytes.
	x.used++
	return row, false
}

// probe returns the slot that has the key, or the free one where it belongs. No key is
// the beginning of another.
func (x *keyIndex) probe(hash uint32, key []byte) *slot {
	mask := uint32(len(x.slots) - 1) //nolint:gosec // Twice the rows of a batch.
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &x.slots[i]
		if s.row == 0 || (s.hash == hash && bytes.HasPrefix(x.keys[s.start:], key)) {
			return s
		}
	}
}

func (x *keyIndex) grow() {
	old := x.slots
	x.slots = make([]slot, 2*len(old))
	mask := uint32(len(x.slots) - 1) //nolint:gosec // As in probe.
	for _, s := range old {
		if s.row == 0 {
			continue
		}
		i := s.hash & mask
		for x.slots[i].row != 0 {
			i = (i + 1) & mask
		}
		x.slots[i] = s
	}
}
