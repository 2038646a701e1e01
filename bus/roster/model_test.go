package roster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/bus/roster"
)

// drift is by how much the members' clocks run wrong, and write how long after a Check
// a member still writes: what the drift within a TTL leaves of the margin.
const (
	drift = 0.02
	write = margin - time.Duration(2*drift*float64(ttl))
)

// event is one thing that happens in a history.
type event struct {
	After  time.Duration // since the event before
	Kind   string
	Member int
	For    time.Duration
}

// What can happen, and times in milliseconds that matter; the simplest first, as a failure is reduced to
// it.
var (
	kinds = []string{
		"nothing", "pause", "pause", "pause", "crash", "release", "away", "lossy", "slow", "stale", "deaf", "delete", "garbage", "wall",
	}
	after = []int{0, 100, 400, 1100, 1900, 3200, 4600, 6100, 7700}
	spans = []int{10, 200, 900, 1600, 2900, 4400, 4600, 5900, 6200, 9000, 15000}
)

func drawEvents() *rapid.Generator[[]event] {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event {
		return event{
			After:  time.Duration(rapid.SampledFrom(after).Draw(t, "after")) * time.Millisecond,
			Kind:   rapid.SampledFrom(kinds).Draw(t, "kind"),
			Member: rapid.IntRange(0, 2).Draw(t, "member"),
			For:    time.Duration(rapid.SampledFrom(spans).Draw(t, "for")) * time.Millisecond,
		}
	}), 20, 20)
}

// TestNoTwoMembersPassCheckAtOnce runs random histories of pauses, crashes, lost, late and
// old answers, and hands that meddle with the key. A member that passed Check may write
// for a while; nobody else may pass Check before that is over.
func TestNoTwoMembersPassCheckAtOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		events := drawEvents().Draw(rt, "events")
		var problem error
		synctest.Test(t, func(t *testing.T) { problem = newWorld(seed).run(t.Context(), events) })
		if problem != nil {
			rt.Fatal(problem)
		}
	})
}

// world is three hosts and a store.
type world struct {
	store *fakeStore
	hosts []*host

	mu      sync.Mutex
	random  *rand.Rand
	passed  []time.Time           // when a member passed Check last
	over    map[*roster.Term]bool // terms whose work has ended
	problem error
	all     sync.WaitGroup
}

// host runs one member. While it is paused, nothing in it goes on that looks at the
// clock or comes back from the store, and that is every step of package roster.
type host struct {
	w      *world
	number int
	speed  float64
	born   time.Time

	mu     sync.Mutex
	resume chan struct{} // nil while it runs
	wall   time.Duration
	kill   context.CancelFunc
	term   *roster.Term
	lease  *roster.Lease
}

func newWorld(seed uint64) *world {
	w := &world{over: map[*roster.Term]bool{}, store: newFakeStore(seed), random: rand.New(rand.NewPCG(seed, 2)), passed: make([]time.Time, 3)}
	// Some stores are so slow that most pauses hit a question.
	w.store.latency = time.Duration(1+w.random.IntN(400)) * time.Millisecond
	for i := range w.passed {
		speed := 1 + drift*(2*w.random.Float64()-1)
		w.hosts = append(w.hosts, &host{w: w, number: i, speed: speed, born: time.Now()})
	}
	return w
}

func (w *world) run(ctx context.Context, events []event) error {
	for _, h := range w.hosts {
		h.start(ctx)
	}
	for _, e := range events {
		<-time.After(e.After)
		w.apply(ctx, e)
	}
	// Quiet: whatever was going on ends, and then one member leads and all know it.
	<-time.After(20 * time.Second)
	w.store.set(nil)
	<-time.After(4 * ttl)
	leaders := 0
	for _, h := range w.hosts {
		if h.holder().Self {
			leaders++
		}
		if h.holder().Member == "" {
			w.fail(fmt.Errorf("host %d does not know who leads", h.number))
		}
	}
	if leaders != 1 {
		w.fail(fmt.Errorf("in the end %d members lead", leaders))
	}
	for _, h := range w.hosts {
		h.crash()
	}
	w.all.Wait()
	return w.problem
}

func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.problem == nil {
		w.problem = err
	}
}

func (w *world) apply(ctx context.Context, e event) {
	h := w.hosts[e.Member]
	spell := func(begin, end func(*fakeStore)) {
		w.store.fault(begin)
		time.AfterFunc(e.For, func() { w.store.fault(end) })
	}
	switch e.Kind {
	case "pause":
		h.pause(e.For)
	case "crash":
		h.crash()
		time.AfterFunc(e.For/10, func() { h.start(ctx) })
	case "release":
		h.release(ctx)
	case "wall":
		h.mu.Lock()
		h.wall += e.For - 5*time.Second
		h.mu.Unlock()
	case "away":
		spell(func(s *fakeStore) { s.away = true }, func(s *fakeStore) { s.away = false })
	case "lossy":
		spell(func(s *fakeStore) { s.lose = 0.5 }, func(s *fakeStore) { s.lose = 0 })
	case "slow":
		spell(func(s *fakeStore) { s.tail = 4 * time.Second }, func(s *fakeStore) { s.tail = 0 })
	case "stale":
		spell(func(s *fakeStore) { s.stale = 0.5 }, func(s *fakeStore) { s.stale = 0 })
	case "deaf":
		spell(func(s *fakeStore) { s.deaf = true }, func(s *fakeStore) { s.deaf = false })
	case "delete":
		w.store.set(nil)
	case "garbage":
		w.store.set([]byte("garbage"))
	}
}

// gate holds a paused host.
func (h *host) gate() {
	for {
		h.mu.Lock()
		resume := h.resume
		h.mu.Unlock()
		if resume == nil {
			return
		}
		<-resume
	}
}

func (h *host) pause(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.resume != nil {
		return
	}
	resume := make(chan struct{})
	h.resume = resume
	time.AfterFunc(d, func() {
		h.mu.Lock()
		h.resume = nil
		h.mu.Unlock()
		close(resume)
	})
}

func (h *host) clock() (time.Duration, time.Time) {
	h.gate()
	h.mu.Lock()
	defer h.mu.Unlock()
	age := time.Duration(h.speed * float64(time.Since(h.born)))
	return age, h.born.Add(age + h.wall).Round(0)
}

func (h *host) holder() roster.Holder {
	h.mu.Lock()
	l := h.lease
	h.mu.Unlock()
	return l.Holder()
}

// hostStore is the store as a host reaches it.
type hostStore struct {
	roster.Store
	h      *host
	killed <-chan struct{}
}

var errKilled = errors.New("killed")

func (s hostStore) dead() bool {
	s.h.gate()
	select {
	case <-s.killed:
		return true
	default:
		return false
	}
}

// Get implements roster.Store.
func (s hostStore) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	if s.dead() {
		return nil, 0, errKilled
	}
	defer s.h.gate()
	return s.Store.Get(ctx, key)
}

// Update implements roster.Store.
func (s hostStore) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if s.dead() {
		return 0, errKilled
	}
	defer s.h.gate()
	return s.Store.Update(ctx, key, value, revision)
}

// start begins a process that leads whenever it can.
func (h *host) start(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	l := roster.New(roster.Config{
		Store: hostStore{h.w.store, h, ctx.Done()}, Key: "k", Member: fmt.Sprint("host ", h.number), Logger: slog.New(slog.DiscardHandler),
	})
	roster.SetClock(l, h.clock)
	h.mu.Lock()
	if h.kill != nil {
		h.mu.Unlock()
		cancel()
		return
	}
	h.kill, h.lease = cancel, l
	h.mu.Unlock()
	h.w.all.Go(func() {
		for ctx.Err() == nil {
			term, err := l.Acquire(ctx)
			if err != nil {
				return
			}
			h.mu.Lock()
			h.term = term
			h.mu.Unlock()
			h.work(ctx, term)
		}
	})
}

// work checks and writes until the term ends.
func (h *host) work(ctx context.Context, term *roster.Term) {
	for ctx.Err() == nil {
		h.gate()
		if term.Check() != nil {
			return
		}
		h.w.pass(h.number, term)
		h.w.mu.Lock()
		pause := time.Duration(h.w.random.IntN(200)) * time.Millisecond
		h.w.mu.Unlock()
		<-time.After(pause)
	}
	if ctx.Err() != nil {
		// A process that is killed cannot reach the store; only its goroutines
		// must end.
		_ = term.Release(ctx)
	}
}

// pass notes that a member has passed Check.
func (w *world) pass(number int, term *roster.Term) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over[term] {
		return
	}
	now := time.Now()
	for other, at := range w.passed {
		if other != number && !at.IsZero() && now.Before(at.Add(write)) && w.problem == nil {
			w.problem = fmt.Errorf("host %d passed Check %s after host %d did", number, now.Sub(at), other)
		}
	}
	w.passed[number] = now
}

// crash ends the process of a host as SIGKILL does.
func (h *host) crash() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kill != nil {
		h.kill()
		h.kill = nil
	}
}

// release ends the work of a host and gives its leadership back.
func (h *host) release(ctx context.Context) {
	h.mu.Lock()
	term := h.term
	paused := h.resume != nil
	h.mu.Unlock()
	if term == nil || paused || term.Check() != nil {
		return
	}
	h.w.mu.Lock()
	h.w.passed[h.number] = time.Time{}
	h.w.over[term] = true
	h.w.mu.Unlock()
	h.w.all.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		_ = term.Release(ctx)
	})
}
