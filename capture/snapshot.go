package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
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
	// Workers is how many tables are copied at a time. If it falls, those that are
	// too many leave their tables after the next chunk. Defaults to 2.
	Workers int
	// ChunkRows is how many rows are read at a time; fewer if they are large, so
	// that 16 MiB hold them. Defaults to 50,000.
	ChunkRows int
	// Rate bounds the rows per second of all tables together. Negative, and the
	// default, is no bound.
	Rate int
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
	due      time.Time // when the rate allows to read on
	room     room
	working  int // tables that workers have
	halted   bool
}

func newSnapshots(c *Capture) *snapshots {
	return &snapshots{
		c: c, wake: make(chan struct{}, 1), room: room{bytes: roomLeast},
		settings: SnapshotSettings{Workers: c.cfg.SnapshotWorkers, ChunkRows: c.cfg.SnapshotChunkRows, Rate: c.cfg.SnapshotRate},
	}
}

func (c *Config) snapshotDefaults() {
	c.Snapshot = cmp.Or(c.Snapshot, SnapshotNever)
	c.SnapshotWorkers = cmp.Or(c.SnapshotWorkers, 2)
	c.SnapshotChunkRows = cmp.Or(c.SnapshotChunkRows, 50_000)
	c.SnapshotBacklog = cmp.Or(c.SnapshotBacklog, 256<<20)
}

func (c *Config) validateSnapshot() error {
	switch {
	case !slices.Contains([]SnapshotMode{SnapshotInitial, SnapshotNever, SnapshotOnly}, c.Snapshot):
		return fmt.Errorf("snapshot %q: want initial, never or only", c.Snapshot)
	case c.SnapshotWorkers < 1 || c.SnapshotChunkRows < 1 || c.SnapshotBacklog < 1:
		return errors.New("snapshot workers, chunk rows and backlog must be positive")
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
			s.join(wanted, joining{state: CopyNone})
		case id == nil:
			s.join(wanted, joining{state: CopyWaiting})
		default:
			if !known {
				// A pipeline that has run without copying.
				s.join(id.Published, joining{state: CopyNone})
			}
			s.join(wanted, joining{state: CopyWaiting, joined: true, former: id.Former})
		}
		for _, t := range s.Tables {
			t.identify(st.oid(t.Table))
		}
	})
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
		s.join(wanted, joining{state: CopyNone})
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
