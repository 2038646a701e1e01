package apply

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

func benchSchema() *cdc.Schema {
	return &cdc.Schema{
		OID: 1, Namespace: "public", Table: "t", Key: []int{0},
		Columns: []cdc.Column{{Name: "id", Type: cdc.TypeInt8, TypeName: "bigint"}, {Name: "v", Type: cdc.TypeText, TypeName: "text"}},
	}
}

func benchTuple(values ...string) cdc.Tuple {
	var t cdc.Tuple
	for _, v := range values {
		t = t.AppendValue(cdc.Value{Kind: cdc.Text, Bytes: []byte(v)})
	}
	return t
}

func TestKeyIndexAgreesWithAMap(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // After 1970.
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // Not a secret.
	for range 20 {
		var x keyIndex
		x.init(random.IntN(40)) // It grows.
		want := map[string]int{}
		for row := range 3000 {
			// Keys of the same start, of one byte more, and empty ones.
			text := strings.Repeat("a", random.IntN(4)) + strconv.Itoa(random.IntN(700))
			if random.IntN(50) == 0 {
				text = ""
			}
			key := benchTuple(text)
			at, found := x.put(key, row)
			known, ok := want[text]
			if found != ok || (ok && at != known) || (!ok && at != row) {
				t.Fatalf("key %q: row %d, found %t; want %d, %t", text, at, found, known, ok)
			}
			if !ok {
				want[text] = row
			}
			if at, ok := x.find(benchTuple(text)); !ok || at != want[text] {
				t.Fatalf("key %q is at %d, found %t", text, at, ok)
			}
		}
		if _, ok := x.find(benchTuple("absent")); ok {
			t.Fatal("a key that was not put is found")
		}
		x.release()
	}
}

func TestSlabIsEmptyWhenItIsTakenAgain(t *testing.T) {
	t.Parallel()
	var s slabs[*int]
	v := s.take(2 * slabMin)
	for range 2 * slabMin {
		v = append(v, new(int))
	}
	s.give(v)
	again := s.take(slabMin)
	if len(again) != 0 {
		t.Errorf("it has %d elements", len(again))
	}
	for _, p := range again[:cap(again)] {
		if p != nil {
			t.Fatal("it still points to what was in it")
		}
	}
	if other := s.take(8 * slabMin); cap(other) < 8*slabMin {
		t.Errorf("it has room for %d elements, want %d", cap(other), 8*slabMin)
	}
}

// The batch that is loaded must not keep the frames of the changes behind it in memory,
// and what is collected meanwhile must not be the batch's.
func TestCutLeavesTheChangesBehindItToTheNextBatch(t *testing.T) {
	t.Parallel()
	schema := benchSchema()
	c := newCollector("e", cdc.Checkpoint{})
	for i := range 2 * slabMin {
		c.changes = append(c.changes, change{schema: schema, kind: cdc.KindInsert, new: benchTuple(strconv.Itoa(i), "x"), pos: cdc.Position{Commit: 1, Ordinal: uint64(i)}}) //nolint:gosec // Small.
	}
	c.commits = append(c.commits, commit{n: slabMin, end: 2})
	b := c.cut(slabMin, cdc.Checkpoint{})
	for _, ch := range b.changes[:cap(b.changes)][slabMin:] {
		if ch.new != nil || ch.schema != nil {
			t.Fatal("the batch's memory still has a change that is not in it")
		}
	}
	b.release()
	c.changes = append(c.changes, c.changes...) // Takes no memory of another batch.
	next := c.cut(len(c.changes), b.checkpoint)
	for i := range 2 * slabMin {
		want := strconv.Itoa(slabMin + i%slabMin)
		if v, _, _ := next.changes[i].new.Next(); string(v.Bytes) != want {
			t.Fatalf("change %d of the next batch has the key %s, want %s", i, v.Bytes, want)
		}
	}
}

// A key that is NULL is none: rows that have it are not one row, and there is nothing to
// delete. The sink refuses each of them.
func TestRowsWithNULLInTheKeyAreKeptApart(t *testing.T) {
	t.Parallel()
	schema := benchSchema()
	tuple := func(key, v string) cdc.Tuple {
		if key == "" {
			return cdc.Tuple(nil).AppendValue(cdc.Value{Kind: cdc.Null}).AppendValue(cdc.Value{Kind: cdc.Text, Bytes: []byte(v)})
		}
		return benchTuple(key, v)
	}
	insert := func(key, v string) *change { return &change{schema: schema, kind: cdc.KindInsert, new: tuple(key, v)} }
	rows, err := compact(schema, []*change{
		insert("", "one"), insert("", "two"), insert("7", "seven"),
		{schema: schema, kind: cdc.KindUpdate, oldKind: cdc.OldFull, old: tuple("", "one"), new: tuple("1", "one")},
		{schema: schema, kind: cdc.KindDelete, oldKind: cdc.OldFull, old: tuple("", "two")},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, row := range rows {
		v, _ := column(row.Tuple, 1)
		got = append(got, row.Op.String()+" "+string(v.Bytes))
	}
	if want := "[insert one insert two insert seven update one]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	unchanged := cdc.Tuple(nil).AppendValue(cdc.Value{Kind: cdc.Unchanged}).AppendValue(cdc.Value{Kind: cdc.Null})
	if _, err := compact(schema, []*change{{schema: schema, kind: cdc.KindInsert, new: unchanged}}); err == nil {
		t.Error("a key that was left out is taken for one")
	}
}

// benchFrame makes one frame of rows as capture does, in transactions of a hundred.
func benchFrame(tb testing.TB, schema *cdc.Schema, rows, perKey int) cdc.Frame {
	tb.Helper()
	w := cdc.NewWriter("e", cdc.Position{Commit: 1}, 1)
	w.Reset(nil)
	payload := []byte(strings.Repeat("x", 160))
	for i := range rows {
		if i%100 == 0 {
			w.Begin(cdc.LSN(0x10+i), 1700000000000000, 1) //nolint:gosec // Small.
		}
		w.Insert(schema)
		w.StartTuple(2)
		w.Text(strconv.AppendInt(nil, int64(i/perKey), 10))
		w.Text(payload)
		if i%100 == 99 {
			w.Commit(cdc.LSN(0x11 + i)) //nolint:gosec // Small.
		}
	}
	data, _, err := w.Seal()
	if err != nil {
		tb.Fatal(err)
	}
	frame, err := cdc.Open(data)
	if err != nil {
		tb.Fatal(err)
	}
	return frame
}

// BenchmarkBatch takes a frame in, cuts a batch and compacts it, as apply does between the
// stream and the sink.
func BenchmarkBatch(b *testing.B) {
	for _, perKey := range []int{1, 100} {
		b.Run(fmt.Sprintf("rows-per-key-%d", perKey), func(b *testing.B) {
			const rows = 50_000
			schema := benchSchema()
			frame := benchFrame(b, schema, rows, perKey)
			b.ReportAllocs()
			for b.Loop() {
				c := newCollector("e", cdc.Checkpoint{})
				c.changes = changeSlabs.take(rows)
				if err := c.add(&frame, []*cdc.Schema{schema}, 1); err != nil {
					b.Fatal(err)
				}
				batch := c.cut(rows, cdc.Checkpoint{})
				tables := split(batch.changes)
				if err := tables[0].compact(); err != nil {
					b.Fatal(err)
				}
				rowSlabs.give(tables[0].rows)
				batch.release()
				changeSlabs.give(c.changes)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
		})
	}
}
