package capture

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// follow looks for tables that came, went or were made anew, until ctx is done. What goes
// wrong is in the status and is tried again; the tables that are captured go on.
func (c *Capture) follow(ctx context.Context) {
	tick := time.NewTicker(c.cfg.TablesInterval)
	defer tick.Stop()
	var said complaint
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.following:
		}
		if c.Status().State != StateStreaming {
			continue
		}
		err := c.review(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil || errors.Is(err, errNotReady):
			c.setTablesWarning("")
			said = complaint{}
		default:
			text := "look for tables: " + oneLine(err)
			c.setTablesWarning(text)
			if said.due(text, time.Now()) {
				c.log.WarnContext(ctx, "tables that come and go are not followed", "err", err)
			}
		}
	}
}

// review compares the tables that are wanted with those that are captured.
//
// A table that is gone, or has another name, counts until the reader has come to the end
// of the WAL as of when that was seen: what was committed under its name is before. One
// that came joins as by [Capture.SetTables]; if it was captured before, under another
// relation or with changes missing, what the sink has of it is replaced.
func (c *Capture) review(ctx context.Context) error {
	if err := c.fence(); err != nil {
		return err
	}
	c.altering.Lock()
	defer c.altering.Unlock()
	rec, before := c.captured()
	if rec == nil {
		return errNotReady
	}
	c.mu.Lock()
	selection := c.selection
	c.mu.Unlock()
	return c.source.with(ctx, func(conn *pgx.Conn) error {
		srv, err := checkServer(ctx, conn)
		if err != nil {
			return err
		}
		found, err := c.survey(ctx, conn, srv.version, &selection, rec.get())
		if err != nil {
			return err
		}
		if err := found.problems.err(); err != nil {
			return err
		}
		// One that is named and gone is for the start of a session to refuse.
		if slices.ContainsFunc(found.infos, func(t tableInfo) bool { return t.oid == 0 }) {
			return errors.New("a table that TABLES names does not exist")
		}
		a := &alteration{record: rec, found: found, keep: func(context.Context) error { return nil }}
		gone := found.gone(before)
		a.leaving, a.removed = c.leave(gone, found.at)
		a.removed = append(a.removed, difference(difference(before, found.tables()), gone)...)
		same := len(a.removed) == 0 && len(difference(found.tables(), before)) == 0
		if same && len(c.copyAgain(rec.get(), found)) == 0 {
			c.leftOut(ctx, found.left)
			return nil
		}
		if found.misknown(before) {
			c.ask(wants{anew: true}) // Its start takes them in.
			return nil
		}
		return c.alter(ctx, conn, a)
	})
}

// leave tells tables that are gone and still count from those that do not any more. at is
// the end of the WAL as of when they were seen to be gone.
func (c *Capture) leave(gone []Table, at cdc.LSN) (leaving, removed []Table) {
	through := c.through()
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[Table]cdc.LSN, len(gone))
	for _, t := range gone {
		since, known := c.leaving[t]
		switch {
		case !known:
			next[t] = at
			leaving = append(leaving, t)
		case through < since:
			next[t] = since
			leaving = append(leaving, t)
		default:
			removed = append(removed, t)
		}
	}
	c.leaving = next
	return leaving, removed
}

func (c *Capture) setTablesWarning(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.TablesWarning = text
}

// isNamed reports whether a table is wanted by its name. Others come and go.
func (c *Capture) isNamed(t Table) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.selection.Tables, t)
}
