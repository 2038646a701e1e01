package capture

import (
	"time"
)

// SnapshotStatus is a moment of the copying of existing rows.
type SnapshotStatus struct {
	// Active tells that there is something to copy, Paused that it is to wait, Done
	// that everything that was asked for is in the stream, and the list of the tables
	// as well.
	Active, Paused, Done bool
	// Detail says what the copying waits for, empty if it does not.
	Detail string
	// Settings are those in force; zero Rate is no bound.
	Settings SnapshotSettings
	Tables   []SnapshotTable
}

// SnapshotTable is the progress of one table. The estimates are those of the server's
// statistics and may be far off.
type SnapshotTable struct {
	Table                       Table
	State                       CopyState
	RowsDone, RowsEstimated     uint64
	BytesDone                   uint64
	ChunksDone, ChunksEstimated uint64
	// RowsPerSecond is that of the work on the table since this process took it up,
	// waiting included.
	RowsPerSecond float64
	// Waiting says what the copy of the table waits for, empty if it does not.
	Waiting string
	// Error is that of the last attempt, which is repeated.
	Error             string
	Started, Finished time.Time
}

// status describes the copying.
func (n *snapshots) status() (s SnapshotStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.Settings = n.settings
	s.Settings.Rate = max(s.Settings.Rate, 0)
	if n.state == nil {
		return s
	}
	s.Paused, s.Done = n.state.Paused, true
	for _, t := range n.state.Tables {
		row := t.progress(n.settings.ChunkRows)
		if t.open() {
			s.Active, s.Done = true, false
			if s.Detail == "" && row.Waiting != "" {
				s.Detail = row.Table.String() + ": " + row.Waiting
			}
		}
		s.Tables = append(s.Tables, row)
	}
	return s
}

// progress describes the copy of a table whose chunks have so many rows.
func (t *tableCopy) progress(chunkRows int) SnapshotTable {
	m := t.last()
	row := SnapshotTable{
		Table: t.Table, State: t.State, RowsDone: m.Rows, RowsEstimated: max(t.Estimate, m.Rows), BytesDone: m.Bytes,
		ChunksDone: m.Chunks, ChunksEstimated: m.Chunks, Waiting: t.waiting, Error: t.err, Started: t.Started, Finished: t.Finished,
	}
	switch {
	case !t.open():
		row.RowsEstimated = m.Rows
		row.RowsPerSecond = perSecond(m.Rows, t.Finished.Sub(t.Started))
		return row
	case t.State == CopyRunning && m.Rows >= t.fromRows:
		row.RowsPerSecond = perSecond(m.Rows-t.fromRows, time.Since(t.from))
	}
	if left := row.RowsEstimated - m.Rows; left > 0 && !m.Ended {
		per := uint64(chunkRows) //nolint:gosec // Positive.
		if m.Chunks > 0 {
			per = max(m.Rows/m.Chunks, 1)
		}
		row.ChunksEstimated += (left + per - 1) / per
	}
	return row
}

func perSecond(rows uint64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return float64(rows) / d.Seconds()
}
