package apply

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// DeadLetters is where changes go that the sink can never take. One apply writes to it
// at a time; somebody else may delete letters that were retried or given up.
type DeadLetters interface {
	// Put stores the letter durably before it returns nil. A letter whose ID is
	// stored already changes nothing and is no error: after a crash the same
	// letters are put again.
	Put(ctx context.Context, letter *DeadLetter) error
	// Refs lists all letters that are stored, in any order.
	Refs(ctx context.Context) ([]LetterRef, error)
}

// LetterKind says why a change is among the dead letters.
type LetterKind string

// The kinds of dead letters.
const (
	// LetterRefused is a row that the sink can never take.
	LetterRefused LetterKind = "refused"
	// LetterFollows is a change of a row that has a letter before it, and cannot go
	// on alone: it says only a part of the row, whose rest the sink does not have; or
	// it would replace values in the sink that the letter lacks; or it is of the same
	// transaction, so that both have one version.
	LetterFollows LetterKind = "follows"
	// LetterPassed is a delete or truncate that was applied as always. It is kept
	// beside the letters before it, so that their retry does not bring back a row
	// that is gone.
	LetterPassed LetterKind = "passed"
)

// LetterRef is what apply has to know of a letter to keep the order of a key's changes.
type LetterRef struct {
	// ID is the same whenever the letter is made again; at most 64 characters of
	// [0-9A-Za-z-]. In the order of IDs letters are in that of their positions.
	ID        string     `json:"id"`
	Kind      LetterKind `json:"kind"`
	Namespace string     `json:"namespace"`
	Table     string     `json:"table"`
	// Keys are those of the rows that the letter holds, in wire form. A letter of
	// a table without a key, or of a truncate, has none.
	Keys [][]byte `json:"keys,omitempty"`
	// Needs are those keys whose rows in the sink have values that the letter lacks.
	Needs [][]byte `json:"needs,omitempty"`
	// Position is that of the last change in the letter.
	Position cdc.Position `json:"position"`
}

// DeadLetter is a change that was set aside, with all that a retry needs. Its JSON form
// is what is stored.
type DeadLetter struct {
	LetterRef
	// Op is insert, update, delete or truncate.
	Op string `json:"op"`
	// Key is the row's key for people, as column=value pairs. Column to Hint say
	// why, as in [RowError].
	Key    string `json:"key,omitempty"`
	Column string `json:"column,omitempty"`
	Type   string `json:"type,omitempty"`
	Target string `json:"target,omitempty"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
	// CommitTime is when the transaction was committed at the source, SetAside
	// when apply planned the batch that the change was in.
	CommitTime time.Time `json:"commit_time"`
	SetAside   time.Time `json:"set_aside"`
	// Frames has one frame of one change for each row, each with the definition of
	// its schema. They are several only if rows have exchanged keys, or one got its
	// key by an update that left values out: what it lacks is then in the row that
	// it was.
	Frames [][]byte `json:"frames"`
}

func letterID(life string, ref *LetterRef) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s\x00%d", life, ref.Kind, ref.Namespace, ref.Table, len(ref.Keys))
	for _, key := range ref.Keys {
		fmt.Fprintf(h, "\x00%d\x00%s", len(key), key)
	}
	return fmt.Sprintf("%016X-%010d-%s", uint64(ref.Position.Commit), ref.Position.Ordinal, hex.EncodeToString(h.Sum(nil)[:6]))
}

// newLetter makes the letter of a unit of rows. why is nil unless the sink has refused one.
func newLetter(kind LetterKind, life string, schema *cdc.Schema, rows []Row, why *RowError) (*DeadLetter, error) {
	last := &rows[len(rows)-1]
	letter := &DeadLetter{
		LetterRef: LetterRef{Kind: kind, Namespace: schema.Namespace, Table: schema.Table, Position: last.Position},
		Op:        last.Op.String(), Key: keyText(schema, last.Tuple), CommitTime: time.UnixMicro(last.commitTime).UTC(),
	}
	switch {
	case why != nil:
		letter.Column, letter.Type, letter.Target, letter.Reason, letter.Hint = why.Column, why.Type, why.Target, why.Reason, why.Hint
		letter.Key = cmp.Or(why.Key, letter.Key)
	case kind == LetterFollows:
		letter.Reason = "an earlier change of the row is among the dead letters, and this one cannot be applied without it"
		letter.Hint = "retry the letters of the row in their order"
	default:
		letter.Reason = "the row was deleted; this was applied and is kept only so that a retry of the letters before it does not bring the row back"
	}
	c := compactor{schema: schema}
	for i := range rows {
		row := &rows[i]
		if len(schema.Key) > 0 {
			key, err := c.key(row.Tuple)
			if err != nil {
				return nil, fmt.Errorf("make a dead letter of table %s: %w", schema.Name(), err)
			}
			letter.Keys = append(letter.Keys, slices.Clone(key))
		}
		if row.MovedFrom != nil {
			key, err := c.key(row.MovedFrom)
			if err != nil {
				return nil, fmt.Errorf("make a dead letter of table %s: %w", schema.Name(), err)
			}
			letter.Needs = append(letter.Needs, slices.Clone(key))
		}
		frame, err := frameOf(schema, row.Position, row.commitTime, func(w *cdc.Writer) { writeRow(w, schema, row) })
		if err != nil {
			return nil, fmt.Errorf("make a dead letter of table %s: %w", schema.Name(), err)
		}
		letter.Frames = append(letter.Frames, frame)
	}
	letter.ID = letterID(life, &letter.LetterRef)
	return letter, nil
}

// truncateLetter notes a truncate of a table that has letters.
func truncateLetter(life string, ch *change) (*DeadLetter, error) {
	letter := &DeadLetter{
		LetterRef: LetterRef{Kind: LetterPassed, Namespace: ch.schema.Namespace, Table: ch.schema.Table, Position: ch.pos},
		Op:        "truncate", CommitTime: time.UnixMicro(ch.commitTime).UTC(),
		Reason: "the table was truncated; this was applied and is kept only so that a retry of the letters before it does not bring rows back",
	}
	frame, err := frameOf(ch.schema, ch.pos, ch.commitTime, func(w *cdc.Writer) { w.Truncate(0, []*cdc.Schema{ch.schema}) })
	if err != nil {
		return nil, fmt.Errorf("make a dead letter of table %s: %w", ch.schema.Name(), err)
	}
	letter.Frames = [][]byte{frame}
	letter.ID = letterID(life, &letter.LetterRef)
	return letter, nil
}

// frameOf makes a frame of one change at its own position.
func frameOf(schema *cdc.Schema, pos cdc.Position, commitTime int64, write func(*cdc.Writer)) ([]byte, error) {
	w := cdc.NewWriter("dead-letter", cdc.Position{Commit: pos.Commit, Ordinal: max(pos.Ordinal, 1) - 1}, pos.Commit)
	w.Reset(nil)
	w.Begin(pos.Commit, commitTime, 0)
	w.SkipTo(pos.Ordinal)
	write(w)
	data, _, err := w.Seal()
	if err != nil {
		return nil, fmt.Errorf("encode change %s of table %s: %w", pos, schema.Name(), err)
	}
	return data, nil
}

// writeRow writes what a row has become as one change.
func writeRow(w *cdc.Writer, schema *cdc.Schema, row *Row) {
	update := w.Update
	if row.Optional {
		update = w.LooseUpdate
	}
	switch {
	case row.Op == OpDelete && (row.KeyOnly || row.MovedFrom != nil):
		w.Delete(schema, cdc.OldKey)
	case row.Op == OpDelete:
		w.Delete(schema, cdc.OldFull)
	case row.MovedFrom != nil:
		update(schema, cdc.OldKey)
		writeTuple(w, schema, row.MovedFrom)
	case row.Op == OpUpdate:
		update(schema, cdc.OldNone)
	default:
		w.Insert(schema)
	}
	writeTuple(w, schema, row.Tuple)
}

func writeTuple(w *cdc.Writer, schema *cdc.Schema, tuple cdc.Tuple) {
	w.StartTuple(len(schema.Columns))
	for len(tuple) > 0 {
		v, rest, ok := tuple.Next()
		if !ok {
			return // The reader has walked it before.
		}
		switch v.Kind {
		case cdc.Null:
			w.Null()
		case cdc.Unchanged:
			w.Unchanged()
		case cdc.Text:
			w.Text(v.Bytes)
		}
		tuple = rest
	}
}

// String names the operation.
func (o Op) String() string {
	switch o {
	case OpInsert:
		return "insert"
	case OpUpdate:
		return "update"
	case OpDelete:
		return "delete"
	}
	return "unknown"
}

// keyText prints the key of a row for people.
func keyText(schema *cdc.Schema, tuple cdc.Tuple) string {
	parts := make([]string, 0, len(schema.Key))
	for _, k := range schema.Key {
		v, ok := column(tuple, k)
		if !ok {
			continue
		}
		parts = append(parts, schema.Columns[k].Name+"="+string(v.Bytes))
	}
	return strings.Join(parts, ", ")
}

// Chain is what a retry of one letter takes.
type Chain struct {
	// Retry are the IDs of the letters that have to be retried, in this order.
	Retry []string
	// Delete are those that are to be deleted after that, in this order.
	Delete []string
}

// Related returns what has to be retried when the letter with this ID is: the letters of
// the same rows, and the truncates of the table since. Later letters of a row only make
// sense on top of the earlier ones, and an earlier one may stand for a row that is gone
// since; one from before a truncate is not retried at all. A truncate stays as long as
// other letters are older. An empty chain means that there is no such letter.
func Related(refs []LetterRef, id string) Chain {
	at := slices.IndexFunc(refs, func(r LetterRef) bool { return r.ID == id })
	if at < 0 {
		return Chain{}
	}
	related := sameRows(refs, &refs[at])
	var chain Chain
	var truncated *LetterRef
	for i := range refs {
		r := &refs[i]
		if related[r.ID] && r.truncate() && (truncated == nil || r.Position.After(truncated.Position)) {
			truncated = r
		}
	}
	for i := range refs {
		r := &refs[i]
		if !related[r.ID] {
			continue
		}
		if (truncated == nil || r == truncated || r.Position.After(truncated.Position)) && !r.settled(refs) {
			chain.Retry = append(chain.Retry, r.ID)
		}
		older := func(o LetterRef) bool {
			return o.Namespace == r.Namespace && o.Table == r.Table && !related[o.ID] && r.Position.After(o.Position)
		}
		if !r.truncate() || !slices.ContainsFunc(refs, older) {
			chain.Delete = append(chain.Delete, r.ID)
		}
	}
	slices.Sort(chain.Retry)
	slices.Sort(chain.Delete)
	return chain
}

// settled tells that a delete was noted, but then belonged to a unit that was set aside,
// whose letter has it: done on its own it would take the values that the letter lacks.
func (r *LetterRef) settled(refs []LetterRef) bool {
	return r.Kind == LetterPassed && slices.ContainsFunc(refs, func(o LetterRef) bool {
		return o.Kind != LetterPassed && o.Namespace == r.Namespace && o.Table == r.Table && !r.Position.After(o.Position) &&
			slices.ContainsFunc(o.Needs, func(key []byte) bool {
				return slices.ContainsFunc(r.Keys, func(k []byte) bool { return bytes.Equal(k, key) })
			})
	})
}

// sameRows returns the IDs of the letters that share rows with one, and with each other.
func sameRows(refs []LetterRef, first *LetterRef) map[string]bool {
	keys := map[string]bool{}
	related := map[string]bool{first.ID: true}
	for _, key := range first.Keys {
		keys[string(key)] = true
	}
	for grown := true; grown; {
		grown = false
		for i := range refs {
			r := &refs[i]
			if related[r.ID] || r.Namespace != first.Namespace || r.Table != first.Table || !r.touches(keys) {
				continue
			}
			related[r.ID], grown = true, true
			for _, key := range r.Keys {
				keys[string(key)] = true
			}
		}
	}
	return related
}

// Complete tells whether apply, whose checkpoint is given, has been through the whole
// transaction that the letter's change is of. Before that the letter cannot be retried:
// the changes of a transaction have one version, and one that is still to come, such as a
// truncate, would not be told from the retry.
func (r *LetterRef) Complete(checkpoint cdc.Checkpoint) bool {
	return r.Position.Commit < checkpoint.End
}

// truncate tells whether the letter notes a truncate.
func (r *LetterRef) truncate() bool { return len(r.Keys) == 0 && r.Kind == LetterPassed }

// touches tells whether a letter is about one of the keys, or the whole table.
func (r *LetterRef) touches(keys map[string]bool) bool {
	return r.truncate() || slices.ContainsFunc(r.Keys, func(key []byte) bool { return keys[string(key)] })
}
