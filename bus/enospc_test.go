package bus_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// smallDisk mounts a file system in memory, which needs root.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	folder := t.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "size="+size); err != nil {
		// skip: mounting needs root, which CI has.
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// fill takes all space of a disk and returns the file.
func fill(t *testing.T, folder string, leave int64) string {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(folder, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, max(1, int64(s.Bavail)*s.Bsize-leave)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestFullDiskIsSurvived lets the disk run full under the server, with no reserve to
// prevent it, frees space and expects everything to have gone on.
func TestFullDiskIsSurvived(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	cfg := bus.Config{
		Pipeline: "test", DataDir: smallDisk(t, "64m"), DiskReserve: -1,
		JanitorPeriod: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	b, err := bustest.TryOpen(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	bus.SetPatience(b, 500*time.Millisecond)
	filler := fill(t, cfg.DataDir, 4<<20)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const total = 200 // of 64 KB
	result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), total, 64<<10)
	waitFor(ctx, t, "the disk to be full", func() bool { return p.State() == bus.StateDoubt })
	select {
	case err := <-result:
		t.Fatalf("the session ended: %v", err)
	case <-time.After(2 * time.Second): // the server is restarted in vain
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	p.Close()
	readAll(t, b, 0, total)
	if _, err := b.Put(ctx, "apply", []byte("x")); err != nil {
		t.Error(err)
	}
}

// TestFullDiskIsDrained leaves the disk full: what apply acknowledges makes room.
func TestFullDiskIsDrained(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	cfg := bus.Config{
		Pipeline: "test", DataDir: smallDisk(t, "64m"), DiskReserve: 16 << 20,
		JanitorPeriod: 50 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
	}
	b, err := bustest.TryOpen(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	const total = 2000 // of 64 KB: twice the disk
	result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), total, 64<<10)
	waitFor(ctx, t, "the publisher to hold", func() bool { return p.State() == bus.StateDiskFull })
	janitor, stop := context.WithCancel(ctx)
	var acked atomic.Uint64
	ended := make(chan error, 1)
	go func() { ended <- b.RunJanitor(janitor, acked.Load) }()
	c, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	check := bustest.Checker{Epoch: b.Epoch()}
	var revision uint64
	for check.Count < total {
		m, err := check.Read(ctx, c, check.Count+1)
		if err != nil {
			t.Fatal(err)
		}
		if revision, err = b.Update(ctx, "apply", []byte(m.StoredAt.String()), revision); err != nil {
			t.Fatal(err)
		}
		acked.Store(m.Sequence)
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestFullDiskKeepsTheStreamOverARestart ends the process while the disk is full and
// starts again, first without space and then with.
func TestFullDiskKeepsTheStreamOverARestart(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	cfg := bus.Config{Pipeline: "test", DataDir: smallDisk(t, "64m"), Logger: slog.New(slog.DiscardHandler)}
	b, err := bustest.TryOpen(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	bus.SetPatience(b, 500*time.Millisecond)
	filler := fill(t, cfg.DataDir, 4<<20)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), 200, 64<<10)
	waitFor(ctx, t, "the disk to be full", func() bool { return p.State() == bus.StateDoubt })
	stored := p.Stored()
	bustest.Close(t, b)
	if err := <-result; err == nil {
		t.Error("everything was stored on a full disk")
	}
	for range 3 {
		again, err := bustest.TryOpen(t, cfg)
		t.Logf("opened on a full disk: %v", err)
		if err == nil {
			tail, err := again.Tail(ctx)
			if err != nil || stored.Last.After(tail.Last) {
				t.Errorf("tail on a full disk is %+v, %v; stored was %+v", tail, err, stored)
			}
			bustest.Close(t, again)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b, err = bustest.TryOpen(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	tail, err := b.Tail(ctx)
	if err != nil || stored.Last.After(tail.Last) {
		t.Errorf("tail is %+v, %v; stored was %+v", tail, err, stored)
	}
	publish(t, b, 5, 1000)
	readAll(t, b, 0, uint64(tail.Last.Commit)/1000+5)
}
