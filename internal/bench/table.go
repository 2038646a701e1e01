package main

import (
	"fmt"
	"strings"
	"time"
)

// markdown makes the tables.
func (r *result) markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %s, PostgreSQL %d, commit %s, load average at the start %s.\nCommand: `%s`. Medians of %d.\n",
		r.Date, r.Machine, r.Postgres, r.Commit, r.Load, r.Command, r.Pairs)
	r.throughput(&out)
	r.binary(&out)
	r.latency(&out)
	r.footprint(&out)
	if s := r.Snapshot; s != nil {
		fmt.Fprintf(&out, "\nCopy of %d existing rows: %.0f krows/s, %.2f of COPY TO; %.2f us of CPU per row; peak %.0f MB.\n",
			s.Rows, s.RowsPerSec/1000, s.RowsPerSec/s.CopyTo, s.CPU, s.PeakMB)
	}
	return strings.TrimSpace(out.String())
}

func row(out *strings.Builder, cells ...string) {
	out.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func number(format string, value float64) string {
	if value == 0 {
		return "-"
	}
	return fmt.Sprintf(format, value)
}

func (r *result) throughput(out *strings.Builder) {
	if len(r.Throughput) == 0 {
		return
	}
	out.WriteString("\nRows/s, as multiples of pg_recvlogical in the same run:\n\n")
	row(out, "workload", "row changes", "pg_recvlogical krows/s", "bare reader", "capture to queue", "end to end", "two processes", "queue to sink krows/s", "end to end MB/s")
	row(out, strings.Split(strings.Repeat("---,", 8)+"---", ",")...)
	for i := range r.Throughput {
		t := &r.Throughput[i]
		times := func(way string) string { return number("%.2f", t.ratio(way, rate)) }
		row(out, t.Workload, fmt.Sprint(t.Rows), number("%.0f", t.of(wayRecv, rate)/1000), times(wayBare), times(wayCapture), times(wayOne), times(waySplit),
			number("%.0f", t.of(wayDrain, rate)/1000), number("%.0f", t.of(wayOne, megabytes)))
	}
	out.WriteString("\nProcessor time in microseconds per row change, user and system; allocations per row change; peak memory:\n\n")
	row(out, "workload", "walsender under pg_recvlogical", "under the bare reader", "under dbmazz", "pg_recvlogical", "bare reader", "capture with queue", "apply", "dbmazz in one process",
		"allocations, capture", "allocations, apply", "peak MB, one process")
	row(out, strings.Split(strings.Repeat("---,", 11)+"---", ",")...)
	for i := range r.Throughput {
		t := &r.Throughput[i]
		row(out, t.Workload, number("%.1f", t.of(wayRecv, walCPU)), number("%.1f", t.of(wayBare, walCPU)), number("%.1f", t.of(wayOne, walCPU)),
			number("%.2f", t.of(wayRecv, cpu)), number("%.2f", t.of(wayBare, cpu)), number("%.2f", t.of(wayCapture, cpu)), number("%.2f", t.of(wayDrain, cpu)), number("%.2f", t.of(wayOne, cpu)),
			number("%.3f", t.of(wayCapture, mallocs)), number("%.3f", t.of(wayDrain, mallocs)), number("%.0f", t.of(wayOne, peak)))
	}
}

// binary compares the forms in which the server can send values.
func (r *result) binary(out *strings.Builder) {
	begun := false
	for i := range r.Throughput {
		t := &r.Throughput[i]
		if len(t.Ways[wayBinary]) == 0 {
			continue
		}
		if !begun {
			out.WriteString("\nValues in PostgreSQL's binary form instead of as text, to the bare reader; as multiples of those as text:\n\n")
			row(out, "workload", "rows/s", "processor time of the walsender", "bytes")
			row(out, "---", "---", "---", "---")
			begun = true
		}
		times := func(of func(*measured) float64) string { return number("%.2f", t.between(wayBinary, wayBare, of)) }
		row(out, t.Workload, times(rate), times(walCPU), times(size))
	}
}

func (r *result) latency(out *strings.Builder) {
	if len(r.Latency) == 0 {
		return
	}
	out.WriteString("\nFrom the row's making, right before its commit, to its being visible in the sink, in milliseconds:\n\n")
	row(out, "rows/s", "written rows/s", "p50", "p99", "p99.9", "worst", "cores of dbmazz")
	row(out, strings.Split(strings.Repeat("---,", 6)+"---", ",")...)
	for _, l := range r.Latency {
		what := fmt.Sprint(l.Rate)
		if l.Rate == 0 {
			what = "lone changes"
		}
		ms := func(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d.Microseconds())/1000) }
		row(out, what, fmt.Sprintf("%.0f", l.Reached), ms(l.P50), ms(l.P99), ms(l.P999), ms(l.Worst), fmt.Sprintf("%.3f", l.Cores))
	}
}

func (r *result) footprint(out *strings.Builder) {
	if len(r.Footprint) == 0 {
		return
	}
	fmt.Fprintf(out, "\nWith little to do, per process; the binary has %.0f MB:\n\n", r.BinaryMB)
	row(out, "what", "resident MB", "of that private", "MB of the largest", "millicores", "of the busiest", "ready after ms, the longest", "row changes/s, all together")
	row(out, strings.Split(strings.Repeat("---,", 7)+"---", ",")...)
	for _, f := range r.Footprint {
		row(out, f.What, fmt.Sprintf("%.0f", f.ResidentMB), fmt.Sprintf("%.0f", f.PrivateMB), fmt.Sprintf("%.0f", f.WorstMB),
			fmt.Sprintf("%.1f", f.Millicores), fmt.Sprintf("%.1f", f.WorstMillicores), fmt.Sprint(f.Start.Milliseconds()), number("%.0f", f.RowsPerSec))
	}
}
