package apply_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// memStream is a stream in memory. A closed consumer forgets what was delivered.
type memStream struct {
	mu       sync.Mutex
	epoch    string
	messages [][]byte
	states   map[string]*memState
	added    chan struct{}
	acked    uint64
	schemas  map[cdc.Fingerprint]*cdc.Schema
	tail     cdc.Tail
}

// memState is a state of the bucket: that of live apply has the name "".
type memState struct {
	value    []byte
	revision uint64
}

func newMemStream() *memStream {
	return &memStream{
		epoch: "e1", added: make(chan struct{}), schemas: map[cdc.Fingerprint]*cdc.Schema{},
		states: map[string]*memState{"": {}}, tail: cdc.Tail{Empty: true},
	}
}

func (m *memStream) publish(data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, bytes.Clone(data))
	if f, err := cdc.Open(data); err == nil {
		m.tail = cdc.Tail{Last: f.Header.Last, End: f.Header.End}
	}
	close(m.added)
	m.added = make(chan struct{})
}

func (m *memStream) Epoch() string { return m.epoch }

func (m *memStream) Locate(_ context.Context, p cdc.Position) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, data := range m.messages {
		f, err := cdc.Open(data)
		if err != nil {
			return 0, err
		}
		if f.Header.Last.Compare(p) >= 0 {
			return uint64(i), nil
		}
	}
	return uint64(len(m.messages)), nil
}

func (m *memStream) Consumer(_ context.Context, after uint64) (apply.Consumer, error) {
	return &memConsumer{m: m, next: after + 1}, nil
}

func (m *memStream) Schema(_ context.Context, f cdc.Fingerprint) (*cdc.Schema, error) {
	s, ok := m.schemas[f]
	if !ok {
		return nil, fmt.Errorf("no schema %s", f)
	}
	return s, nil
}

func (m *memStream) Tail(context.Context) (cdc.Tail, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tail, nil
}

func (m *memStream) Tables(context.Context) (<-chan []*cdc.Schema, error) {
	return make(chan []*cdc.Schema), nil
}

func (m *memStream) load(name string) ([]byte, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.states[name]
	if s == nil {
		return nil, 0, nil
	}
	return s.value, s.revision, nil
}

func (m *memStream) save(name string, value []byte, revision uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.states[name]
	if s == nil {
		s = &memState{}
		m.states[name] = s
	}
	if revision != s.revision {
		return 0, errors.New("revision conflict")
	}
	s.value = bytes.Clone(value)
	s.revision++
	return s.revision, nil
}

func (m *memStream) LoadState(context.Context) ([]byte, uint64, error) { return m.load("") }

func (m *memStream) SaveState(_ context.Context, value []byte, revision uint64) (uint64, error) {
	return m.save("", value, revision)
}

// live is how far live apply has got.
func (m *memStream) live(context.Context) (apply.Live, error) {
	data, _, err := m.load("")
	if err != nil {
		return apply.Live{}, err
	}
	return apply.ParseLive(data)
}

// apart is the stream with a state of another name.
type apart struct {
	*memStream
	name string
}

func (a apart) LoadState(context.Context) ([]byte, uint64, error) { return a.load(a.name) }

func (a apart) SaveState(_ context.Context, value []byte, revision uint64) (uint64, error) {
	return a.save(a.name, value, revision)
}

type memConsumer struct {
	m    *memStream
	next uint64
}

func (c *memConsumer) Next(ctx context.Context) (apply.Message, error) {
	for {
		c.m.mu.Lock()
		added := c.m.added
		if c.next <= uint64(len(c.m.messages)) {
			data := c.m.messages[c.next-1]
			c.next++
			c.m.mu.Unlock()
			return apply.Message{Sequence: c.next - 1, Data: data}, nil
		}
		c.m.mu.Unlock()
		select {
		case <-added:
		case <-ctx.Done():
			return apply.Message{}, ctx.Err()
		}
	}
}

func (c *memConsumer) Ack(_ context.Context, sequence uint64) error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.acked = max(c.m.acked, sequence)
	return nil
}

func (c *memConsumer) Pending() uint64 {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	return uint64(len(c.m.messages)) + 1 - c.next
}
func (c *memConsumer) Close() {}

// memLetters keeps dead letters in memory.
type memLetters struct {
	mu      sync.Mutex
	letters map[string]*apply.DeadLetter
	order   []string
	puts    int
	fail    func() (before, after error)
}

func newMemLetters() *memLetters { return &memLetters{letters: map[string]*apply.DeadLetter{}} }

func (m *memLetters) Put(_ context.Context, letter *apply.DeadLetter) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	var after error
	if m.fail != nil {
		var before error
		if before, after = m.fail(); before != nil {
			return before
		}
	}
	if _, ok := m.letters[letter.ID]; !ok {
		stored := *letter
		m.letters[letter.ID] = &stored
		m.order = append(m.order, letter.ID)
	}
	return after
}

func (m *memLetters) Refs(context.Context) ([]apply.LetterRef, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var refs []apply.LetterRef
	for _, id := range m.order {
		if letter := m.letters[id]; letter != nil {
			refs = append(refs, letter.LetterRef)
		}
	}
	return refs, nil
}

// retryAll retries every letter with those that are related, as an operator would.
func (m *memLetters) retryAll(ctx context.Context, sink apply.Sink) error {
	for {
		refs, err := m.Refs(ctx)
		if err != nil || len(refs) == 0 {
			return err
		}
		if err := m.retryThese(ctx, sink, refs); err != nil {
			return err
		}
	}
}

func (m *memLetters) retryThese(ctx context.Context, sink apply.Sink, refs []apply.LetterRef) error {
	for _, ref := range refs {
		if err := m.retry(ctx, sink, ref.ID); err != nil {
			return err
		}
	}
	return nil
}

func (m *memLetters) retry(ctx context.Context, sink apply.Sink, id string) error {
	done := map[string]bool{}
	for {
		refs, err := m.Refs(ctx)
		if err != nil {
			return err
		}
		chain := apply.Related(refs, id)
		grown := false
		for _, id := range chain.Retry {
			if done[id] {
				continue
			}
			m.mu.Lock()
			letter := m.letters[id]
			m.mu.Unlock()
			if _, err := apply.Retry(ctx, sink, letter); err != nil {
				return fmt.Errorf("retry %s: %w", letter, err)
			}
			done[id], grown = true, true
		}
		if grown {
			continue
		}
		m.mu.Lock()
		for _, id := range chain.Delete {
			delete(m.letters, id)
		}
		m.mu.Unlock()
		return nil
	}
}
