package main

import (
	"context"
	"fmt"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
)

// letterShelf knows all letters, so that a command about many of them lists each once.
type letterShelf struct {
	letters deadLetters
	index   apply.LetterIndex
	after   uint64 // the sequence of the last that was listed
}

// refresh lists what apply has stored since: a letter that is put later has a later
// sequence.
func (s *letterShelf) refresh(ctx context.Context) error {
	return s.letters.eachAfter(ctx, s.after, func(l bus.Letter) error {
		s.after = l.Sequence
		if l.Damaged {
			return nil // What it was about is not known any more; dlq list shows it.
		}
		ref, err := s.letters.ref(ctx, l)
		if err == nil {
			s.index.Add(ref)
		}
		return err
	})
}

// remove deletes a letter for good.
func (s *letterShelf) remove(ctx context.Context, id string) error {
	if err := s.letters.bus.Delete(ctx, id); err != nil {
		return fmt.Errorf("delete letter %s: %w", id, err)
	}
	s.index.Remove(id)
	return nil
}
