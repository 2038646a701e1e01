package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// allFaults is the list that a schedule chooses from.
var allFaults = slices.Concat(faults, connectionFaults(), sinkFaults())

// active is a fault that has not been healed.
type active struct {
	fault fault
	heal  func()
}

// play runs the schedule: steps with a few faults each, some of which go on through the
// next step.
func (r *run) play() {
	var there []active
	for range r.shape.steps {
		if r.failed() {
			break
		}
		var hold time.Duration
		for range 1 + r.random.IntN(3) {
			f, ok := r.choose(there)
			if !ok {
				continue
			}
			r.note("%s", f.name)
			heal := f.strike(r, r.random)
			if !isScripted(f.name) {
				r.count("fault", f.name)
			}
			there = append(there, active{f, heal})
			hold = max(hold, f.lasts)
			r.wait(time.Duration(r.random.IntN(150)) * time.Millisecond)
		}
		r.wait(hold + time.Duration(100+r.random.IntN(1200))*time.Millisecond)
		there = r.healSome(there)
		if len(there) == 0 && r.random.IntN(3) > 0 {
			r.flows()
		}
	}
	for _, a := range slices.Backward(there) {
		r.heal(a)
	}
}

func isScripted(name string) bool {
	return slices.ContainsFunc(scripted, func(kind starrockstest.FaultKind) bool { return name == sinkFault(kind) })
}

// choose picks a fault of a group that has none.
func (r *run) choose(there []active) (fault, bool) {
	total := 0
	var able []fault
	for _, f := range allFaults {
		taken := slices.ContainsFunc(there, func(a active) bool { return a.fault.group == f.group })
		if !taken && (f.possible == nil || f.possible(r)) {
			able = append(able, f)
			total += f.weight
		}
	}
	if total == 0 {
		return fault{}, false
	}
	n := r.random.IntN(total)
	for _, f := range able {
		if n -= f.weight; n < 0 {
			return f, true
		}
	}
	return fault{}, false
}

// healSome heals most of what is there. What has nothing to heal is over.
func (r *run) healSome(there []active) (left []active) {
	for _, a := range slices.Backward(there) {
		switch {
		case a.heal == nil:
		case r.random.IntN(4) == 0:
			left = append(left, a)
		default:
			r.heal(a)
		}
	}
	slices.Reverse(left)
	return left
}

func (r *run) heal(a active) {
	if a.heal != nil {
		r.note("healed: %s", a.fault.name)
		a.heal()
	}
}

// note writes down what the schedule does, to be shown if the run fails.
func (r *run) note(format string, args ...any) {
	r.t.Logf("%8s %s", time.Since(r.began).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

// flows waits a while until something that is committed now is in the sink, so that not
// every fault meets a pipeline that is still busy with the last one.
func (r *run) flows() {
	ctx, cancel := context.WithTimeout(r.t.Context(), 6*time.Second)
	defer cancel()
	if at, err := r.mark(ctx); err == nil {
		_, _ = r.confirmedReaches(ctx, at, drainLooks) // It may well not.
	}
}

// mark commits a row and returns a position after all commits before it.
func (r *run) mark(ctx context.Context) (pglogrepl.LSN, error) {
	conn, err := r.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var text string
	const insert = "WITH m AS (INSERT INTO ledger SELECT COALESCE(min(n), 0) - 100000, 'mark' FROM ledger RETURNING n) SELECT pg_current_wal_insert_lsn()::text FROM m"
	if err := conn.QueryRow(ctx, insert).Scan(&text); err != nil {
		return 0, err
	}
	return pglogrepl.ParseLSN(text)
}

// confirmedReaches waits until the slot has confirmed a position. Patience is counted in
// looks, not in time: on a machine that has no time for this program there are few of them,
// and dbmazz has none either.
func (r *run) confirmedReaches(ctx context.Context, goal pglogrepl.LSN, looks int) (at pglogrepl.LSN, err error) {
	w := watcher{r: r}
	defer func() {
		if w.conn != nil {
			_ = w.conn.Close(context.WithoutCancel(ctx))
		}
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for range looks {
		if now, ok := w.confirmed(ctx); ok {
			if at = now; at >= goal {
				return at, nil
			}
		}
		select {
		case <-ctx.Done():
			return at, ctx.Err()
		case <-tick.C:
		}
	}
	return at, context.DeadlineExceeded
}

// lookEvery is the pause between two looks.
const lookEvery = 50 * time.Millisecond

// promote kills the primary once its standby has the slot, and makes the standby the
// primary.
func promote(r *run, _ *rand.Rand) func() {
	ctx, cancel := context.WithTimeout(r.t.Context(), 40*time.Second)
	defer cancel()
	conn, err := r.standby.Connect(ctx, r.db.Name())
	if err != nil {
		r.must("connect to the standby", err)
		return nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for synced := false; !synced; {
		const query = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary)"
		if err := conn.QueryRow(ctx, query, slotName).Scan(&synced); err != nil {
			r.note("the slot is not on the standby: %v", err)
			return nil
		}
		if primary, err := r.connect(ctx); err == nil {
			_, _ = primary.Exec(ctx, "SELECT pg_log_standby_snapshot()") // It only helps.
			_ = primary.Close(ctx)
		}
		r.wait(50 * time.Millisecond)
	}
	r.load.hold() // What only the primary has ever seen would be lost with it, by PostgreSQL.
	defer r.load.resume()
	if !r.standbyCaughtUp(ctx) {
		return nil
	}
	r.must("kill PostgreSQL", r.server.Kill())
	r.standby.Promote(r.t)
	r.mu.Lock()
	r.primary, r.server, r.standby = r.standby, r.standby, nil
	r.mu.Unlock()
	r.proxies["source"].forward(net.JoinHostPort(r.server.Host(), strconv.Itoa(r.server.Port())))
	r.proxies["source"].set(cut)
	r.proxies["source"].set(passing)
	return nil
}

// standbyCaughtUp waits until the standby has all that was committed.
func (r *run) standbyCaughtUp(ctx context.Context) bool {
	primary, err := r.connect(ctx)
	if err != nil {
		return false
	}
	defer primary.Close(context.WithoutCancel(ctx))
	const query = "SELECT COALESCE(bool_and(replay_lsn >= pg_current_wal_lsn()), false) FROM pg_stat_replication WHERE application_name = 'standby'"
	for ctx.Err() == nil {
		var done bool
		if err := primary.QueryRow(ctx, query).Scan(&done); err != nil {
			return false
		}
		if done {
			return true
		}
		r.wait(50 * time.Millisecond)
	}
	return false
}
