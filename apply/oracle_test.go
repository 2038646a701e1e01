package apply_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// oracle is the source: live rows by key, as PostgreSQL would hold them, and of the
// table without a key, t3, the rows that it has and every change since it was truncated.
type oracle struct {
	tables  map[string]map[string][]string
	bag     [][]string
	appends []string
	schemas map[string]*cdc.Schema
	frames  [][]byte
	whole   bool // updates of a key carry all values

	w      *cdc.Writer
	copies map[string]*copying // nil if every row came through the stream
}

func newOracle() *oracle {
	t3 := schema("t3", 3)
	t3.Key = nil
	if err := t3.Seal(); err != nil {
		panic(err)
	}
	return &oracle{
		tables:  map[string]map[string][]string{"t1": {}, "t2": {}},
		schemas: map[string]*cdc.Schema{"t1": schema("t1", 1), "t2": schema("t2", 2), "t3": t3},
	}
}

func schema(name string, oid uint32) *cdc.Schema {
	s := &cdc.Schema{OID: oid, Namespace: "public", Table: name, Key: []int{0}}
	for _, c := range []string{"id", "a", "big"} {
		s.Columns = append(s.Columns, cdc.Column{Name: c, Type: cdc.TypeText, Mod: -1, BaseMod: -1})
	}
	if err := s.Seal(); err != nil {
		panic(err)
	}
	return s
}

func put(w *cdc.Writer, vals ...string) {
	w.StartTuple(len(vals))
	for _, v := range vals {
		switch v {
		case "NULL":
			w.Null()
		case "?":
			w.Unchanged()
		default:
			w.Text([]byte(v))
		}
	}
}

// history plays random transactions, cut into frames at random places.
func (o *oracle) history(t *rapid.T) {
	w := cdc.NewWriter("e1", cdc.Position{Commit: 0x7f}, 0x80)
	w.Reset(nil)
	o.w = w
	if rapid.Bool().Draw(t, "rows from before") {
		o.before(t)
	}
	flush := func() { o.flush(t) }
	lsn := cdc.LSN(0x100)
	for range rapid.IntRange(1, 25).Draw(t, "transactions") {
		if o.copies != nil && rapid.IntRange(0, 1).Draw(t, "copy") == 0 {
			o.copy(t)
		}
		w := o.w
		w.Begin(lsn, time.Now().UnixMicro(), 1)
		for range rapid.IntRange(0, 6).Draw(t, "changes") {
			o.step(t, w)
			if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
				flush()
			}
		}
		w.Commit(lsn + 8)
		if rapid.IntRange(0, 2).Draw(t, "cut") == 0 {
			flush()
		}
		lsn += 0x10
	}
	for o.copies != nil && !o.copied() {
		o.copy(t)
	}
	flush()
}

// flush ends a frame.
func (o *oracle) flush(t *rapid.T) {
	if o.w.Empty() {
		return
	}
	data, _, err := o.w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	o.frames = append(o.frames, slices.Clone(data))
	o.w.Reset(nil)
}

// stream returns a stream that holds the first n frames.
func (o *oracle) stream(n int) *memStream {
	stream := newMemStream()
	for _, s := range o.schemas {
		stream.schemas[s.Fingerprint()] = s
	}
	for _, data := range o.frames[:n] {
		stream.publish(data)
	}
	return stream
}

// step makes one random change and writes it.
func (o *oracle) step(t *rapid.T, w *cdc.Writer) {
	name := rapid.SampledFrom([]string{"t1", "t1", "t2", "t3"}).Draw(t, "table")
	if name == "t3" {
		o.stepBag(t, w)
		return
	}
	s, rows := o.schemas[name], o.tables[name]
	live := slices.Sorted(maps.Keys(rows))
	free := func() string {
		for {
			k := "k" + strconv.Itoa(rapid.IntRange(0, 9).Draw(t, "key"))
			if _, taken := rows[k]; !taken {
				return k
			}
		}
	}
	op := rapid.IntRange(0, 19).Draw(t, "op")
	switch {
	case op == 19:
		w.Truncate(0, []*cdc.Schema{s})
		clear(rows)
	case len(live) == 0 || (op < 6 && len(live) < 8):
		k := free()
		rows[k] = []string{k, value(t), value(t)}
		w.Insert(s)
		put(w, rows[k]...)
	case op < 12:
		k := rapid.SampledFrom(live).Draw(t, "key")
		a, big := value(t), "?"
		next := []string{k, a, rows[k][2]}
		if rapid.Bool().Draw(t, "changes big") {
			big = value(t)
			next[2] = big
		}
		rows[k] = next
		o.update(name, cdc.OldNone, big == "?")
		put(w, k, a, big)
	case op < 15 && len(live) < 9:
		k, to := rapid.SampledFrom(live).Draw(t, "key"), free()
		a := value(t)
		rows[to] = []string{to, a, rows[k][2]}
		delete(rows, k)
		o.update(name, cdc.OldKey, !o.whole)
		put(w, k, "NULL", "NULL")
		if o.whole {
			put(w, rows[to]...)
			break
		}
		put(w, to, a, "?")
		o.again(name, to)
	default:
		k := rapid.SampledFrom(live).Draw(t, "key")
		delete(rows, k)
		w.Delete(s, cdc.OldKey)
		put(w, k, "NULL", "NULL")
	}
}

// stepBag changes the table without a key, whose replica identity is FULL.
func (o *oracle) stepBag(t *rapid.T, w *cdc.Writer) {
	s := o.schemas["t3"]
	if c := o.copies["t3"]; c != nil && !c.begun {
		o.stepHidden(t)
		return
	}
	op := rapid.IntRange(0, 9).Draw(t, "op")
	pick := func() int { return rapid.IntRange(0, len(o.bag)-1).Draw(t, "row") }
	note := o.note
	switch {
	case op == 9:
		w.Truncate(0, []*cdc.Schema{s})
		o.bag, o.appends = nil, nil
		if c := o.copies["t3"]; c != nil {
			c.rest = nil // What is left of the copy was truncated too.
		}
	case op < 5 || len(o.bag) == 0:
		row := []string{"x", value(t), value(t)}
		o.bag = append(o.bag, row)
		w.Insert(s)
		put(w, row...)
		note(apply.OpInsert, row)
	case op < 7:
		i := pick()
		old := o.bag[i]
		o.bag[i] = []string{"x", value(t), old[2]}
		w.Update(s, cdc.OldFull)
		put(w, old...)
		put(w, "x", o.bag[i][1], "?")
		note(apply.OpUpdate, o.bag[i])
	default:
		i := pick()
		w.Delete(s, cdc.OldFull)
		put(w, o.bag[i]...)
		note(apply.OpDelete, o.bag[i])
		o.bag = slices.Delete(o.bag, i, i+1)
	}
}

// note remembers a change of the table without a key.
func (o *oracle) note(op apply.Op, row []string) { o.appends = append(o.appends, fmt.Sprint(op, row)) }

func value(t *rapid.T) string { return strconv.Itoa(rapid.IntRange(0, 1_000_000).Draw(t, "value")) }

func (o *oracle) live(table string) map[string]string {
	out := map[string]string{}
	for k, r := range o.tables[table] {
		out[k] = strings.Join(r, ",")
	}
	return out
}

// compare fails unless the sink holds what the source does. except tells which keys may
// differ.
func (o *oracle) compare(t *rapid.T, sink *memSink, except func(table, key string) bool) {
	if sink.err != nil {
		t.Fatal(sink.err)
	}
	for name := range o.tables {
		got, want := sink.live(name), o.live(name)
		for _, m := range []map[string]string{got, want} {
			maps.DeleteFunc(m, func(k, _ string) bool { return except != nil && except(name, k) })
		}
		if !maps.Equal(got, want) {
			t.Fatalf("table %s\n got %v\nwant %v", name, got, want)
		}
	}
	if got := sink.appended("t3"); except == nil && !slices.Equal(got, o.appends) {
		t.Fatalf("table t3\n got %v\nwant %v", got, o.appends)
	}
}
