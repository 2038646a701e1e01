package starrocks_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// asItsCaller applies a batch until it succeeds or a row is refused, under another ID when
// less was committed than was sent, and counts how often that was.
func asItsCaller(t *testing.T, sink *starrocks.Sink, batch *apply.TableBatch) (incomplete int, err error) {
	t.Helper()
	again := *batch
	for ; ; incomplete++ {
		if _, err = untilApplied(t.Context(), sink, &again); !errors.Is(err, apply.ErrIncomplete) {
			return incomplete, err
		}
		again.ID = fmt.Sprintf("%s-r%d", batch.ID, incomplete+1)
	}
}

// TestCommittedLoadIsNotBelievedWithoutItsCounts: StarRocks commits a load without its last
// row, and its answer does not arrive, or the process ends before it has acted on it.
func TestCommittedLoadIsNotBelievedWithoutItsCounts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		rows []apply.Row
		want string
	}{
		{"inserted", []apply.Row{sinktest.Update("1", "a2", "m"), sinktest.Insert("6", "f", "n6")}, "1,a2,m 2,b,n2 3,c,n3 6,f,n6"},
		{"the only one", []apply.Row{sinktest.Insert("6", "f", "n6")}, "1,a,n1 2,b,n2 3,c,n3 6,f,n6"},
		{"updated", []apply.Row{sinktest.Insert("6", "f", "n6"), sinktest.Update("1", "a2", "m")}, "1,a2,m 2,b,n2 3,c,n3 6,f,n6"},
		{"to what it was", []apply.Row{sinktest.Insert("6", "f", "n6"), sinktest.Update("1", "a", "n1")}, "1,a,n1 2,b,n2 3,c,n3 6,f,n6"},
		{"updated in part", []apply.Row{sinktest.Update("1", "a2", sinktest.Unchanged), sinktest.Update("2", "b2", sinktest.Unchanged)}, "1,a2,n1 2,b2,n2 3,c,n3"},
		{"deleted by its key", []apply.Row{sinktest.DeleteKey("1", nil, nil), sinktest.DeleteKey("3", nil, nil)}, "2,b,n2"},
		{"deleted as a whole", []apply.Row{sinktest.Insert("6", "f", "n6"), sinktest.Delete("3", "c", "n3")}, "1,a,n1 2,b,n2 6,f,n6"},
	} {
		for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
			for _, version := range []string{"3.1.5", "3.3.8", "3.5.0"} {
				for _, died := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%s/%s/%t", test.name, mode, version, died), func(t *testing.T) {
						t.Parallel()
						sink, server := setup(t, starrockstest.Options{Version: version}, func(c *starrocks.Config) { c.DeleteMode = mode })
						b := threeItems(t, sink)
						batch := b.Of(test.rows...)
						script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFilteredLost})
						if died {
							_, err := sink.Apply(t.Context(), batch)
							if !errors.Is(err, apply.ErrIncomplete) {
								t.Errorf("%v is not ErrIncomplete", err)
							}
							// This is not written down before the process ends.
							sink = process(t, server, b.Schema, func(c *starrocks.Config) { c.DeleteMode = mode })
						}
						incomplete, err := asItsCaller(t, sink, batch)
						if err != nil {
							t.Fatal(err)
						}
						if got := rowsOf(t, server, b.Schema); got != test.want || incomplete != 1 {
							t.Errorf("rows are %s after %d times, want %s after 1", got, incomplete, test.want)
						}
					})
				}
			}
		}
	}
}

func threeItems(t *testing.T, sink *starrocks.Sink) *sinktest.Batch {
	t.Helper()
	schema := items(t)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	b := sinktest.NewBatch(schema, "batch")
	if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "a", "n1"), sinktest.Insert("2", "b", "n2"), sinktest.Insert("3", "c", "n3"))); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRowThatMovedIsNotTakenForAnother: that another row of its load is there says nothing
// about one that StarRocks has left out. Where deletes mark rows the values that the update
// left out are there still; where they remove rows the batch stops.
func TestRowThatMovedIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	for _, kind := range []starrockstest.FaultKind{starrockstest.FaultFilteredRow, starrockstest.FaultFilteredLost} {
		for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
			for _, optional := range []bool{false, true} {
				if optional && mode == starrocks.DeleteHard {
					continue // See TestOptionalRowThatMovedMayBeNowhere.
				}
				t.Run(fmt.Sprintf("%s/%s/%t", kind, mode, optional), func(t *testing.T) {
					t.Parallel()
					sink, server := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.DeleteMode = mode })
					b := threeItems(t, sink)
					moved := func(from, to, name string) apply.Row {
						row := sinktest.Moved(sinktest.Tuple(from, nil, nil), to, name, sinktest.Unchanged)
						row.Optional = optional
						return row
					}
					batch := b.Of(moved("2", "12", "b2"), sinktest.DeleteKey("2", nil, nil), moved("3", "13", "c2"), sinktest.DeleteKey("3", nil, nil))
					script(t, server, starrockstest.Fault{Kind: kind, Label: "_0$"})
					incomplete, err := asItsCaller(t, sink, batch)
					if incomplete != 1 {
						t.Errorf("incomplete %d times, want once", incomplete)
					}
					if mode == starrocks.DeleteSoft {
						if got := rowsOf(t, server, b.Schema); got != "1,a,n1 12,b2,n2 13,c2,n3" || err != nil {
							t.Errorf("rows are %s, error %v", got, err)
						}
						return
					}
					wantRefusedMove(t, err)
				})
			}
		}
	}
}

func wantRefusedMove(t *testing.T, err error) {
	t.Helper()
	var row *apply.RowError
	if !errors.As(err, &row) || row.Key != "id=13" || row.Row != 3 || !strings.Contains(row.Reason, "does not have the row with the key before") {
		t.Errorf("error is %v, want one that refuses the row with the key 13", err)
	}
}

// TestOptionalRowThatMovedIsNotMadeOfWhatTheBatchHasMade: its old row was in the load that
// left it out.
func TestOptionalRowThatMovedIsNotMadeOfWhatTheBatchHasMade(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, nil)
	b := threeItems(t, sink)
	moved := func(from, to string) apply.Row {
		return sinktest.Optional(sinktest.Moved(sinktest.Tuple(from, nil, nil), to, "m", sinktest.Unchanged))
	}
	batch := b.Of(moved("2", "12"), sinktest.Delete("3", "c", "n3"), moved("3", "13"))
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFilteredLost})
	_, err := asItsCaller(t, sink, batch)
	wantRefusedMove(t, err)
}

// TestOptionalRowThatMovedMayBeNowhere: nothing tells whether it had an old row. One that is
// there as it was before the batch is what the load has left out.
func TestOptionalRowThatMovedMayBeNowhere(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.DeleteMode = starrocks.DeleteHard })
	b := threeItems(t, sink)
	moved := func(from, to string) apply.Row {
		return sinktest.Optional(sinktest.Moved(sinktest.Tuple(from, nil, nil), to, "m", sinktest.Unchanged))
	}
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultLostResponse})
	if incomplete, err := asItsCaller(t, sink, b.Of(moved("8", "9"), moved("2", "12"), sinktest.DeleteKey("2", nil, nil))); incomplete > 0 || err != nil {
		t.Errorf("incomplete %d times, error %v", incomplete, err)
	}
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFilteredLost})
	incomplete, err := asItsCaller(t, sink, b.Of(moved("8", "1")))
	if got := rowsOf(t, server, b.Schema); got != "3,c,n3 12,m,n2" || incomplete != 1 || err != nil {
		t.Errorf("rows are %s, incomplete %d times, error %v", got, incomplete, err)
	}
}

// TestGuardedLoadIsNotBelievedWithoutItsCounts: a row with a later version is as good as the
// one of the load, one with a version of before is not.
func TestGuardedLoadIsNotBelievedWithoutItsCounts(t *testing.T) {
	t.Parallel()
	for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
		for name, last := range map[string]apply.Row{"inserted": sinktest.Insert("6", "f", "n6"), "updated": sinktest.Update("2", "b2", "m")} {
			for _, kind := range []starrockstest.FaultKind{starrockstest.FaultFilteredLost, starrockstest.FaultLostResponse} {
				t.Run(fmt.Sprintf("%s/%s/%s", mode, name, kind), func(t *testing.T) {
					t.Parallel()
					sink, server := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.DeleteMode = mode })
					b := threeItems(t, sink)
					if _, err := sink.Apply(t.Context(), b.Of(at(0x9000, sinktest.Update("1", "later", "later")))); err != nil {
						t.Fatal(err)
					}
					batch := b.Of(at(0x8000, sinktest.Update("1", "a2", "m")), at(0x8001, last))
					batch.Guarded = true
					script(t, server, starrockstest.Fault{Kind: kind})
					incomplete, err := asItsCaller(t, sink, batch)
					if err != nil {
						t.Fatal(err)
					}
					want, times := map[string]string{"inserted": "1,later,later 2,b,n2 3,c,n3 6,f,n6", "updated": "1,later,later 2,b2,m 3,c,n3"}[name], 0
					if kind == starrockstest.FaultFilteredLost {
						times = 1
					}
					if got := rowsOf(t, server, b.Schema); got != want || incomplete != times {
						t.Errorf("rows are %s after %d times, want %s after %d", got, incomplete, want, times)
					}
				})
			}
		}
	}
}

// TestRowsOfACommittedLoadAreLookedForByTheirWholeKey, and in more than one question.
func TestRowsOfACommittedLoadAreLookedForByTheirWholeKey(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, nil)
	schema := sinktest.Schema(
		t, "lines", []string{"id", "line"}, sinktest.Column("id", cdc.TypeInt8, "bigint"), sinktest.Column("line", cdc.TypeText, "text"), sinktest.Column("note", cdc.TypeText, "text"),
	)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	var rows []apply.Row
	for n := range 250 {
		rows = append(rows, sinktest.Insert(fmt.Sprint(n/100), fmt.Sprintf("it's %d", n), "x"))
	}
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFilteredLost})
	incomplete, err := asItsCaller(t, sink, sinktest.NewBatch(schema, "batch").Of(rows...))
	if n := len((reader{server}).Rows(t, schema)); n != len(rows) || incomplete != 1 || err != nil {
		t.Errorf("%d rows of %d, incomplete %d times, error %v", n, len(rows), incomplete, err)
	}
}
