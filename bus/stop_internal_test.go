package bus

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestServerIsStoppedWhenNothingIsBeingCreated: a stream that the server creates while it
// is stopped is forgotten by it, and its store goes on writing into the folder, which the
// next server has taken by then.
func TestServerIsStoppedWhenNothingIsBeingCreated(t *testing.T) { //nolint:paralleltest // It counts goroutines.
	before := goleak.IgnoreCurrent()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	b, err := New(Config{Pipeline: "test", DataDir: t.TempDir(), DiskReserve: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Open(ctx); err != nil {
		t.Fatal(err)
	}
	first := askForStreams(t, b, "FIRST")
	if err := b.server.restart(ctx, 0, "test"); err != nil {
		t.Fatal(err)
	}
	if err := b.awaitConnection(ctx); err != nil {
		t.Fatal(err)
	}
	for _, name := range first {
		if _, err := b.js.Stream(ctx, name); err != nil {
			t.Errorf("stream %s: %v", name, err)
		}
	}
	askForStreams(t, b, "SECOND")
	if err := b.Close(ctx); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}

// askForStreams sees to it that the server has begun to create streams.
func askForStreams(t *testing.T, b *Bus, prefix string) (names []string) {
	t.Helper()
	for n := range 10 {
		name := fmt.Sprintf("%s_%d", prefix, n)
		names = append(names, name)
		request := fmt.Appendf(nil, `{"name":%q,"subjects":[%q],"storage":"file","num_replicas":1}`, name, name)
		if err := b.nc.PublishRequest("$JS.API.STREAM.CREATE."+name, "nobody", request); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return names
}
