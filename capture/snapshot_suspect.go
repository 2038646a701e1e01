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
	left, err := findSuspects(ctx, w.conn)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed = d.armed && err == nil
	d.suspects = suspects{since: time.Now(), left: left}
	return err
}

// findSuspects returns the transactions that have begun and that others do not see. A
// snapshot ends behind the last one that has ended, not behind the last one that has begun;
// so a transaction is begun and ended first. A standby has none of this kind: its log is
// read as far as it is replayed, which makes the commits seen.
func findSuspects(ctx context.Context, conn *pgx.Conn) (map[uint64]bool, error) {
	var text string
	_, err := conn.Exec(ctx, "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_xact_id() END")
	if err == nil {
		err = conn.QueryRow(ctx, "SELECT pg_current_snapshot()::text").Scan(&text)
	}
	if err != nil {
		return nil, fmt.Errorf("take a snapshot: %w", err)
	}
	seen, err := parseVisibility(text)
	if err != nil {
		return nil, err
	}
	left := map[uint64]bool{}
	for _, xid := range seen.running {
		left[xid] = true
	}
	return left, nil
}

// judge reports whether a snapshot has every transaction that the reader passed before
// the mark.
func (d *desk) judge(ctx context.Context, w *worker, seen *visibility, mark int) (bool, error) {
	d.mu.Lock()
	armed := d.armed
	hidden := d.passed.hidden(seen, mark)
	var ask []uint64
	for xid := range d.suspects.left {
		if seen.sees(uint32(xid)) { //nolint:gosec // The stream has the lower half.
			delete(d.suspects.left, xid)
			continue
		}
		ask = append(ask, xid)
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
	cleared, waiting, err := clearSuspects(ctx, w.conn, ask, time.Since(since) > suspectFor)
	if err != nil {
		return false, err
	}
	if waiting {
		w.say("transactions that may be waiting for a synchronous standby must end: " + joinXIDs(ask))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, xid := range cleared {
		delete(d.suspects.left, xid)
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
	var blind bool // to what others wait for
	if err := conn.QueryRow(ctx, "SELECT current_setting('synchronous_standby_names') <> '' AND NOT pg_has_role('pg_read_all_stats', 'USAGE')").Scan(&blind); err != nil {
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
		case i >= 0 && all[i].wait == "SyncRep", i < 0 && (someWait || blind):
			waiting = true
		case late:
			cleared = append(cleared, xid)
		}
	}
	return cleared, waiting, nil
}
