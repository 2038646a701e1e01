package apply

import (
	"context"
	"errors"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// ErrIncomplete is wrapped by an error of [Sink.Apply] if the sink has committed the
// batch under its ID, but says that rows are missing from it.
var ErrIncomplete = errors.New("the sink has committed less than it was sent")

type (
	waitingKey struct{}
	fenceKey   struct{}
)

// Allowed returns nil as long as this process may write. A sink asks right before each
// request that changes something, and gives up with the error otherwise: a call may have
// begun long ago, on a process that was stopped in between while another took over. ctx
// is that of the call.
func Allowed(ctx context.Context) error {
	if fence, ok := ctx.Value(fenceKey{}).(func() error); ok {
		return fence()
	}
	return nil
}

// WithFence returns a context for calls of a sink, in which [Allowed] asks the fence.
func WithFence(ctx context.Context, fence func() error) context.Context {
	return context.WithValue(ctx, fenceKey{}, fence)
}

// Waiting tells whoever watches the pipeline why a call of a sink takes long: the sink
// is away, or its answer was lost and has to be asked for. ctx is that of the call. The
// call goes on; its end clears the message.
func Waiting(ctx context.Context, why error) {
	if tell, ok := ctx.Value(waitingKey{}).(func(error)); ok {
		tell(why)
	}
}

// Sink is a database that batches are applied to. Implementations live in packages
// of their own (apply/starrocks) and must pass the suite of apply/sinktest.
//
// Calls for one table come one after the other; calls for different tables may be
// concurrent.
type Sink interface {
	// Check tells whether the sink can be reached with the credentials given and
	// is of a version that works. It changes nothing.
	Check(ctx context.Context) error

	// Prepare makes the table ready for rows of this schema: it creates it when
	// missing, checks an existing one column by column, adds the audit columns
	// and columns that the source has gained. It returns once rows of the schema
	// can be applied. It is idempotent, and called again after every restart.
	Prepare(ctx context.Context, schema *cdc.Schema) error

	// Apply makes the batch's rows the state of their keys. It returns nil only
	// when the sink has committed all of them. After any error, or a crash, the
	// caller calls again with the same batch - same ID, same rows, same time -
	// until it succeeds; the effect is that of one call. A row that the sink can
	// never take is a *RowError; nothing else is one. The caller may then send the
	// rows of the batch in parts, under other IDs and with the same time, rows
	// that the refused call has committed among them: rows of a table with a key
	// become what they are already, rows of one without are known by position. An error that wraps ErrIncomplete tells that the
	// sink has committed a part of the rows and recognises the batch from now on;
	// it is then applied again under another ID. A call that waits says why through
	// Waiting; after a few seconds it should return an error instead, since the
	// caller repeats it and can be told to pause or stop in between.
	Apply(ctx context.Context, batch *TableBatch) (Result, error)

	// Truncate empties the table as the source did at the position: the rows
	// disappear, or are marked as deleted where deletes are soft. It may be
	// called again with the same arguments after an error or a crash, always
	// before any later change was applied, unless it is guarded. Where the schema
	// has no key columns the rows that were appended before disappear, whatever
	// the mode: no row of the table stands for a state that could be marked.
	Truncate(ctx context.Context, truncate *TableTruncate) error
}

// TableChecker is what a sink may be besides: one that can tell from all tables together
// that they cannot be in it, such as two that would have one name there. It is asked before
// any of them is prepared, and changes nothing.
type TableChecker interface {
	CheckTables(ctx context.Context, schemas []*cdc.Schema) error
}

// Encoder is what a [Sink] may implement too, to do a part of Apply's work for a batch while
// the one before is being applied.
type Encoder interface {
	// Encode makes what can be made of the batch, which has no ID yet, and returns it, or
	// nil if there is nothing to gain. It calls nobody and changes nothing, and may be
	// called while a call for the same table is running. Apply gets it back in
	// TableBatch.Encoded if it is of the same rows and time; it may never be asked to.
	Encode(batch *TableBatch) any
}

// ConfigChecker is what a [Sink] may implement too, to compare its configuration with the
// tables of the source as they are.
type ConfigChecker interface {
	// CheckConfig is told all tables, when a session begins and when the list
	// changes, before they are prepared; tables that were refused again, once what
	// came before is applied. It does no I/O.
	CheckConfig(tables []*cdc.Schema) error
}

// TableBatch is the changes of one table in one batch.
type TableBatch struct {
	// ID is unique among all batches of all pipelines, the same whenever this
	// batch is formed again, at most 100 characters of [A-Za-z0-9_-]. A sink that
	// deduplicates by label derives its labels from it.
	ID     string
	Schema *cdc.Schema
	// Rows holds one row per key, in an order that is the same whenever the batch
	// is formed again. It is valid during the call.
	//
	// A schema without key columns means append mode: Rows holds every change, in
	// the order of the source, and the sink stores one row for each: of an insert
	// or update the new values, of a delete the old ones. No value is
	// cdc.Unchanged, and Partial, KeyOnly and MovedFrom are not set. A change is
	// identified by Position, Commit and Ordinal together, which no two changes
	// share: one that the table has already is not stored again, whatever the ID
	// of the batch, and however long ago it was stored.
	Rows []Row
	// Guarded tells that the table may be ahead of the batch, and that another
	// apply may be writing to it at this moment: a replay into live tables, the
	// retry of a dead letter. A row of the sink whose dbmazz_cdc_version is
	// greater than the Position.Commit of the batch's row stays as it is, also if
	// it gets that version while the call runs. A partial row never makes a row:
	// if the sink has none with its key that is not deleted, it is left out. One
	// that moved is completed by the row under MovedFrom, if that is not deleted
	// and its version is below MovedBefore; else by the row under its own key, if
	// that has its version: the move was applied before; else it is left out.
	// Result.Left counts what stays.
	// Deletes remove, or mark, what is there under the same rule; where deletes
	// are soft, one whose key the sink does not have leaves its mark as always.
	Guarded bool
	// SyncedAt is when the batch was planned, with microseconds; part of the
	// plan, so the same when the batch is formed again.
	SyncedAt time.Time
	// Bytes is the sum of the rows' wire bytes, for sizing.
	Bytes int
	// Encoded is what [Encoder] has made of the rows, or nil. A call of Apply uses it up.
	Encoded any
}

// Op is what happened to the row.
type Op uint8

// The operations. The numbers are those of the audit column dbmazz_op_type.
const (
	OpInsert Op = 0
	OpUpdate Op = 1
	OpDelete Op = 2
)

// Row is what a key's row has become.
type Row struct {
	Op Op
	// KeyOnly tells, for OpDelete, that Tuple has only the key columns set and
	// the others are NULL by absence; otherwise it is the whole old row.
	KeyOnly bool
	// Partial tells that Tuple has cdc.Unchanged values: these columns keep what
	// the sink has. It may be set for OpDelete too, where deletes are soft.
	Partial bool
	// Tuple is the new row, or for OpDelete the old one. It is valid during the call.
	Tuple cdc.Tuple
	// MovedFrom is set if Partial and the change gave the row this new key: the
	// old row, of which the key columns are set, has the unchanged values, in the
	// state in which the batches before left it. The delete of the old key is a
	// row of its own in the same batch.
	MovedFrom cdc.Tuple
	// MovedBefore is set with MovedFrom: only a row with a lower version is the one
	// that moved; one with this version or a later one has the key since. It matters
	// in guarded batches; in others no batch was applied since.
	MovedBefore cdc.LSN
	// Optional may be set if Partial: the table is being copied, and the sink may not
	// have the row yet; a later batch has it as a whole. If the sink has no row with
	// its key that is not deleted, the row is left out. One that moved, whose old row
	// under MovedFrom is missing or deleted, becomes a delete of its key: what the
	// sink may have there is of a row that was deleted before, in this batch too.
	// Both count in Result.Left. A guarded batch has its own rule for partial rows,
	// which holds for these as for others.
	Optional bool
	// Position is that of the last change that is in the row. Position.Commit is
	// the value of the audit column dbmazz_cdc_version.
	Position cdc.Position

	commitTime int64 // of that change, in microseconds since 1970 UTC
}

// TableTruncate is a truncate of one table.
type TableTruncate struct {
	ID       string
	Schema   *cdc.Schema
	Position cdc.Position
	SyncedAt time.Time
	// Guarded tells that the table may hold later rows than the truncate, as for
	// [TableBatch]: it only affects rows whose version is not greater.
	Guarded bool
}

// Result tells what an Apply cost.
type Result struct {
	Loads   int   // requests that committed rows
	Retries int   // requests that had to be repeated or resolved
	Bytes   int64 // bytes of the request bodies
	Rows    int64 // rows that the sink has counted
	// Nulled counts values that the sink could not hold and that became NULL, as the
	// configuration allows for their column.
	Nulled int64
	// Left counts the rows of a guarded batch that did not reach the table: it has
	// a later state, or a partial row found nothing to complete it, or the change
	// was appended before. A sink that cannot tell counts nothing. In every batch it
	// counts the optional rows that found nothing to complete them.
	Left int64
}

// RowError is a row that the sink can never take: a value that does not fit its
// column, a key that is too long. It names the place, never the row's other data.
type RowError struct {
	// Row is the number of the row in TableBatch.Rows, counted from 1, or 0 when
	// the sink could not tell.
	Row    int
	Table  string
	Column string
	Type   string // as in the source
	Target string // the column's type in the sink
	Key    string // the row's key, as column=value pairs
	Reason string
	Hint   string
}

// Error implements error.
func (e *RowError) Error() string {
	text := "row of table " + e.Table
	if e.Key != "" {
		text += " with key " + e.Key
	}
	text += " cannot be stored"
	if e.Column != "" {
		text += ": column " + e.Column + " (" + e.Type
		if e.Target != "" {
			text += " -> " + e.Target
		}
		text += ")"
	}
	text += ": " + e.Reason
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}
