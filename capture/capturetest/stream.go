// Package capturetest has a stream in memory for tests of capture, with faults that
// a test scripts.
package capturetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
)

var (
	_ capture.Stream   = (*Stream)(nil)
	_ capture.Progress = (*Stream)(nil)
)

// Stream is a stream in memory that keeps the contract of [capture.Stream] and checks
// what it is given: that frames form a chain, and that a schema is stored before a frame
// uses it. It is a [capture.Progress] too: a sink that has applied what Apply says.
type Stream struct {
	mu      sync.Mutex
	epoch   string
	frames  []cdc.Frame
	schemas map[cdc.Fingerprint]*cdc.Schema
	tables  []*cdc.Schema
	state   []byte
	rev     uint64
	session int

	checkpoint cdc.Checkpoint
	applied    bool
	autoApply  bool
	changed    chan struct{}
	grown      chan struct{}

	// The faults.
	gate      chan struct{} // Publish waits for it to be closed
	opening   chan struct{} // Open does
	failAfter int           // publishes until one fails; 0 is never
	failStore bool          // the failing one is stored nevertheless
	saves     int
	corrupt   error
}

// New returns an empty stream.
func New() *Stream {
	return &Stream{
		epoch: "test", schemas: map[cdc.Fingerprint]*cdc.Schema{}, autoApply: true,
		changed: make(chan struct{}), grown: make(chan struct{}),
	}
}

// Epoch returns the epoch.
func (s *Stream) Epoch() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch
}

// Tail returns the last frame.
func (s *Stream) Tail(context.Context) (cdc.Tail, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tail(), nil
}

func (s *Stream) tail() cdc.Tail {
	n := len(s.frames)
	if n == 0 {
		return cdc.Tail{Empty: true}
	}
	h := s.frames[n-1].Header
	return cdc.Tail{Sequence: uint64(n), Last: h.Last, End: h.End}
}

// PutSchema stores a schema.
func (s *Stream) PutSchema(_ context.Context, schema *cdc.Schema) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schemas[schema.Fingerprint()] = schema
	return nil
}

// PutTables stores the schemas of the configured tables.
func (s *Stream) PutTables(_ context.Context, schemas []*cdc.Schema) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables = schemas
	return nil
}

// Tables returns what PutTables stored last.
func (s *Stream) Tables() []*cdc.Schema {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tables
}

// LoadState returns the state.
func (s *Stream) LoadState(context.Context) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.state), s.rev, nil
}

// SaveState stores the state.
func (s *Stream) SaveState(_ context.Context, value []byte, revision uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if revision != s.rev {
		return 0, fmt.Errorf("revision is %d, not %d", s.rev, revision)
	}
	s.rev++
	s.saves++
	s.state = bytes.Clone(value)
	return s.rev, nil
}

// State returns the stored state and Forget removes it.
func (s *Stream) State() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.state)
}

// SetState replaces the stored state; nil removes it.
func (s *Stream) SetState(value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = value
	s.rev++
	if value == nil {
		s.rev = 0
	}
}

// Open starts a writing session and fences the one before.
func (s *Stream) Open(ctx context.Context) (capture.Publisher, error) {
	if err := s.pass(ctx, &s.opening); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session++
	return &publisher{s: s, session: s.session}, nil
}

// pass waits until a gate of the stream is open, which it is if there is none.
func (s *Stream) pass(ctx context.Context, of *chan struct{}) error {
	s.mu.Lock()
	gate := *of
	s.mu.Unlock()
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// BlockOpen makes Open wait until open is called.
func (s *Stream) BlockOpen() (open func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	opening := make(chan struct{})
	s.opening = opening
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(opening)
		s.opening = nil
	}
}

// Block makes Publish wait until Unblock.
func (s *Stream) Block() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

// Unblock ends Block.
func (s *Stream) Unblock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
	s.gate = nil
}

// FailPublish makes the publish after n more fail, once. If stored is set its frame is
// stored all the same: a lost answer.
func (s *Stream) FailPublish(n int, stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failAfter, s.failStore = n+1, stored
}

// FailureDue tells that a failure was asked for that has not come yet.
func (s *Stream) FailureDue() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failAfter > 0
}

// AutoApply says whether the sink applies at once what is published.
func (s *Stream) AutoApply(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.autoApply = on
	if n := len(s.frames); on && n > 0 {
		s.apply(n)
	}
}

// Apply sets the sink's checkpoint to the end of the first n frames.
func (s *Stream) Apply(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(n)
}

// ForgetApplied sets the sink back to nothing.
func (s *Stream) ForgetApplied() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkpoint, s.applied = cdc.Checkpoint{}, false
}

// Cut loses the frames after the first n.
func (s *Stream) Cut(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames = s.frames[:n]
}

func (s *Stream) apply(n int) {
	h := s.frames[n-1].Header
	s.checkpoint = cdc.Checkpoint{Epoch: s.epoch, Position: h.Last, End: h.End, Sequence: uint64(n), At: time.Now()}
	s.applied = true
	close(s.changed)
	s.changed = make(chan struct{})
}

// Checkpoint returns how far the sink is.
func (s *Stream) Checkpoint() (cdc.Checkpoint, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkpoint, s.applied
}

// Changed returns a channel that is closed at the next change of the checkpoint.
func (s *Stream) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Grown returns a channel that is closed when the next frame is stored.
func (s *Stream) Grown() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grown
}

// Frames returns what is stored.
func (s *Stream) Frames() []cdc.Frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.frames)
}

// Err returns the first breach of the contract that was seen.
func (s *Stream) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.corrupt
}

// Saves returns how often the state was saved.
func (s *Stream) Saves() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saves
}

// Records reads all records. Their tuples point into the frames.
func (s *Stream) Records() ([]Record, error) {
	var all []Record
	for _, f := range s.Frames() {
		schemas := make([]*cdc.Schema, len(f.Header.Schemas))
		s.mu.Lock()
		for i, ref := range f.Header.Schemas {
			schemas[i] = s.schemas[ref.Fingerprint]
		}
		s.mu.Unlock()
		r, err := f.Reader(schemas)
		if err != nil {
			return nil, err
		}
		for {
			rec := Record{}
			ok, err := r.Next(&rec.Record)
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			if rec.Kind.IsRow() {
				rec.Table = schemas[rec.Record.Schema]
			}
			for _, i := range rec.Truncated {
				rec.Tables = append(rec.Tables, schemas[i])
			}
			all = append(all, rec)
		}
	}
	return all, nil
}

// Record is a record with its schema.
type Record struct {
	cdc.Record
	Table  *cdc.Schema   // of a row
	Tables []*cdc.Schema // of a truncate
}

type publisher struct {
	s       *Stream
	session int
	err     error
}

var errScripted = errors.New("scripted fault")

// Publish stores a frame.
func (p *publisher) Publish(ctx context.Context, frame []byte, h cdc.Header, stored func([]byte)) error {
	if err := p.s.pass(ctx, &p.s.gate); err != nil {
		return err
	}
	if err := p.store(frame, h); err != nil {
		return err
	}
	stored(frame)
	return nil
}

func (p *publisher) store(frame []byte, h cdc.Header) error {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.session != s.session {
		return errors.New("fenced off")
	}
	if p.err != nil {
		return p.err
	}
	if s.failAfter > 0 {
		if s.failAfter--; s.failAfter == 0 {
			p.err = errScripted
			if !s.failStore {
				return p.err
			}
		}
	}
	f, err := cdc.Open(bytes.Clone(frame))
	if err != nil {
		return err
	}
	if tail := s.tail(); !s.continues(&tail, &h) || h.Last.Compare(h.Prev) < 0 {
		s.corrupt = fmt.Errorf("frame from %s to %s after %s", h.Prev, h.Last, tail.Last)
		return s.corrupt
	}
	for _, ref := range h.Schemas {
		if s.schemas[ref.Fingerprint] == nil {
			s.corrupt = fmt.Errorf("frame to %s uses schema %s, which is not stored", h.Last, ref.Fingerprint)
			return s.corrupt
		}
	}
	s.frames = append(s.frames, f)
	close(s.grown)
	s.grown = make(chan struct{})
	if s.autoApply {
		s.apply(len(s.frames))
	}
	return p.err
}

// Flush returns what went wrong.
func (p *publisher) Flush(context.Context) error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return p.err
}

// Close fences the session off.
func (p *publisher) Close() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.session = -1
}
