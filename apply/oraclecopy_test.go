package apply_test

import (
	"maps"
	"slices"
	"strconv"

	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// copying is the copy of a table whose rows were there before the stream: the part of
// capture that decides which rows come when. A row of a snapshot is what the source has
// between two transactions.
type copying struct {
	begun, done bool
	last        string   // the key up to which rows were copied
	again       []string // single keys that have to be copied
	rest        [][]string
}

// before gives the source rows that the stream does not tell of.
func (o *oracle) before(t *rapid.T) {
	o.copies = map[string]*copying{"t1": {}, "t2": {}, "t3": {}}
	for _, name := range []string{"t1", "t2"} {
		for range rapid.IntRange(0, 6).Draw(t, "rows") {
			k := "k" + strconv.Itoa(rapid.IntRange(0, 9).Draw(t, "key"))
			o.tables[name][k] = []string{k, value(t), value(t)}
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "rows") {
		o.bag = append(o.bag, []string{"x", value(t), value(t)})
	}
}

// update writes the beginning of an update. One that leaves values out is loose as long
// as the copy of its table is not complete.
func (o *oracle) update(table string, old cdc.OldKind, partial bool) {
	if c := o.copies[table]; partial && c != nil && !c.done {
		o.w.LooseUpdate(o.schemas[table], old)
		return
	}
	o.w.Update(o.schemas[table], old)
}

// again has a key copied that a row got while it was not known whether the sink has it.
func (o *oracle) again(table, key string) {
	if c := o.copies[table]; c != nil && !c.done {
		c.again = append(c.again, key)
	}
}

func (o *oracle) copied() bool {
	for _, c := range o.copies {
		if !c.done {
			return false
		}
	}
	return true
}

// copy goes on with the copy of a table, between two transactions, or begins another.
func (o *oracle) copy(t *rapid.T) {
	name := rapid.SampledFrom([]string{"t1", "t2", "t3"}).Draw(t, "copied table")
	c := o.copies[name]
	if c.done && (name == "t3" || o.copied() || rapid.IntRange(0, 3).Draw(t, "copied again") != 0) {
		return
	}
	if c.done {
		*c = copying{}
	}
	if !o.w.BeginSnapshot(cdc.Position{}, 1) {
		t.Fatal("the snapshot cannot begin")
	}
	defer o.w.EndSnapshot()
	if name == "t3" {
		o.copyBag(t, c)
		return
	}
	c.begun = true
	rows := o.tables[name]
	n := rapid.IntRange(1, 5).Draw(t, "chunk")
	before := *c
	var keys []string
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		if k > c.last && len(keys) < n {
			keys = append(keys, k)
		}
	}
	if len(keys) > 0 {
		c.last = keys[len(keys)-1]
	}
	if end := len(keys) < n; end && len(c.again) == 0 {
		c.done = true
	} else if end {
		keys, c.again = append(keys, c.again[0]), c.again[1:]
	}
	for i, k := range keys {
		if rapid.IntRange(0, 19).Draw(t, "capture ends") == 0 {
			*c = before
			o.reborn(t)
			return
		}
		if row := rows[k]; row != nil && !slices.Contains(keys[:i], k) {
			o.w.SnapshotRow(o.schemas[name])
			put(o.w, row...)
		}
		if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
			o.flush(t)
		}
	}
}

// reborn is another life of capture: what was not published is lost, what was is not
// written again.
func (o *oracle) reborn(t *rapid.T) {
	o.flush(t)
	var total uint64
	if n := len(o.frames); n > 0 {
		f, err := cdc.Open(o.frames[n-1])
		if err != nil {
			t.Fatal(err)
		}
		total = f.Header.Total
	}
	o.w = cdc.NewWriter("e1", o.w.Last(), o.w.End())
	o.w.Continue(total)
	o.w.Reset(nil)
}

// copyBag goes on with the copy of the table without a key, which is that of one moment:
// what is changed from then on is in the stream.
func (o *oracle) copyBag(t *rapid.T, c *copying) {
	s := o.schemas["t3"]
	if c.begun && rapid.IntRange(0, 3).Draw(t, "begins again") == 0 {
		o.w.Truncate(0, []*cdc.Schema{s})
		o.appends, c.begun = nil, false
	}
	if !c.begun {
		c.begun, c.rest = true, slices.Clone(o.bag)
	}
	for range rapid.IntRange(1, 3).Draw(t, "chunk") {
		if len(c.rest) == 0 {
			c.done = true
			return
		}
		o.w.SnapshotRow(s)
		put(o.w, c.rest[0]...)
		o.note(apply.OpInsert, c.rest[0])
		c.rest = c.rest[1:]
		if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
			o.flush(t)
		}
	}
}

// stepHidden changes the table without a key before its copy has begun.
func (o *oracle) stepHidden(t *rapid.T) {
	if len(o.bag) > 0 && rapid.Bool().Draw(t, "deletes") {
		o.bag = o.bag[1:]
		return
	}
	o.bag = append(o.bag, []string{"x", value(t), value(t)})
}
