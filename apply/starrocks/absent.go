package starrocks

import (
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// How many rows of a load StarRocks has taken it tells once, in its answer. If that is lost,
// or the process ends before it has acted on it, the state of the label tells that the load
// is committed, and nothing tells how much of it. The rows are looked up in the table then.

// lookFor returns [request.missing] for a load of these rows of the batch.
func (a *applyRun) lookFor(rows []int32) func(context.Context, *request) (int64, error) {
	return func(ctx context.Context, r *request) (int64, error) {
		apply.Waiting(ctx, fmt.Errorf("load %s is committed, and its answer is not known: looking for its %d rows in table %s", r.label, len(rows), r.table))
		conn, err := a.sink.reading(ctx, r.table)
		if err != nil {
			return 0, fmt.Errorf("look for the rows of load %s: %w", r.label, err)
		}
		defer conn.Close()
		absent, err := a.absent(ctx, conn, rows)
		if err != nil {
			return 0, fmt.Errorf("look for the rows of load %s: %w", r.label, err)
		}
		return int64(len(absent)), nil
	}
}

// absent returns which of these rows of the batch, all of them in one load, the table does
// not have as the load leaves them. No load that may hold one of them is under way.
//
// A row has the version and the time that the batch gives it, or in a guarded batch that
// version or a later one. Where deletes remove rows, a deleted one is not there at all, and
// an optional one that moved may not be there either: nothing tells whether it should be.
func (a *applyRun) absent(ctx context.Context, conn *sql.Conn, rows []int32) ([]int32, error) {
	if a.batch.Guarded {
		return a.absentGuarded(ctx, conn, rows)
	}
	hard := a.sink.config.DeleteMode == DeleteHard
	var stored, either, removed []int32
	for _, i := range rows {
		switch row := &a.batch.Rows[i]; {
		case hard && row.Op == apply.OpDelete:
			removed = append(removed, i)
		case hard && row.Optional && a.reads(row):
			either = append(either, i)
		default:
			stored = append(stored, i)
		}
	}
	made := a.madeByBatch()
	absent, err := a.without(ctx, conn, stored, made)
	if err != nil {
		return nil, err
	}
	other, err := a.without(ctx, conn, either, made)
	if err != nil {
		return nil, err
	}
	removed = append(removed, other...)
	gone, err := a.without(ctx, conn, removed, "")
	if err != nil {
		return nil, err
	}
	for _, i := range removed {
		if len(gone) > 0 && gone[0] == i { // In the order of removed.
			gone = gone[1:]
			continue
		}
		absent = append(absent, i)
	}
	slices.Sort(absent)
	return absent, nil
}

// madeByBatch is true in SQL for a row that the batch has made, if its key is of the batch.
// It begins with AND.
func (a *applyRun) madeByBatch() string {
	var first, last cdc.LSN
	for i := range a.batch.Rows {
		commit := a.batch.Rows[i].Position.Commit
		if i == 0 || commit < first {
			first = commit
		}
		last = max(last, commit)
	}
	version, at := quoteName(a.layout.audit[atVersion]), quoteName(a.layout.audit[atSynced])
	return fmt.Sprintf(" AND %s >= %d AND %s <= %d AND %s = %s", version, uint64(first), version, uint64(last),
		at, quoteText(a.batch.SyncedAt.UTC().Format(synced)))
}

// without returns for which of these rows of the batch the table has no row with the key
// for which the extra condition is true, in order.
func (a *applyRun) without(ctx context.Context, conn *sql.Conn, rows []int32, extra string) ([]int32, error) {
	keys := make([]cdc.Tuple, len(rows))
	for n, i := range rows {
		keys[n] = a.batch.Rows[i].Tuple
	}
	missing, err := a.sink.missingRows(ctx, conn, a.layout, keys, extra)
	return chosen(rows, missing), err
}

// absentGuarded is absent for a guarded batch, whose loads remove nothing.
func (a *applyRun) absentGuarded(ctx context.Context, conn *sql.Conn, rows []int32) ([]int32, error) {
	l := a.layout
	missing, err := uncounted(len(rows), keysAskedTogether, func(from, to int) (int, error) {
		condition, err := a.eachWith(rows[from:to], l.from)
		if err != nil {
			return 0, err
		}
		return a.sink.countWhere(ctx, conn, l, condition)
	})
	return chosen(rows, missing), err
}

// chosen returns the rows at the places.
func chosen(rows []int32, places []int) []int32 {
	out := make([]int32, len(places))
	for n, place := range places {
		out[n] = rows[place]
	}
	return out
}
