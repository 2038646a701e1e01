package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
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

// smallest is a bench of the smallest of everything. It is about the harness: the figures themselves mean nothing.
func smallest(t *testing.T, parts string) *bench {
	t.Helper()
	if testing.Short() {
		// skip: it builds dbmazz and starts servers.
		t.Skip("short")
	}
	return newBench(options{
		plain: true, parts: parts, workloads: "delete-soft", rows: 1000, pairs: 1, rates: []int{10_000}, lasting: 2 * time.Second, noise: 0.5,
		backlog: 2000, copied: 2000, tables: 3, pipelines: 2, dir: t.TempDir(), json: filepath.Join(t.TempDir(), "figures.json"),
	})
}

func TestBenchMeasuresACorrectRun(t *testing.T) {
	b := smallest(t, "throughput")
	b.options.full = true
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{wayRecv, wayBare, wayBinary, wayOne, wayCapture} {
		if way == wayBinary && b.source.server.Major() < 14 {
			continue
		}
		if got := b.result.Throughput[0].of(way, rate); got <= 0 {
			t.Errorf("%s: no figure", way)
		}
	}
}

func TestBenchTellsAFigureOfEachPart(t *testing.T) {
	b := smallest(t, "latency,backlog,snapshot,tables,pipelines")
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(b.json)
	if err != nil {
		t.Fatal(err)
	}
	var r result
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Latency) != 2 || r.Latency[0].P50 <= 0 || r.Latency[1].P999 <= 0 || r.Latency[1].Rows < 5000 {
		t.Errorf("latency: %+v", r.Latency)
	}
	if len(r.Throughput) != 1 || r.Throughput[0].of(wayOne, rate) <= 0 || r.Throughput[0].of(wayCapture, rate) <= 0 {
		t.Errorf("backlog: %+v", r.Throughput)
	}
	if r.Snapshot == nil || r.Snapshot.RowsPerSec <= 0 {
		t.Errorf("snapshot: %+v", r.Snapshot)
	}
	var what []string
	for _, f := range r.Footprint {
		what = append(what, f.What)
		if busy := f.RowsPerSec > 0; f.ResidentMB <= 0 || f.WorstMB < f.ResidentMB-0.1 || f.Start <= 0 || busy == strings.Contains(f.What, "idle") {
			t.Errorf("footprint: %+v", f)
		}
		if !strings.Contains(b.result.markdown(), "| "+f.What+" |") {
			t.Errorf("the table does not show %q", f.What)
		}
	}
	if len(what) != 4 || r.Footprint[3].Processes != 2 {
		t.Errorf("footprint: %q", what)
	}
}

// Times in microseconds of some thousand rows are together more than 64 bits hold.
func TestSumsOfSourceAndSinkAreTheSameForLargeNumbers(t *testing.T) {
	t.Parallel()
	const rows, first = 20_000, 1_900_000_000_000_000
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id bigint PRIMARY KEY, s text, n bigint)")
	db.Exec("INSERT INTO t SELECT j, 'row', CASE WHEN j % 3 = 0 THEN -j ELSE $1 + j END FROM generate_series(1, $2::bigint) j", int64(first), int64(rows))
	wants, err := wanted(t.Context(), db.Connect(), []string{"t"}, "")
	if err != nil {
		t.Fatal(err)
	}
	table, err := newSunk([]string{"id", "s", "n", deletedColumn})
	if err != nil {
		t.Fatal(err)
	}
	for id := int64(1); id <= rows; id++ {
		n := first + id
		if id%3 == 0 {
			n = -id
		}
		table.apply([]arrived{{id: id, n: n, bytes: 3}})
	}
	if got := table.sums(); got != wants["t"] {
		t.Errorf("the sink has %+v, the source %+v", got, wants["t"])
	}
	table.apply([]arrived{{id: 7, n: first + 8, bytes: 3}})
	if got := table.sums(); got == wants["t"] {
		t.Error("a row with another number makes no difference")
	}
}

func TestTheNextLookIsWhenHalfOfWhatIsMissingShouldHaveCome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		since      time.Duration
		have, want float64
		next       time.Duration
	}{
		{time.Second, 0, 1e6, 500 * time.Millisecond},
		{time.Second, 8e5, 1e6, 125 * time.Millisecond},
		{time.Second, 999_999, 1e6, 10 * time.Millisecond},
		{time.Second, 1e6, 1e6, 10 * time.Millisecond},
	} {
		if got := halfway(c.since, c.have, c.want); got != c.next {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
