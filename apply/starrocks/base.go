package starrocks

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

var refuseNoBase = &refusal{
	"the row is not in the sink, so its unchanged columns are unknown",
	copyAnewHint,
}

// baseWaitMax is how long one call waits for rows that may still become visible.
const baseWaitMax = 5 * time.Second

// checkBase makes sure that the rows which a partial update leaves values to are there:
// StarRocks would make a new row of the rest, with NULL for what was not sent. A row
// that is marked as deleted has its values. Of a guarded batch, and of optional rows, those
// without such a base stay out, and one that is marked as deleted is none.
//
// It may be done again after the load: what was there before is there after it.
func (a *applyRun) checkBase(ctx context.Context, g *group) error {
	var required, optional based
	for _, i := range g.rows {
		row := &a.batch.Rows[i]
		if row.Op == apply.OpDelete {
			continue
		}
		if _, err := a.layout.keyValues(row.Tuple); err != nil {
			return a.numbered(int(i), err)
		}
		of := &required
		if a.batch.Guarded || row.Optional {
			of = &optional
		}
		of.rows, of.keys = append(of.rows, i), append(of.keys, row.Tuple)
	}
	missing, err := a.missingBase(ctx, &required, "")
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		i := required.rows[missing[0]]
		return a.refused(int(i), columnRefusal{refuseNoBase, a.firstUnchanged(i)})
	}
	missing, err = a.missingBase(ctx, &optional, a.sink.notDeleted(a.layout))
	if err != nil || len(missing) == 0 {
		return err
	}
	out := make(map[int32]bool, len(missing))
	for _, n := range missing {
		out[optional.rows[n]] = true
	}
	kept := g.rows[:0]
	for _, i := range g.rows {
		if !out[i] {
			kept = append(kept, i)
		}
	}
	g.rows = kept
	a.result.Left += int64(len(missing))
	return nil
}

// based is partial rows of the batch and their keys.
type based struct {
	rows []int32
	keys []cdc.Tuple
}

// missingBase returns which of the rows have no base for which the extra condition is
// true, once none can turn up any more.
func (a *applyRun) missingBase(ctx context.Context, of *based, extra string) ([]int, error) {
	if len(of.rows) == 0 {
		return nil, nil
	}
	keys := of.keys
	began := time.Now()
	for try := 1; ; try++ {
		missing, err := a.askForBase(ctx, keys, extra)
		if err != nil {
			return nil, fmt.Errorf("look for rows of table %s: %w", a.layout.table, err)
		}
		if len(missing) == 0 || !a.sink.mayAppear(a.layout.table) {
			return missing, nil
		}
		late := fmt.Errorf("table %s does not show the row with key %s yet, which a load of before may hold", a.layout.table, a.layout.keyText(keys[missing[0]]))
		apply.Waiting(ctx, late)
		a.sink.config.Logger.DebugContext(ctx, "rows are not visible", slog.String("table", a.layout.table), slog.Int("rows", len(missing)), slog.Int("of", len(keys)))
		if time.Since(began) > baseWaitMax {
			return nil, late
		}
		if err := a.sink.retry.wait(ctx, try); err != nil {
			return nil, err
		}
	}
}

func (a *applyRun) askForBase(ctx context.Context, keys []cdc.Tuple, extra string) ([]int, error) {
	conn, err := a.sink.reading(ctx, a.layout.table)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return a.sink.missingRows(ctx, conn, a.layout, keys, extra)
}

// firstUnchanged returns the first column that the row does not carry.
func (a *applyRun) firstUnchanged(i int32) int {
	tuple := a.batch.Rows[i].Tuple
	for c := range a.layout.columns {
		v, rest, ok := tuple.Next()
		if ok && v.Kind == cdc.Unchanged {
			return c
		}
		tuple = rest
	}
	return -1
}
