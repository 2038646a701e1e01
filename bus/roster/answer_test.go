package roster_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dbmazz/dbmazz/bus/roster"
)

// step is what the store does with one question: it is carried out or not, and answered
// after a time, by an error, or never.
type step struct {
	carry  bool
	answer time.Duration
	fails  bool
	never  bool
}

// scripted is a store that does as it is told, and nothing any more at the end of the
// script.
type scripted struct {
	*fakeStore

	mu     sync.Mutex
	script []step
	begun  []time.Time // of the writes
}

func (s *scripted) next(ctx context.Context, do func()) error {
	s.mu.Lock()
	now := step{never: true}
	if len(s.script) > 0 {
		now, s.script = s.script[0], s.script[1:]
	}
	s.mu.Unlock()
	if now.carry {
		do()
	}
	if now.never {
		now.answer = time.Hour
	}
	select {
	case <-time.After(now.answer):
		if now.fails {
			return errAway
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Get implements roster.Store.
func (s *scripted) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	late := s.next(ctx, func() { value, revision, err = s.fakeStore.Get(context.WithoutCancel(ctx), key) })
	if late != nil {
		return nil, 0, late
	}
	return value, revision, err
}

// Update implements roster.Store.
func (s *scripted) Update(ctx context.Context, key string, value []byte, revision uint64) (next uint64, err error) {
	s.mu.Lock()
	s.begun = append(s.begun, time.Now())
	s.mu.Unlock()
	late := s.next(ctx, func() { next, err = s.fakeStore.Update(context.WithoutCancel(ctx), key, value, revision) })
	if late != nil {
		return 0, late
	}
	return next, err
}

// TestTermCountsFromTheBeginningOfTheWriteThatIsStored names the last write that is, by
// its number; the store is away from there on.
func TestTermCountsFromTheBeginningOfTheWriteThatIsStored(t *testing.T) {
	t.Parallel()
	get, put := step{carry: true}, step{carry: true}
	for _, c := range []struct {
		name   string
		script []step
		stored int
	}{
		{"the answer to taking is late", []step{get, {carry: true, answer: 900 * time.Millisecond}}, 0},
		{"the answer to a renewal is late", []step{get, put, {carry: true, answer: 900 * time.Millisecond}}, 1},
		{"the answer is lost, the key shows it", []step{get, put, {carry: true, never: true}, get}, 1},
		{
			name:   "a write is lost, the key shows the one before",
			script: []step{get, put, {carry: true, fails: true}, {fails: true}, {fails: true}, get},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				fake := newFakeStore(1)
				fake.latency = 0
				store := &scripted{fakeStore: fake, script: c.script}
				l, _ := member(store, "one")
				term, err := l.Acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				<-term.Done()
				store.mu.Lock()
				age := time.Since(store.begun[c.stored])
				store.mu.Unlock()
				if age != ttl-margin {
					t.Errorf("the term ended %s after the write began, want %s", age, ttl-margin)
				}
			})
		})
	}
}

var _ roster.Store = (*scripted)(nil)
