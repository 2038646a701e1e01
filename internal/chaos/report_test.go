package chaos_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// report adds the outcomes up.
type report struct {
	planned int
	began   time.Time
	mu      sync.Mutex
	all     []*outcome
}

func newReport(planned int) *report { return &report{planned: planned, began: time.Now()} }

// add takes an outcome and shows the progress.
func (p *report) add(t *testing.T, o *outcome) {
	t.Helper()
	p.mu.Lock()
	p.all = append(p.all, o)
	fmt.Fprintf(os.Stderr, "chaos %d/%d: %s\n", len(p.all), p.planned, o)
	p.mu.Unlock()
	p.store(t)
}

// write writes the report to the log.
func (p *report) write(t *testing.T) {
	t.Helper()
	t.Log("\n" + p.String())
}

// store keeps the report of the runs so far in a file, if one is wanted.
func (p *report) store(t *testing.T) {
	t.Helper()
	if name := os.Getenv(reportEnv); name != "" {
		if err := os.WriteFile(name, []byte(p.String()), 0o600); err != nil {
			t.Error(err)
		}
	}
}

// String is the report as a document.
func (p *report) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.SortFunc(p.all, func(a, b *outcome) int { return int(a.seed) - int(b.seed) }) //nolint:gosec // Small.
	var rows, transactions, aborted, samples, faults int
	var peak int64
	counts, problems := map[string]map[string]int{}, map[string]int{}
	var failed []string
	for _, o := range p.all {
		rows, transactions, aborted, samples = rows+o.rows, transactions+o.transactions, aborted+o.aborted, samples+o.samples
		peak = max(peak, o.peak)
		for kind, names := range o.counts {
			if counts[kind] == nil {
				counts[kind] = map[string]int{}
			}
			for name, n := range names {
				counts[kind][name] += n
				if kind == "fault" {
					faults += n
				}
			}
		}
		for _, problem := range o.problems {
			problems[problem.kind]++
		}
		if len(o.problems) > 0 {
			failed = append(failed, fmt.Sprint(o.seed))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d runs in %s, seeds %s\n\n", len(p.all), time.Since(p.began).Round(time.Second), ranges(p.all))
	fmt.Fprintf(&b, "| | |\n|---|---|\n| transactions committed | %d |\n| transactions that ended in an error | %d |\n| rows compared | %d |\n| faults | %d |\n", transactions, aborted, rows, faults)
	for _, kind := range []string{lost, duplicated, altered, passed, back, memory, exits, stuck, secrets, broken} {
		fmt.Fprintf(&b, "| runs' problems: %s | %d |\n", kind, problems[kind])
	}
	fmt.Fprintf(&b, "| samples of the invariants | %d |\n| most memory of a process | %d MiB of %d |\n| seeds that failed | %s |\n", samples, peak>>20, memoryLimit>>20, strings.Join(failed, ", "))
	for _, kind := range []string{"layout", "fault", "point", "remedy"} {
		if len(counts[kind]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n| %s | times |\n|---|---|\n", kind)
		for _, name := range slices.Sorted(maps.Keys(counts[kind])) {
			fmt.Fprintf(&b, "| %s | %d |\n", name, counts[kind][name])
		}
	}
	return b.String()
}

// ranges writes 1-5, 9 for the seeds, which are in order.
func ranges(all []*outcome) string {
	var parts []string
	for i := 0; i < len(all); {
		j := i
		for j+1 < len(all) && all[j+1].seed == all[j].seed+1 {
			j++
		}
		part := fmt.Sprint(all[i].seed)
		if j > i {
			part += fmt.Sprintf("-%d", all[j].seed)
		}
		parts, i = append(parts, part), j+1
	}
	return strings.Join(parts, ", ")
}
