package apply

import (
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// State says what apply is doing.
type State string

// The states of apply.
const (
	Starting   State = "starting"
	Connecting State = "connecting" // checking the sink, preparing tables
	Applying   State = "applying"
	Paused     State = "paused"
	Failing    State = "failing" // something is wrong; Err says what, it is tried again
	Stopped    State = "stopped"
)

// Status is a snapshot of apply. Counters start at zero with the process.
type Status struct {
	State  State
	Detail string
	// Ready tells that the sink was reached and the known tables are prepared.
	Ready bool
	// Err is what is wrong now, empty when nothing is; Since is when it began.
	Err   string
	Since time.Time

	Checkpoint cdc.Checkpoint
	Changes    uint64 // changes of rows, and truncates, that the sink has committed
	// SnapshotRows are those of Changes that are rows of a snapshot. They count
	// neither for OldestCommit nor for P50 and P99.
	SnapshotRows uint64
	Batches      uint64
	Loads        uint64 // requests to the sink that committed rows
	Retries      uint64 // requests that were repeated or resolved
	Failures     uint64 // calls of the sink that ended in an error and were tried again
	Bytes        uint64 // of request bodies
	// Nulled counts values that became NULL because their column cannot hold them; see
	// [Result].
	Nulled uint64
	// Letters counts the dead letters that hold a change back, as they were stored.
	Letters uint64
	// Waiting is how many changes are in memory and not yet in a batch.
	Waiting   int
	Restarts  int
	LastBatch time.Time
	// OldestCommit is when the oldest transaction was committed at the source that
	// is in memory here and not yet in the sink; zero if there is none.
	OldestCommit time.Time
	// P50 and P99 are the times from commit at the source to commit in the sink,
	// of the changes of the last minute. They include the difference between the
	// two hosts' clocks.
	P50, P99 time.Duration

	errOf string
}

// clear forgets the error of a call that has succeeded since.
func (s *Status) clear(what string) {
	if s.Err != "" && (s.errOf == what || what == "") {
		s.Err, s.errOf, s.Since = "", "", time.Time{}
	}
}

// oldest sets OldestCommit to the earlier of two times that may be zero.
func (s *Status) oldest(a, b time.Time) {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		a = b
	}
	s.OldestCommit = a
}

// Status returns a snapshot.
func (a *Apply) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	s.P50, s.P99 = a.latency.percentiles(time.Now())
	switch {
	case s.State == Stopped:
	case a.paused && !a.draining:
		s.State = Paused
	case s.Err != "":
		s.State = Failing
	}
	return s
}

// Settings returns what is in force.
func (a *Apply) Settings() Settings {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.settings
}

func (a *Apply) update(change func(*Status)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(&a.status)
	a.signal()
}

// failed shows an error until the same call succeeds.
func (a *Apply) failed(what string, err error) {
	a.update(func(s *Status) {
		if s.Err == "" {
			s.Since = time.Now()
		}
		s.Err, s.errOf = err.Error(), what
		if what != "" {
			s.Err = what + ": " + s.Err
			s.Failures++
		}
	})
}

// applied counts a batch that the sink has committed.
func (a *Apply) applied(b *batch, now time.Time) {
	a.update(func(s *Status) {
		s.Checkpoint = b.checkpoint
		s.clear("")
		if len(b.changes) == 0 {
			return
		}
		s.Changes += uint64(len(b.changes))
		s.SnapshotRows += snapshotRows(b.changes)
		s.Batches++
		s.LastBatch = now
		for _, f := range b.frames {
			a.latency.add(now, now.Sub(time.UnixMicro(f.commitTime)), f.changes)
		}
	})
}

func snapshotRows(changes []change) (n uint64) {
	for i := range changes {
		if changes[i].kind == cdc.KindSnapshot {
			n++
		}
	}
	return n
}

// latency keeps the latencies of the last minute in buckets that grow by a quarter, so
// a percentile is exact to 25 %. One ring of six slots of ten seconds.
type latency struct {
	slots [7]latencySlot
}

const (
	latencySlotTime = 10 * time.Second
	latencyBuckets  = 96
)

type latencySlot struct {
	at     int64
	counts [latencyBuckets]uint64
}

// bucketBounds[i] is the upper bound of bucket i: 100 us, growing by a quarter.
var bucketBounds = func() (bounds [latencyBuckets]time.Duration) {
	d := 100 * time.Microsecond
	for i := range bounds {
		bounds[i] = d
		d += d / 4
	}
	return bounds
}()

func (l *latency) add(now time.Time, d time.Duration, n int) {
	at := now.UnixNano() / int64(latencySlotTime)
	s := &l.slots[at%int64(len(l.slots))]
	if s.at != at {
		*s = latencySlot{at: at}
	}
	i := 0
	for i < latencyBuckets-1 && bucketBounds[i] < d {
		i++
	}
	s.counts[i] += uint64(max(n, 0)) //nolint:gosec // A count.
}

func (l *latency) percentiles(now time.Time) (p50, p99 time.Duration) {
	var sum [latencyBuckets]uint64
	var total uint64
	oldest := now.UnixNano()/int64(latencySlotTime) - 6
	for i := range l.slots {
		if l.slots[i].at < oldest {
			continue
		}
		for b, n := range l.slots[i].counts {
			sum[b] += n
			total += n
		}
	}
	if total == 0 {
		return 0, 0
	}
	at := func(share float64) time.Duration {
		var seen uint64
		for b, n := range sum {
			if seen += n; float64(seen) >= share*float64(total) {
				return bucketBounds[b]
			}
		}
		return bucketBounds[latencyBuckets-1]
	}
	return at(0.50), at(0.99)
}
