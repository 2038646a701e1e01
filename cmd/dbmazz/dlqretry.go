package main

import (
	"context"
	"fmt"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/internal/config"
)

// Run retries letters. Those of the same row build on each other and go together.
func (c *dlqRetryCmd) Run(ctx context.Context, s *streams) error {
	return withQueue(ctx, s, config.Apply, func(ctx context.Context, t *tool) error {
		letters := deadLetters{t.bus.DeadLetters()}
		list, err := chosen(ctx, letters, c.IDs, c.Table, c.All)
		if err != nil {
			return err
		}
		if err := checkTarget(ctx, t.bus, targetOf(t.config)); err != nil {
			return err
		}
		sink, err := newSink(t.config, false, t.log)
		if err != nil {
			return fmt.Errorf("set up the sink: %w", err)
		}
		r := retry{tool: t, letters: letters, shelf: letterShelf{letters: letters}, sink: sink, done: map[string]bool{}}
		for _, l := range list {
			if r.done[l.ID] {
				continue
			}
			if err := r.alone(ctx, l); err != nil {
				return fmt.Errorf("%w (%d letters were applied before)", err, len(r.done))
			}
		}
		_, err = fmt.Fprintf(t.out, "applied %d letters; rows that have a later version in the sink stayed as they were\n", len(r.done))
		return err
	})
}

// retry is one run of dbmazz dlq retry.
type retry struct {
	*tool
	letters deadLetters
	shelf   letterShelf
	sink    apply.Sink
	done    map[string]bool // applied and deleted
}

// alone makes live apply wait meanwhile where deletes remove rows: such a delete cannot be
// made conditional in one step.
func (r *retry) alone(ctx context.Context, of bus.Letter) error {
	if r.config.SinkDeleteMode != config.DeleteHard {
		return r.row(ctx, of)
	}
	quiet, release, err := r.quiet(ctx)
	if err != nil {
		return fmt.Errorf("make live apply wait: %w", err)
	}
	defer release()
	return r.row(apply.WithFence(quiet, quiet.Err), of)
}

// row applies all letters of the rows that a letter is about, and deletes them once there
// are no others: live apply notes a delete of such a row as a letter before it carries it
// out, so a row that came back because its delete was first is removed by that letter.
func (r *retry) row(ctx context.Context, of bus.Letter) error {
	applied := map[string]bool{}
	var chain apply.Chain
	for grown := true; grown; {
		if err := r.shelf.refresh(ctx); err != nil {
			return err
		}
		chain, grown = r.shelf.index.Related(of.ID), false
		if err := r.complete(ctx, r.shelf.index.Refs(chain.Retry)); err != nil {
			return err
		}
		for _, id := range chain.Retry {
			if applied[id] {
				continue
			}
			letter, err := r.letters.get(ctx, id)
			if err != nil {
				return letterError(id, err)
			}
			if _, err := apply.Retry(ctx, r.sink, letter); err != nil {
				return err
			}
			applied[id], grown = true, true
		}
	}
	for _, id := range chain.Delete {
		if err := r.shelf.remove(ctx, id); err != nil {
			return err
		}
		r.done[id] = true
	}
	return nil
}

// complete refuses letters of a transaction that apply has not been through: what is still
// to come of it would not be told from the retry.
func (r *retry) complete(ctx context.Context, refs []apply.LetterRef) error {
	data, _, err := bucket{r.bus, keyApply}.LoadState(ctx)
	if err != nil {
		return err
	}
	checkpoint, err := apply.ParseCheckpoint(data)
	if err != nil {
		return err
	}
	for i := range refs {
		if !refs[i].Complete(checkpoint) {
			return fmt.Errorf("the transaction of letter %s is still being applied: try again in a moment", refs[i].ID)
		}
	}
	return nil
}
