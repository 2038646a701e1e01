package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// TestMain makes the test binary the bare reader when it is started as that.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bareCommand {
		os.Exit(run(os.Args[1:]))
	}
	pgtest.Main(m)
}

// TestBenchMeasuresACorrectRun runs the smallest of everything against real servers. It is about the harness: the
// figures themselves mean nothing.
func TestBenchMeasuresACorrectRun(t *testing.T) {
	if testing.Short() {
		// skip: it builds dbmazz and starts servers.
		t.Skip("short")
	}
	o := options{
		plain: true, parts: "throughput", workloads: "delete-soft", rows: 1000, pairs: 1, rates: []int{200},
		lasting: 2 * time.Second, noise: 0.5, dir: t.TempDir(), json: filepath.Join(t.TempDir(), "figures.json"),
	}
	b := newBench(o)
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{wayRecv, wayBare, wayOne, wayCapture} {
		if got := b.result.Throughput[0].of(way, rate); got <= 0 {
			t.Errorf("%s: no figure", way)
		}
	}
}
