package sinktest

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Change is a row of a table without a key: one change of the source.
type Change struct {
	Op       apply.Op
	Position cdc.Position
	// Values has the columns of the schema, in its order, as Reader.Rows has them.
	Values []string
}

// AppendReader reads back what a sink holds of a table without a key.
type AppendReader interface {
	// Changes returns all rows of the schema's table, in any order.
	Changes(t *testing.T, schema *cdc.Schema) []Change
}

// OpenAppend starts a test as Open does.
type OpenAppend func(t *testing.T) (apply.Sink, AppendReader)

// RunAppend runs the part of the suite that is about tables without a key.
func RunAppend(t *testing.T, open OpenAppend) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, e *appendEnv)
	}{
		{"EveryChangeIsARow", testEveryChange},
		{"ApplyAgainAddsNothing", testAppendAgain},
		{"ChangesUnderAnotherIDAddNothing", testAppendOtherID},
		{"GuardedBatchesAddWhatIsMissing", testAppendGuarded},
		{"BatchesGoOnAfterARestart", testAppendRestart},
		{"ChangesOfOneTransactionStayApart", testAppendOneTransaction},
		{"PartsOfARowAreRefused", testAppendPart},
		{"ValuesOfARefusedRowAreNamed", testAppendRefused},
		{"TruncateRemovesWhatCameBefore", testAppendTruncate},
		{"GuardedTruncateSparesWhatCameLater", testAppendGuardedTruncate},
		{"AddedColumnsAppear", testAppendColumn},
		{"CancelledApplyCanBeRepeated", testAppendCancelled},
		{"ProcessThatMayNotWriteWritesNothing", testAppendFence},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sink, reader := open(t)
			test.run(t, &appendEnv{env: env{sink: sink}, changes: reader})
		})
	}
}

type appendEnv struct {
	env
	changes AppendReader
}

// events is the table of these tests.
func events(t *testing.T) *cdc.Schema {
	t.Helper()
	return Schema(t, "events", nil, Column("id", cdc.TypeInt8, "bigint"), Column("note", cdc.TypeText, "text"), Numeric("amount", 12, 2))
}

// wantBatch compares the table with the rows of batches.
func (e *appendEnv) wantBatch(t *testing.T, schema *cdc.Schema, batches ...*apply.TableBatch) {
	t.Helper()
	var want []Change
	for _, b := range batches {
		for i := range b.Rows {
			c := Change{Op: b.Rows[i].Op, Position: b.Rows[i].Position}
			tuple := b.Rows[i].Tuple
			for range schema.Columns {
				v, rest, ok := tuple.Next()
				switch {
				case !ok:
					c.Values = append(c.Values, Null) // The column came later.
				case v.Kind == cdc.Null:
					c.Values = append(c.Values, Null)
				default:
					c.Values = append(c.Values, string(v.Bytes))
				}
				tuple = rest
			}
			want = append(want, c)
		}
	}
	got := e.changes.Changes(t, schema)
	byPosition := func(a, b Change) int { return a.Position.Compare(b.Position) }
	slices.SortFunc(got, byPosition)
	slices.SortFunc(want, byPosition)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("changes differ (-want +got):\n%s", diff)
	}
}

func testEveryChange(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	first := b.Of(
		Insert("1", "a", "1.00"), Insert("1", "a", "1.00"), Update("1", "b", "2.50"), Delete("1", "b", "2.50"),
		Insert(nil, nil, nil), Insert("2", strings.Repeat("é", 1000), "-0.01"),
	)
	e.apply(t, first)
	second := b.Of(Update("1", "c", nil))
	e.apply(t, second)
	e.wantBatch(t, s, first, second)
}

func testAppendAgain(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	var batches []*apply.TableBatch
	for n := range 3 {
		batch := b.Of(Insert(strconv.Itoa(n), "a", nil), Delete(strconv.Itoa(n), "a", nil))
		batches = append(batches, batch)
		for range 3 {
			e.apply(t, batch)
			e.wantBatch(t, s, batches...)
		}
	}
}

func testAppendOtherID(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	batch := b.Of(Insert("1", "a", nil), Insert("2", "b", nil), Insert("3", "c", nil), Insert("4", "d", nil))
	for i := range batch.Rows { // Of one transaction.
		batch.Rows[i].Position = cdc.Position{Commit: batch.Rows[0].Position.Commit, Ordinal: uint64(i + 1)}
	}
	part := *batch
	part.ID += "-i2-3"
	part.Rows = batch.Rows[1:3]
	e.apply(t, &part)
	e.apply(t, batch)
	again := *batch
	again.ID += "-r1"
	e.apply(t, &again)
	e.wantBatch(t, s, batch)
}

func testAppendGuarded(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	missing := b.Of(Insert("0", "missing", nil))
	there := b.Of(Insert("1", "a", nil), Insert("2", "b", nil))
	later := b.Of(Insert("3", "c", nil))
	e.apply(t, there)
	e.apply(t, later)
	replay := &apply.TableBatch{
		ID: there.ID + "-replay", Schema: s, Rows: slices.Concat(missing.Rows, there.Rows), SyncedAt: later.SyncedAt, Guarded: true,
	}
	for range 2 {
		result, err := e.sink.Apply(t.Context(), replay)
		if err != nil {
			t.Fatal(err)
		}
		if result.Left > 3 {
			t.Errorf("result counts %d rows left of 3", result.Left)
		}
		e.wantBatch(t, s, missing, there, later)
	}
}

func testAppendRestart(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	first, second := b.Of(Insert("1", "a", nil)), b.Of(Insert("2", "b", nil))
	e.apply(t, first)
	e.prepare(t, s)
	e.apply(t, first)
	e.apply(t, second)
	e.prepare(t, s)
	e.apply(t, second)
	e.wantBatch(t, s, first, second)
}

func testAppendOneTransaction(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	const rows = 500
	var all []*apply.TableBatch
	commit := b.Next().Commit
	for n := range 3 {
		var part []apply.Row
		for i := range rows {
			row := Insert("1", "same", "1.00")
			row.Position = cdc.Position{Commit: commit, Ordinal: uint64(n*rows + i + 1)}
			part = append(part, row)
		}
		all = append(all, b.Of(part...))
	}
	for _, batch := range all {
		e.apply(t, batch)
	}
	e.prepare(t, s)
	for _, batch := range all {
		e.apply(t, batch)
	}
	e.wantBatch(t, s, all...)
}

func testAppendPart(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	for _, row := range []apply.Row{Update("1", Unchanged, nil), DeleteKey("1", nil, nil)} {
		_, err := e.sink.Apply(t.Context(), b.Of(Insert("0", "x", nil), row))
		refused, ok := errors.AsType[*apply.RowError](err)
		if !ok || refused.Row != 2 {
			t.Fatalf("got error %v, want a *apply.RowError for row 2", err)
		}
	}
}

func testAppendRefused(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	good := b.Of(Insert("1", "a", "1.00"))
	bad := b.Of(Insert("2", "b", "1.00"), Insert("3", "c", "123456789012345.00"))
	e.apply(t, good)
	_, err := e.sink.Apply(t.Context(), bad)
	refused, ok := errors.AsType[*apply.RowError](err)
	if !ok || refused.Row != 2 || refused.Table != s.Name() {
		t.Fatalf("got error %v, want a *apply.RowError for row 2", err)
	}
	// The rest goes on under another ID.
	rest := *bad
	rest.ID, rest.Rows = bad.ID+"-i1-1", bad.Rows[:1]
	e.apply(t, &rest)
	e.wantBatch(t, s, good, &rest)
}

func testAppendTruncate(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	e.apply(t, b.Of(Insert("1", "a", nil), Insert("2", "b", nil)))
	truncate := b.Truncate()
	for range 2 {
		if err := e.sink.Truncate(t.Context(), truncate); err != nil {
			t.Fatal(err)
		}
		e.wantBatch(t, s)
	}
	// The same transaction goes on behind the truncate.
	row := Insert("3", "c", nil)
	row.Position = cdc.Position{Commit: truncate.Position.Commit, Ordinal: truncate.Position.Ordinal + 1}
	after := b.Of(row)
	e.apply(t, after)
	e.wantBatch(t, s, after)
}

func testAppendGuardedTruncate(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	before := b.Of(Insert("1", "a", nil))
	truncate := b.Truncate()
	truncate.Guarded = true
	same := Insert("2", "b", nil)
	same.Position = cdc.Position{Commit: truncate.Position.Commit, Ordinal: truncate.Position.Ordinal + 1}
	after := b.Of(same, Insert("3", "c", nil))
	e.apply(t, before)
	e.apply(t, after)
	for range 2 {
		if err := e.sink.Truncate(t.Context(), truncate); err != nil {
			t.Fatal(err)
		}
		e.wantBatch(t, s, after)
	}
}

func testAppendColumn(t *testing.T, e *appendEnv) {
	old := events(t)
	b := e.prepare(t, old)
	before := b.Of(Insert("1", "a", nil))
	e.apply(t, before)
	grown := Schema(t, "events", nil, append(events(t).Columns, Column("extra", cdc.TypeText, "text"))...)
	b2 := e.prepare(t, grown)
	b2.prefix, b2.lsn = b2.prefix+"-grown", 0x10000
	after := b2.Of(Insert("2", "b", nil, "x"))
	e.apply(t, after)
	e.wantBatch(t, grown, before, after)
}

func testAppendCancelled(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	batch := b.Of(Insert("1", "a", nil))
	e.cancelled(t, batch)
	e.apply(t, batch)
	e.wantBatch(t, s, batch)
}

func testAppendFence(t *testing.T, e *appendEnv) {
	s := events(t)
	b := e.prepare(t, s)
	first := b.Of(Insert("1", "a", nil))
	e.apply(t, first)
	lost := errors.New("the lease is lost")
	ctx := apply.WithFence(t.Context(), func() error { return lost })
	for _, guarded := range []bool{false, true} {
		batch, truncate := b.Of(Insert("2", "b", nil)), b.Truncate()
		batch.Guarded, truncate.Guarded = guarded, guarded
		if _, err := e.sink.Apply(ctx, batch); !errors.Is(err, lost) {
			t.Errorf("apply: got error %v, want that of the fence", err)
		}
		if err := e.sink.Truncate(ctx, truncate); !errors.Is(err, lost) {
			t.Errorf("truncate: got error %v, want that of the fence", err)
		}
	}
	e.wantBatch(t, s, first)
}
