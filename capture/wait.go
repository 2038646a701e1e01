package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// walHead is the last answer to WALHead.
type walHead struct {
	lsn cdc.LSN
	at  time.Time
}

// headLife is how long an answer of WALHead is good.
const headLife = time.Second

const headQuery = `SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)::text,
COALESCE((SELECT wal_status FROM pg_replication_slots WHERE slot_name = $1), '')`

// WALHead returns how far the server's WAL is on disk, at most a second old. It asks
// the server and may take as long as connecting does.
func (c *Capture) WALHead(ctx context.Context) (cdc.LSN, error) {
	c.mu.Lock()
	head := c.head
	c.mu.Unlock()
	if time.Since(head.at) < headLife {
		return head.lsn, nil
	}
	return c.readHead(ctx)
}

func (c *Capture) readHead(ctx context.Context) (lsn cdc.LSN, err error) {
	var text, walStatus string
	err = c.source.with(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, headQuery, c.cfg.Slot).Scan(&text, &walStatus)
	})
	if err != nil {
		return 0, fmt.Errorf("read WAL position: %w", err)
	}
	if lsn, err = cdc.ParseLSN(text); err != nil {
		return 0, fmt.Errorf("read WAL position: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = walHead{lsn: lsn, at: time.Now()}
	c.status.WALStatus = walStatus
	c.status.ServerEnd = max(c.status.ServerEnd, lsn)
	return lsn, nil
}

// pollEvery is how often the server is asked again by those who wait for it.
const pollEvery = 50 * time.Millisecond

// Drain returns when everything that was committed on the server at the time of the
// call is published and stored. It needs Run.
func (c *Capture) Drain(ctx context.Context) error {
	head, err := c.readHead(ctx)
	if err != nil {
		return err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	c.ask(wants{reply: true})
	for {
		c.mu.Lock()
		through := c.flow.through
		c.mu.Unlock()
		if through >= head {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("drain: everything up to %s is stored, the goal is %s: %w", through, head, ctx.Err())
		case <-c.settled:
		case <-tick.C:
			// The reply tells how far the server has sent, also when it sends nothing.
			c.ask(wants{reply: true})
		}
	}
}

// Confirmed returns when the server's slot has confirmed lsn. It needs Run, and that
// the sink has applied as far.
func (c *Capture) Confirmed(ctx context.Context, lsn cdc.LSN) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		c.ask(wants{reply: true, idle: true})
		var at *slot
		err := c.source.with(ctx, func(conn *pgx.Conn) (err error) {
			at, err = readSlot(ctx, conn, c.cfg.Slot)
			return err
		})
		switch {
		case err != nil:
			return fmt.Errorf("wait until %s is confirmed: %w", lsn, err)
		case at == nil || at.Confirmed == nil:
			return fmt.Errorf("wait until %s is confirmed: slot %q does not exist", lsn, c.cfg.Slot)
		case *at.Confirmed >= lsn:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s is confirmed: the slot is at %s: %w", lsn, *at.Confirmed, ctx.Err())
		case <-tick.C:
		}
	}
}

var errNotReady = errors.New("capture has not reached the server yet")
