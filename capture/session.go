package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture/pgoutput"
	"github.com/dbmazz/dbmazz/internal/killpoint"
)

// session reads one replication connection. Unless said otherwise its fields belong to
// the reader.
type session struct {
	c      *Capture
	sock   *socket
	pub    Publisher
	record *record
	out    *cdc.Writer
	msg    pgoutput.Message

	tables map[uint32]*table
	last   *table
	// relations counts the Relation messages, to know which of two is older.
	relations uint64
	filter    *filter
	// version is that of Capture.tables that filter was made from.
	version uint64
	tail    cdc.Position // the stream holds changes up to here
	tailEnd cdc.LSN      // and all transactions that end up to here
	began   cdc.LSN      // commit LSN of the last transaction
	view    view
	// touched tells that the open transaction has changes of configured tables.
	touched  bool
	truncate []*cdc.Schema
	left     int // changes before the next one that a copy has, see snapshot_append.go
	witness  witness
	streams  streams
	desk     *desk // nil without snapshots
	server   int   // version
	// oids are the tables by what the catalog had at the start of the session: a
	// table stays the same when it gets another name.
	oids   map[uint32]Table
	glance map[Table]watched // what the catalog had then; belongs to watch
	xid    uint32            // of the last transaction
	// askedShutdown is when the reporter asked last whether the server shuts down.
	askedShutdown time.Time
	heardBefore   int64 // see stuck

	frameSince time.Time // of the first record of the frame
	frameLeft  time.Time // when the one before was published
	count      totals
	serverEnd  cdc.LSN
	active     bool // changes were received since the last tell

	mu      sync.Mutex // guards what follows
	confirm *confirm
	ping    bool // the server wants a report at once
}

// table is a relation of the session.
type table struct {
	name     Table
	relation relation
	order    uint64  // of its Relation message in the session
	filter   *filter // for which tracked holds
	tracked  bool
	schema   *cdc.Schema // nil until the first change
	isKey    []bool
	// copied is the copy that the table is part of, as of copyVersion.
	copied      *deskTable
	copyVersion int
}

// run reads until an error or until ctx is done.
func (c *Capture) run(ctx context.Context, st *start) (err error) {
	c.setState(StateConnecting, "starting replication from slot "+c.cfg.Slot)
	spool, err := c.openSpool(ctx, st.conn.ParameterStatus("server_version"))
	if err != nil {
		return err
	}
	defer c.closeSpool(spool)
	// A write that took long has left a reader in the background, which would take a part
	// of what the server sends next.
	if err := st.conn.SyncConn(ctx); err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	hijacked, err := st.conn.Hijack()
	if err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	s := &session{
		c: c, sock: newSocket(hijacked.Conn, c.cfg.ReadBytes), record: st.record, tables: map[uint32]*table{},
		tail: st.tail.Last, tailEnd: st.tail.End, witness: st.witness, server: st.version, oids: st.oids, glance: st.glance, heardBefore: -1, confirm: newConfirm(st.slot, st.tail.End),
		streams: streams{spool: spool, open: map[uint32]*streamed{}},
	}
	defer s.sock.leave(time.Second)
	if hijacked.Frontend.ReadBufferLen() > 0 {
		return errors.New("start replication: the server has sent something that nobody asked for")
	}
	defer func() {
		if s.pub != nil {
			s.pub.Close()
		}
	}()
	group, ctx := errgroup.WithContext(ctx)
	// A deadline in the past wakes the reader; see socket.fill.
	stop := context.AfterFunc(ctx, func() { _ = hijacked.Conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	group.Go(func() error { return s.start(ctx, st, group) })
	err = group.Wait()
	if spool != nil {
		c.noteStreaming(err)
	}
	if cp, ok := c.progress.Checkpoint(); ok {
		s.confirm.apply(cp.End)
	}
	// The last word to the server: what the sink has applied by now.
	if reportErr := s.report(false, true); err == nil {
		err = reportErr
	}
	return err
}

// start gives the command that turns the connection into a stream, and reads on. The
// reporter joins the group once there is something to report to.
func (s *session) start(ctx context.Context, st *start, group *errgroup.Group) error {
	if err := s.c.fence(); err != nil {
		return err
	}
	publication := "'" + strings.ReplaceAll(quote(s.c.cfg.Publication), "'", "''") + "'"
	if err := s.sock.query(fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (%s, publication_names %s)",
		quote(s.c.cfg.Slot), st.slot, s.streams.options(), publication)); err != nil {
		return err
	}
	for {
		kind, payload, ok, err := s.sock.next()
		switch {
		case err != nil:
			return err
		case !ok:
			if err := s.sock.fill(ctx, 0); err != nil {
				return err
			}
		case kind == 'W':
			group.Go(func() error { return s.reportLoop(ctx, st.keepAlive) })
			if err := s.open(ctx, st); err != nil {
				return err
			}
			group.Go(func() error { return s.desk.work(ctx) })
			group.Go(func() error { return s.watch(ctx) })
			group.Go(func() error { return s.announce(ctx) })
			return s.readLoop(ctx)
		default:
			if err := s.other(ctx, kind, payload); err != nil {
				return err
			}
		}
	}
}

// open opens the stream now that the slot is ours: whoever had it before, this process
// or another, may have published until then.
func (s *session) open(ctx context.Context, st *start) (err error) {
	c := s.c
	if err := c.fence(); err != nil {
		return err
	}
	if s.pub, err = c.stream.Open(ctx); err != nil {
		return fmt.Errorf("open the stream: %w", err)
	}
	killpoint.Reached("capture.opened")
	tail, err := c.stream.Tail(ctx)
	if err != nil {
		return fmt.Errorf("read the end of the stream: %w", err)
	}
	if tail != st.tail {
		return fmt.Errorf("open the stream: it ends at %s, it ended at %s when the session was prepared", tail.Last, st.tail.Last)
	}
	s.out = cdc.NewWriter(c.stream.Epoch(), st.from, st.fromEnd)
	s.out.Continue(tail.Total)
	if s.desk, err = c.snapshots.sit(ctx, s, st); err != nil {
		return err
	}
	s.out.Reset(c.buffer())
	c.mu.Lock()
	c.flow = flow{clear: st.slot, empty: true}
	c.flow.settle()
	c.status.Published = tail.Last
	c.mu.Unlock()
	c.streaming()
	c.log.InfoContext(ctx, "streaming", "slot", c.cfg.Slot, "lsn", st.slot, "stream_position", tail.Last)
	return nil
}

// readLoop handles messages as they come and closes frames when it is time to.
func (s *session) readLoop(ctx context.Context) error {
	for {
		for {
			kind, payload, ok, err := s.sock.next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if err := s.handle(ctx, kind, payload); err != nil {
				return err
			}
			if err := s.desk.turn(ctx); err != nil {
				return err
			}
		}
		if err := s.desk.turn(ctx); err != nil {
			return err
		}
		wait, err := s.pause(ctx)
		if err != nil {
			return err
		}
		switch err := s.sock.fill(ctx, s.desk.pause(wait)); {
		case errors.Is(err, errIdle) && s.desk.due():
		case errors.Is(err, errIdle):
			if err := s.quiet(ctx); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
}

// flushAfter is how long frames may be outstanding on an idle socket before the reader
// asks what became of them.
const flushAfter = 100 * time.Millisecond

// pause is called when everything that was read is handled. It publishes the frame if
// there is nothing to wait for, and returns how long to wait for more.
func (s *session) pause(ctx context.Context) (time.Duration, error) {
	if !s.out.Empty() {
		// Whatever comes meanwhile is taken along; if nothing does, spacing is all there
		// is to wait for.
		more, space := 5*s.c.cfg.FrameDelay-time.Since(s.frameSince), s.spacing()
		switch {
		case (s.sock.pace.busy() || s.out.InTransaction()) && more > 0:
			s.tell()
			return max(min(more, s.c.cfg.FrameDelay), space), nil
		case space > 0:
			s.tell()
			return space, nil
		}
		if err := s.publish(ctx); err != nil {
			return 0, err
		}
	}
	if s.tell() > 0 {
		return flushAfter, nil
	}
	return 0, nil
}

// spacing is how long a frame that is not full has to wait for the one before.
func (s *session) spacing() time.Duration { return s.c.cfg.FrameSpacing - time.Since(s.frameLeft) }

// quiet is called when nothing came for as long as pause had said.
func (s *session) quiet(ctx context.Context) error {
	if !s.out.Empty() {
		return s.publish(ctx)
	}
	if s.tell() == 0 {
		return nil
	}
	if err := s.patiently(ctx, s.pub.Flush); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// reliefEvery is how often a reader that waits for the stream sees to its connection.
const reliefEvery = 2 * time.Second

// patiently calls something that waits until the stream has room, again and again, and
// sees in between to it that the server still hears of this side; see socket.relieve.
func (s *session) patiently(ctx context.Context, call func(context.Context) error) error {
	for {
		waiting, cancel := context.WithTimeout(ctx, reliefEvery)
		err := call(waiting)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		s.sock.relieve()
	}
}

// The kinds of messages inside the copy stream, and the length of their heads.
const (
	xLogData      = 'w'
	keepalive     = 'k'
	xLogDataHead  = 1 + 8 + 8 + 8
	keepaliveSize = 1 + 8 + 8 + 1
)

// handle handles one message of the protocol.
func (s *session) handle(ctx context.Context, kind byte, payload []byte) error {
	if kind != 'd' {
		return s.other(ctx, kind, payload)
	}
	switch {
	case len(payload) >= xLogDataHead && payload[0] == xLogData:
		s.serverEnd = max(s.serverEnd, cdc.LSN(binary.BigEndian.Uint64(payload[9:])))
		if err := s.decode(ctx, payload[xLogDataHead:]); err != nil {
			return err
		}
		if s.out.Len() >= s.c.cfg.FrameBytes {
			return s.publish(ctx)
		}
		return nil
	case len(payload) == keepaliveSize && payload[0] == keepalive:
		end := cdc.LSN(binary.BigEndian.Uint64(payload[1:]))
		s.serverEnd = max(s.serverEnd, end)
		s.view.clear = max(s.view.clear, end)
		if payload[keepaliveSize-1] != 0 {
			s.tell()
			s.mu.Lock()
			s.ping = true
			s.mu.Unlock()
			notify(s.c.wake)
		}
		return nil
	}
	return fmt.Errorf("read from server: unknown copy message of %d bytes", len(payload))
}

// other handles what is not part of the copy stream.
func (s *session) other(ctx context.Context, kind byte, payload []byte) error {
	switch kind {
	case 'E':
		var m pgproto3.ErrorResponse
		if err := m.Decode(payload); err != nil {
			return fmt.Errorf("read from server: %w", err)
		}
		return s.serverError(pgconn.ErrorResponseToPgError(&m))
	case 'N':
		var m pgproto3.NoticeResponse
		if err := m.Decode(payload); err != nil {
			return fmt.Errorf("read from server: %w", err)
		}
		s.c.log.InfoContext(ctx, "notice from server", "severity", m.Severity, "text", m.Message)
		return nil
	case 'S':
		return nil
	case 'c', 'C', 'Z':
		return errors.New("the server has ended the replication stream")
	}
	return fmt.Errorf("read from server: unexpected message %q", kind)
}

// serverError adds what to do about errors that have a known cause.
func (s *session) serverError(e *pgconn.PgError) error {
	text := oneLine(e)
	switch {
	case e.Code == "55006":
		return setupProblem("Failed to setup replication slot '%s': %s", s.c.cfg.Slot, text)
	case e.Code == "42704" && strings.Contains(e.Message, "publication"):
		return setupProblem("Failed to setup publication '%s': %s. PostgreSQL looks it up as of the time of each change, so it must be older than the slot. If no change since then is needed, drop the slot and start over with an empty stream",
			s.c.cfg.Publication, text)
	case encodingProblem(e):
		return setupProblem("A changed value of the source cannot be turned into UTF-8: %s. The change stays in the log, so correct the value and %s",
			text, startOver(s.c.cfg.Slot))
	}
	return fmt.Errorf("stream from slot %q: %w", s.c.cfg.Slot, e)
}

// publish closes the frame and hands it over.
func (s *session) publish(ctx context.Context) error {
	if err := s.desk.settle(ctx); err != nil {
		return err
	}
	data, header, err := s.out.Seal()
	if err != nil {
		return fmt.Errorf("close frame: %w", err)
	}
	c := s.c
	s.count.frames++
	s.count.bytes += uint64(len(data))
	through := s.view.clear
	c.mu.Lock()
	c.flow.published++
	c.mu.Unlock()
	s.tell()
	stored := func(b []byte) {
		c.recycle(b)
		c.mu.Lock()
		if c.record == s.record {
			c.flow.stored++
			c.flow.through = max(c.flow.through, through)
			c.flow.settle()
			c.status.Published = header.Last
		}
		c.mu.Unlock()
		notify(c.settled)
		killpoint.Reached("capture.stored")
	}
	killpoint.Reached("capture.publishing")
	if err := s.patiently(ctx, func(ctx context.Context) error { return s.pub.Publish(ctx, data, header, stored) }); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	killpoint.Reached("capture.published")
	s.frameLeft = time.Now()
	s.out.Reset(c.buffer())
	return nil
}

// tell shares what the reader knows and returns how many frames are outstanding. It is
// called before the reader may block.
func (s *session) tell() (outstanding int) {
	s.mu.Lock()
	s.confirm.observe(s.view)
	s.mu.Unlock()
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.status
	t.Rows += s.count.rows
	t.Truncates += s.count.truncates
	t.Transactions += s.count.transactions
	t.Frames += s.count.frames
	t.Bytes += s.count.bytes
	t.Skipped += s.count.skipped
	t.Received = max(s.view.clear, t.Received)
	t.ServerEnd = max(s.serverEnd, t.ServerEnd)
	t.Streaming = s.streams.status(c.spooling)
	if s.active {
		t.LastActivity = time.Now()
	}
	s.count, s.active = totals{}, false
	before := c.flow.through
	c.flow.clear, c.flow.empty = s.view.clear, s.out.Empty()
	c.flow.settle()
	if c.flow.through > before {
		notify(c.settled)
	}
	return c.flow.published - c.flow.stored
}
