package bus_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// The environment of a child of the crash test.
const (
	crashFolder = "BUS_CRASH_FOLDER"
	crashSeed   = "BUS_CRASH_SEED"
	crashRounds = "BUS_CRASH_ROUNDS" // how often to kill, for a longer run
)

func crashConfig(folder string) bus.Config {
	return bus.Config{
		Pipeline: "crash", DataDir: folder, DiskReserve: -1, MaxBytes: 256 << 20,
		JanitorPeriod: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
}

// crashChild publishes, consumes, checkpoints and purges until it is killed. It prints
// "stored n" when the frame with the number n is stored, "checkpoint n" when the
// checkpoint is.
func crashChild(folder string) error {
	ctx := context.Background()
	seed, err := strconv.ParseUint(os.Getenv(crashSeed), 10, 64)
	if err != nil {
		return err
	}
	b, err := bus.New(crashConfig(folder))
	if err != nil {
		return err
	}
	if err := b.Open(ctx); err != nil {
		return err
	}
	fmt.Println("open")
	failed := make(chan error, 3)
	go func() { failed <- crashApply(ctx, b) }()
	go func() { failed <- crashCapture(ctx, b, rand.New(rand.NewPCG(seed, 1))) }()
	return <-failed
}

func crashCapture(ctx context.Context, b *bus.Bus, r *rand.Rand) error {
	t, err := b.Tail(ctx)
	if err != nil {
		return err
	}
	p, err := b.Publisher(ctx)
	if err != nil {
		return err
	}
	s := bustest.NewSource(b.Epoch(), t)
	for {
		size := 100
		switch n := r.IntN(40); {
		case n == 0:
			size = 9 << 20 // is split
		case n < 20:
			size = 100 << 10
		}
		data, h := s.Frame(1+r.IntN(3), size)
		last := s.Next() - 1
		if err := p.Publish(ctx, data, h, func([]byte) { fmt.Println("stored", last) }); err != nil {
			return err
		}
	}
}

func crashApply(ctx context.Context, b *bus.Bus) error {
	var point cdc.Checkpoint
	var revision uint64
	data, revision, err := b.Get(ctx, "apply")
	switch {
	case errors.Is(err, bus.ErrNotFound):
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(data, &point); err != nil {
			return err
		}
	}
	var acked atomic.Uint64
	acked.Store(point.Sequence)
	go func() { _ = b.RunJanitor(ctx, acked.Load) }()
	c, err := b.Consumer(ctx, point.Sequence)
	if err != nil {
		return err
	}
	check := bustest.Checker{Epoch: b.Epoch(), Position: point.Position, Count: uint64(point.Position.Commit) / 1000}
	for {
		m, err := c.Next(ctx)
		if err != nil {
			return err
		}
		for ok := true; ok && err == nil; m, ok, err = c.TryNext(ctx) {
			if err := check.Frame(m.Data); err != nil {
				return fmt.Errorf("sequence %d: %w", m.Sequence, err)
			}
			point = cdc.Checkpoint{Epoch: b.Epoch(), Position: check.Position, Sequence: m.Sequence}
			if check.Frames%20 == 19 {
				break
			}
		}
		if err != nil {
			return err
		}
		value, err := json.Marshal(point)
		if err != nil {
			return err
		}
		if revision, err = b.Update(ctx, "apply", value, revision); err != nil {
			return err
		}
		fmt.Println("checkpoint", check.Count)
		if err := c.Ack(ctx, point.Sequence); err != nil {
			return err
		}
		acked.Store(point.Sequence)
	}
}

// crashRun runs a child, kills it and returns the largest numbers it has printed.
func crashRun(t *testing.T, folder string, seed uint64, after time.Duration) (stored, checkpoint uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashFolder+"="+folder, crashSeed+"="+strconv.FormatUint(seed, 10))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		word, text, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.ParseUint(text, 10, 64)
		switch word {
		case "stored":
			stored = max(stored, n)
		case "checkpoint":
			checkpoint = max(checkpoint, n)
		}
	}
	_ = cmd.Wait()
	if stderr.Len() > 0 {
		t.Fatalf("child: %s", stderr.String())
	}
	return stored, checkpoint
}

// TestKilledProcessLosesNothingStored kills a process that publishes, consumes,
// checkpoints and purges, and looks at what it left behind.
func TestKilledProcessLosesNothingStored(t *testing.T) {
	t.Parallel()
	rounds := 12
	if text := os.Getenv(crashRounds); text != "" {
		rounds, _ = strconv.Atoi(text)
	}
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // Any bits do.
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	folder := t.TempDir()
	var stored, checkpoint uint64
	for round := range rounds {
		s, c := crashRun(t, folder, r.Uint64(), time.Duration(30+r.IntN(500))*time.Millisecond)
		stored, checkpoint = max(stored, s), max(checkpoint, c)
		crashVerify(t, folder, stored, checkpoint, round)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d numbers stored, %d checkpointed", stored, checkpoint)
}

func crashVerify(t *testing.T, folder string, stored, checkpoint uint64, round int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	b, err := bustest.TryOpen(t, crashConfig(folder))
	if err != nil {
		t.Errorf("round %d: %v", round, err)
		return
	}
	defer bustest.Close(t, b)
	tail, err := b.Tail(ctx)
	if err != nil {
		t.Errorf("round %d: %v", round, err)
		return
	}
	last := uint64(tail.Last.Commit) / 1000
	if last < stored {
		t.Errorf("round %d: number %d was stored, the stream ends at %d", round, stored, last)
	}
	var point cdc.Checkpoint
	data, _, err := b.Get(ctx, "apply")
	if err == nil {
		err = json.Unmarshal(data, &point)
	}
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("round %d: %v", round, err)
		return
	}
	check := bustest.Checker{Epoch: b.Epoch(), Position: point.Position, Count: uint64(point.Position.Commit) / 1000}
	if check.Count < checkpoint {
		t.Errorf("round %d: checkpoint %d was stored, found %d", round, checkpoint, check.Count)
	}
	c, err := b.Consumer(ctx, point.Sequence)
	if err != nil {
		t.Errorf("round %d: %v", round, err)
		return
	}
	defer c.Close()
	if _, err := check.Read(ctx, c, last); err != nil {
		t.Errorf("round %d: %v", round, err)
	}
	if check.Skipped > 0 {
		t.Errorf("round %d: %d changes came twice", round, check.Skipped)
	}
}
