package bus_test

import (
	"context"
	"errors"
	"testing"

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
	for err == nil {
		// The server learns of it a moment later.
		_, err = b.Call(ctx, "member.a-1", nil)
	}
	if !errors.Is(err, bus.ErrNobody) {
		t.Errorf("a call after the end: %v", err)
	}
}
