package main

import (
	"fmt"
	"time"
)

// panel draws the latest look, and its brief form for places without a terminal.
func (w *watch) panel() (brief string, lines []string) {
	w.mu.Lock()
	l, note, writing := w.latest, w.note, w.rate.perSecond()
	w.mu.Unlock()
	total, m := w.service.total(), l.state.metrics
	elapsed := time.Since(w.begun)
	if l.done {
		writing = 0
	}
	rows := func(name string, n string, perSecond float64) string {
		return fmt.Sprintf("  %-10s %12s   %9s/s", name, n, count(int64(perSecond)))
	}
	lag := lag(m.GetReplicationLagMs()) + " behind, " + size(m.GetLagBytes()) + " of WAL unconfirmed"
	if m == nil {
		lag = "unknown"
	}
	lines = []string{
		"",
		fmt.Sprintf("  %s %3.0f %%   %s", bar(l.share, 40), l.share*100, seconds(elapsed)),
		"  dbmazz     " + l.state.text(),
		"  stages     " + l.state.stages(),
		rows("written", count(l.written), writing) + fmt.Sprintf("   of %s changes", count(w.changes)),
		rows("captured", count(total.captured), m.GetRowsCapturedPerSecond()),
		rows("applied", count(total.applied), m.GetRowsAppliedPerSecond()) + fmt.Sprintf("   in %s batches", count(total.batches)),
		fmt.Sprintf("  %-10s %12s   %s", "queue", count(m.GetQueueDepthRows()), size(m.GetQueueDepthBytes())),
		"  lag        " + lag,
		fmt.Sprintf("  process    %s memory, %.1f cores", size(total.resident), float64(m.GetCpuMillicores())/1000),
	}
	if note != "" {
		lines = append(lines, "  scenario   "+note)
	}
	trouble := l.state.trouble()
	if trouble != "" {
		lines = append(lines, "  trouble    "+trouble)
	}
	brief = fmt.Sprintf("  %3.0f %%  written %s (%s/s)  captured %s  applied %s (%s/s)  queue %s  lag %s  memory %s  %s",
		l.share*100, count(l.written), count(int64(writing)), count(total.captured), count(total.applied),
		count(int64(m.GetRowsAppliedPerSecond())), count(m.GetQueueDepthRows()), lagBrief(l), size(total.resident), l.state.health.GetStatus())
	if note != "" {
		brief += "  [" + note + "]"
	}
	if trouble != "" {
		brief += "  trouble: " + cut(trouble, 160)
	}
	return brief, lines
}

func lagBrief(l look) string {
	if l.state.metrics == nil {
		return "unknown"
	}
	return lag(l.state.metrics.GetReplicationLagMs()) + " " + size(l.state.metrics.GetLagBytes())
}
