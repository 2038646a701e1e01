package starrocks_test

import (
	"testing"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
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

// TestOptionalRowThatCannotBeReadBackLeavesNothingUnderItsKey: the whole row comes later, so
// there is nothing to refuse, neither what the sink cannot show nor what it cannot store.
func TestOptionalRowThatCannotBeReadBackLeavesNothingUnderItsKey(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, nil)
	schema := sinktest.Schema(
		t, "items", []string{"id"}, sinktest.Column("id", cdc.TypeInt8, "bigint"), sinktest.Numeric("price", 3, 0), sinktest.Column("ratio", cdc.TypeFloat8, "double precision"),
	)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	b := sinktest.NewBatch(schema, "unreadable")
	if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "1", "0.1"), sinktest.Insert("11", "1", "0.1"))); err != nil {
		t.Fatal(err)
	}
	result, err := sink.Apply(t.Context(), b.Of(
		sinktest.Optional(sinktest.Moved(sinktest.Tuple("1", nil, nil), "11", "2", sinktest.Unchanged)), sinktest.DeleteKey("1", nil, nil),
		sinktest.Optional(sinktest.Moved(sinktest.Tuple("2", nil, nil), "12", "1234567", sinktest.Unchanged)),
	))
	if err != nil || result.Left != 2 {
		t.Fatalf("%d rows left, error %v", result.Left, err)
	}
	if got := rowsOf(t, server, schema); got != "" {
		t.Errorf("rows are %s", got)
	}
}

func TestOptionalRowWhoseOldKeyCannotBeStoredIsNotRefused(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, nil)
	schema := sinktest.Schema(t, "items", []string{"at"}, sinktest.Column("at", cdc.TypeTimestampTZ, "timestamp with time zone"), sinktest.Column("note", cdc.TypeText, "text"))
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	b := sinktest.NewBatch(schema, "key")
	result, err := sink.Apply(t.Context(), b.Of(sinktest.Optional(sinktest.Moved(sinktest.Tuple("10000-01-01 00:00:00+00", nil), "2024-01-01 00:00:00+00", sinktest.Unchanged))))
	if err != nil || result.Left != 1 {
		t.Fatalf("%d rows left, error %v", result.Left, err)
	}
	if got := rowsOf(t, server, schema); got != "" {
		t.Errorf("rows are %s", got)
	}
}

// TestLabelsDoNotDependOnWhetherOptionalRowsAreThere: a load would pass for another one that
// was committed under its label before a crash.
func TestLabelsDoNotDependOnWhetherOptionalRowsAreThere(t *testing.T) {
	t.Parallel()
	var labels []string
	for _, there := range []bool{false, true} {
		sink, server := setup(t, starrockstest.Options{}, nil)
		schema := items(t)
		if err := sink.Prepare(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		b := sinktest.NewBatch(schema, "labels")
		rows := []apply.Row{sinktest.Insert("2", "b", "n2")}
		if there {
			rows = append(rows, sinktest.Insert("1", "a", "n1"))
		}
		if _, err := sink.Apply(t.Context(), b.Of(rows...)); err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Apply(t.Context(), b.Of(
			sinktest.Optional(sinktest.Update("1", "a2", sinktest.Unchanged)), sinktest.Update("2", sinktest.Unchanged, "n22"),
		)); err != nil {
			t.Fatal(err)
		}
		loads := server.Loads()
		labels = append(labels, loads[len(loads)-1].Label)
	}
	if labels[0] != labels[1] {
		t.Errorf("the second partial update has the label %s without the row of the first, and %s with it", labels[0], labels[1])
	}
}
