package cdc_test

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

func snapshotRow(w *cdc.Writer, s *cdc.Schema, vals ...string) {
	w.SnapshotRow(s)
	w.StartTuple(len(vals))
	for _, v := range vals {
		w.Text([]byte(v))
	}
}

// snapshotFrame has rows of a snapshot between two transactions, and a loose update.
func snapshotFrame(t testing.TB, orders *cdc.Schema) []byte {
	t.Helper()
	w := cdc.NewWriter("e1", cdc.Position{}, 0)
	w.Reset(nil)
	w.Begin(0x100, 5, 1)
	insert(w, orders, "1", "a")
	w.Commit(0x120)
	if !w.BeginSnapshot(cdc.Position{}, 6) {
		t.Fatal("the snapshot cannot begin")
	}
	snapshotRow(w, orders, "2", "b")
	snapshotRow(w, orders, "3", "c")
	w.EndSnapshot()
	w.Begin(0x130, 7, 2)
	w.LooseUpdate(orders, cdc.OldNone)
	w.StartTuple(2)
	w.Text([]byte("4"))
	w.Unchanged()
	w.LooseUpdate(orders, cdc.OldKey)
	w.StartTuple(2)
	w.Text([]byte("4"))
	w.Null()
	w.StartTuple(2)
	w.Text([]byte("5"))
	w.Unchanged()
	w.Update(orders, cdc.OldNone)
	w.StartTuple(2)
	w.Text([]byte("2"))
	w.Unchanged()
	w.Commit(0x150)
	return seal(t, w)
}

func TestRowsOfASnapshotTakePositionsBehindTheLastChange(t *testing.T) {
	t.Parallel()
	orders := table(t, "orders", "id", "note")
	header, got := changes(t, snapshotFrame(t, orders), orders)
	want := []change{
		{Kind: cdc.KindBegin, Position: "0/100.0"},
		{Kind: cdc.KindInsert, Position: "0/100.1", Table: "orders", New: []string{"'1'", "'a'"}},
		{Kind: cdc.KindCommit, Position: "0/100.1", End: 0x120},
		{Kind: cdc.KindBegin, Position: "0/100.1"},
		{Kind: cdc.KindSnapshot, Position: "0/100.2", Table: "orders", New: []string{"'2'", "'b'"}},
		{Kind: cdc.KindSnapshot, Position: "0/100.3", Table: "orders", New: []string{"'3'", "'c'"}},
		{Kind: cdc.KindCommit, Position: "0/100.3", End: 0x120},
		{Kind: cdc.KindBegin, Position: "0/130.0"},
		{Kind: cdc.KindUpdate, Position: "0/130.1", Table: "orders", New: []string{"'4'", "UNCHANGED"}, Loose: true},
		{
			Kind: cdc.KindUpdate, Position: "0/130.2", Table: "orders", New: []string{"'5'", "UNCHANGED"}, Loose: true,
			OldKind: cdc.OldKey, Old: []string{"'4'", "NULL"},
		},
		{Kind: cdc.KindUpdate, Position: "0/130.3", Table: "orders", New: []string{"'2'", "UNCHANGED"}},
		{Kind: cdc.KindCommit, Position: "0/130.3", End: 0x150},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if header.Last.String() != "0/130.3" || header.End != 0x150 || header.Changes != 6 || header.Total != 6 || header.Open {
		t.Fatalf("header %+v", header)
	}
}

func TestASnapshotMovesNoEndAndIsCutIntoFrames(t *testing.T) {
	t.Parallel()
	orders := table(t, "orders", "id", "note")
	w := cdc.NewWriter("e1", cdc.Position{Commit: 0x100, Ordinal: 4}, 0x120)
	w.Reset(nil)
	// Positions up to here were applied before the end of the stream was lost.
	after := cdc.Position{Commit: 0x110, Ordinal: 7}
	if !w.BeginSnapshot(after, 0) || !w.InTransaction() {
		t.Fatal("the snapshot cannot begin")
	}
	snapshotRow(w, orders, "1", "a")
	first := bytes.Clone(seal(t, w))
	w.Reset(nil)
	snapshotRow(w, orders, "2", "b")
	w.EndSnapshot()
	second := bytes.Clone(seal(t, w))
	h1, _ := changes(t, first, orders)
	h2, got := changes(t, second, orders)
	if !h1.Open || h1.End != 0x120 || h1.Prev.String() != "0/100.4" || h1.Last.String() != "0/110.8" || h2.Open || h2.End != 0x120 || h2.Prev != h1.Last {
		t.Fatalf("headers %+v %+v", h1, h2)
	}
	want := []change{
		{Kind: cdc.KindBegin, Position: "0/110.8"},
		{Kind: cdc.KindSnapshot, Position: "0/110.9", Table: "orders", New: []string{"'2'", "'b'"}},
		{Kind: cdc.KindCommit, Position: "0/110.9", End: 0x120},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if w.Last().String() != "0/110.9" || w.InTransaction() {
		t.Fatalf("the writer is at %s", w.Last())
	}
	// One without rows leaves no trace.
	w.Reset(nil)
	if !w.BeginSnapshot(cdc.Position{}, 0) {
		t.Fatal("the snapshot cannot begin")
	}
	if w.EndSnapshot(); !w.Empty() || w.InTransaction() {
		t.Fatal("a snapshot without rows was written")
	}
}

// TestASnapshotDoesNotTakePositionsOfChangesToCome: the changes would be taken for ones
// that the stream has, and be lost.
func TestASnapshotDoesNotTakePositionsOfChangesToCome(t *testing.T) {
	t.Parallel()
	orders := table(t, "orders", "id", "note")
	for _, c := range []struct {
		name      string
		last      cdc.Position
		end       cdc.LSN
		after     cdc.Position
		open, can bool
	}{
		{name: "complete", last: cdc.Position{Commit: 0x100, Ordinal: 2}, end: 0x120, can: true},
		{name: "in part", last: cdc.Position{Commit: 0x100, Ordinal: 2}, end: 0x100},
		{name: "begins at the slot", last: cdc.Position{Commit: 0x100}, end: 0x100},
		{name: "begins before the slot", last: cdc.Position{Commit: 0xff}, end: 0x100, can: true},
		{name: "applied and lost, to come", last: cdc.Position{Commit: 0x100, Ordinal: 2}, end: 0x120, after: cdc.Position{Commit: 0x130, Ordinal: 1}},
		{name: "applied and lost, passed", last: cdc.Position{Commit: 0x100, Ordinal: 2}, end: 0x140, after: cdc.Position{Commit: 0x130, Ordinal: 1}, can: true},
		{name: "inside a transaction", last: cdc.Position{Commit: 0x100, Ordinal: 2}, end: 0x120, open: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := cdc.NewWriter("e1", c.last, c.end)
			w.Reset(nil)
			if c.open {
				w.Begin(0x200, 0, 1)
			}
			if got := w.BeginSnapshot(c.after, 0); got != c.can || w.InTransaction() != (c.can || c.open) {
				t.Fatalf("begins: %v, in a transaction: %v", got, w.InTransaction())
			}
			if !c.can {
				return
			}
			snapshotRow(w, orders, "1", "a")
			w.EndSnapshot()
			// The transaction is sent again: it is in the stream.
			if w.Begin(c.last.Commit, 0, 1); w.Next().After(w.Last()) {
				t.Fatalf("%s would be taken for a change that the stream lacks", w.Next())
			}
		})
	}
}

func TestARowOfASnapshotWithoutAValueIsCorrupt(t *testing.T) {
	t.Parallel()
	orders := table(t, "orders", "id", "note")
	w := cdc.NewWriter("e1", cdc.Position{}, 1)
	w.Reset(nil)
	w.BeginSnapshot(cdc.Position{}, 0)
	w.SnapshotRow(orders)
	w.StartTuple(2)
	w.Text([]byte("1"))
	w.Unchanged()
	w.EndSnapshot()
	f, err := cdc.Open(seal(t, w))
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Reader([]*cdc.Schema{orders})
	if err != nil {
		t.Fatal(err)
	}
	var rec cdc.Record
	for ok := true; ok && err == nil; {
		ok, err = r.Next(&rec)
	}
	if !errors.Is(err, cdc.ErrCorrupt) {
		t.Fatalf("read as %v", err)
	}
}

// TestFramesOfTheFirstVersionAreRead reads a frame that was written before records were
// packed, and before there were rows of a snapshot.
func TestFramesOfTheFirstVersionAreRead(t *testing.T) {
	t.Parallel()
	first, err := os.ReadFile("testdata/frame-v1.msgpack")
	if err != nil {
		t.Fatal(err)
	}
	orders := table(t, "orders", "id", "note")
	header, got := changes(t, first, orders)
	now, want := changes(t, ordinaryFrame(t), orders)
	if diff := cmp.Diff(want, got); diff != "" || len(got) != 10 {
		t.Fatalf("%d records: %s", len(got), diff)
	}
	if header.Version != 1 || now.Version != cdc.FormatVersion {
		t.Fatalf("versions %d and %d", header.Version, now.Version)
	}
	header.Version = now.Version
	if diff := cmp.Diff(now, header); diff != "" {
		t.Fatal(diff)
	}
}

func ordinaryFrame(t testing.TB) []byte {
	t.Helper()
	orders := table(t, "orders", "id", "note")
	w := cdc.NewWriter("e1", cdc.Position{Commit: 0x10}, 0x10)
	w.Reset(nil)
	w.Begin(0x100, -5, 7)
	insert(w, orders, "1", "")
	for _, old := range []cdc.OldKind{cdc.OldNone, cdc.OldKey, cdc.OldFull} {
		w.Update(orders, old)
		for n := range 2 {
			if n == 0 && old == cdc.OldNone {
				continue
			}
			w.StartTuple(2)
			w.Text([]byte("1"))
			w.Unchanged()
		}
	}
	w.Message(0x105, "p", []byte("content"))
	for _, old := range []cdc.OldKind{cdc.OldKey, cdc.OldFull} {
		w.Delete(orders, old)
		w.StartTuple(2)
		w.Text([]byte("1"))
		w.Null()
	}
	w.Truncate(1, []*cdc.Schema{orders})
	w.Commit(0x120)
	return seal(t, w)
}
