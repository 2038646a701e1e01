package cdc_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

func table(t testing.TB, name string, columns ...string) *cdc.Schema {
	t.Helper()
	s := &cdc.Schema{OID: 16384, Namespace: "public", Table: name, ReplicaIdentity: 'd', Key: []int{0}}
	for i, c := range columns {
		s.Columns = append(s.Columns, cdc.Column{Name: c, Type: cdc.TypeText, OID: 25, Mod: -1, BaseMod: -1, TypeName: "text", Identity: i == 0})
	}
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	return s
}

// change is a record as the tests compare it.
type change struct {
	Kind     cdc.Kind
	Position string
	Table    string
	New, Old []string
	OldKind  cdc.OldKind
	Loose    bool
	End      cdc.LSN
}

func values(t testing.TB, tuple cdc.Tuple) []string {
	t.Helper()
	var out []string
	for len(tuple) > 0 {
		v, rest, ok := tuple.Next()
		if !ok {
			t.Fatal("tuple that Reader accepted cannot be walked")
		}
		switch v.Kind {
		case cdc.Null:
			out = append(out, "NULL")
		case cdc.Unchanged:
			out = append(out, "UNCHANGED")
		case cdc.Text:
			out = append(out, "'"+string(v.Bytes)+"'")
		}
		tuple = rest
	}
	return out
}

func changes(t testing.TB, data []byte, schemas ...*cdc.Schema) (cdc.Header, []change) {
	t.Helper()
	f, err := cdc.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Reader(schemas)
	if err != nil {
		t.Fatal(err)
	}
	var out []change
	for {
		var rec cdc.Record
		ok, err := r.Next(&rec)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return f.Header, out
		}
		c := change{Kind: rec.Kind, Position: rec.Position.String(), New: values(t, rec.New), Old: values(t, rec.Old), OldKind: rec.OldKind, Loose: rec.Loose, End: rec.End}
		if rec.Kind.IsRow() {
			c.Table = schemas[rec.Schema].Table
		}
		out = append(out, c)
	}
}

func insert(w *cdc.Writer, s *cdc.Schema, vals ...string) {
	w.Insert(s)
	w.StartTuple(len(vals))
	for _, v := range vals {
		w.Text([]byte(v))
	}
}

func seal(t testing.TB, w *cdc.Writer) []byte {
	t.Helper()
	data, _, err := w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestFrameCarriesEveryKindOfRecordUnchanged(t *testing.T) {
	t.Parallel()
	orders, items := table(t, "orders", "id", "note"), table(t, "items", "id")
	w := cdc.NewWriter("e1", cdc.Position{Commit: 0x10}, 0x10)
	w.Reset(nil)
	w.Begin(0x100, -5, 7)
	insert(w, orders, "1", "")
	w.Update(orders, cdc.OldKey)
	w.StartTuple(2)
	w.Text([]byte("1"))
	w.Null()
	w.StartTuple(2)
	w.Text([]byte("2"))
	w.Unchanged()
	w.Update(items, cdc.OldNone)
	w.StartTuple(1)
	w.Text(bytes.Repeat([]byte("x"), 70_000))
	w.Message(0x105, "p", []byte("content"))
	w.Delete(orders, cdc.OldFull)
	w.StartTuple(2)
	w.Text([]byte("2"))
	w.Text(bytes.Repeat([]byte("y"), 200))
	w.Truncate(1, []*cdc.Schema{items, orders})
	w.Commit(0x120)

	header, got := changes(t, seal(t, w), orders, items)
	want := []change{
		{Kind: cdc.KindBegin, Position: "0/100.0"},
		{Kind: cdc.KindInsert, Position: "0/100.1", Table: "orders", New: []string{"'1'", "''"}},
		{Kind: cdc.KindUpdate, Position: "0/100.2", Table: "orders", OldKind: cdc.OldKey, Old: []string{"'1'", "NULL"}, New: []string{"'2'", "UNCHANGED"}},
		{Kind: cdc.KindUpdate, Position: "0/100.3", Table: "items", New: []string{"'" + string(bytes.Repeat([]byte("x"), 70_000)) + "'"}},
		{Kind: cdc.KindMessage, Position: "0/100.3"},
		{Kind: cdc.KindDelete, Position: "0/100.4", Table: "orders", OldKind: cdc.OldFull, Old: []string{"'2'", "'" + string(bytes.Repeat([]byte("y"), 200)) + "'"}},
		{Kind: cdc.KindTruncate, Position: "0/100.5"},
		{Kind: cdc.KindCommit, Position: "0/100.5", End: 0x120},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if header.Prev.String() != "0/10.0" || header.Last.String() != "0/100.5" || header.End != 0x120 || header.Changes != 5 || header.Open {
		t.Fatalf("header %+v", header)
	}
	for i, s := range []*cdc.Schema{orders, items} {
		back, err := cdc.UnmarshalSchema(header.Schemas[i].Definition)
		if err != nil {
			t.Fatal(err)
		}
		if back.Fingerprint() != s.Fingerprint() || back.Table != s.Table {
			t.Fatalf("schema %d came back as %+v", i, back)
		}
	}
}

func TestTransactionOverManyFramesKeepsItsNumbering(t *testing.T) {
	t.Parallel()
	orders := table(t, "orders", "id")
	w := cdc.NewWriter("e1", cdc.Position{}, 0)
	w.Reset(nil)
	w.Begin(0x100, 0, 1)
	insert(w, orders, "1")
	first := bytes.Clone(seal(t, w))
	w.Reset(nil)
	insert(w, orders, "2")
	w.Commit(0x120)
	w.Begin(0x130, 0, 2)
	w.Commit(0x140) // nothing in it
	second := bytes.Clone(seal(t, w))

	h1, _ := changes(t, first, orders)
	h2, got := changes(t, second, orders)
	if !h1.Open || h1.End != 0 || h2.Open || h2.Prev != h1.Last {
		t.Fatalf("headers %+v %+v", h1, h2)
	}
	want := []change{
		{Kind: cdc.KindBegin, Position: "0/100.1"},
		{Kind: cdc.KindInsert, Position: "0/100.2", Table: "orders", New: []string{"'2'"}},
		{Kind: cdc.KindCommit, Position: "0/100.2", End: 0x120},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if h2.End != 0x140 {
		t.Fatalf("an empty transaction must move the end, got %s", h2.End)
	}
}

func TestResumedWriterRepeatsNothingAndLosesNoCommit(t *testing.T) {
	t.Parallel()
	orders := table(t, "orders", "id")
	// The stream ends after the only change of the transaction, before its commit.
	w := cdc.NewWriter("e1", cdc.Position{Commit: 0x100, Ordinal: 1}, 0x50)
	w.Reset(nil)
	w.Begin(0x100, 0, 1)
	if got := w.Next(); got != (cdc.Position{Commit: 0x100, Ordinal: 1}) {
		t.Fatal(got)
	}
	w.Skip()
	w.Commit(0x120)
	h, got := changes(t, seal(t, w))
	want := []change{
		{Kind: cdc.KindBegin, Position: "0/100.1"},
		{Kind: cdc.KindCommit, Position: "0/100.1", End: 0x120},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if h.Prev != h.Last || h.End != 0x120 {
		t.Fatalf("%+v", h)
	}
	// All of it is stored: nothing to say.
	w = cdc.NewWriter("e1", cdc.Position{Commit: 0x100, Ordinal: 1}, 0x120)
	w.Reset(nil)
	w.Begin(0x100, 0, 1)
	w.Skip()
	w.Commit(0x120)
	if !w.Empty() {
		t.Fatal("a stored transaction was written again")
	}
	w.Begin(0x200, 0, 2)
	insert(w, orders, "1")
	if w.Empty() {
		t.Fatal("a new change was not written")
	}
}

func TestAnyMessagePackLibraryReadsAFrame(t *testing.T) {
	t.Parallel()
	orders := table(t, "orders", "id", "note")
	w := cdc.NewWriter("e1", cdc.Position{}, 0)
	w.Reset(nil)
	w.Begin(1<<40, 1_700_000_000_000_000, 77)
	insert(w, orders, "1", "a")
	w.Commit(1<<40 + 8)
	dec := msgpack.NewDecoder(bytes.NewReader(seal(t, w)))
	var objects []any
	for {
		v, err := dec.DecodeInterface()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, v)
	}
	if len(objects) != 5 {
		t.Fatalf("%d objects: %v", len(objects), objects)
	}
	if got, want := fmt.Sprint(objects[3]), "[3 0 [1 a]]"; got != want {
		t.Fatalf("insert reads as %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(objects[2]), fmt.Sprintf("[1 %d 1700000000000000 77 0]", 1<<40); got != want {
		t.Fatalf("begin reads as %s, want %s", got, want)
	}
}

func TestEveryDamagedByteIsNoticed(t *testing.T) {
	t.Parallel()
	orders := table(t, "orders", "id", "note")
	w := cdc.NewWriter("e1", cdc.Position{}, 0)
	w.Reset(nil)
	w.Begin(0x100, 0, 1)
	insert(w, orders, "1", "some text")
	w.Commit(0x120)
	data := seal(t, w)
	for i := range data {
		damaged := bytes.Clone(data)
		damaged[i] ^= 0x10
		if _, err := cdc.Open(damaged); !errors.Is(err, cdc.ErrCorrupt) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := cdc.Open(data[:i]); !errors.Is(err, cdc.ErrCorrupt) {
			t.Fatalf("cut at byte %d: %v", i, err)
		}
	}
}

func TestWritingAndReadingRowsAllocatesNothingPerRow(t *testing.T) {
	orders := table(t, "orders", "id", "note", "more")
	w := cdc.NewWriter("e1", cdc.Position{}, 0)
	buf := make([]byte, 1<<20)
	note := bytes.Repeat([]byte("n"), 100)
	const rows = 1000
	write := func() []byte {
		w.Reset(buf)
		w.Begin(w.End()+0x100, 0, 1)
		for range rows {
			w.Insert(orders)
			w.StartTuple(3)
			w.Text(note)
			w.Text(note)
			w.Null()
		}
		w.Commit(w.End() + 0x120)
		return seal(t, w)
	}
	data := bytes.Clone(write())
	if n := testing.AllocsPerRun(20, func() { write() }); n > 40 {
		t.Errorf("writing a frame of %d rows allocates %v times", rows, n)
	}
	read := func() {
		f, err := cdc.Open(data)
		if err != nil {
			t.Fatal(err)
		}
		r, err := f.Reader([]*cdc.Schema{orders})
		if err != nil {
			t.Fatal(err)
		}
		var rec cdc.Record
		for {
			if ok, err := r.Next(&rec); err != nil {
				t.Fatal(err)
			} else if !ok {
				return
			}
		}
	}
	if n := testing.AllocsPerRun(20, read); n > 40 {
		t.Errorf("reading a frame of %d rows allocates %v times", rows, n)
	}
}

func TestFramesOfAnyCutHoldTheSameChanges(t *testing.T) {
	t.Parallel()
	orders := table(t, "orders", "id")
	rapid.Check(t, func(t *rapid.T) {
		w := cdc.NewWriter("e", cdc.Position{}, 0)
		w.Reset(nil)
		var want []string
		var frames [][]byte
		cut := func() {
			if w.Empty() || !rapid.Bool().Draw(t, "cut") {
				return
			}
			data, _, err := w.Seal()
			if err != nil {
				t.Fatal(err)
			}
			frames = append(frames, bytes.Clone(data))
			w.Reset(nil)
		}
		lsn := cdc.LSN(0x100)
		for range rapid.IntRange(1, 8).Draw(t, "transactions") {
			w.Begin(lsn, 0, 1)
			for i := range rapid.IntRange(0, 5).Draw(t, "rows") {
				w.Insert(orders)
				w.StartTuple(1)
				w.Text(nil)
				want = append(want, cdc.Position{Commit: lsn, Ordinal: uint64(i + 1)}.String())
				cut()
			}
			w.Commit(lsn + 8)
			cut()
			lsn += 0x10
		}
		if !w.Empty() {
			data, _, err := w.Seal()
			if err != nil {
				t.Fatal(err)
			}
			frames = append(frames, data)
		}
		got := positions(t, frames, orders)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// positions returns those of all rows of frames, which must follow each other.
func positions(t *rapid.T, frames [][]byte, table *cdc.Schema) (got []string) {
	prev := cdc.Position{}
	for _, data := range frames {
		f, err := cdc.Open(data)
		if err != nil {
			t.Fatal(err)
		}
		if f.Header.Prev != prev {
			t.Fatalf("chain broken: %s after %s", f.Header.Prev, prev)
		}
		prev = f.Header.Last
		schemas := make([]*cdc.Schema, len(f.Header.Schemas))
		for i := range schemas {
			schemas[i] = table
		}
		r, err := f.Reader(schemas)
		if err != nil {
			t.Fatal(err)
		}
		for {
			var rec cdc.Record
			ok, err := r.Next(&rec)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if rec.Kind.IsRow() {
				got = append(got, rec.Position.String())
			}
		}
	}
	return got
}

func TestPositionsAndFingerprintsPrintAndParse(t *testing.T) {
	t.Parallel()
	p := cdc.Position{Commit: 0x16B374D848, Ordinal: 3}
	if p.String() != "16/B374D848.3" {
		t.Fatal(p)
	}
	back, err := cdc.ParsePosition(p.String())
	if err != nil || back != p {
		t.Fatal(back, err)
	}
	for _, bad := range []string{"", "1", "1/2", "1/2.x", "x/2.1", "1/100000000.1", "1/2.-1"} {
		if _, err := cdc.ParsePosition(bad); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
}

func TestNumericModifiersAreUnpacked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mod       int32
		precision int
		scale     int
		ok        bool
	}{
		{-1, 0, 0, false},
		{(10 << 16) + 2 + 4, 10, 2, true},
		{(38 << 16) + 0 + 4, 38, 0, true},
		{(5 << 16) + (-2 & 0x7ff) + 4, 5, -2, true},
	} {
		column := cdc.Column{BaseMod: c.mod}
		p, s, ok := column.NumericPrecision()
		if p != c.precision || s != c.scale || ok != c.ok {
			t.Errorf("%d: %d %d %v", c.mod, p, s, ok)
		}
	}
}
