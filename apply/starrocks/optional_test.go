package starrocks_test

import (
	"testing"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// TestOptionalRowsThatMovedMayBeSentAgainUnderOtherLabels does what follows a refused row
// of the batch: all that was committed comes again, in parts.
func TestOptionalRowsThatMovedMayBeSentAgainUnderOtherLabels(t *testing.T) {
	t.Parallel()
	for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			sink, server := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.DeleteMode = mode })
			schema := items(t)
			if err := sink.Prepare(t.Context(), schema); err != nil {
				t.Fatal(err)
			}
			b := sinktest.NewBatch(schema, "optional")
			if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("2", "b", "n2"), sinktest.Insert("11", "of another life", nil))); err != nil {
				t.Fatal(err)
			}
			moved := func(from, to, name string) apply.Row {
				return sinktest.Optional(sinktest.Moved(sinktest.Tuple(from, nil, nil), to, name, sinktest.Unchanged))
			}
			// 1 is not there, and another row gets its key; 2 is.
			for _, rows := range [][]apply.Row{
				{moved("1", "11", "a"), moved("2", "12", "b2"), sinktest.Insert("1", "another", "n1"), sinktest.DeleteKey("2", nil, nil)},
				{moved("3", "13", "c"), sinktest.Insert("3", "another", "n3")},
			} {
				batch := b.Of(rows...)
				for _, suffix := range []string{"", "-i0-1", "-i1-2"} {
					again := *batch
					again.ID += suffix
					if _, err := sink.Apply(t.Context(), &again); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := rowsOf(t, server, schema); got != "1,another,n1 3,another,n3 12,b2,n2" {
				t.Errorf("rows are %s", got)
			}
		})
	}
}
