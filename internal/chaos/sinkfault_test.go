package chaos_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// scripted are the faults of a load, an answer or a statement that the stand-in plays.
// Those that hold something hold it until the fault is healed.
var scripted = []starrockstest.FaultKind{
	starrockstest.FaultFail, starrockstest.FaultHTTPError, starrockstest.FaultHTTPErrorAfterCommit, starrockstest.FaultDropBeforeBody,
	starrockstest.FaultDropMidBody, starrockstest.FaultLostResponse, starrockstest.FaultFailCommitted, starrockstest.FaultPublishTimeout,
	starrockstest.FaultHold, starrockstest.FaultHoldBeforeCommit, starrockstest.FaultSlow, starrockstest.FaultLabelRunning,
	starrockstest.FaultVersionLimit, starrockstest.FaultFilteredRow, starrockstest.FaultFilteredLost, starrockstest.FaultTruncate, starrockstest.FaultEvictLabel, starrockstest.FaultEvictLost,
	starrockstest.FaultCommitLate, starrockstest.FaultBeginLate, starrockstest.FaultLeaderChange, starrockstest.FaultBEDies,
	starrockstest.FaultRedirect, starrockstest.FaultRedirectLoop, starrockstest.FaultFEHTTPError, starrockstest.FaultFE401, starrockstest.FaultFEDown,
	starrockstest.FaultState, starrockstest.FaultMySQL, starrockstest.FaultMySQLDrop, starrockstest.FaultMySQLLost,
}

// sinkFaults are the scripted ones, and those of the server as a whole.
func sinkFaults() []fault {
	all := []fault{
		{name: "sink: down", group: "sink", weight: 4, strike: func(r *run, _ *rand.Rand) func() {
			r.sink.Down()
			return func() { r.must("bring the sink up", r.sink.Up()) }
		}},
		{name: "sink: clock jumps four days ahead", group: "sink", weight: 3, strike: func(r *run, _ *rand.Rand) func() {
			r.skew.Add(int64(96 * time.Hour))
			return nil
		}},
		{name: "sink: clock jumps an hour back", group: "sink", weight: 2, strike: func(r *run, _ *rand.Rand) func() {
			r.skew.Add(-int64(time.Hour))
			return nil
		}},
	}
	for _, kind := range scripted {
		all = append(all, fault{name: sinkFault(kind), group: "sink", weight: weightOf(kind), possible: func(r *run) bool { return r.mayScript(kind) }, strike: script(kind)})
	}
	return all
}

// sinkFault names the fault of a schedule that has the stand-in play a kind of fault.
func sinkFault(kind starrockstest.FaultKind) string { return "sink: " + string(kind) }

// silent tells the kinds of a load that lacks a row.
func silent(kind starrockstest.FaultKind) bool {
	return kind == starrockstest.FaultFilteredRow || kind == starrockstest.FaultFilteredLost
}

// weightOf prefers the faults that leave it open whether a load is committed, and how much
// of it.
func weightOf(kind starrockstest.FaultKind) int {
	if silent(kind) {
		return 10
	}
	switch kind {
	case starrockstest.FaultLostResponse, starrockstest.FaultCommitLate, starrockstest.FaultEvictLabel, starrockstest.FaultEvictLost, starrockstest.FaultHTTPError:
		return 5
	default:
		return 2
	}
}

// mayScript: a request that is stuck for longer than its label is remembered cannot be
// told from a new one, neither here nor by StarRocks, whose labels live for days.
func (r *run) mayScript(kind starrockstest.FaultKind) bool {
	return kind != starrockstest.FaultBeginLate || r.shape.labels == 1000
}

// script has the stand-in play a fault one to three times. It is counted if it did.
func script(kind starrockstest.FaultKind) func(*run, *rand.Rand) func() {
	return func(r *run, random *rand.Rand) func() {
		f := starrockstest.Fault{Kind: kind, Count: 1 + random.IntN(3)}
		switch kind {
		case starrockstest.FaultSlow:
			f.Delay = starrockstest.Duration(time.Duration(random.IntN(800)) * time.Millisecond)
		case starrockstest.FaultBEDies, starrockstest.FaultFEDown:
			f.Delay = starrockstest.Duration(time.Duration(50+random.IntN(800)) * time.Millisecond)
		case starrockstest.FaultEvictLost:
			if r.shape.keyless {
				f.Table = `\.event$` // Of the others each load may be sent again.
			}
		case starrockstest.FaultFilteredRow, starrockstest.FaultFilteredLost:
			// The rows of this table never change: nothing covers up that one is missing,
			// and none needs values of a row that is not in the sink any more.
			f.Count, f.Table = 1, `\.ledger$`
		case starrockstest.FaultRedirect:
			f.Location = "127.0.0.77:9" // A host that nobody has named.
		case starrockstest.FaultPublishTimeout:
			r.invisible.Store(time.Now().Add(time.Hour).UnixNano())
		default:
		}
		r.must("script a fault", r.sink.Script(f))
		return func() {
			struck := func() bool {
				left := r.sink.Faults()
				i := slices.IndexFunc(left, func(o starrockstest.Fault) bool { return o.Kind == kind })
				return i < 0 || left[i].Count < f.Count
			}
			for n := 0; n < 40 && silent(kind) && !struck(); n++ {
				r.wait(50 * time.Millisecond) // For a load of the table.
			}
			if struck() {
				r.count("fault", sinkFault(kind))
			}
			r.sink.ClearFaults()
			r.sink.Release()
			r.must("bring the sink up", r.sink.Up())
			if kind == starrockstest.FaultPublishTimeout {
				r.invisible.Store(time.Now().Add(3 * time.Second).UnixNano())
			}
		}
	}
}

// TestEveryFaultOfTheSinkIsPlayed: docs/reliability.md says so.
func TestEveryFaultOfTheSinkIsPlayed(t *testing.T) {
	t.Parallel()
	for _, kind := range starrockstest.FaultKinds() {
		if !slices.Contains(scripted, kind) {
			t.Errorf("%s is not played", kind)
		}
	}
}
