package capture

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// announcement is the list of tables as the catalog had it, for the sink to prepare itself.
//
// The catalog shows the present, while rows of before may be still to come. A sink that
// knew the present first could make a target anew, in the form that the table has by now,
// and those rows would not fit it any more. So the list is withheld until the reader has
// passed everything that was committed until the catalog was read, and all of it is
// stored: who finds the list, and then looks for the end of the stream, finds those rows
// before it. Until then the sink has no list. Targets that rows need are prepared for the
// schema that the rows have.
type announcement struct {
	schemas []*cdc.Schema
	at      cdc.LSN // the end of the WAL after the catalog was read
}

// announcements hands lists over to the sink, the latest one.
type announcements struct {
	wake chan struct{} // there is one

	// putting is held while the stream is told, so that the last word is that of the
	// last list.
	putting sync.Mutex
	mu      sync.Mutex
	pending *announcement
	// told is what the stream has; nil if that is not known or not the last list.
	told []cdc.Fingerprint
}

// forget is called at the start of a session: another process may have told the stream
// something else meanwhile.
func (a *announcements) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending, a.told = nil, nil
}

func (a *announcements) next() *announcement {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pending
}

// announce takes the list that the catalog had just now, and takes back the one of before
// if that is another.
func (c *Capture) announce(ctx context.Context, conn *pgx.Conn, schemas []*cdc.Schema) error {
	at, err := walEnd(ctx, conn)
	if err != nil {
		return err
	}
	a := &c.announcements
	a.putting.Lock()
	defer a.putting.Unlock()
	a.mu.Lock()
	known := a.told != nil && sameSchemas(a.told, schemas)
	a.mu.Unlock()
	if known {
		return nil
	}
	if err := c.stream.PutTables(ctx, nil); err != nil {
		return fmt.Errorf("take back the list of the tables: %w", err)
	}
	a.mu.Lock()
	a.told, a.pending = nil, &announcement{schemas: schemas, at: at}
	a.mu.Unlock()
	notify(a.wake)
	return nil
}

func sameSchemas(told []cdc.Fingerprint, schemas []*cdc.Schema) bool {
	if len(told) != len(schemas) {
		return false
	}
	for i, s := range schemas {
		if told[i] != s.Fingerprint() {
			return false
		}
	}
	return true
}

// announce tells the stream of lists once their time has come, until ctx is done.
func (s *session) announce(ctx context.Context) error {
	a := &s.c.announcements
	for {
		if next := a.next(); next != nil {
			if err := s.c.pass(ctx, next.at); err != nil {
				return nil //nolint:nilerr // Only ctx ends it.
			}
			if err := s.c.putTables(ctx, next); err != nil {
				return err
			}
			continue
		}
		select {
		case <-a.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// putTables stores the list unless there is a later one.
func (c *Capture) putTables(ctx context.Context, list *announcement) error {
	a := &c.announcements
	a.putting.Lock()
	defer a.putting.Unlock()
	if a.next() != list {
		return nil
	}
	if err := c.fence(); err != nil {
		return err
	}
	if err := c.stream.PutTables(ctx, list.schemas); err != nil {
		return fmt.Errorf("store the schemas of the tables: %w", err)
	}
	told := make([]cdc.Fingerprint, len(list.schemas))
	for i, s := range list.schemas {
		told[i] = s.Fingerprint()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending, a.told = nil, told
	return nil
}

// pass waits until everything up to a place in the log is stored.
func (c *Capture) pass(ctx context.Context, at cdc.LSN) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	late := time.NewTimer(time.Second)
	defer late.Stop()
	stop := func() {}
	defer func() { stop() }()
	for c.through() < at {
		// The reply tells how far the server has sent, also when it sends nothing.
		c.ask(wants{reply: true})
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			stop = c.flushWhile(ctx)
		case <-tick.C:
		}
	}
	return nil
}
