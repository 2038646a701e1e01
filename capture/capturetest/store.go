package capturetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"github.com/dbmazz/dbmazz/capture"
)

var _ capture.SnapshotStore = (*Store)(nil)

// Store is a place in memory for the state of a snapshot.
type Store struct {
	mu       sync.Mutex
	value    []byte
	revision uint64
}

// LoadState returns the state.
func (s *Store) LoadState(context.Context) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.value), s.revision, nil
}

// SaveState stores the state.
func (s *Store) SaveState(_ context.Context, value []byte, revision uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.revision {
		return 0, fmt.Errorf("revision is %d, not %d", s.revision, revision)
	}
	s.revision++
	s.value = bytes.Clone(value)
	return s.revision, nil
}

// Value returns what is stored.
func (s *Store) Value() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.value)
}
