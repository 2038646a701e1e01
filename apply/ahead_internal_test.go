package apply

import (
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

func TestWhatWasDoneAheadIsOfUseForItsChangesOnly(t *testing.T) {
	t.Parallel()
	changes := make([]change, 3, 4)
	now := time.Now()
	a := &ahead{changes: changes[:2], syncedAt: now}
	for name, test := range map[string]struct {
		a       *ahead
		changes []change
		after   time.Duration
		want    bool
	}{
		"its changes":          {a, changes[:2], 0, true},
		"nothing was done":     {nil, changes[:2], 0, false},
		"more changes":         {a, changes, 0, false},
		"others, equal":        {a, make([]change, 2), 0, false},
		"after a minute":       {a, changes[:2], time.Minute, false},
		"nearly after it":      {a, changes[:2], time.Minute - 1, true},
		"what was there moved": {a, append(append([]change(nil), changes...), change{})[:2], 0, false},
	} {
		if got := test.a.fits(test.changes, now.Add(test.after)); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestOnlyFullBatchesAreWorkedOnAhead(t *testing.T) {
	t.Parallel()
	live := &session{Apply: New(Config{FlushBytes: 100}, nil, nil)}
	c := paced(2, 100)
	if !live.gains(c, 2, nil) {
		t.Error("a full batch is not worked on")
	}
	if live.gains(c, 2, &ahead{changes: c.changes[:2]}) {
		t.Error("a batch is worked on twice")
	}
	if live.gains(paced(2, 99), 2, nil) {
		t.Error("a batch that others may join is worked on")
	}
	replay := &session{Apply: New(Config{FlushBytes: 100}, nil, nil)}
	replay.replay = &Replay{}
	if replay.gains(c, 2, nil) {
		t.Error("a replay, which keeps rows back, is worked on")
	}
	c.changes[0].kind = cdc.KindTruncate
	if live.gains(c, 2, nil) {
		t.Error("a truncate is worked on")
	}
}
