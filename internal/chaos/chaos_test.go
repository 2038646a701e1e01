package chaos_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// The knobs.
const (
	// countEnv is how many seeds are run, seedEnv the first one. Without either the
	// fixed ones are.
	countEnv, seedEnv = "DBMAZZ_CHAOS_N", "DBMAZZ_CHAOS_SEED"
	// reportEnv names a file for the report.
	reportEnv = "DBMAZZ_CHAOS_REPORT"
	// logsEnv names a folder for the logs of runs that fail.
	logsEnv = "DBMAZZ_CHAOS_LOGS"
	// binaryEnv names a binary that is tested instead of one that is built.
	binaryEnv = "DBMAZZ_CHAOS_BINARY"
)

// fixedSeeds are run by default. Together they have every layout.
var fixedSeeds = []uint64{1, 2, 3, 4, 5, 6}

// parallelRuns is how many there are at a time unless -parallel says otherwise. They
// wait most of the time.
const parallelRuns = 3

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(parallelRuns)); err != nil {
			panic(err)
		}
	}
	code := pgtest.Tests(m).Run()
	if folder != "" {
		if err := os.RemoveAll(folder); err != nil {
			fmt.Fprintln(os.Stderr, "remove the binaries:", err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// folder holds what is built.
var folder string

// build builds the binary, with the kill points; extra arguments go to go build.
func build(name string, extra ...string) (string, error) {
	path := filepath.Join(folder, name)
	arguments := slices.Concat([]string{"build", "-tags", "chaos"}, extra, []string{"-o", path, "github.com/dbmazz/dbmazz/cmd/dbmazz"})
	command := exec.Command("go", arguments...)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build dbmazz: %w\n%s", err, out)
	}
	return path, nil
}

var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(binaryEnv); path != "" {
		return path, nil
	}
	if err := makeFolder(); err != nil {
		return "", err
	}
	return build("dbmazz")
})

var makeFolder = sync.OnceValue(func() (err error) {
	folder, err = os.MkdirTemp("", "dbmazz-chaos-")
	return err
})

// number reads a knob.
func number(t *testing.T, name string) (n uint64, ok bool) {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return n, true
}

func seeds(t *testing.T) []uint64 {
	t.Helper()
	first, given := number(t, seedEnv)
	n, counted := number(t, countEnv)
	switch {
	case !given && !counted:
		return fixedSeeds
	case !counted:
		n = 1
	case !given:
		first = 1
	}
	var all []uint64
	for i := range n {
		all = append(all, first+i)
	}
	return all
}

// TestRandomHistoriesReachTheSinkThroughRandomFaults is the suite.
func TestRandomHistoriesReachTheSinkThroughRandomFaults(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	all := seeds(t)
	report := newReport(len(all))
	t.Cleanup(func() { report.write(t) })
	for _, seed := range all {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			r := newRun(t, seed, path)
			t.Logf("%+v", r.shape)
			o := r.execute()
			report.add(t, o)
			for _, p := range o.problems {
				t.Error(p.text)
			}
			if t.Failed() {
				t.Logf("make chaos SEED=%d repeats the choices of this run", seed)
				r.showLogs()
			}
		})
	}
}

// showLogs keeps the logs of a run that has failed.
func (r *run) showLogs() {
	dir := os.Getenv(logsEnv)
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			r.t.Log(err)
		}
	}
	for _, s := range r.stages {
		text := s.log.String()
		if dir != "" {
			name := filepath.Join(dir, fmt.Sprintf("chaos-%d-%s.log", r.seed, s.name))
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				r.t.Log(err)
			}
		}
		r.t.Logf("the end of the log of %s:\n%s", s.name, lastLines(text, 25))
	}
}
