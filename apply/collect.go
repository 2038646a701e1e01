package apply

import (
	"errors"
	"fmt"
	"math"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// ErrGap is wrapped by errors that say that changes are missing from the stream.
var ErrGap = errors.New("changes are missing from the stream")

// checkpointLost is what to do when apply's state is gone.
const checkpointLost = "the checkpoint is lost, and with it what the sink has. Restore the state bucket from a backup that is not older than the tables; or start over under a new pipeline name, with a new slot, and copy the tables anew"

// change is one change as it came, before compaction. Its tuples point into the frame.
type change struct {
	schema     *cdc.Schema
	new, old   cdc.Tuple
	pos        cdc.Position
	commitTime int64 // microseconds since 1970 UTC
	kind       cdc.Kind
	oldKind    cdc.OldKind
	loose      bool
}

func newChange(s *cdc.Schema, rec *cdc.Record) change {
	return change{
		schema: s, new: rec.New, old: rec.Old, pos: rec.Position, kind: rec.Kind, oldKind: rec.OldKind,
		loose: rec.Loose, commitTime: rec.CommitTime,
	}
}

// commit is the end of a transaction: n changes were collected before it.
type commit struct {
	n   int
	end cdc.LSN
}

// frameEnd is the end of a frame: n changes were collected up to it.
type frameEnd struct {
	n        int
	sequence uint64
	// commitTime and changes are for the latency figures, which rows of a snapshot
	// do not count for: they are as old as they are.
	commitTime int64
	changes    int
}

// timed sets what the latency figures need, from the changes of the frame.
func (f *frameEnd) timed(changes []change) {
	for i := range changes {
		if changes[i].kind != cdc.KindSnapshot {
			f.changes++
			f.commitTime = changes[i].commitTime
		}
	}
}

// collector gathers the changes of frames and cuts them into batches. It does no I/O
// and knows no clock.
type collector struct {
	epoch string
	// last and end are how far the collected frames go; changes at or before from
	// were applied earlier and are left out.
	last, from cdc.Position
	end        cdc.LSN

	changes []change
	commits []commit
	frames  []frameEnd
	bytes   int
	// sequence is that of the last frame.
	sequence uint64
	// begun is how many changes were collected before the last begin mark.
	begun int
	// barrier is the index of the first change that must not be in one batch
	// with those before it, or -1.
	barrier int
	total   uint64                 // of the changes of the epoch that were collected
	current map[uint32]*cdc.Schema // table OID -> schema of its changes in the batch

	// only has the tables whose changes are taken, and limit is how far they may be
	// taken at present. A nil map and the zero limit leave nothing out.
	only  map[string]bool
	limit limit
	// replay tells that what is before the stream's first frame does not matter.
	replay bool
}

// limit is a position that no batch may pass.
type limit struct {
	set bool
	at  cdc.Position
	// sequence is that of the last frame that the stream had up to the position when
	// the limit was set. It matters if no change is at the position itself.
	sequence uint64
}

func newCollector(epoch string, from cdc.Checkpoint) *collector {
	return &collector{
		epoch: epoch, last: from.Position, from: from.Position, end: from.End, sequence: from.Sequence,
		barrier: -1, current: map[uint32]*cdc.Schema{},
	}
}

// add takes one frame in. schemas are those of its header.
func (c *collector) add(frame *cdc.Frame, schemas []*cdc.Schema, sequence uint64) error {
	h := &frame.Header
	if h.Epoch != c.epoch {
		return fmt.Errorf("message %d is of epoch %q, the stream is of epoch %q: it was put there by another pipeline", sequence, h.Epoch, c.epoch)
	}
	if c.last.IsZero() && c.end == 0 {
		// Nothing was applied yet: the history begins where the stream does. Only
		// what is applied is ever purged from its front; so if anything was, it was
		// the checkpoint that is lost.
		if !c.replay && h.Total != uint64(h.Changes) { //nolint:gosec // A count.
			return fmt.Errorf("%w: nothing is known to be applied, but the stream begins with message %d, after %s, and %d changes before that were applied and purged: %s",
				ErrGap, sequence, h.Prev, h.Total-uint64(h.Changes), checkpointLost) //nolint:gosec // A count.
		}
		c.last, c.end = h.Prev, h.Prev.Commit
		c.commits = append(c.commits, commit{end: c.end})
	}
	if h.Prev.After(c.last) && h.Prev.Commit > c.end {
		return fmt.Errorf("%w: message %d starts after %s, but the changes before it are known only up to %s", ErrGap, sequence, h.Prev, c.last)
	}
	r, err := frame.Reader(schemas)
	if err != nil {
		return fmt.Errorf("read message %d: %w", sequence, err)
	}
	before := len(c.changes)
	for {
		var rec cdc.Record
		ok, err := r.Next(&rec)
		if err != nil {
			return fmt.Errorf("read message %d: %w", sequence, err)
		}
		if !ok {
			break
		}
		c.record(&rec, schemas)
	}
	if h.Last.After(c.last) {
		c.last = h.Last
	}
	c.ended(h)
	c.total = h.Total
	f := frameEnd{n: len(c.changes), sequence: sequence}
	f.timed(c.changes[before:])
	c.frames = append(c.frames, f)
	c.sequence = sequence
	return nil
}

// ended notes the end LSN of transactions that left no record because they changed
// nothing that is captured.
func (c *collector) ended(h *cdc.Header) {
	if h.End <= c.end {
		return
	}
	n := len(c.changes)
	if h.Open {
		n = c.begun
	}
	c.end = h.End
	c.commits = append(c.commits, commit{n: n, end: h.End})
}

func (c *collector) record(rec *cdc.Record, schemas []*cdc.Schema) {
	switch {
	case rec.Kind == cdc.KindBegin:
		c.begun = len(c.changes)
	case rec.Kind == cdc.KindCommit:
		c.end = max(c.end, rec.End)
		c.commits = append(c.commits, commit{n: len(c.changes), end: c.end})
	case !rec.Position.After(c.from):
		// Applied before.
	case rec.Kind.IsRow():
		s := schemas[rec.Schema]
		if !c.wanted(s) {
			return
		}
		c.note(s, len(c.changes))
		c.changes = append(c.changes, newChange(s, rec))
		c.bytes += len(rec.New) + len(rec.Old)
	case rec.Kind == cdc.KindTruncate:
		for _, i := range rec.Truncated {
			if !c.wanted(schemas[i]) {
				continue
			}
			if c.barrier < 0 {
				c.barrier = len(c.changes)
			}
			c.changes = append(c.changes, newChange(schemas[i], rec))
		}
	}
}

func (c *collector) wanted(s *cdc.Schema) bool { return c.only == nil || c.only[s.Name()] }

// note remembers which schema a table has in the batch, and sets a barrier at a change,
// by its index, that has another.
func (c *collector) note(s *cdc.Schema, index int) {
	if c.barrier >= 0 {
		return
	}
	known, ok := c.current[s.OID]
	switch {
	case !ok:
		c.current[s.OID] = s
	case known != s && known.Fingerprint() != s.Fingerprint():
		c.barrier = index
	}
}

// empty reports whether there is nothing to cut off, not even the end of a transaction.
func (c *collector) empty() bool { return len(c.changes) == 0 && len(c.commits) == 0 }

// ready returns how many changes the next batch takes: up to the barrier, else up to
// the last end of a transaction, else - when an open transaction alone fills the
// batch - everything. ok is false when there is nothing to take yet.
func (c *collector) ready(full bool) (n int, ok bool) {
	if c.limit.set {
		defer func() {
			if allowed, _ := c.until(c.limit.at); ok && n > allowed {
				n, ok = allowed, allowed > 0
			}
		}()
	}
	switch {
	case c.barrier > 0:
		return c.barrier, true
	case c.barrier == 0:
		return c.truncates(), true
	case full && len(c.changes) > 0 && c.whole() == 0:
		return len(c.changes), true
	case len(c.commits) > 0:
		return c.whole(), true
	}
	return 0, false
}

// whole returns how many changes belong to transactions that are complete.
func (c *collector) whole() int {
	if len(c.commits) == 0 {
		return 0
	}
	return c.commits[len(c.commits)-1].n
}

// truncates returns how many changes at the front belong to one truncate.
func (c *collector) truncates() int {
	n := 0
	for n < len(c.changes) && c.changes[n].kind == cdc.KindTruncate && c.changes[n].pos == c.changes[0].pos {
		n++
	}
	return n
}

// until returns how many changes lie at or before the position, and whether one lies
// exactly there.
func (c *collector) until(p cdc.Position) (n int, exact bool) {
	for n < len(c.changes) && !c.changes[n].pos.After(p) {
		n++
	}
	return n, n > 0 && c.changes[n-1].pos == p
}

// exhausted reports whether nothing more will come at or before the limit. Rows of a
// snapshot may have positions of a transaction that ended before them.
func (c *collector) exhausted() bool {
	ended := c.limit.at.Ordinal == math.MaxUint64 && c.end > c.limit.at.Commit && c.sequence >= c.limit.sequence
	return c.limit.set && (!c.limit.at.After(c.last) || ended)
}

// reached reports whether everything up to the limit was collected and cut off.
func (c *collector) reached() bool {
	if !c.exhausted() {
		return false
	}
	n, _ := c.until(c.limit.at)
	return n == 0
}

// batch is what was cut off.
type batch struct {
	changes    []change
	frames     []frameEnd
	checkpoint cdc.Checkpoint // what holds once the batch is applied
	// open tells that the end of the last transaction is not in the batch.
	open  bool
	ahead *ahead // what was done for it before its turn, or nil
	// reached tells that there is no batch because a replay has reached this limit.
	reached limit
}

// last returns the position of the last change.
func (b *batch) last() cdc.Position { return b.changes[len(b.changes)-1].pos }

// tables returns the share of each table, as it was made ahead if it was.
func (b *batch) tables() []*tableChanges {
	if b.ahead == nil {
		return split(b.changes)
	}
	return b.ahead.tables
}

// release gives the room of a batch that is over to a later one.
func (b *batch) release() {
	changeSlabs.give(b.changes)
	b.changes = nil
}

// cut takes the first n changes off, with the transaction ends among and right after
// them. before is the checkpoint that the batch follows.
func (c *collector) cut(n int, before cdc.Checkpoint) batch {
	b := batch{changes: c.changes[:n], checkpoint: before}
	b.checkpoint.Epoch = c.epoch
	if n > 0 {
		b.checkpoint.Position = b.last()
	}
	if n == len(c.changes) && c.only != nil {
		// What follows are changes that are left out.
		b.checkpoint.Position = later(b.checkpoint.Position, c.last)
	}
	commits := 0
	b.open = n > 0
	for commits < len(c.commits) && c.commits[commits].n <= n {
		b.open = b.open && c.commits[commits].n < n
		b.checkpoint.End = max(b.checkpoint.End, c.commits[commits].end)
		commits++
	}
	frames := 0
	for frames < len(c.frames) && c.frames[frames].n <= n {
		b.checkpoint.Sequence = c.frames[frames].sequence
		frames++
	}
	b.frames = c.frames[:frames:frames]
	c.keep(n, commits, frames)
	// A truncate of several tables is one change of the stream and several here.
	b.checkpoint.Total = max(before.Total, c.total-min(c.total, uint64(len(c.changes))))
	return b
}

// keep makes what is behind the cut the start of the next batch.
func (c *collector) keep(n, commits, frames int) {
	changes := append(changeSlabs.take(max(cap(c.changes)/2, len(c.changes)-n)), c.changes[n:]...)
	clear(c.changes[n:]) // The batch has the room that they were in, and must not hold their frames.
	ends := append([]commit(nil), c.commits[commits:]...)
	for i := range ends {
		ends[i].n -= n
	}
	rest := append([]frameEnd(nil), c.frames[frames:]...)
	for i := range rest {
		rest[i].n -= n
	}
	c.changes, c.commits, c.frames = changes, ends, rest
	c.bytes, c.begun, c.barrier = 0, max(0, c.begun-n), -1
	clear(c.current)
	for i := range c.changes {
		ch := &c.changes[i]
		c.bytes += len(ch.new) + len(ch.old)
		if c.barrier >= 0 {
			continue
		}
		if ch.kind == cdc.KindTruncate {
			c.barrier = i
			continue
		}
		c.note(ch.schema, i)
	}
}
