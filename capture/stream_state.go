package capture

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// StreamingStatus tells of large transactions that the server sends before they are
// committed.
type StreamingStatus struct {
	// On tells that the server was asked to send them.
	On bool
	// Transactions counts those that have begun to arrive and not ended.
	Transactions int
	// Bytes is what is kept of them, SpoolBytes how much of the disk that takes.
	Bytes, SpoolBytes int64
	// Problem says why the server was not asked although it should be, empty if that
	// is not so; it keeps the transactions itself meanwhile. From Until on it is
	// asked again as soon as there is space.
	Problem string
	Until   time.Time
}

// status describes the streams.
func (t *streams) status(p spooling) StreamingStatus {
	if t.spool == nil {
		return StreamingStatus{Problem: p.problem, Until: p.until}
	}
	return StreamingStatus{On: true, Transactions: len(t.open), Bytes: t.spool.kept, SpoolBytes: t.spool.bytes()}
}

// streamingMajor is the first version of PostgreSQL that has protocol version 2.
const streamingMajor = 14

// options returns what START_REPLICATION is told about streaming.
func (t *streams) options() string {
	if t.spool == nil {
		return "proto_version '1'"
	}
	return "proto_version '2', streaming 'on'"
}

// The pauses after a failure: the first, and the longest after a row of
// them.
const (
	spoolPauseMin = time.Minute
	spoolPauseMax = time.Hour
)

// spooling remembers across sessions that streaming has failed.
type spooling struct {
	problem string // empty if there is none
	wanted  int64  // bytes that the spool would have had, if it failed
	pause   time.Duration
	until   time.Time
	first   time.Duration // the shortest pause, spoolPauseMin if zero
}

// failed notes a failure.
func (p *spooling) failed(problem string, wanted int64, now time.Time) {
	p.pause = min(max(2*p.pause, cmp.Or(p.first, spoolPauseMin)), spoolPauseMax)
	p.problem, p.wanted, p.until = problem, wanted, now.Add(p.pause)
}

// over reports whether the spool may be tried again. It asks the file system, which may
// take its time. Where it is unknown how much space
// there is, the pause alone decides.
func (p *spooling) over(cfg *Config, now time.Time) bool {
	if p.problem == "" {
		return true
	}
	if now.Before(p.until) {
		return false
	}
	free, total, known := freeSpace(cfg.SpoolDir)
	return !known || free > p.wanted+total/spoolReserve+spoolCheckEvery*spoolBlock
}

// openSpool returns the spool of a session, nil if the server is not to stream: it was
// not wanted, the server cannot, or it has failed lately.
func (c *Capture) openSpool(ctx context.Context, serverVersion string) (*spool, error) {
	if !c.cfg.Streaming || majorVersion(serverVersion) < streamingMajor {
		return nil, nil //nolint:nilnil // No spool is an answer.
	}
	c.mu.Lock()
	p := c.spooling
	c.mu.Unlock()
	over := p.over(&c.cfg, time.Now())
	if over {
		p.problem = ""
	}
	c.mu.Lock()
	c.spooling = p
	c.status.Streaming = StreamingStatus{On: over, Problem: p.problem, Until: p.until}
	c.mu.Unlock()
	if !over {
		c.log.WarnContext(ctx, "large transactions are not streamed", "problem", p.problem, "until", p.until)
		return nil, nil //nolint:nilnil // No spool is an answer.
	}
	s := newSpool(&c.cfg)
	if err := s.sweep(); err != nil {
		c.noteStreaming(err)
		return nil, err
	}
	return s, nil
}

func (c *Capture) closeSpool(s *spool) {
	if s == nil {
		return
	}
	s.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.Streaming.Transactions, c.status.Streaming.Bytes, c.status.Streaming.SpoolBytes = 0, 0, 0
}

// noteStreaming remembers that a session which asked for streaming has ended because of
// it, so that the next one does without.
func (c *Capture) noteStreaming(err error) {
	var problem string
	var wanted int64
	if e, ok := errors.AsType[*spoolError](err); ok {
		problem, wanted = e.Error(), e.wanted
	} else if e, ok := errors.AsType[*pgconn.PgError](err); ok && blamesStreaming(e.Code) {
		problem = "the server failed while it was to stream large transactions: " + oneLine(e)
	} else {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spooling.failed(problem, wanted, time.Now())
	c.status.Streaming = StreamingStatus{Problem: problem, Until: c.spooling.until}
}

// blamesStreaming tells errors of the server that may come from streaming. A server that
// streams decodes subtransactions that were rolled back too. If one of them has rewritten
// a table its catalog rows may be gone, and decoding ends with "could not map filenumber"
// (XX000), every time anew. A server that does not stream never looks at them.
func blamesStreaming(code string) bool {
	switch {
	case code == "55006" || code == "42704": // the slot is busy, the publication is not there
		return false
	case strings.HasPrefix(code, "53") || strings.HasPrefix(code, "57"): // no resources, shut down
		return false
	}
	return true
}

// spooled notes that a transaction has made its way through the spool.
func (c *Capture) spooled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spooling = spooling{first: c.spooling.first}
}

// errStreamAgain ends a session for a new one, which is how a server is told to stream.
var errStreamAgain = errors.New("start over to have large transactions streamed again, after a failure")

// streamAgain reports whether the session should make way for one that streams. It does
// so between two transactions.
func (c *Capture) streamAgain(s *session) bool {
	s.mu.Lock()
	open := s.confirm.seen.open
	s.mu.Unlock()
	c.mu.Lock()
	p := c.spooling
	c.mu.Unlock()
	return !open && p.problem != "" && p.over(&c.cfg, time.Now())
}

// majorVersion reads the first number of server_version, zero if there is none.
func majorVersion(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	major, err := strconv.Atoi(version[:end])
	if err != nil {
		return 0
	}
	return major
}
