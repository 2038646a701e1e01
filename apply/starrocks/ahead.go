package starrocks

import (
	"context"

	"github.com/dbmazz/dbmazz/apply"
)

// encoded is a batch whose rows are the body of one load.
type encoded struct {
	run    *applyRun
	group  *group
	buffer *[]byte // holds body
	body   []byte
}

// Encode implements [apply.Encoder]. Only of what needs nothing from StarRocks and is one load,
// as most batches are, the body is made.
func (s *Sink) Encode(batch *apply.TableBatch) any {
	l, err := s.layoutOf(batch.Schema)
	if err != nil || l.appends || batch.Guarded || l.bodyBytes(batch) >= s.config.MaxBodyBytes {
		return nil
	}
	of := *batch // The caller may use its batch for something else.
	e := &encoded{run: s.run(l, &of)}
	groups, err := e.run.plan()
	if err != nil || len(groups) != 1 || groups[0].whole || groups[0].partial {
		return nil
	}
	e.group, e.buffer = groups[0], s.take(l.bodyBytes(batch))
	body, n, err := e.run.body(e.group, e.group.rows, e.buffer)
	if err != nil || n < len(e.group.rows) {
		s.buffers.Put(e.buffer)
		return nil // Apply meets the error again.
	}
	e.body = body
	return e
}

// encoded returns what Encode has made of a batch, if it is still what is to be sent: a layout
// is another one after each Prepare.
func (s *Sink) encoded(l *layout, batch *apply.TableBatch) *encoded {
	e, ok := batch.Encoded.(*encoded)
	batch.Encoded = nil
	if !ok || e.run.layout != l || batch.Guarded || !e.run.batch.SyncedAt.Equal(batch.SyncedAt) || !same(e.run.batch.Rows, batch.Rows) {
		return nil
	}
	return e
}

// same tells whether two slices are one.
func same(a, b []apply.Row) bool { return len(a) == len(b) && len(a) > 0 && &a[0] == &b[0] }

// apply is [Sink.Apply] for the batch.
func (e *encoded) apply(ctx context.Context, batch *apply.TableBatch) (apply.Result, error) {
	defer func() { e.run.sink.buffers.Put(e.buffer) }()
	e.run.batch = batch
	err := e.run.send(ctx, e.group, e.body, e.group.rows)
	e.run.countNulls(ctx)
	return e.run.result, err
}
