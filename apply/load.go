package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// loader takes batches to the sink, one after the other.
type loader struct {
	sink     Sink
	ledger   *ledger
	parallel int
	prepared map[cdc.Fingerprint]bool
	now      func() time.Time
	// attempt runs one call of the sink until it succeeds or apply is told to stop.
	// It waits between tries and shows what it waits for; a call that changes rows
	// waits for the end of a pause too.
	attempt func(changes bool, what string, call func(context.Context) error) error
	loaded  func(Result)
}

// load applies one batch and moves the checkpoint. An error leaves the plan in place,
// so that the same batch is formed again.
func (l *loader) load(ctx context.Context, b *batch) error {
	if len(b.changes) > 0 {
		if err := l.apply(ctx, b); err != nil {
			return err
		}
	}
	b.checkpoint.At = l.now()
	return l.ledger.finish(ctx, b.checkpoint)
}

func (l *loader) apply(ctx context.Context, b *batch) error {
	p := plan{
		From:     l.ledger.state.Checkpoint.Position,
		To:       b.checkpoint.Position,
		SyncedAt: l.now().UTC().Truncate(time.Microsecond),
	}
	if err := l.ledger.begin(ctx, p); err != nil {
		return err
	}
	p = *l.ledger.state.Plan
	if p.From != l.ledger.state.Checkpoint.Position || p.To != b.checkpoint.Position {
		return fmt.Errorf("batch up to %s is not the planned one, %s to %s", b.checkpoint.Position, p.From, p.To)
	}
	if b.changes[0].kind == cdc.KindTruncate {
		return l.truncate(b, p)
	}
	tables := split(b.changes)
	for _, t := range tables {
		if err := l.prepare(t.schema); err != nil {
			return err
		}
	}
	var group errgroup.Group
	group.SetLimit(l.parallel)
	incomplete := make([]uint32, len(tables))
	for i, t := range tables {
		group.Go(func() error {
			err := l.table(t, p)
			if errors.Is(err, ErrIncomplete) {
				incomplete[i] = t.schema.OID
			}
			return err
		})
	}
	err := group.Wait()
	incomplete = slices.DeleteFunc(incomplete, func(oid uint32) bool { return oid == 0 })
	if len(incomplete) > 0 {
		err = errors.Join(err, l.ledger.again(context.WithoutCancel(ctx), incomplete))
	}
	return err
}

// prepare makes the target ready for the schema, once per schema and run.
func (l *loader) prepare(s *cdc.Schema) error {
	if l.prepared[s.Fingerprint()] {
		return nil
	}
	err := l.attempt(false, "prepare table "+s.Name(), func(ctx context.Context) error { return l.sink.Prepare(ctx, s) })
	if err == nil {
		l.prepared[s.Fingerprint()] = true
	}
	return err
}

// tableChanges is the share of one table in a batch.
type tableChanges struct {
	schema  *cdc.Schema
	changes []*change
}

// split groups changes by table, in the order in which the tables appear.
func split(changes []change) []*tableChanges {
	var tables []*tableChanges
	index := map[uint32]*tableChanges{}
	var last *tableChanges
	for i := range changes {
		s := changes[i].schema
		if last == nil || last.schema != s {
			t, ok := index[s.OID]
			if !ok {
				t = &tableChanges{schema: s}
				index[s.OID] = t
				tables = append(tables, t)
			}
			last = t
		}
		last.changes = append(last.changes, &changes[i])
	}
	return tables
}

func (l *loader) table(t *tableChanges, p plan) error {
	rows, size, err := compact(t.schema, t.changes)
	if err != nil {
		return err
	}
	b := &TableBatch{ID: l.id(t.schema, p), Schema: t.schema, Rows: rows, SyncedAt: p.SyncedAt, Bytes: size}
	refused := false
	return l.attempt(true, "load into table "+t.schema.Name(), func(ctx context.Context) error {
		if refused {
			// Somebody may have changed the table since, to make the row fit.
			if err := l.sink.Prepare(ctx, t.schema); err != nil {
				return err
			}
		}
		result, err := l.sink.Apply(ctx, b)
		if err == nil {
			l.loaded(result)
		}
		refused = isRefusal(err)
		return err
	})
}

// isRefusal tells whether an error of a sink needs somebody to change something.
func isRefusal(err error) bool {
	if _, ok := errors.AsType[*RowError](err); ok {
		return true
	}
	var permanent interface{ Permanent() bool }
	return errors.As(err, &permanent) && permanent.Permanent()
}

// truncate carries out one truncate, table by table. The batch holds nothing else.
func (l *loader) truncate(b *batch, p plan) error {
	for i := range b.changes {
		ch := &b.changes[i]
		if err := l.prepare(ch.schema); err != nil {
			return err
		}
		t := &TableTruncate{ID: l.id(ch.schema, p), Schema: ch.schema, Position: ch.pos, SyncedAt: p.SyncedAt}
		err := l.attempt(true, "truncate table "+ch.schema.Name(), func(ctx context.Context) error { return l.sink.Truncate(ctx, t) })
		if err != nil {
			return err
		}
	}
	return nil
}

// id names the share of one table in a plan: a hash of pipeline and table, and the
// interval of positions.
func (l *loader) id(s *cdc.Schema, p plan) string {
	sum := sha256.Sum256([]byte(l.ledger.state.Pipeline + "\x00" + s.Namespace + "\x00" + s.Table))
	id := fmt.Sprintf("dbmazz-%s-%X-%d-%X-%d", hex.EncodeToString(sum[:8]),
		uint64(p.From.Commit), p.From.Ordinal, uint64(p.To.Commit), p.To.Ordinal)
	if n := p.Attempts[s.OID]; n > 0 {
		id += fmt.Sprintf("-r%d", n)
	}
	return id
}
