package capture

import "github.com/dbmazz/dbmazz/bus/cdc"

// view is what the reader knows of the stream from the server. It is a statement that
// stays true: every transaction with changes that committed before clear has arrived,
// and none of them ends after pending.
type view struct {
	// pending is the end LSN of the last transaction that has changes of
	// configured tables, whether they are new or already in the stream.
	pending cdc.LSN
	// clear is up to where the server has sent everything: the end of a complete
	// transaction, or the position in a keepalive.
	clear cdc.LSN
	// open tells that a transaction has begun and not ended.
	open bool
}

// confirm decides which LSN may be confirmed to the server. The slot forgets what it
// confirms, so the LSN never passes what the sink has committed, with one exception:
// when nothing at all is outstanding it follows the server, so that a database whose
// changes are of no interest releases its WAL. Such an advance is remembered durably
// before it is sent (idle, saved), because after a restart nothing else would tell it
// from a slot that somebody moved.
//
// It is a pure state machine. It relies on the server sending transactions in commit
// order, and on a slot repeating every transaction whose commit record starts at or
// after the confirmed LSN.
type confirm struct {
	sent    cdc.LSN // what the server was told last
	applied cdc.LSN // what the sink has committed
	saved   cdc.LSN // the last idle advance that is remembered
	seen    view
}

// newConfirm starts a session: slot is what the server has confirmed, published the
// end of the stream. Until the sink has applied what the stream already held, nothing
// is idle, even before the server has repeated it.
func newConfirm(slot, published cdc.LSN) *confirm {
	return &confirm{sent: slot, seen: view{pending: published}}
}

// observe takes the reader's view.
func (c *confirm) observe(v view) {
	c.seen = view{pending: max(c.seen.pending, v.pending), clear: max(c.seen.clear, v.clear), open: v.open}
}

// apply takes the sink's checkpoint. One that goes back is ignored: what was confirmed
// cannot be taken back.
func (c *confirm) apply(end cdc.LSN) { c.applied = max(c.applied, end) }

// idle returns an LSN past what the sink has committed that may be confirmed because
// nothing is outstanding, if there is one that is not remembered yet. settled is the
// end of the last transaction with changes before it.
func (c *confirm) idle() (lsn, settled cdc.LSN, ok bool) {
	if c.seen.open || c.applied < c.seen.pending || c.seen.clear <= max(c.sent, c.applied, c.saved) {
		return 0, 0, false
	}
	return c.seen.clear, c.seen.pending, true
}

// open reports whether the server has sent something that cannot be confirmed yet.
func (c *confirm) open() bool { return c.seen.open || c.seen.pending > c.applied }

// save tells that an LSN that idle returned is remembered.
func (c *confirm) save(lsn cdc.LSN) { c.saved = max(c.saved, lsn) }

// next returns the LSN to confirm now. It never goes back.
func (c *confirm) next() cdc.LSN { return max(c.sent, c.applied, c.saved) }

// send tells that the server is told an LSN that next returned.
func (c *confirm) send(lsn cdc.LSN) { c.sent = max(c.sent, lsn) }
