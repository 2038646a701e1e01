package bus_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// streamFolder returns where the embedded server keeps the stream.
func streamFolder(folder string) string {
	return filepath.Join(folder, "nats", "jetstream", "$G", "streams", "DBMAZZ_test")
}

// blocks returns the stream's block files, oldest first.
func blocks(tb testing.TB, folder string) []string {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(streamFolder(folder), "msgs", "*.blk"))
	if err != nil || len(names) == 0 {
		tb.Fatalf("no block files: %v", err)
	}
	number := func(name string) string {
		return strings.Repeat("0", 40-len(filepath.Base(name))) + filepath.Base(name)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(number(a), number(b)) })
	return names
}

// TestTornTailIsPublishedAgain cuts bytes off the end of the store, as a lost write
// does, and goes on as capture and apply do: from the tail, and by position.
func TestTornTailIsPublishedAgain(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // Any bits do.
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range 8 {
		size := []int{50, 3000}[r.IntN(2)]
		if i%4 == 0 {
			size = 9 << 20
		}
		tornTail(t, size, 1+r.IntN(size*2), r.IntN(2) == 0)
	}
}

func tornTail(t *testing.T, payload, cut int, keepIndex bool) {
	t.Helper()
	ctx := bounded(t)
	cfg := bus.Config{Pipeline: "test", DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	b, err := bustest.TryOpen(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, 6, payload)
	before, err := b.Tail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	bustest.Close(t, b)
	names := blocks(t, cfg.DataDir)
	last := names[len(names)-1]
	stat, err := os.Stat(last)
	if err != nil {
		t.Fatal(err)
	}
	cut = min(cut, int(stat.Size()))
	if err := os.Truncate(last, stat.Size()-int64(cut)); err != nil {
		t.Fatal(err)
	}
	if !keepIndex {
		_ = os.Remove(filepath.Join(streamFolder(cfg.DataDir), "msgs", "index.db"))
	}
	b, err = bustest.TryOpen(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer bustest.Close(t, b)
	after, err := b.Tail(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("payload %d, cut %d, index %t: tail was %+v, is %+v", payload, cut, keepIndex, before, after)
	if !before.Last.After(after.Last) {
		t.Fatalf("nothing was lost")
	}
	// Apply had applied half of it.
	half := bustest.Checker{Epoch: b.Epoch(), Position: cdc.Position{Commit: 3000, Ordinal: 1}, Count: 3}
	var lost *bus.LostTailError
	if _, err := b.Consumer(ctx, before.Sequence); after.Sequence < before.Sequence && !errors.As(err, &lost) {
		t.Errorf("consumer beyond the end: %v", err)
	}
	publish(t, b, int(11-uint64(after.Last.Commit)/1000), payload) //nolint:gosec // Small.
	from, err := b.Locate(ctx, half.Position)
	if err != nil {
		t.Fatal(err)
	}
	for _, start := range []uint64{from, 0} {
		c, err := b.Consumer(ctx, start)
		if err != nil {
			t.Fatal(err)
		}
		check := half
		if _, err := check.Read(ctx, c, 11); err != nil {
			t.Errorf("payload %d, cut %d, from %d: %v", payload, cut, start, err)
		}
		c.Close()
	}
}

// TestHoleInTheStreamIsAnError damages a block in the middle.
func TestHoleInTheStreamIsAnError(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	cfg := bus.Config{Pipeline: "test", DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
	b, err := bustest.TryOpen(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, b, 40, 1<<20)
	bustest.Close(t, b)
	names := blocks(t, cfg.DataDir)
	f, err := os.OpenFile(names[1], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 3<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	b = bustest.Open(t, cfg)
	c, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := bustest.Checker{Epoch: b.Epoch()}
	_, err = check.Read(ctx, c, 40)
	var gap *bus.GapError
	if !errors.As(err, &gap) || gap.Expected != check.Count+1 {
		t.Errorf("after number %d: %v", check.Count, err)
	}
}

func TestLostStreamIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		damage func(tb testing.TB, folder string)
	}{
		{"stream folder gone", func(tb testing.TB, folder string) {
			if err := os.RemoveAll(streamFolder(folder)); err != nil {
				tb.Fatal(err)
			}
		}},
		{"stream metadata damaged", func(tb testing.TB, folder string) {
			if err := os.WriteFile(filepath.Join(streamFolder(folder), "meta.inf"), []byte("{}"), 0o600); err != nil {
				tb.Fatal(err)
			}
		}},
		{"bucket gone", func(tb testing.TB, folder string) {
			if err := os.RemoveAll(filepath.Join(filepath.Dir(streamFolder(folder)), "KV_dbmazz_test")); err != nil {
				tb.Fatal(err)
			}
		}},
		{"store gone", func(tb testing.TB, folder string) {
			if err := os.RemoveAll(filepath.Join(folder, "nats")); err != nil {
				tb.Fatal(err)
			}
		}},
		{"marker damaged", func(tb testing.TB, folder string) {
			if err := os.WriteFile(filepath.Join(folder, "dbmazz.marker"), []byte("{"), 0o600); err != nil {
				tb.Fatal(err)
			}
		}},
		{"another stream in its place", func(tb testing.TB, folder string) {
			if err := os.WriteFile(filepath.Join(folder, "dbmazz.marker"), []byte(`{"stream":"DBMAZZ_test","epoch":"other"}`), 0o600); err != nil {
				tb.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := bus.Config{Pipeline: "test", DataDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
			b, err := bustest.TryOpen(t, cfg)
			if err != nil {
				t.Fatal(err)
			}
			publish(t, b, 3, 10)
			bustest.Close(t, b)
			c.damage(t, cfg.DataDir)
			for range 2 {
				_, err := bustest.TryOpen(t, cfg)
				if err == nil {
					t.Fatal("opened")
				}
				t.Log(err)
				if !strings.Contains(err.Error(), cfg.DataDir) {
					t.Error("the message does not name the folder")
				}
			}
		})
	}
}

func TestFolderIsOpenOnce(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	b := bustest.Open(t, bus.Config{DataDir: folder})
	_, err := bustest.TryOpen(t, bus.Config{DataDir: folder})
	var inUse *bus.InUseError
	if !errors.As(err, &inUse) || !strings.Contains(err.Error(), folder) {
		t.Errorf("second bus: %v", err)
	}
	publish(t, b, 1, 10)
	bustest.Close(t, b)
	if _, err := bustest.TryOpen(t, bus.Config{DataDir: folder, Pipeline: "other"}); err == nil || !strings.Contains(err.Error(), "DBMAZZ_test") {
		t.Errorf("folder of another pipeline: %v", err)
	}
}

func TestNewReportsEveryProblem(t *testing.T) {
	t.Parallel()
	_, err := bus.New(bus.Config{Pipeline: "Upper-Case", MaxBytes: 1, Window: -1, FetchBytes: 1 << 30, Retention: -1})
	for _, want := range []string{`"Upper-Case"`, "data folder", "stream limit", "window", "fetch", "retention"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestCloseIsBounded(t *testing.T) {
	t.Parallel()
	b := bustest.Open(t, bus.Config{})
	p, err := b.Publisher(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.Consumer(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := c.Next(context.Background())
		waiting <- err
	}()
	bustest.Close(t, b)
	if err := <-waiting; !errors.Is(err, bus.ErrClosed) {
		t.Errorf("waiting consumer: %v", err)
	}
	if err := p.Err(); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("publisher: %v", err)
	}
	if _, err := b.Publisher(t.Context()); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("publisher of a closed bus: %v", err)
	}
	bustest.Close(t, b)
}
