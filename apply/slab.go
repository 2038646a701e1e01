package apply

import "sync"

// slabs keeps slices of batches for the next one: they are large, and grow with each row.
// What nobody takes is given back to the system by the garbage collector, so that an idle
// process holds none. It is safe for concurrent use.
type slabs[T any] struct{ pool sync.Pool }

// slabMin is from how many elements on a slice is worth keeping.
const slabMin = 1024

// take returns an empty slice with room for n elements at least. All of its room is zero.
func (s *slabs[T]) take(n int) []T {
	if n >= slabMin {
		if kept, ok := s.pool.Get().(*[]T); ok && cap(*kept) >= n {
			return *kept
		}
	}
	return make([]T, 0, n)
}

// give keeps a slice that nobody uses any more, and forgets what its elements point to.
func (s *slabs[T]) give(v []T) {
	if cap(v) < slabMin {
		return
	}
	clear(v)
	v = v[:0]
	s.pool.Put(&v)
}

// The slabs of all sessions of the process.
var (
	changeSlabs slabs[change]
	rowSlabs    slabs[Row]
	slotSlabs   slabs[slot]
	keySlabs    slabs[byte]
)
