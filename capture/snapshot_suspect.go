package capture

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// suspects are the transactions that ran when the reader began to remember the commits
// that it passes. One of them may have its commit in the log from before: it waits for a
// synchronous standby, or is about to be seen by others. A chunk must not be read while
// that is possible. Those that began later are passed under the reader's eyes.
//
// A transaction that is idle, or waits for something that no commit waits for, has not
// written its commit. One that waits for a standby may have. What is left, a transaction
// that is busy, or of which nothing can be seen, has not once it has been there for
// suspectFor: between the record of a commit and the moment when others see it there is
// no other wait of that kind.
type suspects struct {
	since time.Time
	left  map[uint64]bool
}

const suspectFor = 5 * time.Second

// arm has the reader remember commits from now on, if it does not, and finds out who is
// suspect.
func (d *desk) arm(ctx context.Context, w *worker) error {
	d.arming.Lock()
	defer d.arming.Unlock()
	d.mu.Lock()
	armed := d.armed
	d.mu.Unlock()
	if armed {
		return nil
	}
	if err := w.connect(ctx); err != nil {
		return err
	}
	if err := d.do(ctx, func(context.Context) (bool, error) {
		if d.s.view.clear < d.ready {
			return false, nil
		}
		d.mu.Lock()
		d.armed, d.passed = true, passed{}
		d.mu.Unlock()
		return true, nil
	}); err != nil {
		return err
	}
	var text string
	if err := w.conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&text); err != nil {
		d.disarm()
		return fmt.Errorf("take a snapshot: %w", err)
	}
	seen, err := parseVisibility(text)
	if err != nil {
		d.disarm()
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.suspects = suspects{since: time.Now(), left: map[uint64]bool{}}
	for _, xid := range seen.running {
		d.suspects.left[xid] = true
	}
	return nil
}

func (d *desk) disarm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = false
}

// judge reports whether a snapshot has every transaction that the reader passed before
// the mark.
func (d *desk) judge(ctx context.Context, conn *pgx.Conn, seen *visibility, mark int) (bool, error) {
	d.mu.Lock()
	armed := d.armed
	hidden := d.passed.hidden(seen, mark)
	var ask []uint64
	for _, xid := range seen.running {
		if d.suspects.left[xid] {
			ask = append(ask, xid)
		}
	}
	since := d.suspects.since
	d.mu.Unlock()
	switch {
	case !armed:
		return false, fmt.Errorf("more than %d transactions have committed since the last chunk", passedMax)
	case hidden:
		return false, nil
	case len(ask) == 0:
		return true, nil
	}
	cleared, waiting, err := clearSuspects(ctx, conn, ask, time.Since(since) > suspectFor)
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, xid := range cleared {
		delete(d.suspects.left, xid)
	}
	if waiting {
		d.n.say("transactions that may be waiting for a synchronous standby must end: " + joinXIDs(ask))
	}
	return len(cleared) == len(ask), nil
}

func joinXIDs(list []uint64) string {
	texts := make([]string, len(list))
	for i, xid := range list {
		texts[i] = strconv.FormatUint(xid, 10)
	}
	return strings.Join(texts, ", ")
}

// backend is what a server says of one that runs a transaction.
type backend struct {
	xid, state, waitType, wait string
}

// clearSuspects returns those that have not written their commit. late tells that they
// have been there for long.
func clearSuspects(ctx context.Context, conn *pgx.Conn, ask []uint64, late bool) (cleared []uint64, waiting bool, err error) {
	var standbys string
	if err := conn.QueryRow(ctx, "SELECT current_setting('synchronous_standby_names')").Scan(&standbys); err != nil {
		return nil, false, fmt.Errorf("look at transactions: %w", err)
	}
	rows, err := conn.Query(ctx, `
SELECT COALESCE(backend_xid::text, ''), COALESCE(state, ''), COALESCE(wait_event_type, ''), COALESCE(wait_event, '')
FROM pg_stat_activity WHERE backend_xid IS NOT NULL OR wait_event = 'SyncRep'`)
	if err != nil {
		return nil, false, fmt.Errorf("look at transactions: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b backend, err error) {
		return b, row.Scan(&b.xid, &b.state, &b.waitType, &b.wait)
	})
	if err != nil {
		return nil, false, fmt.Errorf("look at transactions: %w", err)
	}
	// COMMIT PREPARED waits in a backend that has another transaction, or none.
	someWait := slices.ContainsFunc(all, func(b backend) bool { return b.wait == "SyncRep" })
	for _, xid := range ask {
		i := slices.IndexFunc(all, func(b backend) bool { return b.xid == strconv.FormatUint(xid&(1<<32-1), 10) })
		switch {
		case i >= 0 && (strings.HasPrefix(all[i].state, "idle in transaction") || slices.Contains([]string{"Lock", "Client", "Timeout", "BufferPin"}, all[i].waitType)):
			cleared = append(cleared, xid)
		case i >= 0 && all[i].wait == "SyncRep", i < 0 && (someWait || standbys != ""):
			waiting = true
		case late:
			cleared = append(cleared, xid)
		}
	}
	return cleared, waiting, nil
}
