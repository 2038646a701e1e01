package capture

import (
	"testing"
	"time"
)

func seen(t *testing.T, text string) *visibility {
	t.Helper()
	v, err := parseVisibility(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestASnapshotCoversThoseThatAreNotNewer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		v, o string
		want bool
	}{
		{"10:10:", "10:10:", true},
		{"10:20:10,15", "10:20:10,15", true},
		{"15:20:15", "10:20:10,15", true},
		{"10:20:10,15", "15:20:15", false}, // 10 is seen by the other one.
		{"10:21:10,15,20", "10:20:10,15", true},
		{"10:20:10", "10:21:10", false}, // The other one sees 20.
		{"9:20:9", "10:20:10", false},
		{"20:20:", "10:20:10,15", true},
	} {
		if got := seen(t, c.v).covers(seen(t, c.o)); got != c.want {
			t.Errorf("%s covers %s: %t", c.v, c.o, got)
		}
	}
}

// TestAnOlderSnapshotIsNotJudgedByWhatANewerOneHasSeen: two workers take snapshots, and the
// one that took its own first asks last.
func TestAnOlderSnapshotIsNotJudgedByWhatANewerOneHasSeen(t *testing.T) {
	t.Parallel()
	for name, d := range map[string]*desk{
		"a transaction that the reader has passed": {armed: true, passed: passed{list: []uint32{15}}},
		"one that may have been passed before":     {armed: true, suspects: suspects{15: {}}},
	} {
		older, newer := seen(t, "15:20:15"), seen(t, "20:20:")
		if good, err := d.judge(t.Context(), nil, newer, 1); err != nil || !good {
			t.Fatalf("%s: the newer one: %t, %v", name, good, err)
		}
		if good, err := d.judge(t.Context(), nil, older, 1); err != nil || good {
			t.Errorf("%s: the older one: %t, %v", name, good, err)
		}
		if good, err := d.judge(t.Context(), nil, newer, 1); err != nil || !good {
			t.Errorf("%s: the newer one again: %t, %v", name, good, err)
		}
	}
}

// TestSuspectsAreClearedByLooksOnly: however long ago the list was made, a look that finds
// nothing may be of one whose wait has just ended.
func TestSuspectsAreClearedByLooksOnly(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := suspects{1: {}, 2: {}, 3: {}}
	step := func(after time.Duration, found look, left int) {
		t.Helper()
		now = now.Add(after)
		if s.take(1, found, now); len(s) != left {
			t.Fatalf("%d are left, want %d", len(s), left)
		}
	}
	step(time.Hour, quiet, 3)
	step(suspectFor, quiet, 3)
	step(time.Second, waits, 3) // The time begins anew.
	step(time.Hour, waits, 3)
	step(time.Hour, quiet, 3)
	step(suspectFor+1, quiet, 2)
	s.take(1, quiet, now) // by another worker
	s.take(2, uncommitted, now)
	if len(s) != 1 {
		t.Fatalf("%d are left", len(s))
	}
}
