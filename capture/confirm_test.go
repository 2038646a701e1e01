package capture

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// modelTxn is a transaction of the modelled server.
type modelTxn struct {
	commit, end cdc.LSN
	content     bool
}

// confirmModel is a server, a reader, a stream and a sink around a confirm. Everything
// but the slot, the stream and the sink is lost in a restart.
type confirmModel struct {
	head      cdc.LSN
	txns      []modelTxn
	slot      cdc.LSN
	published cdc.LSN
	applied   cdc.LSN

	c       *confirm
	next    int // of txns, to be sent
	half    bool
	v       view
	pending []cdc.LSN // received but not published
	rememb  cdc.LSN
}

func (m *confirmModel) restart() {
	m.c = newConfirm(m.slot, m.published)
	m.next = slices.IndexFunc(m.txns, func(x modelTxn) bool { return x.commit >= m.slot })
	if m.next < 0 {
		m.next = len(m.txns)
	}
	m.half, m.v, m.pending = false, view{}, nil
}

func (m *confirmModel) receive(t *rapid.T) {
	if m.next == len(m.txns) {
		m.v.clear = m.head
		m.c.observe(m.v)
		return
	}
	x := m.txns[m.next]
	switch {
	case !m.half && rapid.Bool().Draw(t, "keepalive"):
		// Before the commit record is decoded the server stands in front of it.
		m.v.clear = max(m.v.clear, cdc.LSN(rapid.Uint64Range(uint64(m.slot), uint64(max(m.slot, x.commit))).Draw(t, "wal end")))
	case !m.half:
		m.half, m.v.open = true, true
	default:
		m.half, m.v.open = false, false
		m.v.clear = max(m.v.clear, x.end)
		if x.content {
			m.v.pending = x.end
			if x.end > m.published {
				m.pending = append(m.pending, x.end)
			}
		}
		m.next++
	}
	if rapid.Bool().Draw(t, "the view is pushed") {
		m.c.observe(m.v)
	}
}

func (m *confirmModel) check(t *rapid.T, before cdc.LSN) {
	if m.slot < before {
		t.Fatalf("confirmed LSN went back from %s to %s", before, m.slot)
	}
	for _, x := range m.txns {
		if x.content && x.commit < m.slot && x.end > m.applied {
			t.Fatalf("confirmed %s, but the transaction that ends at %s is not applied (%s)", m.slot, x.end, m.applied)
		}
	}
	if m.slot > m.applied && m.slot > m.rememb {
		t.Fatalf("confirmed %s, which is past what is applied (%s) and was not remembered (%s)", m.slot, m.applied, m.rememb)
	}
}

func (m *confirmModel) report(t *rapid.T) {
	m.c.apply(m.applied)
	if lsn, settled, ok := m.c.idle(); ok && rapid.Bool().Draw(t, "idle") {
		if settled > m.applied {
			t.Fatalf("idle with %s outstanding, applied %s", settled, m.applied)
		}
		m.rememb = max(m.rememb, lsn)
		if rapid.Bool().Draw(t, "saved") {
			m.c.save(lsn)
		}
	}
	lsn := m.c.next()
	m.c.send(lsn)
	m.slot = max(m.slot, lsn)
}

func TestConfirmNeverPassesWhatTheSinkHasCommitted(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &confirmModel{head: 100, slot: 100, rememb: 100}
		m.restart()
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			before := m.slot
			switch rapid.IntRange(0, 7).Draw(t, "step") {
			case 0, 1:
				m.head += cdc.LSN(rapid.Uint64Range(1, 9).Draw(t, "wal"))
				x := modelTxn{commit: m.head, content: rapid.Bool().Draw(t, "content")}
				m.head += 10
				x.end = m.head
				m.txns = append(m.txns, x)
			case 2, 3, 4:
				m.receive(t)
			case 5:
				if len(m.pending) > 0 {
					m.published, m.pending = m.pending[0], m.pending[1:]
				}
				if rapid.Bool().Draw(t, "applied") {
					m.applied = max(m.applied, m.published)
				}
			case 6:
				m.report(t)
			case 7:
				m.restart()
			}
			m.check(t, before)
		}
	})
}

func TestConfirmFollowsTheServerWhenNothingIsOutstanding(t *testing.T) {
	t.Parallel()
	c := newConfirm(100, 0)
	c.observe(view{clear: 500})
	lsn, _, ok := c.idle()
	if !ok || lsn != 500 {
		t.Fatalf("idle answers %s, %t; want 0/1F4", lsn, ok)
	}
	if got := c.next(); got != 100 {
		t.Fatalf("confirms %s before the advance is remembered", got)
	}
	c.save(lsn)
	if got := c.next(); got != 500 {
		t.Fatalf("confirms %s after the advance is remembered, want 0/1F4", got)
	}
}

func TestConfirmIsNotIdleWhileSomethingIsOutstanding(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*confirm{
		"open transaction":     {sent: 100, applied: 200, seen: view{pending: 200, clear: 500, open: true}},
		"unapplied changes":    {sent: 100, applied: 200, seen: view{pending: 201, clear: 500}},
		"unapplied stream":     newConfirm(100, 300),
		"nothing new":          {sent: 500, applied: 200, seen: view{pending: 200, clear: 500}},
		"remembered, not sent": {sent: 100, saved: 500, applied: 200, seen: view{pending: 200, clear: 500}},
	} {
		c.observe(view{clear: 500, open: c.seen.open})
		if lsn, _, ok := c.idle(); ok {
			t.Errorf("%s: idle at %s", name, lsn)
		}
	}
}
