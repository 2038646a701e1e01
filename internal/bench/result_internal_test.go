package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func pairsOf(recv, one, capture time.Duration) result {
	m := func(d time.Duration) []measured { return []measured{{Rows: 1000, Wall: d, CPU: d}} }
	return result{Noise: 0.2, Throughput: []runsOf{{
		Workload: "insert-1", Rows: 1000,
		Ways: map[string][]measured{wayRecv: m(recv), wayBare: m(recv), wayOne: m(one), wayCapture: m(capture)},
	}}}
}

func TestCheckFailsOnADropBeyondTheNoise(t *testing.T) {
	t.Parallel()
	recorded := pairsOf(2*time.Second, time.Second, time.Second)
	same := pairsOf(4*time.Second, 2400*time.Millisecond, 2*time.Second)
	if err := same.against(&recorded); err != nil {
		t.Errorf("a drop within the noise, on a machine half as fast: %v", err)
	}
	slower := pairsOf(2*time.Second, time.Second, 1300*time.Millisecond)
	if err := slower.against(&recorded); err == nil || !strings.Contains(err.Error(), wayCapture) || strings.Contains(err.Error(), wayOne) {
		t.Errorf("a drop of one way beyond the noise: %v", err)
	}
	dearer := pairsOf(2*time.Second, time.Second, time.Second)
	dearer.Throughput[0].Ways[wayOne][0].CPU *= 2
	if err := dearer.against(&recorded); err == nil || !strings.Contains(err.Error(), "processor time") {
		t.Errorf("twice the processor time per row: %v", err)
	}
	other := pairsOf(2*time.Second, time.Second, time.Second)
	other.Throughput[0].Workload = "other"
	if err := other.against(&recorded); err == nil {
		t.Error("nothing was compared, and nobody says so")
	}
}

func TestRatiosAreOfPairs(t *testing.T) {
	t.Parallel()
	r := runsOf{Ways: map[string][]measured{}}
	for _, seconds := range []int{1, 10, 4} { // The machine's speed drifts.
		r.Ways[wayRecv] = append(r.Ways[wayRecv], measured{Rows: 100, Wall: time.Duration(seconds) * time.Second})
		r.Ways[wayOne] = append(r.Ways[wayOne], measured{Rows: 100, Wall: time.Duration(seconds) * 500 * time.Millisecond})
	}
	if got := r.ratio(wayOne, rate); got != 2 {
		t.Errorf("the ratio is %v, want 2 in every pair", got)
	}
}

func TestResultIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "result.json")
	was := pairsOf(2*time.Second, time.Second, time.Second)
	if err := was.write(path); err != nil {
		t.Fatal(err)
	}
	is, err := readResult(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := is.against(&was); err != nil {
		t.Error(err)
	}
	was.Noise = 0
	if err := was.write(path); err != nil {
		t.Fatal(err)
	}
	if _, err := readResult(path); err == nil {
		t.Error("figures that state no noise are compared with")
	}
}
