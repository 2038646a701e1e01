package capture

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// beat writes heartbeats until ctx is done. One that cannot be written is no reason to
// stop: nothing depends on it but how soon the server releases its WAL.
func (c *Capture) beat(ctx context.Context) {
	if c.cfg.Heartbeat <= 0 {
		return
	}
	tick := time.NewTicker(c.cfg.Heartbeat)
	defer tick.Stop()
	var said complaint
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if c.Status().State != StateStreaming {
			continue
		}
		err := c.source.with(ctx, func(conn *pgx.Conn) error { return emitHeartbeat(ctx, conn) })
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			c.setWarning("")
			said = complaint{}
		default:
			text := "heartbeat: " + oneLine(err)
			c.setWarning(text)
			if said.due(text, time.Now()) {
				c.log.WarnContext(ctx, "heartbeat cannot be written", "err", err)
			}
		}
	}
}

// emitHeartbeat writes a message that no transaction and no table is part of. Logical
// decoding passes over it, and the server then tells how far it has read.
func emitHeartbeat(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(false, 'dbmazz', '')"); err != nil {
		return fmt.Errorf("write a heartbeat to the WAL: %w", err)
	}
	return nil
}
