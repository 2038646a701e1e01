package main

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// queueModel is a stream, what is applied of it, and what a replay holds, without any I/O.
type queueModel struct {
	t       *rapid.T
	first   uint64 // the first sequence that is stored
	frames  []cdc.Position
	next    cdc.LSN // commit LSN of the next transaction
	applied cdc.Position
	saved   cdc.Checkpoint // may lag behind what is applied
	held    uint64
}

func (m *queueModel) lastSequence() uint64 { return m.first + uint64(len(m.frames)) - 1 }

// publish stores a frame of a transaction that the stream does not have. After a lost end
// that is what the source repeats, or what is new if it was confirmed.
func (m *queueModel) publish(*rapid.T) {
	m.next++
	m.frames = append(m.frames, cdc.Position{Commit: m.next, Ordinal: uint64(rapid.IntRange(1, 3).Draw(m.t, "changes"))}) //nolint:gosec // Small.
}

func (m *queueModel) apply(*rapid.T) {
	for i, last := range m.frames {
		if last.After(m.applied) {
			m.applied = last
			m.saved = cdc.Checkpoint{Position: last, End: last.Commit, Sequence: m.first + uint64(i)} //nolint:gosec // Small.
			return
		}
	}
}

// lose drops the end of the stream. What was not applied is repeated by the source.
func (m *queueModel) lose(*rapid.T) {
	n := rapid.IntRange(0, len(m.frames)).Draw(m.t, "lost")
	kept := m.frames[:len(m.frames)-n]
	m.next = m.applied.Commit
	if len(kept) > 0 && kept[len(kept)-1].Commit > m.next {
		m.next = kept[len(kept)-1].Commit
	}
	m.frames = append([]cdc.Position(nil), kept...)
}

func (m *queueModel) hold(*rapid.T) {
	m.held = rapid.SampledFrom([]uint64{0, m.first, m.lastSequence(), math.MaxUint64}).Draw(m.t, "held")
}

var errNotThere = errors.New("not there")

func (m *queueModel) purge(*rapid.T) {
	to := purgeable(m.saved, m.held, func(sequence uint64) (cdc.Position, error) {
		if sequence < m.first || sequence > m.lastSequence() {
			return cdc.Position{}, errNotThere
		}
		return m.frames[sequence-m.first], nil
	}, func(position cdc.Position) (uint64, error) {
		for i, last := range m.frames {
			if !position.After(last) {
				return m.first + uint64(i) - 1, nil //nolint:gosec // Small.
			}
		}
		return m.lastSequence(), nil
	})
	if to > m.held {
		m.t.Fatalf("purges up to %d, a replay still reads behind %d", to, m.held)
	}
	for len(m.frames) > 0 && m.first <= to {
		if m.frames[0].After(m.applied) {
			m.t.Fatalf("purges %s, applied is %s, by the checkpoint %+v", m.frames[0], m.applied, m.saved)
		}
		m.frames, m.first = m.frames[1:], m.first+1
	}
}

func TestOnlyWhatIsAppliedAndNotHeldIsEverPurged(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &queueModel{t: t, first: 1, held: math.MaxUint64}
		t.Repeat(map[string]func(*rapid.T){
			"publish": m.publish, "publish more": m.publish, "apply": m.apply, "lose the end": m.lose, "hold": m.hold, "purge": m.purge,
		})
	})
}
