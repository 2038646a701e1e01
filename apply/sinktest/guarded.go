package sinktest

import (
	"context"
	"errors"
	"testing"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// RunGuarded runs the part of the suite that is about batches that may come late, and
// about rows of which a part is missing.
func RunGuarded(t *testing.T, open Open) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, e *env)
	}{
		{"PartialRowWithoutItsRowIsRefused", testNoBase},
		{"PartialRowOfADeletedAndAnOlderRow", testBaseAppears},
		{"LaterRowsStay", testGuardedLater},
		{"OlderRowsAreReplaced", testGuardedOlder},
		{"RowsOfTheSameVersionAreReplaced", testGuardedEqual},
		{"DeletesSpareLaterRows", testGuardedDelete},
		{"PartialRowsNeverMakeARow", testGuardedPartial},
		{"MovedRowsFindTheirValues", testGuardedMoved},
		{"MovedRowsMayExchangeKeys", testGuardedExchange},
		{"MovedRowsThatComeLateStayOut", testGuardedMovedLate},
		{"MovedRowsTakeNothingFromLaterRowsWithTheirKey", testGuardedMovedReused},
		{"TruncateSparesLaterRows", testGuardedTruncate},
		{"AllHistoryAgainChangesNothing", testGuardedHistory},
		{"ProcessThatMayNotWriteWritesNothing", testFence},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sink, reader := open(t)
			test.run(t, &env{sink: sink, reader: reader})
		})
	}
}

// cancelled calls Apply with a context that is done.
func (e *env) cancelled(t *testing.T, batch *apply.TableBatch) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.sink.Apply(ctx, batch); err == nil {
		t.Fatal("apply with a cancelled context succeeds")
	}
}

// at gives a row a commit LSN; one that moved did so in the same transaction.
func at(commit cdc.LSN, row apply.Row) apply.Row {
	row.Position = cdc.Position{Commit: commit, Ordinal: 1}
	if row.MovedFrom != nil {
		row.MovedBefore = commit
	}
	return row
}

// guarded makes a guarded batch.
func (b *Batch) guarded(rows ...apply.Row) *apply.TableBatch {
	batch := b.Of(rows...)
	batch.Guarded = true
	return batch
}

// applyGuarded applies a guarded batch twice, which must not differ from once.
func (e *env) applyGuarded(t *testing.T, batch *apply.TableBatch) {
	t.Helper()
	for range 2 {
		e.apply(t, batch)
	}
	again := *batch
	again.ID += "-again"
	e.apply(t, &again)
}

func testNoBase(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", "1.00", "n", "{}")))
	batch := b.Of(Insert("2", "b", nil, nil, nil), Update("1", "a2", "1.00", Unchanged, nil), Update("3", "c", "3.00", Unchanged, nil))
	_, err := e.sink.Apply(t.Context(), batch)
	refused, ok := errors.AsType[*apply.RowError](err)
	if !ok || refused.Row != 3 || refused.Key != "id=3" || refused.Column != "note" {
		t.Fatalf("got error %v (%+v), want a *apply.RowError for row 3, key id=3, column note", err, refused)
	}
	for _, row := range e.reader.Rows(t, s) {
		if row[0] == "3" {
			t.Fatalf("the refused row is there: %v", row)
		}
	}
	// The rest goes on in parts, and the refused row after its row was copied.
	rest := *batch
	rest.ID, rest.Rows = batch.ID+"-i1-2", batch.Rows[:2]
	e.apply(t, &rest)
	e.apply(t, b.Of(Insert("3", "c0", "0.00", "note", nil)))
	last := *batch
	last.ID, last.Rows = batch.ID+"-i3-3", batch.Rows[2:]
	e.apply(t, &last)
	e.want(t, s, []string{"1", "a2", "1.00", "n", Null}, []string{"2", "b", Null, Null, Null}, []string{"3", "c", "3.00", "note", Null})
}

func testBaseAppears(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", "1.00", "n", nil)))
	e.apply(t, b.Of(DeleteKey("1", nil, nil, nil, nil)))
	// Inserted again and updated in one batch, which compaction makes one row of.
	e.apply(t, b.Of(Update("1", "a2", nil, "n2", nil)))
	e.apply(t, b.Of(Update("1", "a3", nil, Unchanged, nil)))
	e.want(t, s, []string{"1", "a3", Null, "n2", Null})
}

func testGuardedLater(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(at(0x5000, Insert("1", "live", "1.00", "n", "{}")), at(0x5000, Insert("2", "live", nil, nil, nil))))
	e.applyGuarded(t, b.guarded(at(0x4000, Insert("1", "old", "9.00", "x", nil)), at(0x4fff, Update("2", "old", Unchanged, "x", nil))))
	e.want(t, s, []string{"1", "live", "1.00", "n", "{}"}, []string{"2", "live", Null, Null, Null})
}

func testGuardedOlder(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(at(0x3000, Insert("1", "older", "1.00", "n", "{}")), at(0x3000, Insert("2", "older", "2.00", "keep", "{}"))))
	e.applyGuarded(t, b.guarded(at(0x4000, Update("1", "new", nil, nil, nil)), at(0x4000, Update("2", "new", Unchanged, Unchanged, nil)), at(0x4000, Insert("3", "absent", nil, nil, nil))))
	e.want(t, s, []string{"1", "new", Null, Null, Null}, []string{"2", "new", "2.00", "keep", Null}, []string{"3", "absent", Null, Null, Null})
}

func testGuardedEqual(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	// Changes of one transaction share its version, and come in order.
	e.apply(t, b.Of(at(0x4000, Insert("1", "first", "1.00", "n", nil))))
	e.applyGuarded(t, b.guarded(at(0x4000, Update("1", "second", Unchanged, "n2", nil))))
	e.want(t, s, []string{"1", "second", "1.00", "n2", Null})
	e.applyGuarded(t, b.guarded(at(0x4000, DeleteKey("1", nil, nil, nil, nil))))
	e.want(t, s)
}

func testGuardedDelete(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(at(0x3000, Insert("1", "a", nil, nil, nil)), at(0x5000, Insert("2", "b", "2.00", "n", "{}")), at(0x3000, Insert("3", "c", nil, nil, nil)), at(0x5000, Insert("4", "d", nil, nil, nil))))
	e.applyGuarded(t, b.guarded(
		at(0x4000, DeleteKey("1", nil, nil, nil, nil)), at(0x4000, DeleteKey("2", nil, nil, nil, nil)),
		at(0x4000, Delete("3", "c", nil, nil, nil)), at(0x4000, Delete("4", "d", nil, nil, nil)), at(0x4000, DeleteKey("9", nil, nil, nil, nil)),
	))
	e.want(t, s, []string{"2", "b", "2.00", "n", "{}"}, []string{"4", "d", Null, Null, Null})
}

func testGuardedPartial(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(at(0x3000, Insert("1", "a", "1.00", "n", nil)), at(0x3000, Insert("2", "b", "2.00", "n", nil))))
	e.apply(t, b.Of(at(0x5000, DeleteKey("2", nil, nil, nil, nil))))
	e.applyGuarded(t, b.guarded(
		at(0x4000, Update("1", "a2", "1.50", Unchanged, nil)), at(0x4000, Update("2", "b2", "2.50", Unchanged, nil)), at(0x4000, Update("3", "c2", nil, Unchanged, nil)),
	))
	e.applyGuarded(t, b.guarded(at(0x6000, Update("2", "b3", "2.50", Unchanged, nil)), at(0x6000, Update("3", "c3", nil, Unchanged, nil))))
	e.want(t, s, []string{"1", "a2", "1.50", "n", Null})
}

func testGuardedMoved(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	moved := func(from string, values ...any) apply.Row { return Moved(Tuple(from, nil, nil, nil, nil), values...) }
	// 1 has not moved, 2 has moved to 22 before and a later row has its key, 3 came in
	// the transaction that moves it, which has not been through since.
	third := at(0x4000, moved("3", "33", "c", "3.00", Unchanged, Unchanged))
	third.MovedBefore++
	e.apply(t, b.Of(at(0x4000, Insert("3", "c", "3.00", "note 3", nil)), at(0x3000, Insert("1", "a", "1.00", "note 1", `{"k": 1}`)), at(0x5000, Insert("2", "later", nil, "other", nil)), at(0x4000, Insert("22", "b2", "2.00", "note 2", nil))))
	e.applyGuarded(t, b.guarded(
		at(0x4000, DeleteKey("1", nil, nil, nil, nil)), at(0x4000, moved("1", "11", "a2", "1.00", Unchanged, Unchanged)),
		at(0x4000, DeleteKey("2", nil, nil, nil, nil)), at(0x4000, moved("2", "22", "b2", "2.00", Unchanged, Unchanged)),
		at(0x4000, DeleteKey("3", nil, nil, nil, nil)), third,
	))
	e.want(
		t, s, []string{"11", "a2", "1.00", "note 1", `{"k": 1}`}, []string{"2", "later", Null, "other", Null},
		[]string{"22", "b2", "2.00", "note 2", Null}, []string{"33", "c", "3.00", "note 3", Null},
	)
}

func testGuardedExchange(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(at(0x3000, Insert("1", "a", nil, "note a", nil)), at(0x3000, Insert("2", "b", nil, "note b", nil)), at(0x3000, Insert("3", "c", nil, "note c", nil))))
	e.applyGuarded(t, b.guarded(
		at(0x4000, Moved(Tuple("1", nil, nil, nil, nil), "2", "a", nil, Unchanged, nil)),
		at(0x4000, Moved(Tuple("2", nil, nil, nil, nil), "3", "b", nil, Unchanged, nil)),
		at(0x4000, Moved(Tuple("3", nil, nil, nil, nil), "1", "c", nil, Unchanged, nil)),
	))
	e.want(t, s, []string{"1", "c", Null, "note c", Null}, []string{"2", "a", Null, "note a", Null}, []string{"3", "b", Null, "note b", Null})
}

func testGuardedMovedLate(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	moved := func(from string, values ...any) apply.Row { return Moved(Tuple(from, nil, nil, nil, nil), values...) }
	// 11 has a later state, 21 was deleted later, of 3 nobody knows anything.
	e.apply(t, b.Of(at(0x5000, Insert("11", "later", nil, "n", nil)), at(0x4000, Insert("21", "b", nil, "n", nil))))
	e.apply(t, b.Of(at(0x5000, DeleteKey("21", nil, nil, nil, nil))))
	e.applyGuarded(t, b.guarded(
		at(0x4000, moved("1", "11", "a", nil, Unchanged, nil)), at(0x4000, moved("2", "21", "b", nil, Unchanged, nil)),
		at(0x4000, moved("3", "31", "c", nil, Unchanged, nil)),
	))
	e.want(t, s, []string{"11", "later", Null, "n", Null})
}

// testGuardedMovedReused moves a row away from a key that another row got in the same
// transaction, and changes it once more in a later one.
func testGuardedMovedReused(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	moved := func(from string, values ...any) apply.Row {
		row := at(0x5000, Moved(Tuple(from, nil, nil, nil, nil), values...))
		row.MovedBefore = 0x4000
		return row
	}
	e.apply(t, b.Of(at(0x3000, Insert("4", "d", nil, "n", nil))))
	e.apply(t, b.Of(
		at(0x4000, Insert("1", "another", nil, "other", nil)), at(0x5000, Insert("11", "a", nil, "n", nil)),
		at(0x4000, Insert("2", "another", nil, "other", nil)), at(0x5000, DeleteKey("3", nil, nil, nil, nil)),
		at(0x4000, DeleteKey("4", nil, nil, nil, nil)),
	))
	e.applyGuarded(t, b.guarded(
		at(0x4000, Insert("1", "another", nil, "other", nil)), moved("1", "11", "a", nil, Unchanged, nil),
		at(0x4000, Insert("2", "another", nil, "other", nil)), moved("2", "21", "b", nil, Unchanged, nil),
		at(0x5000, DeleteKey("3", nil, nil, nil, nil)), moved("3", "31", "c", nil, Unchanged, nil),
		at(0x4000, DeleteKey("4", nil, nil, nil, nil)), moved("4", "41", "d", nil, Unchanged, nil),
	))
	e.want(
		t, s, []string{"1", "another", Null, "other", Null}, []string{"11", "a", Null, "n", Null},
		[]string{"2", "another", Null, "other", Null},
	)
}

func testGuardedTruncate(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(at(0x3000, Insert("1", "a", nil, nil, nil)), at(0x3000, Insert("2", "b", nil, nil, nil)), at(0x5000, Insert("3", "later", "3.00", nil, nil))))
	truncate := b.Truncate()
	truncate.Position, truncate.Guarded = cdc.Position{Commit: 0x4000, Ordinal: 1}, true
	for range 2 {
		if err := e.sink.Truncate(t.Context(), truncate); err != nil {
			t.Fatal(err)
		}
		e.want(t, s, []string{"3", "later", "3.00", Null, Null})
	}
}

// testGuardedHistory applies a history again that has every kind of change, over the
// state that it has led to.
func testGuardedHistory(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	history := [][]apply.Row{
		{at(0x1000, Insert("1", "a", "1.00", "n1", nil)), at(0x1000, Insert("2", "b", "2.00", "n2", nil)), at(0x1000, Insert("3", "c", nil, "n3", nil))},
		{at(0x2000, Update("1", "a2", "1.00", Unchanged, nil)), at(0x2000, DeleteKey("2", nil, nil, nil, nil))},
		{at(0x3000, Moved(Tuple("3", nil, nil, nil, nil), "33", "c2", nil, Unchanged, nil)), at(0x3000, DeleteKey("3", nil, nil, nil, nil))},
		{at(0x4000, Insert("2", "b again", nil, nil, nil)), at(0x4000, Update("33", "c3", "3.00", Unchanged, nil))},
		{at(0x5000, DeleteKey("1", nil, nil, nil, nil)), at(0x5000, Insert("4", "d", nil, nil, nil))},
	}
	want := [][]string{{"2", "b again", Null, Null, Null}, {"33", "c3", "3.00", "n3", Null}, {"4", "d", Null, Null, Null}}
	for _, rows := range history {
		e.apply(t, b.Of(rows...))
	}
	e.want(t, s, want...)
	for from := range history {
		for _, rows := range history[from:] {
			e.apply(t, b.guarded(rows...))
		}
		e.want(t, s, want...)
	}
}

// testFence calls everything as a process would that was stopped, while another one took
// over.
func testFence(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(at(0x1000, Insert("1", "a", "1.00", "n", nil)), at(0x1000, Insert("2", "b", nil, "n", nil))))
	lost := errors.New("the lease is lost")
	ctx := apply.WithFence(t.Context(), func() error { return lost })
	refused := func(what string, err error) {
		if !errors.Is(err, lost) {
			t.Errorf("%s: got error %v, want that of the fence", what, err)
		}
	}
	other := Schema(t, "other", []string{"id"}, Column("id", cdc.TypeInt8, "bigint"))
	refused("prepare", e.sink.Prepare(ctx, other))
	for what, row := range map[string]apply.Row{
		"insert": Insert("3", "c", nil, nil, nil), "partial": Update("1", "a2", nil, Unchanged, nil), "by key": DeleteKey("1", nil, nil, nil, nil),
		"delete": Delete("1", "a", "1.00", "n", nil), "moved": Moved(Tuple("1", nil, nil, nil, nil), "11", "a", nil, Unchanged, nil),
	} {
		for _, guarded := range []bool{false, true} {
			batch := b.Of(at(0x2000, row))
			batch.Guarded = guarded
			_, err := e.sink.Apply(ctx, batch)
			refused(what, err)
		}
	}
	for _, guarded := range []bool{false, true} {
		truncate := b.Truncate()
		truncate.Guarded = guarded
		refused("truncate", e.sink.Truncate(ctx, truncate))
	}
	e.want(t, s, []string{"1", "a", "1.00", "n", Null}, []string{"2", "b", Null, "n", Null})
}
