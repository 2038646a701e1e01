package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/internal/demo/shop"
)

// watchEvery is how often the demo looks at all sides.
const watchEvery = 250 * time.Millisecond

// watch looks at dbmazz and the source while the load runs and until all of it has arrived.
type watch struct {
	service *service
	load    *shop.Load
	conn    *pgx.Conn // Its own, to the source.
	changes int
	begun   time.Time
	frozen  time.Time // When everything had arrived.

	mu      sync.Mutex
	note    string // What the scenario is at.
	latest  look
	rate    rate
	lags    []uint64 // Milliseconds, one for each look that reached dbmazz.
	readers map[int32]bool
}

// look is all sides at one moment.
type look struct {
	at      time.Time
	state   state
	slot    slot
	head    uint64
	written int64
	done    bool // The load has ended.
	share   float64
}

func newWatch(s *service, l *shop.Load, conn *pgx.Conn, changes int) *watch {
	return &watch{service: s, load: l, conn: conn, changes: changes, begun: time.Now(), readers: map[int32]bool{}}
}

// say sets what the scenario is at, empty for nothing special.
func (w *watch) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note = fmt.Sprintf(format, args...)
}

// look looks once; origin is where the write-ahead log was before the load. An error is one of the source's; dbmazz
// may be away.
func (w *watch) look(ctx context.Context, origin uint64, done bool) (look, error) {
	l := look{at: time.Now(), done: done, written: w.load.Written()}
	var err error
	if l.slot, err = readSlot(ctx, w.conn); err != nil {
		return l, err
	}
	if l.head, err = head(ctx, w.conn); err != nil {
		return l, err
	}
	// Being away is shown, and in the end it is the deadline that counts.
	l.state, err = w.service.ask(ctx)
	reached := err == nil
	l.share = w.share(l, origin)
	w.mu.Lock()
	defer w.mu.Unlock()
	if reached {
		w.lags = append(w.lags, l.state.metrics.GetReplicationLagMs())
	}
	if l.slot.pid != 0 {
		w.readers[l.slot.pid] = true
	}
	w.rate.add(l.at, l.written)
	w.latest = l
	return l, nil
}

// share is how much of the whole is in the sink: the written part of the load, times the confirmed part of the log.
func (w *watch) share(l look, origin uint64) float64 {
	if l.head <= origin || l.slot.confirmed <= origin {
		return 0
	}
	written := min(1, float64(l.written)/float64(w.changes))
	return written * min(1, float64(l.slot.confirmed-origin)/float64(l.head-origin))
}

// last returns the latest look.
func (w *watch) last() look {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.latest
}

// walsenders lists the processes of the source that have read the slot.
func (w *watch) walsenders() []int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var pids []int32
	for pid := range w.readers {
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids
}

// lagQuantile returns the lag that a share of all looks did not exceed.
func (w *watch) lagQuantile(share float64) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lags) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(w.lags))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// rate is the speed of a counter over about a second.
type rate struct {
	at    [5]time.Time
	value [5]int64
	next  int
}

func (r *rate) add(at time.Time, value int64) {
	r.at[r.next%len(r.at)], r.value[r.next%len(r.at)] = at, value
	r.next++
}

func (r *rate) perSecond() float64 {
	if r.next < 2 {
		return 0
	}
	newest := (r.next - 1) % len(r.at)
	oldest := 0
	if r.next > len(r.at) {
		oldest = r.next % len(r.at)
	}
	elapsed := r.at[newest].Sub(r.at[oldest]).Seconds()
	if elapsed <= 0 {
		return 0
	}
	return float64(r.value[newest]-r.value[oldest]) / elapsed
}
