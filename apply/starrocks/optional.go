package starrocks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// addOptional adds optional rows that moved to the load. One whose old row is not there,
// or cannot be there, or cannot be read back exactly, is the delete of its new key.
//
// If labels are forgotten such a load may be made again when later ones of the batch are
// there, and where deletes remove rows nothing may tell. A row that the batch has written
// itself is therefore no old row.
func (m *movedBody) addOptional(ctx context.Context, conn *sql.Conn, rows []int32) error {
	at := quoteName(m.layout.audit[atSynced])
	extra := m.sink.notDeleted(m.layout) + fmt.Sprintf(" AND (%s IS NULL OR %s <> %s)", at, at, quoteText(m.batch.SyncedAt.UTC().Format(synced)))
	for chunk := range slices.Chunk(rows, movedRowsRead) {
		var readable []int32
		for _, i := range chunk {
			_, err := m.unchangedColumns([]int32{i})
			if err == nil {
				_, err = m.layout.keyValues(m.batch.Rows[i].MovedFrom)
			}
			if _, refused := errors.AsType[*apply.RowError](err); refused {
				err = m.addGone(i)
			} else if err == nil {
				readable = append(readable, i)
			}
			if err != nil {
				return err
			}
		}
		if len(readable) == 0 {
			continue
		}
		tuples, err := m.completed(ctx, conn, readable, extra)
		if err != nil {
			return err
		}
		for n, i := range readable {
			add := func() error { return m.addRead(i, tuples[n]) }
			if tuples[n] == nil {
				add = func() error { return m.addGone(i) }
			}
			if err := add(); err != nil {
				return err
			}
		}
	}
	return nil
}

// readable refuses an optional row that was in a load before if its old row is the batch's
// own by now: what it would have been made of is gone. Of other rows fill finds that out.
func (a *applyRun) readable(ctx context.Context, conn *sql.Conn, rows []int32) error {
	made := a.madeByBatch()
	for _, i := range rows {
		row := &a.batch.Rows[i]
		if !row.Optional || !a.reads(row) {
			continue
		}
		if _, err := a.layout.keyValues(row.MovedFrom); err != nil {
			continue // It never was in StarRocks.
		}
		n, err := a.sink.countRows(ctx, conn, a.layout, []cdc.Tuple{row.MovedFrom}, made)
		if err != nil {
			return err
		}
		if n > 0 {
			return a.refused(int(i), columnRefusal{refuseMoved, -1})
		}
	}
	return nil
}

// addGone adds the delete that a row becomes whose old row is missing. It has the key
// alone: there is no reason to refuse the other values.
func (m *movedBody) addGone(i int32) error {
	row := m.batch.Rows[i]
	row.Op = apply.OpDelete
	m.result.Left++
	var tuple cdc.Tuple
	for rest, c := row.Tuple, 0; c < len(m.layout.columns); c++ {
		var v cdc.Value
		if v, rest, _ = rest.Next(); !m.layout.columns[c].key {
			v = cdc.Value{Kind: cdc.Null}
		}
		tuple = tuple.AppendValue(v)
	}
	return m.add(m.writer, i, &row, tuple)
}
