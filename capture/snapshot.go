package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// SnapshotMode says which existing rows are copied by themselves.
type SnapshotMode string

// The modes.
const (
	// SnapshotInitial copies the tables of a new pipeline and those that are added
	// later.
	SnapshotInitial SnapshotMode = "initial"
	// SnapshotNever copies only what StartSnapshot asks for.
	SnapshotNever SnapshotMode = "never"
	// SnapshotOnly is SnapshotInitial for who stops when everything is copied; see
	// SnapshotStatus.Done.
	SnapshotOnly SnapshotMode = "only"
)

// SnapshotSettings are those that can change while rows are copied. Zero leaves a value
// as it is.
type SnapshotSettings struct {
	// Workers is how many tables are copied at a time. Defaults to 2.
	Workers int
	// ChunkRows is how many rows are read at a time; fewer if they are large, so
	// that 16 MiB hold them. Defaults to 50,000.
	ChunkRows int
	// Rate bounds the rows per second of all tables together. Negative, and the
	// default, is no bound.
	Rate int
}

// SnapshotStatus is a moment of the copying of existing rows.
type SnapshotStatus struct {
	// Active tells that there is something to copy, Paused that it is to wait, Done
	// that everything that was asked for is in the stream.
	Active, Paused, Done bool
	// Detail says what the copying waits for, empty if it does not.
	Detail string
	Tables []SnapshotTable
}

// SnapshotTable is the progress of one table. The estimates are those of the server's
// statistics and may be far off.
type SnapshotTable struct {
	Table                       string
	State                       CopyState
	RowsDone, RowsEstimated     uint64
	BytesDone                   uint64
	ChunksDone, ChunksEstimated uint64
	// Error is that of the last attempt, which is repeated.
	Error             string
	Started, Finished time.Time
}

// snapshots is what capture knows of the copying of existing rows.
type snapshots struct {
	c      *Capture
	wake   chan struct{} // to the workers: something has changed
	saving sync.Mutex    // held by update

	mu       sync.Mutex
	state    *snapshotState // nil until it is loaded, or if nothing was ever copied
	revision uint64
	settings SnapshotSettings
	detail   string
}

func newSnapshots(c *Capture) *snapshots {
	return &snapshots{
		c: c, wake: make(chan struct{}, 1),
		settings: SnapshotSettings{Workers: c.cfg.SnapshotWorkers, ChunkRows: c.cfg.SnapshotChunkRows, Rate: c.cfg.SnapshotRate},
	}
}

func (c *Config) snapshotDefaults() {
	c.Snapshot = cmp.Or(c.Snapshot, SnapshotNever)
	c.SnapshotWorkers = cmp.Or(c.SnapshotWorkers, 2)
	c.SnapshotChunkRows = cmp.Or(c.SnapshotChunkRows, 50_000)
}

func (c *Config) validateSnapshot() error {
	switch {
	case !slices.Contains([]SnapshotMode{SnapshotInitial, SnapshotNever, SnapshotOnly}, c.Snapshot):
		return fmt.Errorf("snapshot %q: want initial, never or only", c.Snapshot)
	case c.SnapshotWorkers < 1 || c.SnapshotChunkRows < 1:
		return errors.New("snapshot workers and chunk rows must be positive")
	case c.Snapshot != SnapshotNever && c.SnapshotStore == nil:
		return errors.New("a snapshot needs a place to keep its state in")
	}
	return nil
}

// plan decides what is to be copied, before capture remembers that it was here: a
// pipeline whose first start ends in between must still be a new one.
func (n *snapshots) plan(ctx context.Context, st *start, p *place) error {
	if n.c.cfg.SnapshotStore == nil {
		return nil
	}
	if err := n.load(ctx); err != nil {
		return err
	}
	id, wanted := st.record.get(), n.c.Tables()
	n.mu.Lock()
	known := n.state != nil
	n.mu.Unlock()
	if n.c.cfg.Snapshot == SnapshotNever && !known {
		return nil
	}
	have := p.tail.Last
	if cp, ok := n.c.progress.Checkpoint(); ok && cp.Position.After(have) {
		have = cp.Position
	}
	return n.update(ctx, func(s *snapshotState) {
		for _, t := range s.Tables {
			t.lose(have)
		}
		switch {
		case n.c.cfg.Snapshot == SnapshotNever:
			s.join(wanted, CopyNone, false)
		case !known && id == nil:
			s.join(wanted, CopyWaiting, false)
		case !known:
			// A pipeline that has run without copying.
			s.join(id.Published, CopyNone, false)
			s.join(wanted, CopyWaiting, true)
		default:
			s.join(wanted, CopyWaiting, true)
		}
	})
}

// join takes tables in that are wanted since.
func (n *snapshots) join(ctx context.Context) error {
	n.mu.Lock()
	known := n.state != nil
	n.mu.Unlock()
	if !known {
		return nil
	}
	state := CopyWaiting
	if n.c.cfg.Snapshot == SnapshotNever {
		state = CopyNone
	}
	wanted := n.c.Tables()
	return n.update(ctx, func(s *snapshotState) { s.join(wanted, state, true) })
}

// StartSnapshot copies the existing rows of tables, all of the captured ones if none is
// given, from the start, also those that were copied before. It returns once that is
// remembered. Rows that only the sink has stay there.
func (c *Capture) StartSnapshot(ctx context.Context, tables []Table) error {
	if c.cfg.SnapshotStore == nil {
		return errors.New("start snapshot: there is no place to keep its state in")
	}
	wanted := c.Tables()
	for _, t := range tables {
		if !slices.Contains(wanted, t) {
			return setupProblem("start snapshot: table %s is not captured. Add it to the tables of the pipeline first", t)
		}
	}
	if len(tables) == 0 {
		tables = wanted
	}
	n := c.snapshots
	c.mu.Lock()
	ready := c.record != nil
	c.mu.Unlock()
	if !ready {
		return fmt.Errorf("start snapshot: %w", errNotReady)
	}
	return n.update(ctx, func(s *snapshotState) {
		s.join(wanted, CopyNone, false)
		s.Paused = false
		for _, t := range tables {
			// A worker that has the one before notices, and leaves it.
			i := slices.IndexFunc(s.Tables, func(c *tableCopy) bool { return c.Table == t })
			s.Tables[i] = &tableCopy{Table: t, State: CopyWaiting, Joined: true}
		}
	})
}

// PauseSnapshot lets the copying wait after the chunk that is being read. The changes
// go on.
func (c *Capture) PauseSnapshot(ctx context.Context) error { return c.snapshots.pause(ctx, true) }

// ResumeSnapshot is the inverse of PauseSnapshot.
func (c *Capture) ResumeSnapshot(ctx context.Context) error { return c.snapshots.pause(ctx, false) }

func (n *snapshots) pause(ctx context.Context, on bool) error {
	n.mu.Lock()
	known := n.state != nil
	n.mu.Unlock()
	if !known {
		return errors.New("pause or resume the snapshot: there is none")
	}
	return n.update(ctx, func(s *snapshotState) { s.Paused = on })
}

// SetSnapshot changes settings from the next chunk on.
func (c *Capture) SetSnapshot(s SnapshotSettings) {
	n := c.snapshots
	n.mu.Lock()
	n.settings = SnapshotSettings{
		Workers: cmp.Or(s.Workers, n.settings.Workers), ChunkRows: cmp.Or(s.ChunkRows, n.settings.ChunkRows), Rate: cmp.Or(s.Rate, n.settings.Rate),
	}
	n.mu.Unlock()
	notify(n.wake)
}

// status describes the copying.
func (n *snapshots) status() (s SnapshotStatus) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.state == nil {
		return s
	}
	s.Paused, s.Detail, s.Done = n.state.Paused, n.detail, true
	for _, t := range n.state.Tables {
		m := t.last()
		row := SnapshotTable{
			Table: t.Table.String(), State: t.State, RowsDone: m.Rows, RowsEstimated: max(t.Estimate, m.Rows), BytesDone: m.Bytes,
			ChunksDone: m.Chunks, ChunksEstimated: m.Chunks, Error: t.err, Started: t.Started, Finished: t.Finished,
		}
		if t.open() {
			s.Active, s.Done = true, false
			if left := row.RowsEstimated - m.Rows; left > 0 && !m.Ended {
				per := uint64(n.settings.ChunkRows) //nolint:gosec // Positive.
				if m.Chunks > 0 {
					per = max(m.Rows/m.Chunks, 1)
				}
				row.ChunksEstimated += (left + per - 1) / per
			}
		}
		s.Tables = append(s.Tables, row)
	}
	return s
}

func (n *snapshots) say(detail string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.detail = detail
}

// applied is how far the sink is.
func (n *snapshots) applied() cdc.Position {
	cp, _ := n.c.progress.Checkpoint()
	return cp.Position
}
