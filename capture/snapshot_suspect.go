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
// that is busy, or of which nothing can be seen, has not once looks at it for suspectFor
// have found nothing else: between the record of a commit and the moment when others see
// it there is no other wait of that kind. The time begins with such a look, and anew after
// each that finds a wait for a standby. It is not that since the list was made: a wait may
// end between a snapshot that lacks the transaction and the look, which then finds nothing
// of it any more.
type suspects map[uint64]*suspect

type suspect struct {
	quiet time.Time // since when looks have told nothing; zero if none has yet
}

// look is what a look at a suspect has found.
type look int

const (
	quiet       look = iota // nothing that tells
	waits                   // it may be waiting for a standby
	uncommitted             // it has not written its commit
)

// take judges by a look at that time.
func (s suspects) take(xid uint64, found look, now time.Time) {
	one := s[xid]
	switch {
	case one == nil: // Another worker was faster.
	case found == uncommitted, found == quiet && !one.quiet.IsZero() && now.Sub(one.quiet) > suspectFor:
		delete(s, xid)
	case found == waits:
		one.quiet = time.Time{}
	case one.quiet.IsZero():
		one.quiet = now
	}
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
	d.suspects = left
	return err
}

// findSuspects returns the transactions that have begun and that others do not see. A
// snapshot ends behind the last one that has ended, not behind the last one that has begun;
// so a transaction is begun and ended first. A standby has none of this kind: its log is
// read as far as it is replayed, which makes the commits seen.
func findSuspects(ctx context.Context, conn *pgx.Conn) (suspects, error) {
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
	left := suspects{}
	for _, xid := range seen.running {
		left[xid] = &suspect{}
	}
	return left, nil
}

// judge reports whether a snapshot has every transaction that the reader passed before
// the mark. Workers take snapshots side by side, and what a newer one has seen is forgotten,
// so one that is older than another that was judged is no good.
func (d *desk) judge(ctx context.Context, w *worker, seen *visibility, mark int) (bool, error) {
	d.mu.Lock()
	armed := d.armed
	if d.latest != nil && !seen.covers(d.latest) {
		d.mu.Unlock()
		return false, nil
	}
	d.latest = seen
	hidden := d.passed.hidden(seen, mark)
	var ask []uint64
	for xid := range d.suspects {
		if seen.sees(uint32(xid)) { //nolint:gosec // The stream has the lower half.
			delete(d.suspects, xid)
			continue
		}
		ask = append(ask, xid)
	}
	d.mu.Unlock()
	switch {
	case !armed:
		return false, fmt.Errorf("more than %d transactions have committed since the last chunk", passedMax)
	case hidden:
		return false, nil
	case len(ask) == 0:
		return true, nil
	}
	found, err := lookAt(ctx, w.conn, ask)
	if err != nil {
		return false, err
	}
	if slices.Contains(found, waits) {
		w.say("transactions that may be waiting for a synchronous standby must end: " + joinXIDs(ask))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	cleared := seen.covers(d.latest) // What a newer one has seen is no suspect any more.
	for i, xid := range ask {
		d.suspects.take(xid, found[i], time.Now())
		cleared = cleared && d.suspects[xid] == nil
	}
	return cleared, nil
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

// lookAt finds out what transactions are at.
func lookAt(ctx context.Context, conn *pgx.Conn, ask []uint64) ([]look, error) {
	var blind bool // to what others wait for
	if err := conn.QueryRow(ctx, "SELECT current_setting('synchronous_standby_names') <> '' AND NOT pg_has_role('pg_read_all_stats', 'USAGE')").Scan(&blind); err != nil {
		return nil, fmt.Errorf("look at transactions: %w", err)
	}
	rows, err := conn.Query(ctx, `
SELECT COALESCE(backend_xid::text, ''), COALESCE(state, ''), COALESCE(wait_event_type, ''), COALESCE(wait_event, '')
FROM pg_stat_activity WHERE backend_xid IS NOT NULL OR wait_event = 'SyncRep'`)
	if err != nil {
		return nil, fmt.Errorf("look at transactions: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b backend, err error) {
		return b, row.Scan(&b.xid, &b.state, &b.waitType, &b.wait)
	})
	if err != nil {
		return nil, fmt.Errorf("look at transactions: %w", err)
	}
	// COMMIT PREPARED waits in a backend that has another transaction, or none.
	someWait := slices.ContainsFunc(all, func(b backend) bool { return b.wait == "SyncRep" })
	found := make([]look, len(ask))
	for n, xid := range ask {
		i := slices.IndexFunc(all, func(b backend) bool { return b.xid == strconv.FormatUint(xid&(1<<32-1), 10) })
		switch {
		case i >= 0 && (strings.HasPrefix(all[i].state, "idle in transaction") || slices.Contains([]string{"Lock", "Client", "Timeout", "BufferPin"}, all[i].waitType)):
			found[n] = uncommitted
		case i >= 0 && all[i].wait == "SyncRep", i < 0 && (someWait || blind):
			found[n] = waits
		}
	}
	return found, nil
}
