package capture

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture/pgoutput"
)

// decode handles one message of pgoutput.
func (s *session) decode(ctx context.Context, data []byte) error {
	if s.streams.block != nil {
		return s.streamMessage(data)
	}
	m := &s.msg
	if err := pgoutput.Decode(data, m); err != nil {
		return fmt.Errorf("decode after %s: %w", s.view.clear, err)
	}
	switch m.Kind {
	case pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete:
		return s.row(ctx, m)
	case pgoutput.KindBegin:
		return s.begin(ctx, m)
	case pgoutput.KindCommit:
		return s.commit(m)
	case pgoutput.KindRelation:
		s.relation(m, s.nextRelation())
	case pgoutput.KindTruncate:
		return s.truncated(ctx, m)
	case pgoutput.KindStreamStart:
		return s.streamStart(m)
	case pgoutput.KindStreamCommit:
		return s.streamCommit(ctx, m)
	case pgoutput.KindStreamAbort:
		return s.streamAbort(m)
	case pgoutput.KindStreamStop:
		return fmt.Errorf("decode %s: no stream is open, after %s", m.Kind, s.began)
	case pgoutput.KindType, pgoutput.KindOrigin, pgoutput.KindMessage:
		// Types are looked up in the catalog, origins do not matter, and messages
		// are not asked for.
	}
	return nil
}

func (s *session) begin(ctx context.Context, m *pgoutput.Message) error {
	commit := cdc.LSN(m.LSN)
	if s.out.InTransaction() || commit <= s.began {
		return fmt.Errorf("decode begin: transaction at %s inside or after the one at %s", commit, s.began)
	}
	if err := s.witness.begin(commit); err != nil {
		return err
	}
	s.began, s.touched, s.left, s.xid = commit, false, 0, m.XID
	s.view.open = true
	if err := s.switchFilter(ctx, commit); err != nil {
		return err
	}
	s.desk.begin(m)
	s.out.Begin(commit, m.Time+epoch2000, m.XID)
	return nil
}

// switchFilter makes sure that the transaction is counted by the right set of tables,
// and that the set is remembered before it counts.
func (s *session) switchFilter(ctx context.Context, commit cdc.LSN) error {
	s.c.mu.Lock()
	wanted, version := s.c.tables, s.c.tablesVersion
	s.c.mu.Unlock()
	f := s.record.filterAt(commit)
	if f == s.filter && version == s.version {
		return nil
	}
	// A transaction that the stream may hold in part is counted as it was.
	if commit > s.tail.Commit {
		if !slices.Equal(f.Tables, wanted) {
			if err := s.record.update(ctx, func(id *identity) { id.setFilter(wanted, commit, 0) }); err != nil {
				return err
			}
			f = s.record.filterAt(commit)
			s.c.log.InfoContext(ctx, "tables changed", "since", commit, "tables", len(wanted))
		}
		s.version = version
		s.desk.expect(wanted)
	}
	s.filter = f
	return nil
}

func (s *session) commit(m *pgoutput.Message) error {
	if !s.out.InTransaction() || cdc.LSN(m.LSN) != s.began {
		return fmt.Errorf("decode commit: of the transaction at %s, the open one is at %s", cdc.LSN(m.LSN), s.began)
	}
	end := cdc.LSN(m.EndLSN)
	s.starting()
	s.out.Commit(end)
	s.desk.commit()
	s.view.open = false
	s.view.clear = max(s.view.clear, end)
	if s.touched {
		s.view.pending = max(s.view.pending, end)
		s.count.transactions++
	}
	return nil
}

// starting notes when the first record of a frame is written.
func (s *session) starting() {
	if s.out.Empty() {
		s.frameSince = time.Now()
	}
}

// change finds out whether the next change of the transaction is to be written; it may
// be in the stream already.
func (s *session) change(ctx context.Context) (bool, error) {
	s.touched, s.active = true, true
	if s.left > 0 {
		// Those have their ordinals, and a frame has none that is missing inside.
		if !s.out.Empty() {
			if err := s.publish(ctx); err != nil {
				return false, err
			}
		}
		for ; s.left > 0; s.left-- {
			s.out.Skip()
		}
	}
	// A transaction that the stream has the end of is there as a whole, also if some
	// of its changes were left out.
	if s.out.Next().After(s.tail) && s.began >= s.tailEnd {
		s.starting()
		return true, nil
	}
	s.out.Skip()
	s.count.skipped++
	return false, nil
}

func (s *session) row(ctx context.Context, m *pgoutput.Message) error {
	t, err := s.table(m.Relation, m.Kind)
	if err != nil || !t.tracked {
		return err
	}
	if t.schema == nil {
		if err := s.describe(ctx, t); err != nil {
			return err
		}
	}
	if s.desk.has(t) {
		s.left++
		return nil
	}
	if fresh, err := s.change(ctx); err != nil || !fresh {
		return err
	}
	s.count.rows++
	switch m.Kind {
	case pgoutput.KindInsert:
		err = s.insert(t, m)
	case pgoutput.KindUpdate:
		err = s.update(t, m)
	default:
		err = s.remove(t, m)
	}
	if err == nil {
		s.desk.touch(t, m)
	}
	return err
}

// table returns the table of a change.
func (s *session) table(oid uint32, kind pgoutput.Kind) (*table, error) {
	if !s.out.InTransaction() {
		return nil, fmt.Errorf("decode %s: outside of a transaction, after the one at %s", kind, s.began)
	}
	t := s.last
	if t == nil || t.relation.oid != oid {
		if t = s.tables[oid]; t == nil {
			return nil, fmt.Errorf("decode %s: the server has not described the table with oid %d", kind, oid)
		}
		s.last = t
	}
	if t.filter != s.filter {
		t.filter, t.tracked = s.filter, s.filter.has(t.name)
	}
	return t, nil
}

// truncated writes a truncate of those tables that are configured.
func (s *session) truncated(ctx context.Context, m *pgoutput.Message) error {
	s.truncate = s.truncate[:0]
	var copied bool
	for i := range m.Relations.Len() {
		t, err := s.table(m.Relations.At(i), m.Kind)
		if err != nil {
			return err
		}
		if !t.tracked {
			continue
		}
		if t.schema == nil {
			if err := s.describe(ctx, t); err != nil {
				return err
			}
		}
		if s.desk.has(t) {
			copied = true
			continue
		}
		s.desk.emptied(t)
		s.truncate = append(s.truncate, t.schema)
	}
	switch {
	case len(s.truncate) == 0 && copied:
		s.left++
		return nil
	case len(s.truncate) == 0:
		return nil
	}
	if fresh, err := s.change(ctx); err != nil || !fresh {
		return err
	}
	s.count.truncates++
	s.out.Truncate(m.Flags, s.truncate)
	return nil
}

// relation takes the description of a table. The schema is made when a change needs it:
// most tables of a publication may be of no interest.
func (s *session) relation(m *pgoutput.Message, order uint64) {
	t := &table{order: order, name: Table{Schema: string(m.Namespace), Name: string(m.Name)}}
	if t.name.Schema == "" {
		t.name.Schema = "pg_catalog"
	}
	if name, ok := s.oids[m.Relation]; ok {
		// Whatever it is called in this part of the log.
		t.name = name
	}
	t.relation = relation{oid: m.Relation, table: t.name, identity: m.ReplicaIdentity}
	for columns := m.Columns; ; {
		col, ok := columns.Next()
		if !ok {
			break
		}
		t.relation.columns = append(t.relation.columns, relationColumn{name: string(col.Name), identity: col.Identity, oid: col.OID, mod: col.Mod})
	}
	s.last = nil
	s.desk.described(t)
	// Also when it repeats what was known: it comes after an invalidation, and what
	// the catalog adds, a primary key for example, may have changed.
	s.tables[m.Relation] = t
}

// keyMask tells which columns are part of the key.
func keyMask(schema *cdc.Schema) []bool {
	mask := make([]bool, len(schema.Columns))
	for _, k := range schema.Key {
		mask[k] = true
	}
	return mask
}
