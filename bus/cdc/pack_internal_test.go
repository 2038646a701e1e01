package cdc

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
)

func orders(t testing.TB) *Schema {
	t.Helper()
	s := &Schema{
		OID: 16384, Namespace: "public", Table: "orders", ReplicaIdentity: 'd', Key: []int{0},
		Columns: []Column{{Name: "note", Type: TypeText, OID: 25, Mod: -1, BaseMod: -1, TypeName: "text", Identity: true}},
	}
	if err := s.Seal(); err != nil {
		t.Fatal(err)
	}
	return s
}

// frameOf writes a frame with one row for each text, into memory of out if it is enough.
func frameOf(t testing.TB, w *Writer, s *Schema, out []byte, texts ...string) ([]byte, Header) {
	t.Helper()
	w.Reset(out)
	w.Begin(w.End()+0x100, 0, 1)
	for _, text := range texts {
		w.Insert(s)
		w.StartTuple(1)
		w.Text([]byte(text))
	}
	w.Commit(w.End() + 0x120)
	data, header, err := w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	return data, header
}

func textsOf(t testing.TB, data []byte, s *Schema) (texts []string) {
	t.Helper()
	f, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Reader([]*Schema{s})
	if err != nil {
		t.Fatal(err)
	}
	for {
		var rec Record
		ok, err := r.Next(&rec)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return texts
		}
		if rec.Kind == KindInsert {
			v, _, _ := rec.New.Next()
			texts = append(texts, string(v.Bytes))
		}
	}
}

func TestRecordsArePackedWhereThatMakesThemSmaller(t *testing.T) {
	t.Parallel()
	s := orders(t)
	noise := make([]byte, 4000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise) // It never fails.
	for name, c := range map[string]struct {
		text string
		want Packing
		most int
	}{
		"a few bytes":       {"short", NotPacked, 300},
		"text":              {strings.Repeat("the same again, ", 200), PackedSnappy, 500},
		"noise":             {string(noise), NotPacked, 4300},
		"larger than a pad": {strings.Repeat("x", 8<<20), PackedSnappy, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, out := range [][]byte{nil, make([]byte, 100), make([]byte, 20<<20)} {
				w := NewWriter("e1", Position{}, 0)
				for range 3 { // The second and third are without the schema, and in the memory of the first.
					data, header := frameOf(t, w, s, out, c.text, c.text[:1])
					if header.Packing != c.want || len(data) > c.most {
						t.Fatalf("packed as %q in %d bytes", header.Packing, len(data))
					}
					if got := textsOf(t, bytes.Clone(data), s); len(got) != 2 || got[0] != c.text || got[1] != c.text[:1] {
						t.Fatal("it is read as something else")
					}
					out = data
				}
			}
		})
	}
}

func TestAFrameIsMadeInTheMemoryThatIsThere(t *testing.T) {
	t.Parallel()
	s, w, out := orders(t), NewWriter("e1", Position{}, 0), make([]byte, 64<<10)
	for _, text := range []string{"short", strings.Repeat("text", 10000)} {
		data, _ := frameOf(t, w, s, out, text)
		if &data[:cap(data)][cap(data)-1] != &out[cap(out)-1] {
			t.Fatalf("a frame of %d bytes was made elsewhere", len(data))
		}
	}
}

func TestTheRoomOfALargeRecordIsNotKept(t *testing.T) {
	t.Parallel()
	s, w := orders(t), NewWriter("e1", Position{}, 0)
	frameOf(t, w, s, nil, strings.Repeat("x", 2*keepRecords))
	w.Reset(nil)
	if cap(w.buf) > keepRecords {
		t.Fatalf("%d bytes are kept", cap(w.buf))
	}
}

func TestPackedRecordsThatAreNotWhatTheyClaim(t *testing.T) {
	t.Parallel()
	s, w := orders(t), NewWriter("e1", Position{}, 0)
	data, header := frameOf(t, w, s, nil, strings.Repeat("text", 1000))
	f, err := Open(data)
	if err != nil || header.Packing != PackedSnappy {
		t.Fatal(header.Packing, err)
	}
	reader := func(how Packing, body []byte) error {
		damaged := f
		damaged.Header.Packing, damaged.body = how, body
		_, err := damaged.Reader([]*Schema{s})
		return err
	}
	huge := append([]byte{0xff, 0xff, 0xff, 0xff, 0x0e}, f.body[2:]...) // 4,026,531,839 bytes
	if n, err := s2.DecodedLen(huge); err != nil || n != 0xefffffff {
		t.Fatal(n, err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := reader(PackedSnappy, huge); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a claim of gigabytes: %v", err)
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 1<<30 {
		t.Fatalf("it took %d bytes", after.TotalAlloc-before.TotalAlloc)
	}
	for name, body := range map[string][]byte{"nothing": nil, "a part": f.body[:len(f.body)-1], "more": append(bytes.Clone(f.body), 0)} {
		if err := reader(PackedSnappy, body); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := reader("zstd", f.body); err == nil || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), `packed as "zstd"`) {
		t.Errorf("of a later version: %v", err)
	}
}

// FuzzPack states that whatever is packed is unpacked as it was, in whatever memory, and
// that bytes that were never packed are an error or expand to what they can at most.
func FuzzPack(f *testing.F) {
	f.Add([]byte("short"), uint16(0))
	f.Add(bytes.Repeat([]byte("text "), 100), uint16(5000))
	f.Add(s2.EncodeSnappy(nil, bytes.Repeat([]byte("text "), 100)), uint16(600))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0e, 0x00}, uint16(9))
	f.Fuzz(func(t *testing.T, data []byte, room uint16) {
		for _, times := range []int{1, 8, 64} { // What the fuzzer makes is seldom long enough.
			records := bytes.Repeat(data, times)
			records = records[:min(len(records), 64<<10)]
			out, how := pack(make([]byte, int(room)), records)
			if how != NotPacked && len(out)-headroom >= len(records) {
				t.Fatalf("%d bytes were packed into %d", len(records), len(out)-headroom)
			}
			got, err := unpack(out[headroom:], how)
			if err != nil || !bytes.Equal(got, records) {
				t.Fatalf("%d bytes, packed as %q, are unpacked as %d: %v", len(records), how, len(got), err)
			}
		}
		got, err := unpack(data, PackedSnappy)
		if err != nil && !errors.Is(err, ErrCorrupt) || len(got) > expansion*len(data) {
			t.Fatalf("%d bytes are unpacked as %d: %v", len(data), len(got), err)
		}
	})
}
