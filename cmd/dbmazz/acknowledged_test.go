package main

import (
	"testing"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// The checkpoint says message 4, but the end of the stream was lost and other changes were
// published under its sequences.
func TestASequenceOfALostEndIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	b := bustest.Open(t, bus.Config{})
	ctx := t.Context()
	tail, err := b.Tail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	source := bustest.NewSource(b.Epoch(), tail)
	var lasts []cdc.Position
	for range 6 {
		data, header := source.Frame(1, 100)
		if err := publisher.Publish(ctx, data, header, nil); err != nil {
			t.Fatal(err)
		}
		lasts = append(lasts, header.Last)
	}
	if err := publisher.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Held(); ok {
		for held := true; held; {
			_, held = b.Held() // Until the bus has seen the whole board.
		}
	}
	for _, test := range []struct {
		name     string
		sequence uint64
		position cdc.Position
		want     uint64
	}{
		{"the sequence fits the position", 4, lasts[3], 4},
		{"the sequence is that of later changes", 4, lasts[1], 1},
		{"the sequence is behind the end", 9, lasts[1], 1},
		{"nothing is applied", 0, cdc.Position{}, 0},
	} {
		p := newProgress()
		p.set(cdc.Checkpoint{Epoch: b.Epoch(), Sequence: test.sequence, Position: test.position, End: 1})
		stage := &captureStage{bus: b, progress: p}
		got := stage.acknowledged(ctx)
		if got > test.want || (test.name == "the sequence fits the position" && got != test.want) {
			t.Errorf("%s: %d, want at most %d", test.name, got, test.want)
		}
	}
}
