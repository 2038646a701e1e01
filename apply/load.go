package apply

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// loader takes batches to the sink, one after the other.
type loader struct {
	sink     Sink
	ledger   *ledger
	letters  *letterer // nil: a row that is refused stops apply
	replay   *Replay   // nil for live apply
	parallel int
	// prepared is the last schema that the sink was prepared for, by table. An earlier
	// one is prepared again: the table may have columns since that its rows lack.
	prepared map[uint32]cdc.Fingerprint
	now      func() time.Time
	// attempt runs one call of the sink until it succeeds or apply is told to stop.
	// It waits between tries and shows what it waits for; a call that changes rows
	// waits for the end of a pause too.
	attempt func(changes bool, what string, call func(context.Context) error) error
	loaded  func(*TableBatch, Result)
	// enter waits until a batch may begin, left tells that it is over.
	enter func() error
	left  func(*ledger)
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
	if err := l.ledger.finish(ctx, b.checkpoint); err != nil {
		return err
	}
	l.left(l.ledger)
	return nil
}

func (l *loader) apply(ctx context.Context, b *batch) error {
	tables := b.tables()
	p, err := l.plan(ctx, b, tables)
	if err != nil {
		return err
	}
	if l.replay != nil {
		if err := l.replay.alone(l, b); err != nil {
			return err
		}
		defer l.replay.together()
	}
	if b.changes[0].kind == cdc.KindTruncate {
		return l.truncate(b, p)
	}
	for _, t := range tables {
		if err := l.prepare(t.schema); err != nil {
			return err
		}
	}
	var group errgroup.Group
	group.SetLimit(l.parallel)
	for _, t := range tables {
		group.Go(func() error {
			err := l.table(ctx, t, p)
			if errors.Is(err, ErrIncomplete) {
				// At once: a sink that is asked again may not remember what it lacks.
				err = errors.Join(err, l.ledger.again(context.WithoutCancel(ctx), t.schema.OID))
			}
			return err
		})
	}
	if err := group.Wait(); err != nil || l.letters != nil || l.replay != nil {
		return err // Letters and a replay may keep rows.
	}
	for _, t := range tables {
		rowSlabs.give(t.rows)
	}
	return nil
}

// plan records what the batch is before anything of it reaches the sink, or returns the
// plan that was recorded for it before a crash.
func (l *loader) plan(ctx context.Context, b *batch, tables []*tableChanges) (plan, error) {
	if l.ledger.state.Plan == nil {
		p := plan{
			From: l.ledger.state.Checkpoint.Position, To: b.last(), Open: b.open,
			SyncedAt: syncedAt(l.now()),
		}
		if b.ahead != nil {
			p.SyncedAt = b.ahead.syncedAt
		}
		if l.letters != nil {
			var err error
			if p.Aside, err = l.letters.following(tables); err != nil {
				return plan{}, err
			}
		}
		if err := l.enter(); err != nil {
			return plan{}, err
		}
		if err := l.ledger.begin(ctx, p); err != nil {
			return plan{}, err
		}
	}
	p := *l.ledger.state.Plan
	if p.From != l.ledger.state.Checkpoint.Position || p.To != b.last() {
		return plan{}, fmt.Errorf("batch up to %s is not the planned one, %s to %s", b.last(), p.From, p.To)
	}
	return p, nil
}

// prepare makes the target ready for the schema.
func (l *loader) prepare(s *cdc.Schema) error {
	return l.prepareUnless(s, func(error) bool { return false })
}

// prepareUnless gives up at an error for which enough answers true, and returns nil then.
func (l *loader) prepareUnless(s *cdc.Schema, enough func(error) bool) error {
	if f, ok := l.prepared[s.OID]; ok && f == s.Fingerprint() {
		return nil
	}
	done := false
	err := l.attempt(false, "prepare table "+s.Name(), func(ctx context.Context) error {
		err := l.sink.Prepare(ctx, s)
		done = err == nil
		if err != nil && enough(err) {
			return nil
		}
		return err
	})
	if err == nil && done {
		l.prepared[s.OID] = s.Fingerprint()
	}
	return err
}

// tableChanges is the share of one table in a batch.
type tableChanges struct {
	schema  *cdc.Schema
	count   int // of changes
	changes []*change
	rows    []Row // what compact has made of them
	encoded any   // what the sink has made of the rows, with the time of the batch
}

func (t *tableChanges) compact() error {
	if t.rows != nil {
		return nil
	}
	rows, err := compact(t.schema, t.changes)
	if err == nil {
		t.rows = rows
	}
	return err
}

// split groups changes by table, in the order in which the tables appear.
func split(changes []change) []*tableChanges {
	var tables []*tableChanges
	index := map[uint32]*tableChanges{}
	var last *tableChanges
	of := func(s *cdc.Schema) *tableChanges {
		if last != nil && last.schema == s {
			return last
		}
		t, ok := index[s.OID]
		if !ok {
			t = &tableChanges{schema: s}
			index[s.OID] = t
			tables = append(tables, t)
		}
		last = t
		return t
	}
	for i := range changes {
		of(changes[i].schema).count++
	}
	for _, t := range tables {
		t.changes = make([]*change, 0, t.count)
	}
	for i := range changes {
		t := of(changes[i].schema)
		t.changes = append(t.changes, &changes[i])
	}
	return tables
}

// table takes the share of one table to the sink.
func (l *loader) table(ctx context.Context, t *tableChanges, p plan) error {
	if err := t.compact(); err != nil {
		return err
	}
	rows, encoded := t.rows, t.encoded
	if aside := p.Aside[t.schema.OID]; len(aside) > 0 {
		var err error
		if rows, err = l.letters.follow(t, p, aside); err != nil {
			return err
		}
		encoded = nil
	}
	if l.replay != nil {
		rows = l.replay.rows(t.schema, rows, p)
	}
	if len(rows) == 0 {
		return nil
	}
	b := &TableBatch{
		ID: l.id(t.schema, p), Schema: t.schema, Rows: rows, SyncedAt: p.SyncedAt, Bytes: bytesOf(rows),
		Guarded: l.replay != nil && l.replay.config.Guarded, Encoded: encoded,
	}
	if l.letters == nil {
		_, err := l.send(b, nil)
		return err
	}
	return l.letters.deliver(ctx, l, b, p)
}

// send applies one batch. aside decides whether a refused row ends the call, so that it
// can be set aside; otherwise, and if aside is nil, the call is repeated as it is.
func (l *loader) send(b *TableBatch, aside func(*RowError) error) (refused *RowError, err error) {
	again := false
	err = l.attempt(true, "load into table "+b.Schema.Name(), func(ctx context.Context) error {
		if again {
			// Somebody may have changed the table since, to make the row fit.
			if err := l.sink.Prepare(ctx, b.Schema); err != nil {
				return err
			}
		}
		result, err := l.deliver(ctx, b)
		if err == nil {
			killpoint.Reached("apply.loaded")
			l.loaded(b, result)
		}
		row, ok := errors.AsType[*RowError](err)
		if ok && aside != nil {
			if err = aside(row); err == nil {
				refused = row
				return nil
			}
		}
		again = isRefusal(err)
		return err
	})
	return refused, err
}

// deliver calls the sink with a batch that it can take.
func (l *loader) deliver(ctx context.Context, b *TableBatch) (Result, error) {
	if err := Allowed(ctx); err != nil {
		return Result{}, err
	}
	if len(b.Schema.Key) == 0 {
		for i := range b.Rows {
			if !b.Rows[i].Tuple.HasUnchanged() {
				continue
			}
			return Result{}, &RowError{
				Row: i + 1, Table: b.Schema.Name(), Key: "position " + b.Rows[i].Position.String(),
				Reason: "the table has no key, and the update left out values that had not changed",
				Hint:   "run ALTER TABLE " + b.Schema.Name() + " REPLICA IDENTITY FULL at the source, so that later updates carry whole rows",
			}
		}
	}
	return l.sink.Apply(ctx, b)
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
		if l.letters != nil {
			if err := l.letters.truncated(ch, p); err != nil {
				return err
			}
		}
		t := &TableTruncate{ID: l.id(ch.schema, p), Schema: ch.schema, Position: ch.pos, SyncedAt: p.SyncedAt}
		if l.replay != nil {
			t.Position, t.Guarded = l.replay.version(ch.schema, ch.pos, p), l.replay.config.Guarded
		}
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
