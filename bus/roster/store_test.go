package roster_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

var (
	errConflict = errors.New("conflict")
	errAway     = errors.New("store is away")
)

// version is what the key was at a revision.
type version struct {
	value    []byte
	revision uint64
}

// fakeStore is a linearizable key with a bad network in front. A request can be carried
// out long after its caller has given up; an answer can be lost; a read can be old.
type fakeStore struct {
	mu       sync.Mutex
	random   *rand.Rand
	versions []version // never empty
	watchers map[chan struct{}]bool

	away    bool          // nothing is answered or carried out
	lose    float64       // of requests, and of answers
	latency time.Duration // at most, in each direction, most of the time
	tail    time.Duration // at most, in a third of all cases
	stale   float64       // of reads
	deaf    bool          // nobody is told of changes
}

func newFakeStore(seed uint64) *fakeStore {
	return &fakeStore{
		random: rand.New(rand.NewPCG(seed, 1)), versions: []version{{}},
		watchers: map[chan struct{}]bool{}, latency: 10 * time.Millisecond,
	}
}

// set is what somebody does by hand; a nil value deletes.
func (s *fakeStore) set(value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(value)
}

func (s *fakeStore) write(value []byte) uint64 {
	last := s.versions[len(s.versions)-1]
	s.versions = append(s.versions, version{bytes.Clone(value), last.revision + 1})
	for w := range s.watchers {
		if s.deaf {
			break
		}
		select {
		case w <- struct{}{}:
		default:
		}
	}
	return last.revision + 1
}

// fault changes how the store behaves.
func (s *fakeStore) fault(change func(*fakeStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

type answer struct {
	version
	err error
}

// ask carries an operation over the network.
func (s *fakeStore) ask(ctx context.Context, do func() answer) answer {
	s.mu.Lock()
	away := s.away
	lost, mute := s.random.Float64() < s.lose, s.random.Float64() < s.lose
	there, back := s.delay(), s.delay()
	s.mu.Unlock()
	result := make(chan answer, 1)
	if !lost && !away {
		time.AfterFunc(there, func() {
			s.mu.Lock()
			a := do()
			s.mu.Unlock()
			if !mute {
				time.AfterFunc(back, func() { result <- a })
			}
		})
	}
	select {
	case a := <-result:
		return a
	case <-ctx.Done():
		return answer{err: errors.Join(errAway, ctx.Err())}
	}
}

func (s *fakeStore) delay() time.Duration {
	if s.random.IntN(3) == 0 {
		return time.Duration(s.random.Int64N(int64(s.latency+s.tail) + 1))
	}
	return time.Duration(s.random.Int64N(int64(s.latency) + 1))
}

// Get implements roster.Store.
func (s *fakeStore) Get(ctx context.Context, _ string) ([]byte, uint64, error) {
	a := s.ask(ctx, func() answer {
		n := len(s.versions) - 1
		if s.random.Float64() < s.stale {
			n -= s.random.IntN(min(3, n+1))
		}
		return answer{version: s.versions[n]}
	})
	return bytes.Clone(a.value), a.revision, a.err
}

// Update implements roster.Store.
func (s *fakeStore) Update(ctx context.Context, _ string, value []byte, revision uint64) (uint64, error) {
	a := s.ask(ctx, func() answer {
		if have := s.versions[len(s.versions)-1].revision; have != revision {
			return answer{err: errConflict}
		}
		return answer{version: version{revision: s.write(value)}}
	})
	return a.revision, a.err
}

// Watch implements roster.Store.
func (s *fakeStore) Watch(ctx context.Context, _ string) (<-chan struct{}, error) {
	w := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = true
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	})
	return w, nil
}
