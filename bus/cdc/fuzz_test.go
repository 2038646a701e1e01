package cdc_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// choices makes decisions of the fuzzer's bytes; without any left all are zero.
type choices []byte

func (c *choices) n(below int) int {
	if len(*c) == 0 || below < 1 {
		return 0
	}
	b := (*c)[0]
	*c = (*c)[1:]
	return int(b) % below
}

func (c *choices) text() []byte {
	n := min(c.n(256), len(*c))
	text := (*c)[:n:n]
	*c = (*c)[n:]
	return text
}

// tuple makes the values of a row, and what [values] shows of them.
func (c *choices) tuple(columns int, unchanged bool) (tuple cdc.Tuple, shown []string) {
	for range columns {
		switch c.n(3) {
		case 1:
			tuple, shown = tuple.AppendValue(cdc.Value{Kind: cdc.Null}), append(shown, "NULL")
			continue
		case 2:
			if unchanged {
				tuple, shown = tuple.AppendValue(cdc.Value{Kind: cdc.Unchanged}), append(shown, "UNCHANGED")
				continue
			}
		}
		text := c.text()
		tuple, shown = tuple.AppendValue(cdc.Value{Kind: cdc.Text, Bytes: text}), append(shown, "'"+string(text)+"'")
	}
	return tuple, shown
}

// row writes one change and returns what must be read.
func (c *choices) row(w *cdc.Writer, s *cdc.Schema, kind cdc.Kind) change {
	want := change{Kind: kind, Position: w.Next().String(), Table: s.Table}
	columns := len(s.Columns)
	var old cdc.Tuple
	var row cdc.Tuple
	if kind == cdc.KindUpdate || kind == cdc.KindDelete {
		want.OldKind = []cdc.OldKind{cdc.OldKey, cdc.OldFull, cdc.OldNone}[c.n(3)]
		if kind == cdc.KindDelete && want.OldKind == cdc.OldNone {
			want.OldKind = cdc.OldKey
		}
		if want.OldKind != cdc.OldNone {
			old, want.Old = c.tuple(columns, true)
		}
	}
	if kind != cdc.KindDelete {
		row, want.New = c.tuple(columns, kind == cdc.KindUpdate)
	}
	switch kind {
	case cdc.KindInsert:
		w.Insert(s)
	case cdc.KindUpdate:
		if want.Loose = c.n(2) == 1; want.Loose {
			w.LooseUpdate(s, want.OldKind)
		} else {
			w.Update(s, want.OldKind)
		}
	case cdc.KindDelete:
		w.Delete(s, want.OldKind)
	default:
		w.SnapshotRow(s)
	}
	if want.Old != nil {
		w.StartTuple(columns)
		w.Values(old)
	}
	if kind != cdc.KindDelete {
		w.StartTuple(columns)
		w.Values(row)
	}
	return want
}

// FuzzFrames states that what is written into frames, wherever they are cut, is what is
// read out of them, position by position.
func FuzzFrames(f *testing.F) {
	orders, notes := table(f, "orders", "id", "note"), table(f, "notes", "a", "b", "c")
	f.Add([]byte("\x03\x01\x02ab\x00\x02\x01\x05hello\x01\x02\x00\x04\x03\x01x"))
	f.Add(bytes.Repeat([]byte{0x05, 0x01, 0x02, 0x03, 0xff, 'x'}, 90))
	f.Fuzz(func(t *testing.T, seed []byte) {
		c := choices(seed)
		w := cdc.NewWriter("e1", cdc.Position{}, 0)
		w.Reset(nil)
		var want, got []change
		used := 0
		seal := func() {
			if w.Empty() {
				return
			}
			data, _, err := w.Seal()
			if err != nil {
				t.Fatal(err)
			}
			frame := bytes.Clone(data)
			schemas := []*cdc.Schema{}
			opened, err := cdc.Open(frame)
			if err != nil {
				t.Fatal(err)
			}
			for _, ref := range opened.Header.Schemas {
				schemas = append(schemas, map[cdc.Fingerprint]*cdc.Schema{orders.Fingerprint(): orders, notes.Fingerprint(): notes}[ref.Fingerprint])
			}
			_, read := changes(t, frame, schemas...)
			got = append(got, read...)
			damaged := bytes.Clone(frame)
			damaged[c.n(len(damaged))] ^= 1
			if _, err := cdc.Open(damaged); err == nil {
				t.Fatal("a frame with a changed bit was opened")
			}
			w.Reset(data)
		}
		for lsn := cdc.LSN(0x100); len(c) > 0 && used < 50; lsn += 0x100 {
			w.Begin(lsn, int64(lsn), uint32(lsn))
			for range c.n(6) {
				s := []*cdc.Schema{orders, notes}[c.n(2)]
				kind := []cdc.Kind{cdc.KindInsert, cdc.KindUpdate, cdc.KindDelete}[c.n(3)]
				want = append(want, c.row(w, s, kind))
				if used++; c.n(4) == 3 {
					seal()
				}
			}
			w.Commit(lsn + 0x20)
			if c.n(3) == 2 && w.BeginSnapshot(cdc.Position{}, int64(lsn)) {
				for range c.n(4) {
					want = append(want, c.row(w, orders, cdc.KindSnapshot))
					used++
				}
				w.EndSnapshot()
			}
			if c.n(3) == 1 {
				seal()
			}
		}
		seal()
		rows := got[:0]
		for _, r := range got {
			if r.Kind.IsRow() {
				rows = append(rows, r)
			}
		}
		if diff := cmp.Diff(want, rows); diff != "" && len(want)+len(rows) > 0 {
			t.Fatal(diff)
		}
	})
}

// FuzzSchema states that no bytes make a schema whose key is not among its columns, and
// that one that is read is written as the same again.
func FuzzSchema(f *testing.F) {
	data, err := cdc.MarshalSchema(table(f, "orders", "id", "note"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("\x86\xa10\xc6s\xdc\xc60\xa100\xc6\xa10\xa1s0\xc60\xa10\xa1s0\xa1ss0")) // It claims gigabytes.
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := cdc.UnmarshalSchema(data)
		if err != nil {
			return
		}
		for _, k := range s.Key {
			_ = s.Columns[k]
		}
		for i := range s.Columns {
			s.Columns[i].NumericPrecision()
			s.Columns[i].Length()
		}
		again, err := cdc.MarshalSchema(s)
		if err != nil {
			t.Fatal(err)
		}
		same, err := cdc.UnmarshalSchema(again)
		if err != nil || same.Fingerprint() != s.Fingerprint() {
			t.Fatalf("%+v was read as %+v: %v", s, same, err)
		}
	})
}

// FuzzPosition states that positions, LSNs and fingerprints print and parse.
func FuzzPosition(f *testing.F) {
	f.Add("16/B374D848.3", []byte("0123456789abcdef"))
	f.Add("0/0.0", []byte{})
	f.Fuzz(func(t *testing.T, text string, seed []byte) {
		if p, err := cdc.ParsePosition(text); err == nil {
			if again, err := cdc.ParsePosition(p.String()); err != nil || again != p {
				t.Fatalf("%q is %s, which is %s: %v", text, p, again, err)
			}
		}
		var b [16]byte
		copy(b[:], seed)
		p := cdc.Position{Commit: cdc.LSN(binary.BigEndian.Uint64(b[:8])), Ordinal: binary.BigEndian.Uint64(b[8:])}
		if again, err := cdc.ParsePosition(p.String()); err != nil || again != p {
			t.Fatalf("%s is %s: %v", p, again, err)
		}
		mark := cdc.Fingerprint(p.Ordinal)
		if again, err := cdc.ParseFingerprint(mark.String()); err != nil || again != mark {
			t.Fatalf("%s is %s: %v", mark, again, err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	orders := table(f, "orders", "id", "note")
	w := cdc.NewWriter("e1", cdc.Position{}, 0)
	w.Reset(nil)
	w.Begin(0x100, 0, 1)
	insert(w, orders, "1", "some text")
	w.Commit(0x120)
	data, _, err := w.Seal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Clone(data))
	f.Add(snapshotFrame(f, orders))
	w.Reset(nil)
	w.Begin(0x130, 0, 2)
	for range 20 {
		insert(w, orders, "1", "a text that is there again and again")
	}
	if data, _, err = w.Seal(); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		// The checksum would hide the decoder from the fuzzer: mend it.
		frame, err := cdc.Open(cdc.Rechecksum(data))
		if err != nil {
			return
		}
		schemas := make([]*cdc.Schema, len(frame.Header.Schemas))
		for i := range schemas {
			schemas[i] = orders
		}
		r, err := frame.Reader(schemas)
		if err != nil {
			if how := frame.Header.Packing; !errors.Is(err, cdc.ErrCorrupt) && (how == cdc.NotPacked || how == cdc.PackedSnappy) {
				t.Fatalf("error without ErrCorrupt: %v", err)
			}
			return
		}
		var rec cdc.Record
		for {
			ok, err := r.Next(&rec)
			if err != nil && !errors.Is(err, cdc.ErrCorrupt) {
				t.Fatalf("error without ErrCorrupt: %v", err)
			}
			if err != nil || !ok {
				return
			}
			values(t, rec.New)
			values(t, rec.Old)
		}
	})
}
