package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestAStageIsGivenAwayAfterItHasFailedForLong(t *testing.T) {
	t.Parallel()
	var (
		broken   = health{problem: "no route"}
		starting = health{}
		fine     = health{works: true}
	)
	type look struct {
		second int
		health health
		free   bool
		want   bool
	}
	for name, looks := range map[string][]look{
		"fails for long":           {{0, broken, true, false}, {29, broken, true, false}, {30, broken, true, true}},
		"nobody is free":           {{0, broken, false, false}, {100, broken, false, false}, {101, broken, true, true}},
		"works in between":         {{0, broken, true, false}, {29, fine, true, false}, {31, broken, true, false}, {60, broken, true, false}, {61, broken, true, true}},
		"only begins":              {{0, starting, true, false}, {500, starting, true, false}},
		"tries again and again":    {{0, broken, true, false}, {10, starting, true, false}, {30, starting, true, true}},
		"works after it had begun": {{0, starting, true, false}, {50, fine, true, false}, {51, broken, true, false}},
	} {
		r := relief{after: 30 * time.Second}
		for _, l := range looks {
			if got := r.due(time.Unix(int64(1000+l.second), 0), l.health, l.free); got != l.want {
				t.Errorf("%s: after %d s: %t", name, l.second, got)
			}
		}
	}
	never := relief{}
	never.due(time.Unix(0, 0), broken, true)
	if never.due(time.Unix(1e6, 0), broken, true) {
		t.Error("a stage is given away although that is turned off")
	}
}

// TestTwoThatBothCannotDoNotFlap has two processes which both fail for a day, and counts
// how often the stage changes hands.
func TestTwoThatBothCannotDoNotFlap(t *testing.T) {
	t.Parallel()
	const day = 24 * 60 * 60
	var gaveUp [2]time.Time
	leads, handovers := 0, 0
	r := relief{after: 30 * time.Second}
	for second := range day {
		now := time.Unix(int64(1e6+second), 0)
		other := 1 - leads
		free := gaveUp[other].IsZero() || now.Sub(gaveUp[other]) >= failedFor
		if r.due(now, health{problem: "down"}, free) {
			gaveUp[leads], leads, r = now, other, relief{after: 30 * time.Second}
			handovers++
		}
	}
	if most := day/int(failedFor.Seconds()) + 2; handovers > most || handovers < 2 {
		t.Errorf("%d handovers in a day, want 2 to %d", handovers, most)
	}
}

func capturing(instance, tables string, active bool) member {
	return member{Instance: instance, Capture: &captureView{Active: active, Configured: tables}}
}

func TestAStandbyWithOtherTablesDoesNotTakeOver(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := newCompany()
	refuses := func(want bool, when string) {
		t.Helper()
		err := c.sameTables("public.a")
		if (err != nil) != want {
			t.Errorf("%s: %v", when, err)
		}
		if err != nil && (!errors.Is(err, errOtherTables) || !strings.Contains(err.Error(), "process one") || !strings.Contains(err.Error(), "public.a,public.b")) {
			t.Errorf("%s: %v", when, err)
		}
	}
	refuses(false, "alone")
	c.heardOf(capturing("other", "public.z", false), now)
	c.heardOf(capturing("other", "public.z", false), now)
	refuses(false, "with a standby that has others")
	c.heardOf(capturing("one", "public.a,public.b", true), now)
	refuses(false, "after what a dead process has left behind")
	c.heardOf(capturing("one", "public.a,public.b", true), now)
	refuses(true, "behind one that is at work")
	c.left("one")
	refuses(true, "after it has ended")
	c.heardOf(capturing("two", "public.a", true), now)
	c.heardOf(capturing("two", "public.a", true), now)
	refuses(false, "behind one with the same")
}

func TestOnlyAStandbyThatHasNotFailedIsFree(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		capture captureView
		age     time.Duration
		want    bool
	}{
		"a standby":     {captureView{}, 0, true},
		"one at work":   {captureView{Active: true}, 0, false},
		"one that fell": {captureView{Failed: true}, 0, false},
		"one that will": {captureView{Refuses: true}, 0, false},
		"a silent one":  {captureView{}, time.Minute, false},
	} {
		c := newCompany()
		c.heardOf(member{Instance: "x", Capture: &test.capture}, time.Now().Add(-test.age))
		if got := c.free(roleCapture); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
		if c.free(roleApply) {
			t.Errorf("%s is free for a stage that it does not have", name)
		}
	}
}
