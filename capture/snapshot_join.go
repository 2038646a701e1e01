package capture

import (
	"context"
	"slices"
)

// joining says how tables join.
type joining struct {
	state CopyState
	// joined tells that they were not published before.
	joined bool
	// former are tables whose rows in the sink are out of date.
	former []Table
}

// join adds tables that are not known, drops those that are not wanted, and lets all begin.
func (s *snapshotState) join(wanted []Table, j joining) {
	want, known := make(map[Table]bool, len(wanted)), make(map[Table]bool, len(s.Tables))
	for _, t := range wanted {
		want[t] = true
	}
	s.Tables = slices.DeleteFunc(s.Tables, func(c *tableCopy) bool { return !want[c.Table] })
	for _, c := range s.Tables {
		known[c.Table], c.held = true, false
	}
	for _, t := range wanted {
		if known[t] {
			continue
		}
		known[t] = true
		c := &tableCopy{Table: t, State: j.state, Joined: j.joined}
		if slices.Contains(j.former, t) && j.state != CopyNone {
			c.Empty = true
		}
		s.Tables = append(s.Tables, c)
	}
}

// copies tells that tables which join are copied.
func (n *snapshots) copies() bool {
	return n.c.cfg.SnapshotStore != nil && n.c.cfg.Snapshot != SnapshotNever
}

// join takes tables in that are wanted since.
func (n *snapshots) join(ctx context.Context, id *identity) error {
	n.mu.Lock()
	known := n.state != nil
	n.mu.Unlock()
	if !known {
		return nil
	}
	j := joining{state: CopyWaiting, joined: true, former: id.Former}
	if n.c.cfg.Snapshot == SnapshotNever {
		j.state = CopyNone
	}
	wanted := n.c.Tables()
	return n.update(ctx, func(s *snapshotState) { s.join(wanted, j) })
}

// expect makes sure that tables which are wanted since are known as ones that the sink may
// lack rows of, before their first change.
func (d *desk) expect(wanted []Table) {
	if d == nil {
		return
	}
	d.n.mu.Lock()
	defer d.n.mu.Unlock()
	if d.n.state == nil {
		return
	}
	known := make(map[Table]*tableCopy, len(d.n.state.Tables))
	for _, c := range d.n.state.Tables {
		known[c.Table] = c
	}
	for _, t := range wanted {
		c := known[t]
		switch {
		case d.tables[t] != nil:
			continue
		case c == nil && d.n.copies():
			c = &tableCopy{Table: t} // Until it joins.
		case c == nil || !c.open():
			continue
		}
		d.tables[t] = &deskTable{copied: c}
		d.version++
	}
}
