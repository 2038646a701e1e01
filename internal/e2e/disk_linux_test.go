package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFullDiskUnderTheQueueHoldsCaptureBackAndLosesNothing: also over a kill, and when the
// disk is full to the last byte.
func TestFullDiskUnderTheQueueHoldsCaptureBackAndLosesNothing(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...)
	disk := filepath.Join(r.dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", disk, "tmpfs", 0, "size=512m"); err != nil {
		t.Skipf("mount a small disk: %v", err) // skip: it takes root.
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount the small disk: %v", err)
		}
	})
	a := r.set("BUS_DATA_DIR", filepath.Join(disk, "bus")).onSocket()
	capture, apply := a.both()
	l := r.load(random(t), 5*time.Millisecond)
	l.more(20)
	filler := filepath.Join(disk, "filler")
	for _, left := range []int64{20 << 20, 0} {
		fill(t, filler, disk, left)
		eventually(t, "the status says what capture waits for", func() (bool, string) {
			now := capture.stage("capture")
			return strings.Contains(now.GetDetail()+now.GetError(), "disk"), now.String()
		})
		t.Logf("with %d bytes left: %v", left, capture.stage("capture"))
		l.more(20)
		if left == 0 {
			capture.kill()
			capture = a.capture("capture-2")
			l.more(20)
			t.Logf("started on a full disk: %s", capture.check().GetErrorDetail())
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		r.flows()
	}
	l.stop()
	r.same(apply, loadTables...)
	r.confirmedIsApplied(l)
}

// fill leaves only so many bytes on a disk.
func fill(t *testing.T, filler, disk string, left int64) {
	t.Helper()
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for {
		var s syscall.Statfs_t
		if err := syscall.Statfs(disk, &s); err != nil {
			t.Fatal(err)
		}
		free := int64(s.Bavail)*s.Bsize - left //nolint:gosec // Far below the limit.
		if free <= 0 {
			return
		}
		if _, err := f.Write(chunk[:min(free, int64(len(chunk)))]); err != nil {
			return // The queue was quicker.
		}
	}
}
