package capture

import (
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// TestRoomFollowsTheSink: a sink that takes so many bytes a second, and chunks that are
// written whenever there is room, have a lag of a few seconds from the start, whatever the
// sink takes.
func TestRoomFollowsTheSink(t *testing.T) {
	t.Parallel()
	const chunk, most = 1 << 20, 256 << 20
	for _, perSecond := range []int{1 << 20, 10 << 20, 100 << 20} {
		r := room{bytes: roomLeast}
		now := time.Now()
		var written, applied int
		var worst time.Duration
		var at int
		for step := range 6000 { // Of 50 ms.
			now = now.Add(50 * time.Millisecond)
			applied = min(applied+perSecond/20, written)
			r.applied(cdc.Position{Commit: cdc.LSN(applied)}, now, most) //nolint:gosec // Positive.
			for written-applied <= min(r.bytes, most) {
				written += chunk
				r.wrote(cdc.Position{Commit: cdc.LSN(written)}, now) //nolint:gosec // Positive.
			}
			if lag := time.Duration(float64(written-applied) / float64(perSecond) * float64(time.Second)); lag > worst {
				worst, at = lag, step
			}
		}
		t.Logf("%d MiB/s: room for %d MiB, lag at most %s after %d steps, %d MiB applied", perSecond>>20, r.bytes>>20, worst, at, applied>>20)
		if worst > late+4*time.Second || applied < perSecond*290 {
			t.Errorf("%d MiB/s: lag %s, %d MiB applied in 300 s", perSecond>>20, worst, applied>>20)
		}
	}
}
