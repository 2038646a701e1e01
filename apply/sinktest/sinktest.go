// Package sinktest is the suite that every sink must pass: what [apply.Sink] promises,
// as tests.
package sinktest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Reader reads back what a sink holds.
type Reader interface {
	// Rows returns the rows of the schema's table that are not deleted, in any
	// order. Each has the columns of the schema, in its order, as the text that
	// PostgreSQL prints; NULL is Null. The suite uses bigint, text, numeric and jsonb.
	Rows(t *testing.T, schema *cdc.Schema) [][]string
}

// Null is what a Reader returns for NULL.
const Null = "\x00NULL"

// Open starts a test: it returns an empty sink, which it closes when the test ends.
type Open func(t *testing.T) (apply.Sink, Reader)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, e *env)
	}{
		{"CheckSucceeds", testCheck},
		{"PrepareIsIdempotent", testPrepareTwice},
		{"ValuesAreExact", testValues},
		{"ApplyAgainChangesNothing", testApplyAgain},
		{"LaterBatchesReplaceRows", testReplace},
		{"PartialRowsKeepWhatTheyDoNotCarry", testPartial},
		{"DeletesRemoveRows", testDelete},
		{"DeletesMayCarryAPartOfTheRow", testPartialDelete},
		{"DeletedKeysCanComeBack", testComeBack},
		{"MovedRowsKeepWhatTheyDoNotCarry", testMoved},
		{"MovedRowsMayExchangeKeys", testExchange},
		{"MovedRowWithoutItsOldRowIsRefused", testMovedMissing},
		{"TruncateEmptiesAndMayBeRepeated", testTruncate},
		{"AddedColumnsAppear", testAddColumn},
		{"CompositeKeysAndOddNamesWork", testNames},
		{"TablesAreIndependent", testConcurrent},
		{"LargeBatchesArriveWhole", testLarge},
		{"CancelledApplyCanBeRepeated", testCancelled},
		{"EmptyBatchIsNoError", testEmpty},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sink, reader := open(t)
			test.run(t, &env{sink: sink, reader: reader})
		})
	}
}

type env struct {
	sink   apply.Sink
	reader Reader
}

// people is the table of most tests.
func people(t *testing.T) *cdc.Schema {
	t.Helper()
	return Schema(
		t, "people", []string{"id"}, Column("id", cdc.TypeInt8, "bigint"), Column("name", cdc.TypeText, "text"),
		Numeric("amount", 12, 2), Column("note", cdc.TypeText, "text"), Column("doc", cdc.TypeJSONB, "jsonb"),
	)
}

func (e *env) prepare(t *testing.T, schema *cdc.Schema) *Batch {
	t.Helper()
	if err := e.sink.Prepare(t.Context(), schema); err != nil {
		t.Fatalf("prepare %s: %v", schema.Name(), err)
	}
	return NewBatch(schema, strings.ReplaceAll(t.Name(), "/", "-")[max(0, len(t.Name())-60):])
}

func (e *env) apply(t *testing.T, batch *apply.TableBatch) {
	t.Helper()
	result, err := e.sink.Apply(t.Context(), batch)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	if result.Rows < 0 || result.Rows > int64(len(batch.Rows)) {
		t.Errorf("result counts %d rows of %d", result.Rows, len(batch.Rows))
	}
}

// want compares the rows that are there, sorted by their first column.
func (e *env) want(t *testing.T, schema *cdc.Schema, rows ...[]string) {
	t.Helper()
	got := e.reader.Rows(t, schema)
	byText := map[string]int{}
	for _, row := range rows {
		byText[strings.Join(row, "|")]++
	}
	for _, row := range got {
		byText[strings.Join(row, "|")]--
	}
	for _, n := range byText {
		if n != 0 {
			t.Fatalf("rows differ (-want +got):\n%s", cmp.Diff(rows, got))
		}
	}
}

func testCheck(t *testing.T, e *env) {
	if err := e.sink.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func testPrepareTwice(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", "1.00", "n", "{}")))
	e.prepare(t, s)
	e.prepare(t, people(t))
	e.want(t, s, []string{"1", "a", "1.00", "n", "{}"})
}

func testValues(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	texts := []string{
		"", " ", "NULL", `\N`, "null", `a"b'c`, "line\nbreak\r\ttab", `back\slash\\`, "\x01\x1f\x7f", "Grüße, 世界 🎉",
		"[1]", `{"a":1}`, "`", "--", "; DROP TABLE people", "a,b", strings.Repeat("x", 100_000), "\u2028", "trailing ",
	}
	var rows []apply.Row
	var want [][]string
	for i, text := range texts {
		id := strconv.Itoa(i)
		rows = append(rows, Insert(id, text, "-0.01", nil, `{"a": [1, 2.5, "x", null, true]}`))
		want = append(want, []string{id, text, "-0.01", Null, `{"a": [1, 2.5, "x", null, true]}`})
	}
	rows = append(rows, Insert("-9223372036854775808", nil, "9999999999.99", "", nil))
	want = append(want, []string{"-9223372036854775808", Null, "9999999999.99", "", Null})
	e.apply(t, b.Of(rows...))
	e.want(t, s, want...)
}

func testApplyAgain(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", "1.00", "keep", `{"k": 1}`), Insert("2", "b", "2.00", "old", "{}"), Insert("3", "c", nil, nil, nil)))
	batch := b.Of(
		Update("1", "a2", "1.50", Unchanged, Unchanged), DeleteKey("2", nil, nil, nil, nil),
		Moved(Tuple("3", nil, nil, nil, nil), "4", "c", nil, Unchanged, nil), DeleteKey("3", nil, nil, nil, nil), Insert("5", "e", nil, nil, nil),
	)
	for range 3 {
		e.apply(t, batch)
		e.want(t, s, []string{"1", "a2", "1.50", "keep", `{"k": 1}`}, []string{"4", "c", Null, Null, Null}, []string{"5", "e", Null, Null, Null})
	}
}

func testReplace(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	for i := range 5 {
		e.apply(t, b.Of(Update("1", strconv.Itoa(i), "1.00", nil, nil)))
	}
	e.want(t, s, []string{"1", "4", "1.00", Null, Null})
}

func testPartial(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(
		Insert("1", "a", "1.00", "n1", `{"k": 1}`), Insert("2", "b", "2.00", "n2", `{"k": 2}`),
		Insert("3", "c", "3.00", "n3", `{"k": 3}`), Insert("4", "d", "4.00", "n4", `{"k": 4}`),
	))
	// Four sets of columns in one batch, among them NULL beside Unchanged.
	e.apply(t, b.Of(
		Update("1", "a2", nil, Unchanged, Unchanged), Update("2", "b2", "2.50", Unchanged, nil),
		Update("3", "c2", "3.50", nil, Unchanged), Update("4", "d2", "4.50", "n42", `{"k": 42}`), Insert("5", "e", nil, nil, nil),
	))
	e.want(
		t, s, []string{"1", "a2", Null, "n1", `{"k": 1}`}, []string{"2", "b2", "2.50", "n2", Null},
		[]string{"3", "c2", "3.50", Null, `{"k": 3}`}, []string{"4", "d2", "4.50", "n42", `{"k": 42}`},
		[]string{"5", "e", Null, Null, Null},
	)
}

func testDelete(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", nil, nil, nil), Insert("2", "b", nil, nil, nil), Insert("3", "c", nil, nil, nil)))
	// The last one is not in the sink: inserted and deleted in one batch.
	e.apply(t, b.Of(DeleteKey("1", nil, nil, nil, nil), Delete("2", "b", nil, nil, nil), DeleteKey("9", nil, nil, nil, nil)))
	e.want(t, s, []string{"3", "c", Null, Null, Null})
}

func testPartialDelete(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", "1.00", "n1", "{}"), Insert("2", "b", nil, nil, nil)))
	gone := Update("1", "a2", "1.50", Unchanged, Unchanged)
	gone.Op = apply.OpDelete
	e.apply(t, b.Of(gone))
	e.want(t, s, []string{"2", "b", Null, Null, Null})
	// A row that moved and was deleted in one batch, with a part of its values.
	moved := Moved(Tuple("2", nil, nil, nil, nil), "3", "b", nil, Unchanged, nil)
	moved.Op = apply.OpDelete
	e.apply(t, b.Of(DeleteKey("2", nil, nil, nil, nil), moved))
	e.want(t, s)
}

func testComeBack(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", "1.00", "old", "{}")))
	e.apply(t, b.Of(DeleteKey("1", nil, nil, nil, nil)))
	e.want(t, s)
	e.apply(t, b.Of(Insert("1", "new", nil, nil, nil)))
	e.want(t, s, []string{"1", "new", Null, Null, Null})
}

func testMoved(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	note, doc := strings.Repeat("long 'text' \\ \n", 1000), `{"a": [0.1, 1e30, "x\"y"]}`
	e.apply(t, b.Of(Insert("1", "a", "1.00", note, doc), Insert("2", "b", "2.00", nil, nil)))
	batch := b.Of(
		DeleteKey("1", nil, nil, nil, nil), Moved(Tuple("1", nil, nil, nil, nil), "11", "a2", "1.50", Unchanged, Unchanged),
		Delete("2", "b", "2.00", nil, nil), Moved(Tuple("2", nil, nil, nil, nil), "1", "b2", "2.00", Unchanged, Unchanged),
	)
	batch.Rows = append(batch.Rows[1:2:2], batch.Rows[2], batch.Rows[3])
	e.apply(t, batch)
	got := e.reader.Rows(t, s)
	for _, row := range got {
		row[4] = strings.NewReplacer("1e30", "N", "1e+30", "N", "1000000000000000000000000000000", "N").Replace(row[4])
	}
	want := [][]string{{"1", "b2", "2.00", Null, Null}, {"11", "a2", "1.50", note, strings.Replace(doc, "1e30", "N", 1)}}
	if len(got) == 2 && got[0][0] == "11" {
		got[0], got[1] = got[1], got[0]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("rows differ (-want +got):\n%s", diff)
	}
}

func testExchange(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", nil, "note a", nil), Insert("2", "b", nil, "note b", nil)))
	batch := b.Of(
		Moved(Tuple("1", nil, nil, nil, nil), "2", "a", nil, Unchanged, nil),
		Moved(Tuple("2", nil, nil, nil, nil), "1", "b", nil, Unchanged, nil),
	)
	for range 2 {
		e.apply(t, batch)
		e.want(t, s, []string{"1", "b", Null, "note b", Null}, []string{"2", "a", Null, "note a", Null})
	}
}

func testMovedMissing(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	_, err := e.sink.Apply(t.Context(), b.Of(Moved(Tuple("1", nil, nil, nil, nil), "2", "a", nil, Unchanged, nil)))
	if _, ok := errors.AsType[*apply.RowError](err); !ok {
		t.Fatalf("got error %v, want a *apply.RowError", err)
	}
	e.want(t, s)
}

func testTruncate(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", nil, nil, nil), Insert("2", "b", nil, nil, nil)))
	truncate := b.Truncate()
	for range 2 {
		if err := e.sink.Truncate(t.Context(), truncate); err != nil {
			t.Fatal(err)
		}
		e.want(t, s)
	}
	e.apply(t, b.Of(Insert("2", "new", nil, nil, nil)))
	e.want(t, s, []string{"2", "new", Null, Null, Null})
}

func testAddColumn(t *testing.T, e *env) {
	old := people(t)
	b := e.prepare(t, old)
	e.apply(t, b.Of(Insert("1", "a", nil, nil, nil)))
	grown := Schema(t, "people", []string{"id"}, append(people(t).Columns, Column("extra", cdc.TypeText, "text"))...)
	b2 := e.prepare(t, grown)
	b2.prefix, b2.lsn = b2.prefix+"-grown", 0x10000
	e.apply(t, b2.Of(Insert("2", "b", nil, nil, nil, "x"), Update("1", "a", nil, Unchanged, nil, "y")))
	e.want(t, grown, []string{"1", "a", Null, Null, Null, "y"}, []string{"2", "b", Null, Null, Null, "x"})
	// A batch of the schema before still applies, as after a restart.
	e.prepare(t, old)
	e.apply(t, b.Of(Insert("3", "c", nil, nil, nil)))
	e.want(t, old, []string{"1", "a", Null, Null, Null}, []string{"2", "b", Null, Null, Null}, []string{"3", "c", Null, Null, Null})
}

func testNames(t *testing.T, e *env) {
	s := Schema(
		t, "Order Items", []string{"item no", "Order`Id"}, Column("val\"ue", cdc.TypeText, "text"),
		Column("Order`Id", cdc.TypeInt8, "bigint"), Column("item no", cdc.TypeText, "text"), Column("größe", cdc.TypeText, "text"),
		Column("select", cdc.TypeText, "text"),
	)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("v", "1", "a'b", "x", "1"), Insert("w", "1", "c", "y", "2"), Insert("u", "2", "c", "z", "3")))
	e.apply(t, b.Of(
		Update(Unchanged, "1", "c", "y2", Unchanged), DeleteKey(nil, "2", "c", nil, nil),
		Moved(Tuple(nil, "1", "a'b", nil, nil), Unchanged, "3", "a\\b", "x3", "4"), DeleteKey(nil, "1", "a'b", nil, nil),
	))
	e.want(t, s, []string{"w", "1", "c", "y2", "2"}, []string{"v", "3", "a\\b", "x3", "4"})
}

func testConcurrent(t *testing.T, e *env) {
	const tables, batches, rows = 4, 5, 50
	g, ctx := errgroup.WithContext(t.Context())
	schemas := make([]*cdc.Schema, tables)
	for n := range tables {
		s := people(t)
		s.Table, s.OID = fmt.Sprintf("people%d", n), s.OID+uint32(n)
		if err := s.Seal(); err != nil {
			t.Fatal(err)
		}
		schemas[n] = s
		b := NewBatch(s, fmt.Sprintf("concurrent-%d", n))
		g.Go(func() error {
			if err := e.sink.Prepare(ctx, s); err != nil {
				return err
			}
			for range batches {
				var insert []apply.Row
				for i := range rows {
					insert = append(insert, Insert(strconv.Itoa(i), fmt.Sprint(n), nil, nil, nil))
				}
				if _, err := e.sink.Apply(ctx, b.Of(insert...)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for n, s := range schemas {
		got := e.reader.Rows(t, s)
		if len(got) != rows || got[0][1] != strconv.Itoa(n) {
			t.Errorf("table %s has %d rows, want %d of its own", s.Table, len(got), rows)
		}
	}
}

func testLarge(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	const rows = 3000
	var insert []apply.Row
	var want [][]string
	for i := range rows {
		id, note := strconv.Itoa(i), strings.Repeat("é", i%97)
		insert = append(insert, Insert(id, "n"+id, "1.25", note, `{"i": `+id+`}`))
		want = append(want, []string{id, "n" + id, "1.25", note, `{"i": ` + id + `}`})
	}
	e.apply(t, b.Of(insert...))
	e.want(t, s, want...)
}

func testCancelled(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	batch := b.Of(Insert("1", "a", nil, nil, nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.sink.Apply(ctx, batch); err == nil {
		t.Fatal("apply with a cancelled context succeeds")
	}
	e.apply(t, batch)
	e.want(t, s, []string{"1", "a", Null, Null, Null})
}

func testEmpty(t *testing.T, e *env) {
	s := people(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of())
	e.want(t, s)
}
