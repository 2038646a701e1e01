package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// result is everything that was measured.
type result struct {
	Machine, Load, Commit, Date, Command string
	Postgres                             int
	Rows, Pairs                          int
	BinaryMB                             float64
	// Noise is how far a ratio may drop below the recorded one, as a part of it; only in a recorded result.
	Noise      float64 `json:",omitempty"`
	Throughput []runsOf
	Latency    []latencyOf
	Footprint  []footprintOf
	Snapshot   *snapshotOf `json:",omitempty"`
}

// runsOf are the runs over the changes of a workload.
type runsOf struct {
	Workload string
	Rows     int
	Ways     map[string][]measured
}

func readResult(path string) (*result, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there are no recorded figures in %s: run \"make bench-record\" on a quiet machine, at the commit to compare with", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read recorded figures: %w", err)
	}
	var r result
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read recorded figures in %s: %w", path, err)
	}
	if r.Noise <= 0 || r.Noise >= 1 {
		return nil, fmt.Errorf("read recorded figures in %s: Noise is %v, want a part of one such as 0.2", path, r.Noise)
	}
	return &r, nil
}

func (r *result) write(path string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	return nil
}

// median returns the middle one of the values, the mean of the two in the middle, or zero for none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// of returns the median of a figure over the runs of a way.
func (r *runsOf) of(way string, figure func(*measured) float64) float64 {
	var values []float64
	for i := range r.Ways[way] {
		if m := &r.Ways[way][i]; m.Rows > 0 && m.Wall > 0 {
			values = append(values, figure(m))
		}
	}
	return median(values)
}

// ratio returns the median, over the pairs, of one way's figure by that of pg_recvlogical.
func (r *runsOf) ratio(way string, figure func(*measured) float64) float64 {
	return r.between(way, wayRecv, figure)
}

// between returns the median, over the pairs, of one way's figure by that of another.
func (r *runsOf) between(way, other string, figure func(*measured) float64) float64 {
	var values []float64
	for i := range min(len(r.Ways[way]), len(r.Ways[other])) {
		a, b := &r.Ways[way][i], &r.Ways[other][i]
		if a.Rows > 0 && b.Rows > 0 && figure(b) > 0 {
			values = append(values, figure(a)/figure(b))
		}
	}
	return median(values)
}

// The figures of a run.
func rate(m *measured) float64 { return float64(m.Rows) / m.Wall.Seconds() }

func perRow(d time.Duration, rows int) float64 {
	return float64(d.Nanoseconds()) / 1000 / float64(max(rows, 1))
}
func cpu(m *measured) float64       { return perRow(m.CPU, m.Rows) }
func walCPU(m *measured) float64    { return perRow(m.Walsender, m.Rows) }
func mallocs(m *measured) float64   { return m.Mallocs / float64(max(m.Rows, 1)) }
func peak(m *measured) float64      { return mega(m.Peak) }
func megabytes(m *measured) float64 { return float64(m.Bytes) / 1e6 / m.Wall.Seconds() }
func size(m *measured) float64      { return float64(m.Bytes) / float64(max(m.Rows, 1)) }

// brief tells about one pair.
func (r *runsOf) brief(n int) string {
	var words []string
	for _, way := range []string{wayRecv, wayBare, wayBinary, wayOne, wayCapture, wayDrain, waySplit} {
		if len(r.Ways[way]) > n && r.Ways[way][n].Rows > 0 {
			m := &r.Ways[way][n]
			words = append(words, fmt.Sprintf("%s %.0fk/s %.2fus", way, rate(m)/1000, cpu(m)))
		}
	}
	return strings.Join(words, ", ")
}

// against fails if a ratio has dropped below the recorded one by more than the noise.
func (r *result) against(recorded *result) error {
	var errs []error
	compared := 0
	for i := range r.Throughput {
		now := &r.Throughput[i]
		at := slices.IndexFunc(recorded.Throughput, func(o runsOf) bool { return o.Workload == now.Workload })
		if at < 0 {
			continue
		}
		then := &recorded.Throughput[at]
		for _, way := range []string{wayOne, wayCapture, waySplit} {
			was, is := then.ratio(way, rate), now.ratio(way, rate)
			if was == 0 || is == 0 {
				continue
			}
			compared++
			if is < was*(1-recorded.Noise) {
				errs = append(errs, fmt.Errorf("%s, %s: %.2f times the rows/s of pg_recvlogical, recorded were %.2f", now.Workload, way, is, was))
			}
		}
		// Processor time per row goes up where the rate need not go down.
		if was, is := then.ratio(wayOne, cpu), now.ratio(wayOne, cpu); was > 0 && is > was*(1+2*recorded.Noise) {
			errs = append(errs, fmt.Errorf("%s: dbmazz takes %.2f times the processor time of pg_recvlogical, recorded were %.2f", now.Workload, is, was))
		}
	}
	if compared == 0 {
		errs = append(errs, errors.New("none of the workloads is among the recorded ones"))
	}
	return errors.Join(errs...)
}
