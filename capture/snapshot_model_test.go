package capture

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// The model is a server with one table of (key, small, large), a reader that follows its
// log, a sink that does what the stream says, and a worker that copies the table. In every
// order of events that PostgreSQL allows the sink must end as the server.

// copyRow is a row, or what an update says of one: a value is "=" if it is not sent.
type copyRow struct{ small, large string }

// copyOp is a change of one row. was is the key before; put is nil for a delete.
type copyOp struct {
	was, key int
	put      *copyRow
	truncate bool
}

// copyTxn is a transaction: it runs, is in the log, and is seen by others, in this order.
type copyTxn struct {
	xid    uint32
	ops    []copyOp
	held   map[int]bool // keys that it has locked
	logged bool
}

type copyModel struct {
	keys    int             // how many there can be
	rows    map[int]copyRow // as new transactions see them
	open    []*copyTxn      // not seen yet
	nextXID uint32
	log     []*copyTxn
	read    int             // of the log
	state   map[int]copyRow // after what was read of the log

	sink   map[int]copyRow
	passed passed
	arming []uint32 // that ran when the reader began to remember commits

	// table is what capture keeps in mind of the copy, and stored what it finds of it
	// after a restart.
	table  *tableCopy
	stored []byte
	at     cdc.LSN // the place in the stream

	chunks  []*copyChunk
	after   int // the last key that was read
	ended   bool
	retries int
	singles int  // keys that were copied again
	wrong   bool // a row was written that was not so at that point of the log
}

// copyChunk is one chunk under way.
type copyChunk struct {
	window  *window
	singles []*singleKey // to be copied again; nil if it is the next part of the table
	key     int          // the last one of the table that was read
	ended   bool         // there are no more
	mark    int
	rows    map[int]copyRow
	end     int // H
}

func newCopyModel() *copyModel {
	m := &copyModel{rows: map[int]copyRow{}, nextXID: 100, sink: map[int]copyRow{}, state: map[int]copyRow{}, after: -1, table: &tableCopy{State: CopyRunning}}
	m.store()
	return m
}

func (m *copyModel) store() {
	var err error
	if m.stored, err = json.Marshal(m.table); err != nil {
		panic(err)
	}
}

// position returns the next place in the stream.
func (m *copyModel) position() cdc.Position {
	m.at++
	return cdc.Position{Commit: m.at}
}

func copyKeyTexts(key int) []string { return []string{strconv.Itoa(key)} }

func copyKey(key int) []byte { return []byte(strconv.Itoa(key)) }

func (r copyRow) tuple() cdc.Tuple {
	var t cdc.Tuple
	for _, v := range []string{r.small, r.large} {
		kind := cdc.Text
		if v == "=" {
			kind = cdc.Unchanged
		}
		t = t.AppendValue(cdc.Value{Kind: kind, Bytes: []byte(v)})
	}
	return t
}

func copyRowOf(t cdc.Tuple) copyRow {
	small, rest, _ := t.Next()
	large, _, _ := rest.Next()
	return copyRow{string(small.Bytes), string(large.Bytes)}
}

// over fills in what an update leaves out.
func (r copyRow) over(base copyRow) copyRow {
	if r.small == "=" {
		r.small = base.small
	}
	if r.large == "=" {
		r.large = base.large
	}
	return r
}

func (r copyRow) whole() bool { return r.small != "=" && r.large != "=" }

// locked reports whether a transaction other than t has the key.
func (m *copyModel) locked(t *copyTxn, key int) bool {
	return slices.ContainsFunc(m.open, func(o *copyTxn) bool { return o != t && (o.held[key] || o.held[-1]) })
}

// now is what a transaction sees.
func (m *copyModel) now(t *copyTxn) map[int]copyRow {
	rows := maps.Clone(m.rows)
	applyOps(rows, t.ops)
	return rows
}

func applyOps(rows map[int]copyRow, ops []copyOp) {
	for _, op := range ops {
		switch {
		case op.truncate:
			clear(rows)
		case op.put == nil:
			delete(rows, op.was)
		default:
			row := op.put.over(rows[op.was])
			delete(rows, op.was)
			rows[op.key] = row
		}
	}
}

// run makes a transaction do something, a new one maybe.
func (m *copyModel) run(kind string, txn, key, to, value int) {
	var t *copyTxn
	running := slices.DeleteFunc(slices.Clone(m.open), func(o *copyTxn) bool { return o.logged })
	if txn < len(running) {
		t = running[txn]
	} else {
		m.nextXID++
		t = &copyTxn{xid: m.nextXID, held: map[int]bool{}}
		m.open = append(m.open, t)
	}
	if m.locked(t, key) || m.locked(t, to) {
		return
	}
	_, exists := m.now(t)[key]
	_, taken := m.now(t)[to]
	op := copyOp{was: key, key: key}
	text := fmt.Sprint(value)
	switch {
	case kind == "truncate" && len(m.open) == 1:
		op.truncate, t.held[-1] = true, true
	case kind == "insert" && !exists:
		op.was, op.put = -2, &copyRow{text, "L" + text}
	case kind == "update" && exists:
		op.put = &copyRow{text, "L" + text}
	case kind == "partial" && exists:
		op.put = &copyRow{text, "="}
	case kind == "other partial" && exists:
		op.put = &copyRow{"=", "L" + text}
	case kind == "rekey" && exists && !taken:
		op.key, op.put = to, &copyRow{text, "L" + text}
	case kind == "rekey partial" && exists && !taken:
		op.key, op.put = to, &copyRow{text, "="}
	case kind == "delete" && exists:
		op.key = -2
	default:
		return
	}
	t.held[key], t.held[op.key] = true, true
	t.ops = append(t.ops, op)
}

// commit puts a transaction into the log, where the reader finds it; others do not see it
// yet and its locks are held.
func (m *copyModel) commit(txn int) {
	running := slices.DeleteFunc(slices.Clone(m.open), func(o *copyTxn) bool { return o.logged })
	if txn < len(running) {
		running[txn].logged = true
		m.log = append(m.log, running[txn])
	}
}

// show makes a transaction that is in the log seen.
func (m *copyModel) show(txn int) {
	logged := slices.DeleteFunc(slices.Clone(m.open), func(o *copyTxn) bool { return !o.logged })
	if txn >= len(logged) {
		return
	}
	t := logged[txn]
	applyOps(m.rows, t.ops)
	m.open = slices.DeleteFunc(m.open, func(o *copyTxn) bool { return o == t })
}

func (m *copyModel) snapshot() *visibility {
	v := &visibility{xmin: uint64(m.nextXID) + 1, xmax: uint64(m.nextXID) + 1}
	for _, t := range m.open {
		v.running = append(v.running, uint64(t.xid))
		v.xmin = min(v.xmin, uint64(t.xid))
	}
	slices.Sort(v.running)
	return v
}

// pass makes the reader pass the next transaction.
func (m *copyModel) pass() {
	if m.read == len(m.log) {
		return
	}
	t := m.log[m.read]
	m.read++
	m.passed.add(t.xid)
	applyOps(m.state, t.ops)
	for _, op := range t.ops {
		m.deliver(op)
	}
}

// deliver is what stream and sink make of a change while the table is being copied.
func (m *copyModel) deliver(op copyOp) {
	settle := func(key int) {
		for _, c := range m.chunks {
			c.window.settle(copyKey(key))
		}
	}
	switch {
	case op.truncate:
		clear(m.sink)
		for _, c := range m.chunks {
			c.window.empty()
		}
	case op.put == nil:
		delete(m.sink, op.was)
		settle(op.was)
	default:
		base, found := m.sink[op.was]
		row, whole := *op.put, op.put.whole()
		if op.was != op.key && op.was >= 0 {
			settle(op.was)
			delete(m.sink, op.was)
		}
		switch {
		case whole:
			settle(op.key)
		case op.was == op.key:
			for _, c := range m.chunks {
				c.window.patch(copyKey(op.key), row.tuple())
			}
		default:
			settle(op.key)
			if m.table.move(copyKeyTexts(op.was), copyKeyTexts(op.key)) {
				m.store()
			}
		}
		switch {
		case whole:
			m.sink[op.key] = row
		case found:
			m.sink[op.key] = row.over(base)
		}
	}
}

// begin opens a window for the next chunk.
func (m *copyModel) begin() {
	if len(m.chunks) >= 2 || len(m.chunks) > 0 && m.chunks[len(m.chunks)-1].rows == nil {
		return
	}
	c := &copyChunk{window: &window{}, mark: m.passed.mark()}
	if len(m.chunks) == 0 || m.chunks[0].singles == nil {
		c.singles = m.table.missing()
	}
	if m.table.over() || m.ended && c.singles == nil {
		return
	}
	m.chunks = append(m.chunks, c)
}

// take reads the rows of the last chunk.
func (m *copyModel) take(size int) {
	if len(m.chunks) == 0 || m.chunks[len(m.chunks)-1].rows != nil {
		return
	}
	c := m.chunks[len(m.chunks)-1]
	v := m.snapshot()
	if m.passed.hidden(v, c.mark) {
		m.retries++
		return
	}
	for _, t := range m.open {
		// What a real worker finds out by waiting.
		if t.logged && slices.Contains(m.arming, t.xid) {
			return
		}
	}
	c.rows, c.key = map[int]copyRow{}, m.after
	for _, key := range slices.Sorted(maps.Keys(m.rows)) {
		single := slices.ContainsFunc(c.singles, func(k *singleKey) bool { return slices.Equal(k.Key, copyKeyTexts(key)) })
		if single || c.singles == nil && key > m.after && len(c.rows) < size {
			c.rows[key], c.key = m.rows[key], key
		}
	}
	if c.singles == nil {
		c.ended = len(c.rows) < size
		m.after, m.ended = c.key, c.ended
	}
	c.end = len(m.log)
}

// write closes the first window and writes its chunk. The process may end before it has
// stored that.
func (m *copyModel) write(ends bool) {
	if len(m.chunks) == 0 || m.chunks[0].rows == nil || m.read < m.chunks[0].end {
		return
	}
	c := m.chunks[0]
	m.chunks = m.chunks[1:]
	for key, row := range c.rows {
		if merged, ok := c.window.merge(copyKey(key), row.tuple(), nil); ok {
			m.sink[key] = copyRowOf(merged)
			m.wrong = m.wrong || m.sink[key] != m.state[key]
		}
	}
	at := m.position()
	for _, k := range c.singles {
		k.At = at
		m.singles++
	}
	if c.singles == nil {
		m.table.Marks = append(m.table.Marks, copyMark{Key: copyKeyTexts(c.key), At: at, Ended: c.ended})
	}
	if ends {
		m.restart()
		return
	}
	m.table.settle(at)
	m.store()
}

// restart ends the process and has the next one go on with what is stored. The stream
// lacks nothing.
func (m *copyModel) restart() {
	m.table = new(tableCopy)
	if err := json.Unmarshal(m.stored, m.table); err != nil {
		panic(err)
	}
	m.table.lose(cdc.Position{Commit: m.at})
	m.chunks, m.after, m.ended = nil, -1, m.table.last().Ended
	if key := m.table.last().Key; len(key) > 0 {
		m.after, _ = strconv.Atoi(key[0]) // The model has written it.
	}
	m.remember()
}

// remember is where the reader begins to remember what it passes.
func (m *copyModel) remember() {
	m.passed = passed{}
	for _, t := range m.open {
		m.arming = append(m.arming, t.xid)
	}
}

// arm begins the copy.
func (m *copyModel) arm() {
	for m.read < len(m.log) {
		m.pass()
	}
	m.remember()
	// What was passed before is in the sink only if the table was captured then; be it
	// that it was not.
	clear(m.sink)
	m.table = &tableCopy{State: CopyRunning}
	m.store()
}

// finish lets everything come to its end and compares.
func (m *copyModel) finish() string {
	for len(m.open) > 0 {
		m.commit(0)
		m.show(0)
	}
	for range 100 {
		m.pass()
		m.begin()
		m.take(3)
		m.write(false)
	}
	if !m.table.over() {
		return "the copy does not come to its end"
	}
	if m.wrong {
		return "a row was written that was not so at that point of the log"
	}
	return cmp.Diff(m.rows, m.sink, cmp.AllowUnexported(copyRow{}))
}
