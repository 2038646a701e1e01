package sinktest

import (
	"errors"
	"testing"

	"github.com/dbmazz/dbmazz/apply"
)

// RunOptional runs the part of the suite that is about partial rows of tables that are
// being copied, whose rest the sink may not have yet.
func RunOptional(t *testing.T, open Open) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, e *env)
	}{
		{"RowWithoutItsRowIsLeftOut", testOptional},
		{"RowOfADeletedRowIsLeftOut", testOptionalDeleted},
		{"OtherRowsAreRefusedAsAlways", testOptionalAndRequired},
		{"MovedRowsFindTheirValues", testOptionalMoved},
		{"MovedRowWithoutItsOldRowLeavesNothingUnderItsKey", testOptionalMovedMissing},
		{"MovedRowIsNotMadeOfALaterOne", testOptionalMovedRefilled},
		{"MovedRowThatWasDeletedIsDeleted", testOptionalMovedDeleted},
		{"GuardedRowsAreLeftOutAsAlways", testOptionalGuarded},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sink, reader := open(t)
			test.run(t, &env{sink: sink, reader: reader})
		})
	}
}

// Optional makes a row optional.
func Optional(row apply.Row) apply.Row {
	row.Optional = true
	return row
}

// left applies a batch and checks how many rows of it did not reach the table. Applied
// again it changes nothing.
func (e *env) left(t *testing.T, batch *apply.TableBatch, left int64, want ...[]string) {
	t.Helper()
	for n := range 2 {
		result, err := e.sink.Apply(t.Context(), batch)
		if err != nil {
			t.Fatalf("apply: %v", err)
		}
		if n == 0 && result.Left != left {
			t.Errorf("%d rows are left out, want %d", result.Left, left)
		}
		e.want(t, batch.Schema, want...)
	}
}

func testOptional(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", "1.00", "n1", "{}")))
	e.left(t, b.Of(
		Optional(Update("1", "a2", "1.50", Unchanged, Unchanged)), Optional(Update("2", "b2", "2.50", Unchanged, Unchanged)),
		Optional(Update("3", "c2", "3.50", Unchanged, nil)), Insert("4", "d", nil, nil, nil),
	), 2, []string{"1", "a2", "1.50", "n1", "{}"}, []string{"4", "d", Null, Null, Null})
	e.apply(t, b.Of(Insert("2", "b2", "2.50", "n2", "{}")))
	e.left(t, b.Of(Optional(Update("2", "b3", "2.50", Unchanged, Unchanged)), Optional(Update("3", "c3", "3.50", Unchanged, Unchanged))), 1,
		[]string{"1", "a2", "1.50", "n1", "{}"}, []string{"2", "b3", "2.50", "n2", "{}"}, []string{"4", "d", Null, Null, Null})
}

func testOptionalDeleted(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", "1.00", "of another life", nil), Insert("2", "b", nil, "n", nil)))
	e.apply(t, b.Of(DeleteKey("1", nil, nil, nil, nil)))
	e.left(t, b.Of(Optional(Update("1", "a2", nil, Unchanged, nil)), Optional(Update("2", "b2", nil, Unchanged, nil))), 1, []string{"2", "b2", Null, "n", Null})
}

func testOptionalAndRequired(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	for _, batch := range []*apply.TableBatch{
		b.Of(Optional(Update("1", "a", nil, Unchanged, nil)), Update("2", "b", nil, Unchanged, nil)),
		b.Of(
			Optional(Moved(Tuple("1", nil, nil, nil, nil), "11", "a", nil, Unchanged, nil)), Moved(Tuple("2", nil, nil, nil, nil), "12", "b", nil, Unchanged, nil),
		),
	} {
		_, err := e.sink.Apply(t.Context(), batch)
		if refused, ok := errors.AsType[*apply.RowError](err); !ok || refused.Row != 2 {
			t.Errorf("got error %v, want a *apply.RowError for row 2", err)
		}
		e.want(t, s)
	}
}

func testOptionalMoved(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", "1.00", "n1", `{"k": 1}`), Insert("2", "b", nil, "n2", nil)))
	e.left(t, b.Of(
		Optional(Moved(Tuple("1", nil, nil, nil, nil), "11", "a2", "1.00", Unchanged, Unchanged)), DeleteKey("1", nil, nil, nil, nil),
		Moved(Tuple("2", nil, nil, nil, nil), "12", "b2", nil, Unchanged, nil), DeleteKey("2", nil, nil, nil, nil),
	), 0, []string{"11", "a2", "1.00", "n1", `{"k": 1}`}, []string{"12", "b2", Null, "n2", Null})
}

func testOptionalMovedMissing(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	// 11 was deleted before the row got its key, in the same batch.
	e.apply(t, b.Of(Insert("11", "of another life", "1.00", "n", "{}"), Insert("2", "b", nil, "n2", nil), Insert("3", "c", nil, "n3", nil)))
	e.apply(t, b.Of(DeleteKey("3", nil, nil, nil, nil)))
	e.left(t, b.Of(
		Optional(Moved(Tuple("1", nil, nil, nil, nil), "11", "a", "1.00", Unchanged, Unchanged)), DeleteKey("1", nil, nil, nil, nil),
		Optional(Moved(Tuple("2", nil, nil, nil, nil), "12", "b2", nil, Unchanged, nil)), DeleteKey("2", nil, nil, nil, nil),
		Optional(Moved(Tuple("3", nil, nil, nil, nil), "13", "c2", nil, Unchanged, nil)),
	), 2, []string{"12", "b2", Null, "n2", Null})
	e.left(t, b.Of(Optional(Update("11", "a2", nil, Unchanged, nil))), 1, []string{"12", "b2", Null, "n2", Null})
	e.apply(t, b.Of(Insert("11", "a2", "1.00", "n1", "{}")))
	e.want(t, s, []string{"11", "a2", "1.00", "n1", "{}"}, []string{"12", "b2", Null, "n2", Null})
}

// testOptionalMovedRefilled has another row come under the key that the row had, which is
// not the row that has its values.
func testOptionalMovedRefilled(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.left(t, b.Of(
		Optional(Moved(Tuple("1", nil, nil, nil, nil), "11", "a", nil, Unchanged, nil)), Insert("1", "another", nil, "not its note", nil),
	), 1, []string{"1", "another", Null, "not its note", Null})
}

func testOptionalMovedDeleted(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("11", "of another life", nil, nil, nil), Insert("2", "b", nil, "n", nil), Insert("12", "of another life", nil, nil, nil)))
	deleted := func(row apply.Row) apply.Row {
		row.Op = apply.OpDelete
		return Optional(row)
	}
	batch := b.Of(
		deleted(Moved(Tuple("1", nil, nil, nil, nil), "11", "a", nil, Unchanged, nil)), DeleteKey("1", nil, nil, nil, nil),
		deleted(Moved(Tuple("2", nil, nil, nil, nil), "12", "b2", nil, Unchanged, nil)), DeleteKey("2", nil, nil, nil, nil),
		deleted(Update("3", "c", nil, Unchanged, nil)),
	)
	for range 2 {
		e.apply(t, batch)
		e.want(t, s)
	}
}

func testOptionalGuarded(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(at(0x5000, Insert("1", "later", nil, "n", nil)), at(0x5000, Insert("13", "later", nil, "n", nil)), at(0x3000, Insert("4", "d", nil, "n4", nil)), at(0x3000, Insert("15", "e", nil, "n15", nil))))
	e.applyGuarded(t, b.guarded(
		at(0x4000, Optional(Update("1", "a", nil, Unchanged, nil))), at(0x4000, Optional(Update("2", "b", nil, Unchanged, nil))),
		at(0x4000, Optional(Moved(Tuple("3", nil, nil, nil, nil), "13", "c", nil, Unchanged, nil))),
		at(0x4000, Optional(Update("4", "d2", nil, Unchanged, nil))),
		at(0x4000, Optional(Moved(Tuple("5", nil, nil, nil, nil), "15", "e2", nil, Unchanged, nil))),
	))
	e.want(t, s, []string{"1", "later", Null, "n", Null}, []string{"13", "later", Null, "n", Null}, []string{"4", "d2", Null, "n4", Null}, []string{"15", "e", Null, "n15", Null})
}
