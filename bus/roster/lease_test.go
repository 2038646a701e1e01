package roster_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dbmazz/dbmazz/bus/roster"
)

const (
	ttl    = roster.DefaultTTL
	margin = ttl / 4
)

// clock is one host's clock in a bubble. A jump is what a process sees that was stopped:
// the clock has gone on, none of its timers has run.
type clock struct {
	mu   sync.Mutex
	boot time.Duration
	wall time.Duration
}

func (c *clock) jump(boot, wall time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot += boot
	c.wall += wall
}

func (c *clock) read() (time.Duration, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	return now.Sub(time.Unix(0, 0)) + c.boot, now.Round(0).Add(c.wall)
}

func member(store roster.Store, name string) (*roster.Lease, *clock) {
	l := roster.New(roster.Config{Store: store, Key: "leader.test", Member: name, Logger: slog.New(slog.DiscardHandler)})
	c := new(clock)
	roster.SetClock(l, c.read)
	return l, c
}

func acquire(t *testing.T, l *roster.Lease) *roster.Term {
	t.Helper()
	term, err := l.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { release(t, term) })
	return term
}

func release(t *testing.T, term *roster.Term) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if err := term.Release(ctx); err != nil {
		t.Error(err)
	}
}

// standby starts a member that waits, and returns where its term arrives.
func standby(t *testing.T, l *roster.Lease) <-chan *roster.Term {
	t.Helper()
	terms := make(chan *roster.Term, 1)
	go func() {
		term, err := l.Acquire(t.Context())
		if err != nil {
			t.Error(err)
		}
		terms <- term
	}()
	return terms
}

// taken returns the term of a standby and after how long it came.
func taken(t *testing.T, terms <-chan *roster.Term) (*roster.Term, time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case term := <-terms:
		t.Cleanup(func() { release(t, term) })
		return term, time.Since(began)
	case <-time.After(time.Minute):
		t.Fatal("no takeover within a minute")
		return nil, 0
	}
}

func TestLeaderIsRenewedAndKeepsStandbysWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(1)
		one, _ := member(store, "one")
		two, _ := member(store, "two")
		term := acquire(t, one)
		terms := standby(t, two)
		<-time.After(time.Hour)
		if err := term.Check(); err != nil {
			t.Error(err)
		}
		select {
		case <-terms:
			t.Error("the standby leads beside the leader")
		default:
		}
		if h := one.Holder(); !h.Self || h.Member != "one" || time.Since(h.Since) < time.Hour || one.Waiting() {
			t.Errorf("the leader sees %+v", h)
		}
		if h := two.Holder(); h.Self || h.Member != "one" || time.Since(h.Since) < time.Hour || !two.Waiting() {
			t.Errorf("the standby sees %+v", h)
		}
		if _, err := one.Acquire(t.Context()); err == nil {
			t.Error("a leader could lead twice")
		}
		release(t, term)
		if next, _ := taken(t, terms); next.Check() != nil {
			t.Error(next.Check())
		}
	})
}

func TestReleasedLeadershipIsTakenAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(1)
		one, _ := member(store, "one")
		two, _ := member(store, "two")
		term := acquire(t, one)
		terms := standby(t, two)
		<-time.After(10 * time.Second)
		release(t, term)
		if err := term.Check(); !errors.Is(err, roster.ErrReleased) {
			t.Errorf("a released term says %v", err)
		}
		if _, after := taken(t, terms); after > 200*time.Millisecond {
			t.Errorf("it took %s", after)
		}
		release(t, term)
	})
}

func TestDeadLeaderIsReplacedWithinTheTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(1)
		gone, _ := member(&cut{Store: store, after: 10}, "gone")
		two, _ := member(store, "two")
		acquire(t, gone)
		terms := standby(t, two)
		began := time.Now()
		taken(t, terms)
		// Ten calls, of which seven renewals; then a TTL, and the pause between two looks.
		if after := time.Since(began) - 9*ttl/4; after < ttl/2 || after > ttl+ttl/2 {
			t.Errorf("it took %s after the last renewal", after)
		}
	})
}

// cut is a store that a member cannot reach any more after some calls.
type cut struct {
	roster.Store
	mu    sync.Mutex
	after int
}

func (c *cut) ok() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after--
	return c.after >= 0
}

// Get implements roster.Store.
func (c *cut) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	if !c.ok() {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return c.Store.Get(ctx, key)
}

// Update implements roster.Store.
func (c *cut) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if !c.ok() {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return c.Store.Update(ctx, key, value, revision)
}

// TestStoppedProcessFindsCheckAnError: the clock jumps, and no timer has run yet.
func TestStoppedProcessFindsCheckAnError(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]func(*clock){
		"stopped":                 func(c *clock) { c.jump(ttl-margin, ttl-margin) },
		"wall clock was set back": func(c *clock) { c.jump(ttl-margin, -time.Hour) },
		"guest was frozen":        func(c *clock) { c.jump(0, ttl-margin) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore(1)
				l, c := member(store, "one")
				term := acquire(t, l)
				jump(c)
				if err := term.Check(); !errors.Is(err, roster.ErrLost) {
					t.Errorf("Check says %v", err)
				}
				select {
				case <-term.Done():
				default:
					t.Error("the term is not done")
				}
				<-time.After(time.Minute)
				if err := term.Check(); !errors.Is(err, roster.ErrLost) {
					t.Errorf("a lost term came back: %v", err)
				}
				// Nobody else has written, so the same member need not wait.
				began := time.Now()
				acquire(t, l)
				if time.Since(began) > time.Second {
					t.Errorf("taking the own term again took %s", time.Since(began))
				}
			})
		})
	}
}

func TestTermContextEndsWithTheTerm(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(1)
		l, _ := member(store, "one")
		term := acquire(t, l)
		ctx, cancel := term.Context(t.Context())
		defer cancel()
		store.fault(func(s *fakeStore) { s.away = true })
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), roster.ErrLost) {
			t.Errorf("the cause is %v", context.Cause(ctx))
		}
		began := time.Now()
		release(t, term)
		if time.Since(began) > 0 {
			t.Error("releasing a lost term asked the store")
		}
	})
}

func TestLeaderLeadsAgainWhenTheStoreIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(1)
		l, _ := member(store, "one")
		term := acquire(t, l)
		store.fault(func(s *fakeStore) { s.away = true })
		began := time.Now()
		<-term.Done()
		if after := time.Since(began); after < ttl-margin-ttl/4 || after > ttl-margin {
			t.Errorf("it stopped leading after %s", after)
		}
		terms := standby(t, l)
		<-time.After(time.Minute)
		store.fault(func(s *fakeStore) { s.away = false })
		if _, after := taken(t, terms); after > ttl/2 {
			t.Errorf("it took %s", after)
		}
	})
}

// TestKeyThatWasTamperedWithIsLeftAloneForTheTTL: the leader may not know yet.
func TestKeyThatWasTamperedWithIsLeftAloneForTheTTL(t *testing.T) {
	t.Parallel()
	for name, value := range map[string][]byte{
		"somebody else": []byte(`{"term":"x","member":"x","ttl_ns":1}`), "deleted": nil, "garbage": []byte("{"), "endless": []byte(`{"term":"x","ttl_ns":9e18}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore(1)
				one, _ := member(store, "one")
				two, _ := member(store, "two")
				term := acquire(t, one)
				terms := standby(t, two)
				<-time.After(10 * time.Second)
				store.set(value)
				<-time.After(ttl / 4)
				if err := term.Check(); !errors.Is(err, roster.ErrLost) {
					t.Errorf("after a renewal Check says %v", err)
				}
				if _, after := taken(t, terms); after < ttl-ttl/4 || after > ttl+ttl/4 {
					t.Errorf("it took %s", after)
				}
			})
		})
	}
}

func TestLongerTermOfAnotherMemberIsRespected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(1)
		long := roster.New(roster.Config{Store: store, Key: "k", Member: "long", TTL: time.Minute, Logger: slog.New(slog.DiscardHandler)})
		term := acquire(t, long)
		two, _ := member(store, "two")
		terms := standby(t, two)
		<-time.After(10 * time.Minute)
		if term.Check() != nil {
			t.Error(term.Check())
		}
		release(t, term)
		taken(t, terms)
	})
}

func TestLostAnswerOfARenewalIsNoLoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(1)
		l, _ := member(store, "one")
		term := acquire(t, l)
		for range 20 {
			// All answers are lost for the time of one renewal.
			store.fault(func(s *fakeStore) { s.latency = ttl / 4 })
			<-time.After(ttl / 3)
			store.fault(func(s *fakeStore) { s.latency = time.Millisecond })
			<-time.After(ttl)
			if err := term.Check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestReleaseGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore(1)
		l, _ := member(store, "one")
		term := acquire(t, l)
		store.fault(func(s *fakeStore) { s.away = true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := term.Release(ctx); err == nil {
			t.Error("releasing without the store succeeded")
		}
		if err := term.Check(); !errors.Is(err, roster.ErrReleased) {
			t.Errorf("Check says %v", err)
		}
		store.fault(func(s *fakeStore) { s.away = false })
		release(t, term)
		two, _ := member(store, "two")
		began := time.Now()
		acquire(t, two)
		if time.Since(began) > time.Second {
			t.Errorf("the key was not released: %s", time.Since(began))
		}
	})
}

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	for _, cfg := range []roster.Config{
		{},
		{Store: newFakeStore(1), Key: "k"},
		{Store: newFakeStore(1), Key: "k", Member: "m", TTL: time.Second, Renew: time.Second},
		{Store: newFakeStore(1), Key: "k", Member: "m", TTL: 2 * time.Hour},
		{Store: newFakeStore(1), Key: "k", Member: "m", Margin: -1},
	} {
		if _, err := roster.New(cfg).Acquire(t.Context()); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
