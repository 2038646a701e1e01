package capture

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// nameMax is the longest application_name, NAMEDATALEN less one.
const nameMax = 63

// epochMax is how much of the stream's epoch is in the name of a connection.
const epochMax = 8

// applicationName is what the server shows of our connections: the stream by the
// beginning of its epoch, the slot, and the process. A standby that takes over knows its
// predecessor by the first part: one that publishes to another stream is none.
func applicationName(epoch, slot, instance string) string {
	name := "dbmazz/" + epoch[:min(len(epoch), epochMax)] + "/" + slot
	if instance != "" {
		name += "/" + strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return '?' // As the server would.
			}
			return r
		}, instance)
	}
	return name[:min(len(name), nameMax)]
}

// fence returns an error if this process may no longer be the one that captures.
//
// Frames are fenced by the stream itself and capture's record by its revision. What is
// left is the slot. A process that was stopped may wake in front of a report that it had
// decided on long before. The position in it is no danger: the sink has applied as much,
// or nothing was captured before it, and both stay true. But the slot may stand further
// by then, and servers of minor releases before August 2025 let it go back. A report
// reaches only the slot that its own connection holds. So a position is out of date only
// if it was read before the connection had the slot, that is, by a process that stopped
// between looking at the slot and START_REPLICATION while another one streamed. Its lease
// is gone by then, and every report, the first above all, asks here before it is sent.
func (c *Capture) fence() error {
	if c.cfg.Fence == nil {
		return nil
	}
	if err := c.cfg.Fence(); err != nil {
		return fmt.Errorf("go on capturing: %w", err)
	}
	return nil
}

// holderPrefix is how the names of all connections begin that publish to a stream.
func holderPrefix(epoch string) string { return applicationName(epoch, "", "") }

const (
	// takeoverGrace is how long a holder of the slot may take to leave by itself.
	takeoverGrace = 300 * time.Millisecond
	// takeoverAgain is when a holder that was ended is ended again. One that is blocked
	// in writing to a stopped client spends the first signal on its farewell, which
	// blocks like the rest; only another one gets it out (ProcessClientWriteInterrupt).
	takeoverAgain = 500 * time.Millisecond
	// takeoverWithin bounds the wait for one that was ended.
	takeoverWithin = 5 * time.Second
)

// claimSlot looks up the slot. If a predecessor still holds it and this process has been
// chosen, the predecessor's connection is ended first: its host may be cut off or the
// process stopped, and the server would wait for wal_sender_timeout.
func (c *Capture) claimSlot(ctx context.Context, conn *pgx.Conn) (*slot, error) {
	var ended time.Time // when the holder was ended last
	for began := time.Now(); ; {
		s, err := readSlot(ctx, conn, c.cfg.Slot)
		waited := time.Since(began)
		if err != nil || s == nil || !s.Active || waited > takeoverWithin || !c.cfg.Takeover {
			return s, err
		}
		if s.ActivePID != 0 && time.Since(ended) > takeoverAgain && waited > takeoverGrace {
			if err := c.fence(); err != nil {
				return nil, err
			}
			if err := c.endHolder(ctx, conn, s); err != nil {
				return nil, err
			}
			ended = time.Now()
		}
		if !sleep(ctx, pollEvery) {
			return nil, ctx.Err()
		}
	}
}

// The holder is looked up again in the statement that ends it, by slot, pid and name.
const endHolderQuery = `
SELECT a.application_name, CASE WHEN left(a.application_name, length($3)) = $3 THEN pg_terminate_backend(a.pid) END
FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
WHERE s.slot_name = $1 AND s.active_pid = $2 AND s.active`

// endHolder ends the connection that holds the slot, if it is one of this pipeline.
func (c *Capture) endHolder(ctx context.Context, conn *pgx.Conn, s *slot) error {
	var name string
	var ended *bool
	err := conn.QueryRow(ctx, endHolderQuery, s.Name, s.ActivePID, holderPrefix(c.stream.Epoch())).Scan(&name, &ended)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // It has just left.
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && pgErr.Code == "42501" {
		return setupProblem("Failed to take over replication slot '%s' from the process with pid %d, which does not leave it: %s. Run as superuser: SELECT pg_terminate_backend(%d); and to let dbmazz do it the next time: GRANT pg_signal_backend TO %s",
			s.Name, s.ActivePID, oneLine(err), s.ActivePID, quote(conn.Config().User))
	}
	if err != nil {
		return fmt.Errorf("take over slot %q: %w", s.Name, err)
	}
	if ended == nil {
		return setupProblem("Failed to take over replication slot '%s': it is in use by the process with pid %d, which calls itself '%s' and is no dbmazz of this pipeline and stream. If it should not be: SELECT pg_terminate_backend(%d)",
			s.Name, s.ActivePID, name, s.ActivePID)
	}
	c.log.WarnContext(ctx, "took the slot over: the connection that held it was ended", "slot", s.Name, "pid", s.ActivePID, "application_name", name)
	return nil
}
