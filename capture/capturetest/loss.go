package capturetest

import "github.com/dbmazz/dbmazz/bus/cdc"

// Replace puts an empty stream of another epoch in the place of this one. State and
// checkpoint stay.
func (s *Stream) Replace(epoch string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch, s.frames = epoch, nil
}

// Rename gives the stream another epoch and keeps its frames.
func (s *Stream) Rename(epoch string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch = epoch
}

// continues reports whether a frame follows the last one: it says so, or it says that it
// begins further on, past an end of the stream that was lost but that the sink has applied.
func (s *Stream) continues(tail *cdc.Tail, h *cdc.Header) bool {
	if tail.Empty || tail.Last == h.Prev {
		return true
	}
	return h.Prev.Ordinal == 0 && h.Prev.Commit > tail.End && s.applied && s.checkpoint.End >= h.Prev.Commit
}
