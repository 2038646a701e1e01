package apply

import (
	"context"
	"fmt"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// roll prepares the tables that capture announces, so that those without rows are there
// too, and what the sink refuses is known before the first row.
//
// A list has the tables as they are, and changes of before may wait in the stream, in
// schemas that a target made for the list would not take. All of them are there before the
// list is, so what the stream ends with when the list comes is applied first. From then on
// nothing in an older schema comes any more. So a refusal of a list says that what was
// before is in the sink, and whoever renames or drops the target, as it asks, does not
// take it from a change that is still to come.
type roll struct {
	*session
	load  *loader
	lists <-chan []*cdc.Schema
	// fresh tells that nothing was ever applied. As long as there is nothing to apply
	// either, there is no pipeline to speak of before the first list is prepared.
	fresh bool

	tables []*cdc.Schema // to be prepared
	after  cdc.Position  // once everything up to here is applied
	// newer is a list that came while the one before was being prepared.
	newer []*cdc.Schema
	taken bool
}

func newRoll(s *session, load *loader, lists <-chan []*cdc.Schema) *roll {
	return &roll{session: s, load: load, lists: lists, fresh: s.ledger.state.Checkpoint.Position.IsZero()}
}

// take takes a list in.
func (r *roll) take(ctx context.Context, list []*cdc.Schema) error {
	tail, err := r.Apply.stream.Tail(ctx)
	if err != nil {
		return fmt.Errorf("find the end of the stream: %w", err)
	}
	r.tables, r.after = list, cdc.Position{}
	if !tail.Empty {
		r.after = tail.Last
	}
	if !r.fresh || !tail.Empty {
		// What there is to apply comes first, and waits for nothing but a pause.
		r.ready()
	}
	return nil
}

func (r *roll) ready() {
	r.update(func(st *Status) { st.Ready, st.State, st.Detail = true, Applying, "Replicating" })
}

// prepare prepares the tables of the list if it is time to. Apply is ready once it has
// done so for the first time.
func (r *roll) prepare(ctx context.Context) error {
	for len(r.tables) > 0 && !r.after.After(r.ledger.state.Checkpoint.Position) {
		list := r.tables
		if err := r.all(list); err != nil {
			return err
		}
		if r.taken {
			r.taken = false
			if err := r.take(ctx, r.newer); err != nil {
				return err
			}
			continue
		}
		r.tables, r.fresh = nil, false
		r.ready()
	}
	return nil
}

// all prepares the tables, unless another list comes meanwhile.
func (r *roll) all(list []*cdc.Schema) error {
	if c, ok := r.sink.(TableChecker); ok {
		if err := r.try("name the tables", func(ctx context.Context) error { return c.CheckTables(ctx, list) }); err != nil {
			return err
		}
	}
	if c, ok := r.sink.(ConfigChecker); ok {
		if err := r.try("check the configuration of the tables", func(context.Context) error { return c.CheckConfig(list) }); err != nil {
			return err
		}
	}
	for _, t := range list {
		if r.taken {
			return nil
		}
		if err := r.load.prepareUnless(t, r.outdated); err != nil {
			return err
		}
	}
	return nil
}

// try calls the sink unless another list has come, until it succeeds or one comes.
func (r *roll) try(what string, call func(context.Context) error) error {
	if r.taken {
		return nil
	}
	return r.load.attempt(false, what, func(ctx context.Context) error {
		err := call(ctx)
		if err != nil && r.outdated(err) {
			return nil
		}
		return err
	})
}

// outdated reports whether a refusal is about a list that is not the last one any more.
func (r *roll) outdated(err error) bool {
	if !isRefusal(err) {
		return false
	}
	select {
	case list, ok := <-r.lists:
		// That it is closed shows again.
		r.newer, r.taken = list, ok
		return ok
	default:
		return false
	}
}
