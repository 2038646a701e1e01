package apply

import (
	"context"
	"fmt"
	"strings"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// RetryResult is what a retry did.
type RetryResult struct {
	Rows int // of the letter
	// Left of them did not change the table: it has a later state of the row, or, if
	// the letter only says a part of it, not the rest.
	Left int64
}

// Retry applies a dead letter: it prepares the table for the letter's schema and applies
// the letter's rows under an ID of its own. It is safe while live apply writes the same
// table: a row that has a later version stays, and a change of a table without a key is
// stored once. The letter must be [LetterRef.Complete]. The same letter may be retried after an error or a crash. A row that the
// sink still refuses is a *RowError.
//
// Where deleted rows disappear, and the sink cannot look at a row's version and delete it
// in one step, live apply should be held meanwhile, see [Apply.Hold].
//
// The letters of a row build on each other. The caller retries those of the chain that
// [Related] returns, in their order, asks for it again until there are no others to retry,
// and then deletes what the chain says, in order, so that what is left after a crash does
// no harm. Asking again matters because live apply goes on: it notes a delete of such a
// row before it carries it out, so a row that came back because its delete was first is
// removed by the letter that is found.
func Retry(ctx context.Context, sink Sink, letter *DeadLetter) (RetryResult, error) {
	schema, rows, truncate, err := letter.open()
	if err != nil {
		return RetryResult{}, err
	}
	if err := sink.Prepare(ctx, schema); err != nil {
		return RetryResult{}, fmt.Errorf("prepare table %s: %w", schema.Name(), err)
	}
	id := "dbmazz-dlq-" + letter.ID
	if letter.Kind == LetterPassed && len(schema.Key) > 0 {
		// Rows that came back were written with versions of earlier transactions;
		// those of this one are there because they came after it.
		for i := range rows {
			rows[i].Position.Commit--
		}
	}
	if truncate {
		position := letter.Position
		if len(schema.Key) > 0 {
			position.Commit--
		}
		err := sink.Truncate(ctx, &TableTruncate{ID: id, Schema: schema, Position: position, SyncedAt: letter.SetAside, Guarded: true})
		if err != nil {
			return RetryResult{}, fmt.Errorf("truncate table %s again: %w", schema.Name(), err)
		}
		return RetryResult{}, nil
	}
	b := &TableBatch{
		ID: id, Schema: schema, Rows: rows, SyncedAt: letter.SetAside, Bytes: bytesOf(rows), Guarded: true,
	}
	result, err := (&loader{sink: sink}).deliver(ctx, b)
	if err != nil {
		return RetryResult{}, fmt.Errorf("retry dead letter %s: %w", letter.ID, err)
	}
	return RetryResult{Rows: len(rows), Left: result.Left}, nil
}

// open decodes the rows of a letter.
func (d *DeadLetter) open() (schema *cdc.Schema, rows []Row, truncate bool, err error) {
	for _, data := range d.Frames {
		s, rec, err := openChange(data)
		if err != nil {
			return nil, nil, false, fmt.Errorf("open dead letter %s: %w", d.ID, err)
		}
		if schema == nil {
			schema = s
		}
		if s.Fingerprint() != schema.Fingerprint() {
			return nil, nil, false, fmt.Errorf("open dead letter %s: it has rows of two schemas: %w", d.ID, cdc.ErrCorrupt)
		}
		if rec.Kind == cdc.KindTruncate {
			return schema, nil, true, nil
		}
		rows = append(rows, rowOf(&rec))
	}
	if schema == nil {
		return nil, nil, false, fmt.Errorf("open dead letter %s: it has no changes: %w", d.ID, cdc.ErrCorrupt)
	}
	return schema, rows, false, nil
}

// openChange reads a frame of one change.
func openChange(data []byte) (*cdc.Schema, cdc.Record, error) {
	frame, err := cdc.Open(data)
	if err != nil {
		return nil, cdc.Record{}, err
	}
	if len(frame.Header.Schemas) != 1 {
		return nil, cdc.Record{}, fmt.Errorf("%d schemas in the frame of one change: %w", len(frame.Header.Schemas), cdc.ErrCorrupt)
	}
	schema, err := cdc.UnmarshalSchema(frame.Header.Schemas[0].Definition)
	if err != nil {
		return nil, cdc.Record{}, err
	}
	r, err := frame.Reader([]*cdc.Schema{schema})
	if err != nil {
		return nil, cdc.Record{}, err
	}
	for {
		var rec cdc.Record
		ok, err := r.Next(&rec)
		switch {
		case err != nil:
			return nil, cdc.Record{}, err
		case !ok:
			return nil, cdc.Record{}, fmt.Errorf("no change in the frame: %w", cdc.ErrCorrupt)
		case rec.Kind.IsRow() || rec.Kind == cdc.KindTruncate:
			return schema, rec, nil
		}
	}
}

// rowOf is the inverse of writeRow.
func rowOf(rec *cdc.Record) Row {
	row := Row{Op: OpInsert, Tuple: rec.New, Position: rec.Position}
	switch rec.Kind {
	case cdc.KindUpdate:
		row.Op = OpUpdate
		if rec.OldKind != cdc.OldNone {
			// No change of that row was applied since.
			row.MovedFrom, row.MovedBefore = rec.Old, rec.Position.Commit+1
		}
	case cdc.KindDelete:
		row.Op, row.Tuple, row.KeyOnly = OpDelete, rec.Old, rec.OldKind == cdc.OldKey
	default: // An insert.
	}
	row.Partial = !row.KeyOnly && row.Tuple.HasUnchanged()
	row.Optional = row.Partial && rec.Loose
	return row
}

// String says in one line what the letter is about, without the row's data.
func (d *DeadLetter) String() string {
	parts := []string{d.ID, string(d.Kind), d.Op, d.Namespace + "." + d.Table}
	if d.Key != "" {
		parts = append(parts, "key "+d.Key)
	}
	if d.Column != "" {
		parts = append(parts, "column "+d.Column)
	}
	return strings.Join(append(parts, d.Reason), ", ")
}
