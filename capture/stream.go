package capture

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture/pgoutput"
)

// streams are the transactions that the server sends before they are committed, which it
// does once they have outgrown its logical_decoding_work_mem. Their messages are kept in
// a spool and nothing of them is published until the server says that they are
// committed; then they take the path of every other transaction, so that positions and
// records are the same whether the server streams or not. It decides that anew after
// every restart.
//
// They are of no concern to what is confirmed: a slot whose confirmed LSN is past the
// first change of a transaction, but not past its commit, still sends it whole
// (restart_lsn stays before it).
//
// https://www.postgresql.org/docs/current/protocol-logical-replication.html
type streams struct {
	spool *spool // nil if the server was not asked to stream
	open  map[uint32]*streamed
	block *streamed // the one between Stream Start and Stream Stop
	buf   []byte    // to read the spool
}

// streamed is a transaction that is not committed yet.
type streamed struct {
	log     spoolLog
	aborted xidSet // subtransactions that were rolled back
	held    bool   // the stream has all of its changes
}

// streamMessage takes one message from between Stream Start and Stream Stop. It is
// decoded when the transaction is committed.
func (s *session) streamMessage(data []byte) error {
	if len(data) == 0 {
		return fmt.Errorf("decode after %s: %w: it is empty", s.view.clear, pgoutput.ErrMalformed)
	}
	s.active = true
	switch kind := pgoutput.Kind(data[0]); kind {
	case pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete, pgoutput.KindTruncate:
		return s.streams.spool.append(&s.streams.block.log, data, nil)
	case pgoutput.KindRelation:
		var order [relationOrder]byte
		binary.BigEndian.PutUint64(order[:], s.nextRelation())
		return s.streams.spool.append(&s.streams.block.log, data, order[:])
	case pgoutput.KindStreamStop:
		s.streams.block = nil
		return nil
	case pgoutput.KindType, pgoutput.KindOrigin, pgoutput.KindMessage:
		return nil // As outside of a stream; see decode.
	default:
		return fmt.Errorf("decode %s: inside a stream, after %s", kind, s.view.clear)
	}
}

// relationOrder is the size of what the spool keeps after each Relation message: its
// number among those of the session.
const relationOrder = 8

// nextRelation numbers the Relation messages of the session as they come.
func (s *session) nextRelation() uint64 {
	s.relations++
	return s.relations
}

// streamStart goes on with a transaction, or starts with it.
func (s *session) streamStart(m *pgoutput.Message) error {
	t := &s.streams
	if t.spool == nil || s.out.InTransaction() {
		return fmt.Errorf("decode %s: of the transaction %d, not asked for or inside another, after %s", m.Kind, m.XID, s.began)
	}
	known := t.open[m.XID]
	switch {
	case known == nil && !m.First:
		return fmt.Errorf("decode %s: the start of the transaction %d was not sent", m.Kind, m.XID)
	case known == nil:
		known = &streamed{}
		t.open[m.XID] = known
	case m.First:
		// The server has found no end of the one that had the number before; it
		// went down in the middle.
		if err := t.forget(m.XID, known); err != nil {
			return err
		}
		t.open[m.XID] = known
	}
	t.block = known
	return nil
}

// forget drops what is kept of a transaction.
func (t *streams) forget(xid uint32, known *streamed) error {
	delete(t.open, xid)
	err := t.spool.release(&known.log)
	*known = streamed{}
	return err
}

// streamAbort drops a transaction or marks a subtransaction of it as rolled back. The
// server says so for each subtransaction apart. It may speak of one that it has sent
// nothing of.
func (s *session) streamAbort(m *pgoutput.Message) error {
	known := s.streams.open[m.XID]
	switch {
	case known == nil:
		return nil
	case m.SubXID == m.XID:
		return s.streams.forget(m.XID, known)
	}
	known.aborted.add(m.SubXID)
	return nil
}

// streamCommit publishes a transaction that was kept.
func (s *session) streamCommit(ctx context.Context, m *pgoutput.Message) error {
	known := s.streams.open[m.XID]
	if known == nil {
		return fmt.Errorf("decode %s: the transaction %d, committed at %s, was not sent", m.Kind, m.XID, cdc.LSN(m.LSN))
	}
	// What is decoded meanwhile overwrites m.
	begin := pgoutput.Message{Kind: pgoutput.KindBegin, LSN: m.LSN, Time: m.Time, XID: m.XID}
	commit := pgoutput.Message{Kind: pgoutput.KindCommit, LSN: m.LSN, EndLSN: m.EndLSN, Time: m.Time}
	if err := s.begin(ctx, &begin); err != nil {
		return err
	}
	// The changes of a transaction that the stream holds wholly need not be counted.
	// The sink may still owe it, but then the stream's end covers it; see newConfirm.
	// What it says about tables holds for those that follow nevertheless.
	known.held = s.holds(cdc.LSN(begin.LSN), cdc.LSN(commit.EndLSN))
	if err := s.replay(ctx, known); err != nil {
		return err
	}
	if err := s.commit(&commit); err != nil {
		return err
	}
	if err := s.streams.forget(begin.XID, known); err != nil {
		return err
	}
	s.c.spooled()
	return nil
}

// holds tells that the stream has every change of a transaction.
func (s *session) holds(commit, end cdc.LSN) bool {
	return commit < s.tail.Commit || end <= s.out.End()
}

// replayCheck is how many messages are replayed between two looks around.
const replayCheck = 1024

// replay feeds the messages of a transaction through the path of every other one. The
// socket is not read meanwhile, as under back-pressure: the reporter keeps the
// connection alive.
//
// The server describes tables for each stream apart, and in a stream as they are at that
// point of it; by the time of the commit another transaction may have been sent a later
// description. So a replay starts with no tables, and afterwards the session takes over
// what is not older than what it has: after the commit the server relies on it.
func (s *session) replay(ctx context.Context, known *streamed) error {
	t := &s.streams
	if t.buf == nil {
		t.buf = make([]byte, spoolBlock)
	}
	r, err := t.spool.read(&known.log, t.buf)
	if err != nil {
		return err
	}
	outside := s.tables
	s.tables, s.last = map[uint32]*table{}, nil
	for n := 0; ; n++ {
		data, ok, err := r.next()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := s.replayMessage(ctx, known, data); err != nil {
			return err
		}
		if s.out.Len() >= s.c.cfg.FrameBytes {
			if err := s.publish(ctx); err != nil {
				return err
			}
		}
		if n%replayCheck != 0 {
			continue
		}
		s.tell()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for oid, t := range s.tables {
		if was := outside[oid]; was == nil || was.order < t.order {
			outside[oid] = t
		}
	}
	s.tables, s.last = outside, nil
	return nil
}

func (s *session) replayMessage(ctx context.Context, known *streamed, data []byte) error {
	m := &s.msg
	var order uint64
	if n := len(data) - relationOrder; n > 0 && pgoutput.Kind(data[0]) == pgoutput.KindRelation {
		data, order = data[:n], binary.BigEndian.Uint64(data[n:])
	} else if known.held {
		return nil
	}
	if err := pgoutput.DecodeStreamed(data, m); err != nil {
		return fmt.Errorf("decode the transaction at %s: %w", s.began, err)
	}
	if known.aborted.has(m.XID) {
		return nil
	}
	switch m.Kind {
	case pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete:
		return s.row(ctx, m)
	case pgoutput.KindTruncate:
		return s.truncated(ctx, m)
	case pgoutput.KindRelation:
		s.relation(m, order)
	default:
		return fmt.Errorf("decode the transaction at %s: %s in the spool", s.began, m.Kind)
	}
	return nil
}

// xidSet is a set of transaction ids. Those of the subtransactions of one transaction
// lie close together, so 64 of them share an entry.
type xidSet map[uint32]uint64

func (x *xidSet) add(xid uint32) {
	if *x == nil {
		*x = xidSet{}
	}
	(*x)[xid>>6] |= 1 << (xid & 63)
}

func (x xidSet) has(xid uint32) bool {
	return len(x) > 0 && x[xid>>6]&(1<<(xid&63)) != 0
}
