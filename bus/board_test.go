package bus_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

// boardOf watches the board and returns a function that waits for what it says of a name.
func boardOf(t *testing.T, b *bus.Bus) func(name string) bus.Announcement {
	t.Helper()
	ctx := bounded(t)
	out, err := b.WatchBoard(ctx)
	if err != nil {
		t.Fatal(err)
	}
	unread := map[string][]bus.Announcement{}
	return func(name string) bus.Announcement {
		t.Helper()
		for len(unread[name]) == 0 {
			a, ok := <-out
			if !ok {
				break
			}
			unread[a.Name] = append(unread[a.Name], a)
		}
		if first := unread[name]; len(first) > 0 {
			unread[name] = first[1:]
			return first[0]
		}
		t.Fatalf("the board says nothing of %q", name)
		return bus.Announcement{}
	}
}

// announce announces as people of the bus do, again if the second that it may take was
// not enough on a busy machine. It returns how often it was not.
func announce(t *testing.T, b *bus.Bus, name, value string) (failed int) {
	t.Helper()
	ctx := bounded(t)
	for {
		err := b.Announce(ctx, name, []byte(value))
		if err == nil {
			return failed
		}
		failed++
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

func testBoardShowsWhoIsThere(t *testing.T, cfg bus.Config) {
	b := bustest.Open(t, cfg)
	bus.SetBoardTTL(b, 3*time.Second)
	announce(t, b, "early", "1")
	next := boardOf(t, b)
	if a := next("early"); string(a.Value) != "1" || a.Gone {
		t.Errorf("got %+v", a)
	}
	odd := "apply@host:1 \x00.ü.."
	var began time.Time
	for _, name := range []string{odd, "hold.x", "A-b_c.d", ".", "=20"} {
		began = time.Now()
		announce(t, b, name, name)
		if a := next(name); string(a.Value) != name {
			t.Errorf("%q came as %+v", name, a)
		}
	}
	if err := b.Withdraw(bounded(t), odd); err != nil {
		t.Fatal(err)
	}
	if a := next(odd); !a.Gone || a.Value != nil {
		t.Errorf("got %+v", a)
	}
	if err := b.Withdraw(bounded(t), "nobody"); err != nil {
		t.Error(err)
	}
	if a := next("=20"); !a.Gone || time.Since(began) < 2*time.Second || time.Since(began) > 15*time.Second {
		t.Errorf("got %+v after %s", a, time.Since(began))
	}
}

func testBoardTakesLargeValues(t *testing.T, cfg bus.Config) {
	b := bustest.Open(t, cfg)
	next := boardOf(t, b)
	value := strings.Repeat("v", bus.BoardValueBytes)
	for range 20 {
		announce(t, b, "large", value)
	}
	if a := next("large"); !bytes.Equal(a.Value, []byte(value)) {
		t.Errorf("got %d bytes", len(a.Value))
	}
	if err := b.Announce(t.Context(), "large", make([]byte, bus.BoardValueBytes+1)); err == nil {
		t.Error("a larger value was accepted")
	}
	for _, name := range []string{"", strings.Repeat("n", 201)} {
		if err := b.Announce(t.Context(), name, nil); err == nil {
			t.Errorf("the name %q was accepted", name)
		}
	}
}

// TestBoardSurvivesARestartOfTheServer: the board itself does not, but who watches it
// sees what is announced again, and the end of what is not.
func TestBoardSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	b := bustest.Open(t, bus.Config{})
	bus.SetBoardTTL(b, 3*time.Second)
	next := boardOf(t, b)
	announce(t, b, "stays", "1")
	announce(t, b, "dies", "1")
	next("stays")
	next("dies")
	failed := 0
	for round := range 3 {
		if err := bus.RestartServer(ctx, b); err != nil {
			t.Fatal(err)
		}
		failed += min(1, announce(t, b, "stays", "2"))
		if a := next("stays"); a.Gone || string(a.Value) != "2" {
			t.Errorf("round %d: got %+v", round, a)
		}
	}
	if failed == 3 {
		t.Error("no announcement after a restart was in time")
	}
	if a := next("dies"); !a.Gone {
		t.Errorf("got %+v", a)
	}
}

// TestBoardThatWasDeletedIsMadeAgain: no connection breaks then.
func TestBoardThatWasDeletedIsMadeAgain(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	b := bustest.Open(t, bus.Config{})
	bus.SetBoardTTL(b, 3*time.Second)
	next := boardOf(t, b)
	announce(t, b, "name", "1")
	next("name")
	if err := bus.DeleteBoard(ctx, b); err != nil {
		t.Fatal(err)
	}
	repeat, cancel := context.WithCancel(ctx)
	repeated := make(chan struct{})
	go func() {
		defer close(repeated)
		for repeat.Err() == nil {
			_ = b.Announce(repeat, "name", []byte("2"))
			<-time.After(50 * time.Millisecond)
		}
	}()
	if a := next("name"); a.Gone || string(a.Value) != "2" {
		t.Errorf("got %+v", a)
	}
	cancel()
	<-repeated
}

// TestAnnounceIsBounded keeps the server from answering.
func TestAnnounceIsBounded(t *testing.T) {
	t.Parallel()
	b := bustest.Open(t, bus.Config{})
	announce(t, b, "name", "1")
	bus.StopServer(b)
	began := time.Now()
	err := b.Announce(t.Context(), "name", nil)
	if took := time.Since(began); err == nil || took > 2*time.Second {
		t.Errorf("it ended after %s with %v", took, err)
	}
	if err := bus.RestartServer(bounded(t), b); err != nil {
		t.Fatal(err)
	}
	for err = b.Announce(t.Context(), "name", nil); err != nil && time.Since(began) < 20*time.Second; {
		err = b.Announce(t.Context(), "name", nil)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestSlowWatcherGetsTheLatest does not read for a while.
func TestSlowWatcherGetsTheLatest(t *testing.T) {
	t.Parallel()
	b := bustest.Open(t, bus.Config{})
	ctx, cancel := context.WithCancel(bounded(t))
	out, err := b.WatchBoard(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		announce(t, b, "fast", string(rune('0'+i%10)))
	}
	announce(t, b, "end", "")
	seen, last := 0, ""
	for a := range out {
		if a.Name == "end" {
			break
		}
		seen, last = seen+1, string(a.Value)
	}
	if last != "9" || seen > 1000 {
		t.Errorf("saw %d announcements, the last is %q", seen, last)
	}
	cancel()
	for range out {
	}
}

func testHoldsAreSeen(t *testing.T, cfg bus.Config) {
	ctx := bounded(t)
	b := bustest.Open(t, cfg)
	bus.SetBoardTTL(b, 2*time.Second)
	if after, ok := b.Held(); after != 0 || !ok {
		t.Errorf("before the board is known Held says %d, %v", after, ok)
	}
	wait := func(want uint64, held bool) {
		t.Helper()
		for ctx.Err() == nil {
			if after, ok := b.Held(); after == want && ok == held {
				return
			}
			<-time.After(5 * time.Millisecond)
		}
		after, ok := b.Held()
		t.Fatalf("Held says %d, %v; want %d, %v", after, ok, want, held)
	}
	wait(0, false)
	announce(t, b, "hold.a", "7")
	wait(7, true)
	announce(t, b, "hold.b", "5")
	wait(5, true)
	announce(t, b, "hold.c", "nonsense")
	wait(0, true)
	if err := b.Withdraw(ctx, "hold.c"); err != nil {
		t.Fatal(err)
	}
	announce(t, b, "other", "1")
	if err := b.Withdraw(ctx, "hold.b"); err != nil {
		t.Fatal(err)
	}
	wait(7, true)
	wait(0, false) // by itself
}

// TestServerWithoutMemoryForStreamsWillDo: shared installations often give none.
func TestServerWithoutMemoryForStreamsWillDo(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, JetStreamMaxMemory: 1 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("server is not ready")
	}
	defer s.WaitForShutdown()
	defer s.Shutdown()
	for _, name := range []string{"BoardShowsWhoIsThere", "ReaderDisturbsNobody", "LettersComeBackAsTheyWere"} {
		t.Run(name, func(t *testing.T) {
			conformance[name](t, bus.Config{Pipeline: strings.ToLower(name), URL: s.ClientURL()})
		})
	}
}
