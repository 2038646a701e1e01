package bus

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// half is a use of memory with half of that left which there is where it begins to be short.
const half = (1 + freely) / 2

// usedUp is a use of memory that does not change.
func usedUp(part float64) func() float64 { return func() float64 { return part } }

// TestThePaceIsKeptInAnyWindow publishes as early as it may, frames of any size, and sums what
// lies within the time for which the server keeps it.
func TestThePaceIsKeptInAnyWindow(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const configured = 256 << 20
	for use, keep := range map[float64]int{
		freely + 1e-9: configured, half: configured / 4, 0.9: configured / 8, 1: configured / 8, 7: configured / 8,
	} {
		t.Run(fmt.Sprintf("%.2f", use), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 0))
			p := newPace(&Config{DataDir: "folder", MemoryUse: usedUp(use), KeepBytes: configured})
			type sent struct {
				at    time.Time
				bytes int
			}
			var all []sent
			largest, begun := 0, time.Now()
			for now := begun; now.Sub(begun) < 5*time.Minute; {
				if rnd.IntN(200) == 0 {
					now = now.Add(time.Duration(rnd.Int64N(int64(20 * time.Second)))) // Nothing comes for a while.
				}
				for p.wait(now) {
					if !p.next.After(now) {
						t.Fatal("it would look again without end")
					}
					now = p.next
				}
				bytes := 1 + rnd.IntN(keep/64)
				if rnd.IntN(500) == 0 {
					bytes = 1 + rnd.IntN(keep/8)
				}
				largest = max(largest, bytes)
				p.spend(bytes)
				all = append(all, sent{now, bytes})
			}
			first, within, most := 0, 0, 0
			for _, s := range all {
				within += s.bytes
				for s.at.Sub(all[first].at) > keeps {
					within -= all[first].bytes
					first++
				}
				most = max(most, within)
			}
			// The last frame may be as large as any.
			if most > keep*101/100+largest || most < keep*9/10 {
				t.Errorf("at most %d bytes within %s, %d may be kept", most, keeps, keep)
			}
		})
	}
}

func TestThePaceIsForTheTimeInWhichMemoryIsShort(t *testing.T) {
	t.Parallel()
	use, now := 0.0, time.Now()
	p := newPace(&Config{DataDir: "folder", MemoryUse: func() float64 { return use }, KeepBytes: 40 << 20})
	step := func(want time.Duration) {
		t.Helper()
		waited := now
		for p.wait(waited) {
			waited = p.next
		}
		if got := waited.Sub(now).Round(time.Millisecond); got != want {
			t.Fatalf("it waits for %s, want %s", got, want)
		}
		p.spend(1 << 20)
	}
	step(0)
	step(0) // What was published before does not count.
	use = half
	step(0)
	step(time.Second)
	use = freely
	step(0)
	use = half
	step(0) // Neither does what was from an earlier time.
	step(time.Second)
}

// TestTheWaitForALargeFrameEndsWhenMemoryIsFree: what is due is due at the rate of now, and not
// at that of when it was published.
func TestTheWaitForALargeFrameEndsWhenMemoryIsFree(t *testing.T) {
	t.Parallel()
	use, now := 1.0, time.Now()
	p := newPace(&Config{DataDir: "folder", MemoryUse: func() float64 { return use }, KeepBytes: 80 << 20})
	if p.wait(now) {
		t.Fatal("it waits for nothing")
	}
	p.spend(64 << 20)
	now = now.Add(4 * time.Second)
	if !p.wait(now) || p.next.Sub(now) > paceStep {
		t.Fatal("64 MiB at 1 MiB/s took 4 seconds")
	}
	use = freely + 1e-9 // 8 MiB/s for the 60 that are left.
	if now = now.Add(7 * time.Second); !p.wait(now) {
		t.Fatal("60 MiB at 8 MiB/s took 7 seconds")
	}
	if now = now.Add(time.Second); p.wait(now) {
		t.Fatal("60 MiB at 8 MiB/s take longer than 8 seconds")
	}
}

func TestWithoutALimitNothingIsPaced(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"no limit": {DataDir: "folder"}, "no size": {DataDir: "folder", MemoryUse: usedUp(1)}, "a server elsewhere": {URL: "nats://somewhere", MemoryUse: usedUp(1), KeepBytes: 1},
	} {
		p := newPace(&cfg)
		for range 1000 {
			p.spend(1 << 30)
		}
		if p.wait(time.Now()) {
			t.Errorf("%s: paced", name)
		}
	}
}
