package capture

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture/pgoutput"
)

// desk is where the reader of a session and the workers that copy existing rows meet. A
// worker asks for something, and the reader does it when it stands between transactions.
//
// A chunk of a table gets into the stream like this:
//
//  1. The reader opens a window: it notes which rows of the table are touched by what it
//     passes from now on.
//  2. The worker locks the table against changes of its form, which the server's snapshots
//     do not hide, and takes a snapshot S. If a transaction that the reader has passed
//     before the window is not in S, the worker takes another one after a while.
//  3. It reads the rows, ends its transaction, and reads H, the end of the WAL.
//  4. When the reader has passed H it writes the rows, except those that the window says
//     something about: a row that the stream has whole since, or that is gone, is left
//     out; what updates have said about parts of a row is laid over it.
//
// Why the sink ends as the server, row by row: the changes of a row are in the log in the
// order h1 h2 ... hn, since its lock is held until a transaction is seen by others. For
// the same reason S has seen the first p of them. The window holds those from a to b, as
// far as the reader is. By rule 2 all before a are in S, so a <= p+1; by rule 4 all that S
// has seen are before H, so b >= p. If one from a to b made the row whole or took it away,
// the stream has said all about it until b and the chunk is silent. Otherwise they set
// some values each. A value that one of them has set is taken from the last that did; one
// that none has set is the same after hp and after hb, and hp is what the chunk has read.
//
// Rule 2 covers a transaction whose commit is in the log while others do not see it yet,
// for long maybe, if it waits for a synchronous standby: without it the chunk would not
// have its changes, nor the window. Those that were passed before anybody kept a list are
// what suspects is for.
//
// Rows that the sink lacks: an update that leaves values out, before the chunk with its
// row is written, finds nothing to take them from. It is marked ("loose") and passed over,
// since the chunk will come. A change of key that leaves values out may carry a row out of
// a part of the table that is still to be copied into one that has been, so its new key is
// put down and copied again by itself.
type desk struct {
	c *Capture
	n *snapshots
	s *session
	// ready is up to where everything must have come before there are windows: what
	// the server repeats after a restart is passed over, not noted.
	ready cdc.LSN
	// after is the last position that the sink may know.
	after cdc.Position

	// busy tells that there are asks, called that one has come since the last turn.
	busy, called atomic.Bool
	mu           sync.Mutex
	asks         []*ask
	passed       passed
	armed        bool
	suspects     suspects
	latest       *visibility // the newest snapshot that was judged
	arming       sync.Mutex  // held by arm

	// What follows belongs to the reader.
	tables map[Table]*deskTable
	// version counts the changes of tables.
	version int
	xid     uint32
	time    int64 // of the last commit
	more    bool  // rows could be written if there was time
	dirty   bool  // something must be remembered before the next frame is published
}

// deskTable is what the reader knows of a table that is being copied.
type deskTable struct {
	copied  *tableCopy
	windows []*window
	// seen is what the copy of a table without a key has; nil for others.
	seen *visibility
}

// ask is a wish of a worker. run belongs to the reader; it answers false if the time has
// not come.
type ask struct {
	run  func(ctx context.Context) (bool, error)
	done chan struct{}
}

func newDesk(s *session, st *start) *desk {
	d := &desk{c: s.c, n: s.c.snapshots, s: s, ready: max(st.tail.End, st.slot), tables: map[Table]*deskTable{}}
	if !st.tail.Empty {
		d.ready = max(d.ready, st.tail.Last.Commit+1)
	}
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	if d.n.state != nil {
		for _, t := range d.n.state.Tables {
			if t.open() {
				d.tables[t.Table] = &deskTable{copied: t}
			}
		}
	}
	return d
}

// do has the reader do something and waits for it.
func (d *desk) do(ctx context.Context, run func(ctx context.Context) (bool, error)) error {
	a := d.submit(run)
	return d.wait(ctx, a)
}

func (d *desk) submit(run func(ctx context.Context) (bool, error)) *ask {
	a := &ask{run: run, done: make(chan struct{})}
	d.mu.Lock()
	d.asks = append(d.asks, a)
	d.busy.Store(true)
	d.mu.Unlock()
	d.call()
	return a
}

// call wakes the reader. A deadline in the past does; see socket.fill.
func (d *desk) call() {
	d.called.Store(true)
	_ = d.s.sock.conn.SetReadDeadline(time.Unix(1, 0)) // Its failure is that of the next read.
}

// wait waits for an ask. The reader learns how far the server is from its keepalives, so
// they are asked for.
func (d *desk) wait(ctx context.Context, a *ask) error {
	tick := time.NewTicker(pollEvery / 5)
	defer tick.Stop()
	d.c.ask(wants{reply: true})
	for {
		select {
		case <-a.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			d.c.ask(wants{reply: true})
		}
	}
}

// turn lets the reader do what it was asked for. It is called between any two messages,
// and does nothing inside a transaction.
func (d *desk) turn(ctx context.Context) error {
	if d == nil || !d.busy.Load() {
		return nil
	}
	// Inside a transaction the next message is what there is to wait for.
	d.called.Store(false)
	d.more = false
	if d.s.out.InTransaction() {
		return nil
	}
	d.mu.Lock()
	asks := slices.Clone(d.asks)
	d.mu.Unlock()
	for _, a := range asks {
		done, err := a.run(ctx)
		if err != nil {
			return err
		}
		if !done {
			continue
		}
		d.mu.Lock()
		d.asks = slices.DeleteFunc(d.asks, func(o *ask) bool { return o == a })
		d.busy.Store(len(d.asks) > 0)
		d.mu.Unlock()
		close(a.done)
	}
	return nil
}

// morePause is how long the reader looks for messages between two pieces of a chunk. It
// must be long enough for a read to be tried.
const morePause = 200 * time.Microsecond

// pause shortens the wait for messages if there is something else to do.
func (d *desk) pause(wait time.Duration) time.Duration {
	if d == nil || !d.more {
		return wait
	}
	return morePause
}

// due tells that the wait was cut short.
func (d *desk) due() bool { return d != nil && (d.more || d.called.Load()) }

// begin and commit take note of the transactions that the reader passes.
func (d *desk) begin(m *pgoutput.Message) {
	if d != nil {
		d.xid, d.time = m.XID, m.Time+epoch2000
	}
}

func (d *desk) commit() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.armed {
		d.passed.add(d.xid)
		d.armed = !d.passed.lost
	}
}

// of returns the copy of a table, nil if it is not being copied.
func (d *desk) of(t *table) *deskTable {
	if d == nil {
		return nil
	}
	if t.copyVersion != d.version+1 {
		t.copyVersion, t.copied = d.version+1, d.tables[t.name]
	}
	return t.copied
}

// open makes a window of a table, and the table one that is being copied.
func (d *desk) open(c *tableCopy, w *window) {
	t := d.tables[c.Table]
	if t == nil {
		t = &deskTable{}
		d.tables[c.Table] = t
		d.version++
	}
	t.copied = c
	t.windows = append(t.windows, w)
}

// closeWindow ends a window, and the copy of the table if that is over.
func (d *desk) closeWindow(c *tableCopy, w *window) {
	t := d.tables[c.Table]
	if t == nil {
		return
	}
	t.windows = slices.DeleteFunc(t.windows, func(o *window) bool { return o == w })
	d.n.mu.Lock()
	over := c.over()
	d.n.mu.Unlock()
	if over && t.copied == c && len(t.windows) == 0 {
		delete(d.tables, c.Table)
		d.version++
	}
}

// described takes the description of a table that is being copied.
func (d *desk) described(t *table) {
	if c := d.of(t); c != nil {
		for _, w := range c.windows {
			w.relations = append(w.relations, &t.relation)
		}
	}
}

// emptied takes a truncate.
func (d *desk) emptied(t *table) {
	if c := d.of(t); c != nil {
		for _, w := range c.windows {
			w.empty()
		}
	}
}

// touch takes a change of a row. m has been checked.
func (d *desk) touch(t *table, m *pgoutput.Message) {
	c := d.of(t)
	if c == nil || len(t.schema.Key) == 0 {
		return
	}
	moved := m.Kind == pgoutput.KindUpdate && m.OldKind != pgoutput.OldNone && t.keyDiffers(m)
	if len(c.windows) == 0 && !moved {
		return
	}
	for _, w := range c.windows {
		w.noted(t.schema)
	}
	fresh, whole := t.fill(m)
	if m.Kind == pgoutput.KindDelete || moved {
		key := keyBytes(nil, wireTuple(m.Old), t.isKey)
		for _, w := range c.windows {
			w.settle(key)
		}
	}
	if m.Kind == pgoutput.KindDelete {
		return
	}
	key := keyBytes(nil, fresh, t.isKey)
	for _, w := range c.windows {
		if whole || moved {
			w.settle(key)
		} else {
			w.patch(key, slices.Clone(fresh))
		}
	}
	if moved && !whole {
		d.n.mu.Lock()
		defer d.n.mu.Unlock()
		if c.copied.move(keyTexts(wireTuple(m.Old), t.schema.Key), keyTexts(fresh, t.schema.Key)) {
			d.dirty = true
		}
	}
}

// settle stores what must be known before the next frame is published.
func (d *desk) settle(ctx context.Context) error {
	if d == nil || !d.dirty {
		return nil
	}
	d.dirty = false
	return d.n.update(ctx, func(*snapshotState) {})
}

// loose reports whether an update may be passed over if the sink lacks its row.
func (d *desk) loose(t *table, m *pgoutput.Message) bool {
	if d.of(t) == nil {
		return false
	}
	_, whole := t.fill(m)
	return !whole
}

// fill makes a tuple of the new row of a message, with the values that the old row has to
// offer. whole tells that none is missing.
func (t *table) fill(m *pgoutput.Message) (row cdc.Tuple, whole bool) {
	whole = true
	for i, fresh, was := 0, m.New, m.Old; ; i++ {
		kind, value, ok := fresh.Next()
		if !ok {
			return row, whole
		}
		wasKind, wasValue, _ := was.Next()
		if kind == pgoutput.Unchanged && t.fills(m, i) {
			kind, value = wasKind, wasValue
		}
		whole = whole && kind != pgoutput.Unchanged
		row = row.AppendValue(wireValue(kind, value))
	}
}

func wireTuple(tuple pgoutput.Tuple) (row cdc.Tuple) {
	for {
		kind, value, ok := tuple.Next()
		if !ok {
			return row
		}
		row = row.AppendValue(wireValue(kind, value))
	}
}

func wireValue(kind pgoutput.ValueKind, value []byte) cdc.Value {
	switch kind {
	case pgoutput.Text:
		return cdc.Value{Kind: cdc.Text, Bytes: value}
	case pgoutput.Unchanged:
		return cdc.Value{Kind: cdc.Unchanged}
	default:
		return cdc.Value{Kind: cdc.Null}
	}
}

// pieceBytes is about how much of a chunk is written before the reader looks for messages
// again.
const pieceBytes = 1 << 20

// write writes a chunk, a piece at a time. The window stays open until the last one, so
// that each row is written as it is by then.
func (d *desk) write(ctx context.Context, c *chunk) (done bool, err error) {
	s := d.s
	switch {
	case c.window.overflow:
		c.again = "more of the table changed meanwhile than can be noted"
	case slices.ContainsFunc(c.window.relations, func(r *relation) bool { return !sameColumns(r, c.relation) }),
		slices.ContainsFunc(c.window.schemas, func(s *cdc.Schema) bool { return !sameRows(s, c.schema) }):
		c.again = "the columns of the table have changed"
	case !d.wanted(c.table):
		c.again = "the copy of the table starts over"
	}
	if c.again != "" {
		d.closeWindow(c.table, c.window)
		return true, nil
	}
	if s.view.clear < c.end || s.view.clear < d.ready {
		return false, nil
	}
	if c.next == 0 && len(c.ends) > 0 {
		if c.schema, err = d.c.keepSchema(ctx, c.schema); err != nil {
			return false, err
		}
	}
	var isKey []bool
	if !c.window.untouched() {
		isKey = keyMask(c.schema)
	}
	for written := 0; c.next < len(c.ends); {
		if written > pieceBytes {
			d.more = true
			return false, nil
		}
		n, ok, err := d.frame(ctx, c, isKey)
		if err != nil || !ok {
			return false, err
		}
		written += n
	}
	c.at = s.out.Last()
	d.written(c)
	d.closeWindow(c.table, c.window)
	return true, nil
}

// frame writes rows until the frame is full. ok is false if the time has not come.
func (d *desk) frame(ctx context.Context, c *chunk, isKey []bool) (bytes int, ok bool, err error) {
	s := d.s
	s.starting()
	before := s.out.Len()
	if !s.out.BeginSnapshot(d.after, d.time) {
		return 0, false, nil
	}
	var key, buf []byte
	for ; c.next < len(c.ends) && s.out.Len() < s.c.cfg.FrameBytes; c.next++ {
		row := c.row(c.next)
		if isKey != nil {
			key = keyBytes(key[:0], row, isKey)
			merged, ok := c.window.merge(key, row, buf)
			if !ok {
				continue
			}
			row = merged
		}
		s.out.SnapshotRow(c.schema)
		s.out.StartTuple(len(c.schema.Columns))
		s.out.Values(row)
	}
	s.out.EndSnapshot()
	bytes = s.out.Len() - before
	if s.out.Len() >= s.c.cfg.FrameBytes {
		err = s.publish(ctx)
	}
	return bytes, true, err
}

// written marks the end of a chunk.
func (d *desk) written(c *chunk) {
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	d.n.room.wrote(c.at, time.Now())
	if c.singles != nil {
		for _, k := range c.singles {
			k.At = c.at
		}
		return
	}
	m := c.table.last()
	c.table.Marks = append(c.table.Marks, copyMark{
		Key: c.last, At: c.at, Rows: m.Rows + uint64(len(c.ends)), Bytes: m.Bytes + uint64(len(c.data)), Chunks: m.Chunks + 1, Ended: c.ended,
	})
}

// keepSchema stores a schema before it is used.
func (c *Capture) keepSchema(ctx context.Context, schema *cdc.Schema) (*cdc.Schema, error) {
	if known := c.schemas[schema.Fingerprint()]; known != nil {
		return known, nil
	}
	if err := c.stream.PutSchema(ctx, schema); err != nil {
		return nil, fmt.Errorf("store schema of %s: %w", schema.Name(), err)
	}
	c.schemas[schema.Fingerprint()] = schema
	return schema, nil
}

// wanted tells that a copy is not replaced by another one, which has all rows in the
// schema that they have by now. What is left of it must not come after the list of tables
// that has them so.
func (d *desk) wanted(c *tableCopy) bool {
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	return d.n.state != nil && d.n.state.find(c.Table) == c
}

// sameRows reports whether a row in one schema has the same key and the same columns in
// the other.
func sameRows(a, b *cdc.Schema) bool {
	return slices.Equal(slices.Sorted(slices.Values(a.Key)), slices.Sorted(slices.Values(b.Key))) &&
		slices.EqualFunc(a.Columns, b.Columns, func(a, b cdc.Column) bool { return a.Name == b.Name && a.OID == b.OID && a.Mod == b.Mod })
}

// sameColumns reports whether rows of one relation are rows of the other.
func sameColumns(a, b *relation) bool {
	return a.oid == b.oid && a.identity == b.identity && slices.Equal(a.columns, b.columns)
}
