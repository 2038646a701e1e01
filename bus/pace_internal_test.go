package bus

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestThePaceIsKeptInAnyWindow publishes as early as it may, frames of any size, and sums what
// lies within the time for which the server keeps it.
func TestThePaceIsKeptInAnyWindow(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const keep = 64 << 20
	p := newPace(&Config{DataDir: "folder", MemoryShort: func() bool { return true }, KeepBytes: keep})
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
		now = now.Add(max(0, p.wait(now)))
		bytes := 1 + rnd.IntN(1<<20)
		if rnd.IntN(500) == 0 {
			bytes = 1 + rnd.IntN(8<<20)
		}
		largest = max(largest, bytes)
		p.spend(bytes, now)
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
	if most > keep+largest || most < keep*9/10 {
		t.Errorf("at most %d bytes within %s, %d may be kept", most, keeps, keep)
	}
}

func TestThePaceIsForTheTimeInWhichMemoryIsShort(t *testing.T) {
	t.Parallel()
	short, now := false, time.Now()
	p := newPace(&Config{DataDir: "folder", MemoryShort: func() bool { return short }, KeepBytes: 10 << 20})
	step := func(want time.Duration) {
		t.Helper()
		if got := p.wait(now); got != want {
			t.Fatalf("it waits for %s, want %s", got, want)
		}
		p.spend(1<<20, now)
	}
	step(0)
	step(0) // What was published before does not count.
	short = true
	step(0)
	step(time.Second)
	short = false
	step(0)
	short = true
	step(0) // Neither does what was from an earlier time.
	step(time.Second)
}

func TestWithoutALimitNothingIsPaced(t *testing.T) {
	t.Parallel()
	short := func() bool { return true }
	for name, cfg := range map[string]Config{
		"no limit": {DataDir: "folder"}, "no size": {DataDir: "folder", MemoryShort: short}, "a server elsewhere": {URL: "nats://somewhere", MemoryShort: short, KeepBytes: 1},
	} {
		p := newPace(&cfg)
		for range 1000 {
			p.spend(1<<30, time.Now())
		}
		if wait := p.wait(time.Now()); wait > 0 {
			t.Errorf("%s: paced for %s", name, wait)
		}
	}
}
