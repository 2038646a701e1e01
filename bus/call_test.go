package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

func TestACallIsAnsweredWhileSomebodyServesAndFailsWhenNobodyDoes(t *testing.T) {
	t.Parallel()
	b := bustest.Open(t, bus.Config{})
	ctx := bounded(t)
	serving, stop := context.WithCancel(ctx)
	err := b.Serve(serving, "member.a-1", func(_ context.Context, request []byte) []byte { return append([]byte("re: "), request...) })
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.Call(ctx, "member.a-1", []byte("question"))
	if err != nil || string(answer) != "re: question" {
		t.Errorf("answer %q, %v", answer, err)
	}
	if _, err := b.Call(ctx, "member.b-2", nil); !errors.Is(err, bus.ErrNobody) {
		t.Errorf("a call to nobody: %v", err)
	}
	stop()
	for !errors.Is(err, bus.ErrNobody) {
		// The server learns of it a moment later; a call in between has no answer.
		if ctx.Err() != nil {
			t.Fatalf("calls after the end: %v", err)
		}
		short, cancel := context.WithTimeout(ctx, time.Second)
		_, err = b.Call(short, "member.a-1", nil)
		cancel()
	}
}
