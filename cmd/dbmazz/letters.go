package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
)

// deadLetters is the bus as apply sees it for what the sink cannot take.
type deadLetters struct{ bus *bus.DeadLetters }

var _ apply.DeadLetters = deadLetters{}

// The headers of a letter: what a person looks for, and in refHeader all that apply has
// to know of it without reading it.
const (
	tableHeader  = "Table"
	keyHeader    = "Key"
	opHeader     = "Operation"
	kindHeader   = "Kind"
	reasonHeader = "Reason"
	refHeader    = "Ref"
	// refMax bounds refHeader; a longer one is read from the letter.
	refMax = 8 << 10
	// letterPage is how many letters are listed at a time.
	letterPage = 500
)

// Put stores the letter.
func (d deadLetters) Put(ctx context.Context, letter *apply.DeadLetter) error {
	data, err := json.Marshal(letter)
	if err != nil {
		return fmt.Errorf("encode a dead letter: %w", err)
	}
	header := map[string]string{
		tableHeader: letter.Namespace + "." + letter.Table, keyHeader: letter.Key, opHeader: letter.Op,
		kindHeader: string(letter.Kind), reasonHeader: letter.Reason,
	}
	ref, err := json.Marshal(letter.LetterRef)
	if err != nil {
		return fmt.Errorf("encode a dead letter: %w", err)
	}
	if len(ref) <= refMax {
		header[refHeader] = string(ref)
	}
	err = d.bus.Put(ctx, bus.Letter{ID: letter.ID, Header: header, Data: data})
	if errors.Is(err, bus.ErrLetterExists) {
		// After a crash the same change may be refused in other words.
		return nil
	}
	return err
}

// Refs lists what is stored.
func (d deadLetters) Refs(ctx context.Context) ([]apply.LetterRef, error) {
	var refs []apply.LetterRef
	err := d.each(ctx, func(l bus.Letter) error {
		if l.Damaged {
			return nil // What it was about is not known any more; dlq list shows it.
		}
		ref, err := d.ref(ctx, l)
		if err == nil {
			refs = append(refs, ref)
		}
		return err
	})
	return refs, err
}

func (d deadLetters) ref(ctx context.Context, l bus.Letter) (apply.LetterRef, error) {
	var ref apply.LetterRef
	if text := l.Header[refHeader]; text != "" {
		if err := json.Unmarshal([]byte(text), &ref); err != nil {
			return ref, fmt.Errorf("decode dead letter %s: %w", l.ID, err)
		}
		return ref, nil
	}
	letter, err := d.get(ctx, l.ID)
	if err != nil {
		return ref, err
	}
	return letter.LetterRef, nil
}

// get reads a whole letter.
func (d deadLetters) get(ctx context.Context, id string) (*apply.DeadLetter, error) {
	l, err := d.bus.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	var letter apply.DeadLetter
	if err := json.Unmarshal(l.Data, &letter); err != nil {
		return nil, fmt.Errorf("decode dead letter %s: %w", id, err)
	}
	return &letter, nil
}

// each lists the letters in the order in which they were stored, without their data.
func (d deadLetters) each(ctx context.Context, use func(bus.Letter) error) error {
	return d.eachAfter(ctx, 0, use)
}

// eachAfter lists those behind a sequence.
func (d deadLetters) eachAfter(ctx context.Context, after uint64, use func(bus.Letter) error) error {
	for {
		page, err := d.bus.List(ctx, after, letterPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, l := range page {
			if err := use(l); err != nil {
				return err
			}
			after = l.Sequence
		}
	}
}
