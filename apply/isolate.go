package apply

import (
	"context"
	"fmt"
	"slices"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// refusedRun is how many rows in a row, from the first of a batch on, are set aside
// before it is the table that must be wrong.
const refusedRun = 100

// letterer sets aside what the sink can never take.
//
// A batch with a refused row is sent in parts: up to the row that the sink has named, or
// halves until the row is alone. The plan says which part comes next before it is sent;
// so each row is in one part that succeeds, whose content is the same whenever it is sent
// again, or in a letter, which is durable before the plan leaves the row behind.
type letterer struct {
	store      DeadLetters
	book       *letterBook
	life       string // of the pipeline
	refusedMax int
	attempt    func(changes bool, what string, call func(context.Context) error) error
	put        func(*DeadLetter) // counts one that is stored
}

// open reads which letters there are.
func (l *letterer) open() error {
	refs, err := l.refs()
	l.book = newLetterBook(refs)
	return err
}

func (l *letterer) refs() (refs []LetterRef, err error) {
	err = l.attempt(false, "list the dead letters", func(ctx context.Context) (err error) {
		refs, err = l.store.Refs(ctx)
		return err
	})
	return refs, err
}

// following returns the rows that have to follow letters, by table.
func (l *letterer) following(tables []*tableChanges) (map[uint32][]int, error) {
	aside, err := l.lookup(tables)
	if err != nil || aside == nil {
		return nil, err
	}
	// The letters may have been retried since they were listed.
	refs, err := l.refs()
	if err != nil {
		return nil, err
	}
	l.book.refresh(refs)
	return l.lookup(tables)
}

func (l *letterer) lookup(tables []*tableChanges) (map[uint32][]int, error) {
	var aside map[uint32][]int
	for _, t := range tables {
		known := l.book.table(t.schema)
		if known == nil || len(t.schema.Key) == 0 || t.changes[0].kind == cdc.KindTruncate {
			continue
		}
		if err := t.compact(); err != nil {
			return nil, err
		}
		rows, err := known.following(t.schema, t.rows)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			continue
		}
		if aside == nil {
			aside = map[uint32][]int{}
		}
		aside[t.schema.OID] = rows
	}
	return aside, nil
}

// follow stores the letters of rows that follow others, and returns the other rows.
func (l *letterer) follow(t *tableChanges, p plan, aside []int) ([]Row, error) {
	units, err := unitsOf(t.schema, t.rows)
	if err != nil {
		return nil, err
	}
	held := make([]bool, len(t.rows))
	for _, i := range aside {
		held[i] = true
	}
	var rest []Row
	for i := range t.rows {
		if !held[i] {
			rest = append(rest, t.rows[i])
		}
	}
	for _, u := range units {
		if !held[u[0]] {
			continue
		}
		letter, err := newLetter(LetterFollows, l.life, t.schema, pick(t.rows, []unit{u}), nil)
		if err != nil {
			return nil, err
		}
		if err := l.keep(letter, p); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// keep makes a letter durable.
func (l *letterer) keep(letter *DeadLetter, p plan) error {
	letter.SetAside = p.SyncedAt
	what := "store a dead letter of table " + letter.Namespace + "." + letter.Table
	err := l.attempt(true, what, func(ctx context.Context) error { return l.store.Put(ctx, letter) })
	if err != nil {
		return err
	}
	l.book.add(&letter.LetterRef)
	l.put(letter)
	return nil
}

// truncated notes a truncate of a table that has letters, before it is carried out.
func (l *letterer) truncated(ch *change, p plan) error {
	known := l.book.table(ch.schema)
	if known == nil || !known.last.After(known.truncated) {
		return nil
	}
	letter, err := truncateLetter(l.life, ch)
	if err != nil {
		return err
	}
	return l.keep(letter, p)
}

// deliver takes a batch to the sink, but for the rows that it refuses.
func (l *letterer) deliver(ctx context.Context, load *loader, b *TableBatch, p plan) error {
	if err := l.note(b, p); err != nil {
		return err
	}
	if err := l.deliverRows(ctx, load, b, p); err != nil {
		return err
	}
	if known := l.book.table(b.Schema); known != nil && len(b.Schema.Key) > 0 {
		return known.stored(b.Schema, b.Rows)
	}
	return nil
}

// note stores letters about deletes of rows that have letters, before the deletes are
// carried out: a retry that comes in between finds them.
func (l *letterer) note(b *TableBatch, p plan) error {
	known := l.book.table(b.Schema)
	if known == nil || len(b.Schema.Key) == 0 {
		return nil
	}
	deleted, err := known.notes(b.Schema, b.Rows)
	if err != nil {
		return err
	}
	for i := range deleted {
		letter, err := newLetter(LetterPassed, l.life, b.Schema, deleted[i:i+1], nil)
		if err != nil {
			return err
		}
		if err := l.keep(letter, p); err != nil {
			return err
		}
	}
	return nil
}

func (l *letterer) deliverRows(ctx context.Context, load *loader, b *TableBatch, p plan) error {
	at, begun := p.Parts[b.Schema.OID]
	var refused *RowError
	var err error
	if !begun {
		refused, err = load.send(b, func(*RowError) error { return nil })
		if err != nil || refused == nil {
			return err
		}
	}
	units, err := unitsOf(b.Schema, b.Rows)
	if err != nil {
		return err
	}
	if !begun {
		at = firstPart(len(units), unitNumber(units, refused))
		if err := load.ledger.part(ctx, b.Schema.OID, at); err != nil {
			return err
		}
	}
	for at.Done < len(units) {
		if at, err = l.part(load, b, p, units, at); err != nil {
			return err
		}
		if err := load.ledger.part(ctx, b.Schema.OID, at); err != nil {
			return err
		}
	}
	return nil
}

// part sends the next part of a batch and returns what comes after it.
func (l *letterer) part(load *loader, b *TableBatch, p plan, units []unit, at parts) (parts, error) {
	part := *b
	part.ID = fmt.Sprintf("%s-i%d-%d", b.ID, at.Done, at.End)
	part.Rows = pick(b.Rows, units[at.Done:at.End])
	part.Bytes, part.Encoded = bytesOf(part.Rows), nil
	refused, err := load.send(&part, func(row *RowError) error { return l.bounded(at, row) })
	if err != nil {
		return at, err
	}
	size := at.End - at.Done
	named := unitNumber(units[at.Done:at.End], refused)
	switch {
	case refused == nil:
		at.Done, at.End = at.End, at.End+2*size
	case size == 1 || named == 0:
		letter, err := newLetter(LetterRefused, l.life, b.Schema, pick(b.Rows, units[at.Done:at.Done+1]), refused)
		if err != nil {
			return at, err
		}
		if err := l.keep(letter, p); err != nil {
			return at, err
		}
		at.Done, at.Refused = at.Done+1, at.Refused+1
		at.End = max(at.End, at.Done+1)
	case named > 0:
		at.End = at.Done + named
	default:
		at.End = at.Done + size/2
	}
	at.End = min(at.End, len(units))
	return at, nil
}

// firstPart is what is sent of a batch of so many units after it was refused as a whole,
// because of the unit that was named, or -1.
func firstPart(units, named int) parts {
	switch {
	case named > 0:
		return parts{End: named}
	case named == 0:
		return parts{End: 1}
	}
	return parts{End: max(1, units/2)}
}

// bounded refuses to set more rows aside when it is not the rows that are wrong.
func (l *letterer) bounded(at parts, row *RowError) error {
	if at.Refused >= l.refusedMax || (at.Refused >= refusedRun && at.Refused == at.Done) {
		return fmt.Errorf("%d rows of one batch are among the dead letters, so it is the table that is wrong rather than they; no more are set aside: %w", at.Refused, row)
	}
	return nil
}

// unitNumber returns in which unit of a part the row is that the sink has named, -1 if
// it has named none.
func unitNumber(units []unit, refused *RowError) int {
	if refused == nil || refused.Row < 1 {
		return -1
	}
	before := 0
	return slices.IndexFunc(units, func(u unit) bool {
		before += len(u)
		return refused.Row <= before
	})
}
