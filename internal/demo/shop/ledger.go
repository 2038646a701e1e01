package shop

import (
	"fmt"
	"strings"
)

// Ledger knows every key that was ever committed, and which of them are left.
type Ledger struct {
	keys map[Table]map[string]bool // Whether the key is left.
}

func newLedger() *Ledger {
	l := &Ledger{keys: map[Table]map[string]bool{}}
	for _, t := range Tables() {
		l.keys[t] = map[string]bool{}
	}
	return l
}

// Key joins the texts of a key's columns as the ledger has them.
func Key(parts ...string) string { return strings.Join(parts, "\x1f") }

// Left tells whether a key was ever committed and whether its row is left.
func (l *Ledger) Left(t Table, key string) (left, ever bool) {
	left, ever = l.keys[t][key]
	return left, ever
}

// Count returns how many rows are left and how many keys have gone.
func (l *Ledger) Count(t Table) (left, gone int) {
	for _, alive := range l.keys[t] {
		if alive {
			left++
		} else {
			gone++
		}
	}
	return left, gone
}

// Gone calls yield with every key that has gone, in no order, until it returns false.
func (l *Ledger) Gone(t Table, yield func(key string) bool) {
	for key, alive := range l.keys[t] {
		if !alive && !yield(key) {
			return
		}
	}
}

// put notes that the key has a row; a key that has one already is a fault of the generator.
func (l *Ledger) put(t Table, parts ...any) {
	key := keyOf(parts)
	if l.keys[t][key] {
		panic(fmt.Sprintf("insert %s twice into %s", key, t))
	}
	l.keys[t][key] = true
}

func (l *Ledger) drop(t Table, parts ...any) {
	key := keyOf(parts)
	if !l.keys[t][key] {
		panic(fmt.Sprintf("delete %s, which %s does not have", key, t))
	}
	l.keys[t][key] = false
}

func keyOf(parts []any) string {
	texts := make([]string, len(parts))
	for i, part := range parts {
		texts[i] = fmt.Sprint(part)
	}
	return Key(texts...)
}

// merge adds the keys of another session, none of which are known here.
func (l *Ledger) merge(other *Ledger) {
	for t, keys := range other.keys {
		for key, left := range keys {
			if _, clash := l.keys[t][key]; clash {
				panic(fmt.Sprintf("two sessions have key %s of %s", key, t))
			}
			l.keys[t][key] = left
		}
	}
}
