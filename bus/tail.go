package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// tail is what a writer must know of the stream's end.
type tail struct {
	cdc.Tail
	first    uint64 // sequence of the first message of the last complete frame
	readable uint64 // sequence of the last message that can be read
	id       string // its id
	// clustered tells that the stream belongs to a cluster, of any size.
	clustered bool
}

// Tail describes the end of the stream: the last complete frame, and the last
// sequence. A frame whose last parts are missing does not count. The frame's checksum
// and epoch are verified.
func (b *Bus) Tail(ctx context.Context) (cdc.Tail, error) {
	t, err := b.tail(ctx)
	if err != nil {
		return cdc.Tail{}, fmt.Errorf("read end of stream: %w", err)
	}
	return t.Tail, nil
}

func (b *Bus) tail(ctx context.Context) (tail, error) {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return tail{}, err
	}
	t := tail{Tail: cdc.Tail{Sequence: info.State.LastSeq, Empty: true}, clustered: isClustered(info)}
	if info.State.Msgs == 0 {
		return t, nil
	}
	m, ok, err := b.lastMessage(ctx)
	if err != nil || !ok {
		return tail{}, errors.Join(err, errNoMessage(info.State.LastSeq, ok))
	}
	t.readable, t.id = m.sequence, m.header.Get(headerID)
	t.Sequence = max(t.Sequence, m.sequence)
	for {
		i, n, err := partOf(m.header)
		if err != nil {
			return tail{}, err
		}
		first := m.sequence - uint64(i) + 1 //nolint:gosec // At least 1.
		if i == n {
			return b.lastFrame(ctx, t, m, first)
		}
		// The frame was cut off: the one before it counts.
		if first <= info.State.FirstSeq {
			return t, nil
		}
		if m, ok, err = b.message(ctx, first-1); err != nil || !ok {
			return tail{}, errors.Join(err, errNoMessage(first-1, ok))
		}
	}
}

func errNoMessage(sequence uint64, ok bool) error {
	if ok {
		return nil
	}
	return &GapError{Expected: sequence, Found: 0, Reason: "the message cannot be read"}
}

// lastFrame completes t with the frame that ends with message m.
func (b *Bus) lastFrame(ctx context.Context, t tail, m stored, first uint64) (tail, error) {
	data := m.data
	if first < m.sequence {
		data = nil
		for seq := first; seq < m.sequence; seq++ {
			part, ok, err := b.message(ctx, seq)
			if err != nil || !ok {
				return tail{}, errors.Join(err, errNoMessage(seq, ok))
			}
			data = append(data, part.data...)
		}
		data = append(data, m.data...)
	}
	f, err := cdc.Open(data)
	if err != nil {
		return tail{}, fmt.Errorf("open frame of sequence %d: %w", m.sequence, err)
	}
	if f.Header.Epoch != b.epoch {
		return tail{}, fmt.Errorf("open frame of sequence %d: it was made for epoch %s, the stream is of %s", m.sequence, f.Header.Epoch, b.epoch)
	}
	t.Empty, t.Last, t.End, t.Total, t.first = false, f.Header.Last, f.Header.End, f.Header.Total, first
	return t, nil
}

// Locate returns the sequence after which a consumer must start to get every frame
// that ends at or after the position: what comes first may begin before it, and a frame
// that carries nothing but the end of the transaction is among them. It does not trust
// sequences, so it finds the place even after the stream's end was lost and written
// again. If the position is beyond the stream's end, that is the last sequence; the
// caller compares with [Bus.Tail]. Whether the retained history reaches back to the
// position shows in the first frame's Prev.
func (b *Bus) Locate(ctx context.Context, position cdc.Position) (after uint64, err error) {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return 0, err
	}
	if info.State.Msgs == 0 {
		return info.State.LastSeq, nil
	}
	// All messages of a frame carry the same last position, so the border between
	// what is before the position and what is not never cuts a frame. A frame
	// that was cut off may end after the frames that replaced it; whichever border
	// is found, every complete frame before it is covered.
	low, high := info.State.FirstSeq, info.State.LastSeq+1
	for low < high {
		middle := low + (high-low)/2
		m, ok, err := b.messageFrom(ctx, middle)
		if err != nil {
			return 0, err
		}
		if !ok || m.sequence >= high {
			high = middle
			continue
		}
		last, err := cdc.ParsePosition(m.header.Get(HeaderLast))
		if err != nil {
			return 0, fmt.Errorf("read header of sequence %d: %w", m.sequence, err)
		}
		if last.Compare(position) >= 0 {
			high = middle
		} else {
			low = m.sequence + 1
		}
	}
	return low - 1, nil
}
