package apply

import (
	"fmt"
	"sync"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// letterBook knows which rows have dead letters, and what of later changes must
// therefore follow them. It is filled from the letters that are stored, and by apply's
// own. What it does not know, after a restart, makes it follow more than it had to.
//
// Its methods may be called from several goroutines; a [tableLetters] is for one.
type letterBook struct {
	mu     sync.Mutex
	tables map[string]*tableLetters
}

type tableLetters struct {
	keys map[string]*keyLetters
	// last is the position of the last letter of any row, truncated that of the
	// last truncate that is noted.
	last, truncated cdc.Position
}

// keyLetters is what is known about one key. All are positions, zero for none.
type keyLetters struct {
	last     cdc.Position // of the last letter that holds something back
	passed   cdc.Position // of the last delete that is noted
	replaced cdc.Position // of the last whole row that reached the sink
	// needed is that of the last letter that lacks values which the sink's row has.
	needed cdc.Position
}

// open tells whether the sink lacks a change of the row that a later part builds on.
func (k *keyLetters) open() bool {
	return k.last.After(k.passed) && k.last.After(k.replaced)
}

func newLetterBook(refs []LetterRef) *letterBook {
	b := &letterBook{tables: map[string]*tableLetters{}}
	for i := range refs {
		b.add(&refs[i])
	}
	return b
}

// refresh takes what is stored at present: letters that were retried or deleted since
// hold nothing back any more.
func (b *letterBook) refresh(refs []LetterRef) {
	next := newLetterBook(refs)
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, t := range next.tables {
		before := b.tables[name]
		if before == nil {
			continue
		}
		for key, k := range t.keys {
			if old := before.keys[key]; old != nil {
				k.replaced = old.replaced
			}
		}
	}
	b.tables = next.tables
}

func tableKey(namespace, table string) string {
	return fmt.Sprintf("%d:%s%s", len(namespace), namespace, table)
}

// table returns what is known of the table, nil if it has no letters.
func (b *letterBook) table(s *cdc.Schema) *tableLetters {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tables[tableKey(s.Namespace, s.Table)]
}

func (b *letterBook) add(ref *LetterRef) {
	name := tableKey(ref.Namespace, ref.Table)
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tables[name]
	if t == nil {
		t = &tableLetters{keys: map[string]*keyLetters{}}
		b.tables[name] = t
	}
	if len(ref.Keys) == 0 && ref.Kind == LetterPassed {
		t.truncated = later(t.truncated, ref.Position)
		return
	}
	if ref.Kind != LetterPassed {
		t.last = later(t.last, ref.Position)
	}
	for _, key := range ref.Needs {
		k := t.entry(key)
		k.needed = later(k.needed, ref.Position)
		k.last = later(k.last, ref.Position)
	}
	for _, key := range ref.Keys {
		k := t.entry(key)
		if ref.Kind == LetterPassed {
			k.passed = later(k.passed, ref.Position)
		} else {
			k.last = later(k.last, ref.Position)
		}
	}
}

func (t *tableLetters) entry(key []byte) *keyLetters {
	k := t.keys[string(key)]
	if k == nil {
		k = &keyLetters{}
		t.keys[string(key)] = k
	}
	return k
}

func later(a, b cdc.Position) cdc.Position {
	if b.After(a) {
		return b
	}
	return a
}

// key returns what is known about the key of a tuple, nil if it has no letters since the
// table was truncated.
func (t *tableLetters) key(c *compactor, tuple cdc.Tuple) (*keyLetters, error) {
	key, err := c.key(tuple)
	if err != nil {
		return nil, fmt.Errorf("look for dead letters of table %s: %w", c.schema.Name(), err)
	}
	k := t.keys[string(key)]
	if k == nil || !k.last.After(t.truncated) {
		return nil, nil
	}
	return k, nil
}

// holds tells whether a row has to follow letters: it says a part of a row that is held
// back; or it would replace what a letter needs; or it is of the same transaction as a
// letter of its key, so that the sink could not tell by their version which is later.
func (t *tableLetters) holds(c *compactor, row *Row) (bool, error) {
	k, err := t.key(c, row.Tuple)
	if err != nil {
		return false, err
	}
	if k != nil && (k.needed.After(t.truncated) || k.last.Commit == row.Position.Commit) {
		return true, nil
	}
	if row.MovedFrom != nil {
		k, err = t.key(c, row.MovedFrom)
		return k != nil && k.open(), err
	}
	return k != nil && row.Partial && row.Op != OpDelete && k.open(), nil
}

// following returns the indexes of the rows that have to follow letters, with all of a
// unit that has one.
func (t *tableLetters) following(schema *cdc.Schema, rows []Row) ([]int, error) {
	c := compactor{schema: schema}
	found := false
	marked := make([]bool, len(rows))
	for i := range rows {
		var err error
		if marked[i], err = t.holds(&c, &rows[i]); err != nil {
			return nil, err
		}
		found = found || marked[i]
	}
	if !found {
		return nil, nil
	}
	units, err := unitsOf(schema, rows)
	if err != nil {
		return nil, err
	}
	var following []int
	for _, u := range units {
		whole := false
		for _, i := range u {
			whole = whole || marked[i]
		}
		if whole {
			following = append(following, u...)
		}
	}
	return following, nil
}

// notes returns the rows whose delete must be noted, because a letter before it would
// bring them back.
func (t *tableLetters) notes(schema *cdc.Schema, rows []Row) ([]Row, error) {
	c := compactor{schema: schema}
	var deleted []Row
	for i := range rows {
		if rows[i].Op != OpDelete {
			continue
		}
		k, err := t.key(&c, rows[i].Tuple)
		if err != nil {
			return nil, err
		}
		// A delete that is itself in a letter comes again after a crash.
		if k != nil && k.last.After(k.passed) && rows[i].Position.After(k.last) {
			deleted = append(deleted, rows[i])
		}
	}
	return deleted, nil
}

// stored tells that rows have reached the sink.
func (t *tableLetters) stored(schema *cdc.Schema, rows []Row) error {
	c := compactor{schema: schema}
	for i := range rows {
		if rows[i].Partial || rows[i].Op == OpDelete {
			continue
		}
		k, err := t.key(&c, rows[i].Tuple)
		if err != nil {
			return err
		}
		if k != nil && rows[i].Position.After(k.last) {
			k.replaced = later(k.replaced, rows[i].Position)
		}
	}
	return nil
}
