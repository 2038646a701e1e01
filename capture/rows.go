package capture

import (
	"bytes"
	"fmt"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture/pgoutput"
)

// insert writes an inserted row.
func (s *session) insert(t *table, m *pgoutput.Message) error {
	if err := t.width(m.New); err != nil {
		return err
	}
	s.out.Insert(t.schema)
	s.out.StartTuple(m.New.Len())
	for tuple := m.New; ; {
		kind, value, ok := tuple.Next()
		if !ok {
			return nil
		}
		s.value(kind, value)
	}
}

// update writes an updated row. Values that the server did not repeat are taken from
// the old row where it sent one; the old key is written only if it differs.
func (s *session) update(t *table, m *pgoutput.Message) error {
	if err := t.width(m.New); err != nil {
		return err
	}
	old := cdc.OldNone
	if m.OldKind != pgoutput.OldNone {
		if err := t.width(m.Old); err != nil {
			return err
		}
		if t.keyDiffers(m) {
			old = cdc.OldKey
		}
	}
	if err := t.checkKey(m.New, m.Old, m.OldKind); err != nil {
		return err
	}
	if s.desk.loose(t, m) {
		s.out.LooseUpdate(t.schema, old)
	} else {
		s.out.Update(t.schema, old)
	}
	if old == cdc.OldKey {
		s.keyTuple(t, m.Old)
	}
	s.out.StartTuple(m.New.Len())
	for i, fresh, was := 0, m.New, m.Old; ; i++ {
		kind, value, ok := fresh.Next()
		if !ok {
			return nil
		}
		wasKind, wasValue, _ := was.Next()
		if kind == pgoutput.Unchanged && t.fills(m, i) {
			kind, value = wasKind, wasValue
		}
		s.value(kind, value)
	}
}

// fills reports whether the old tuple has the value of a column.
func (t *table) fills(m *pgoutput.Message, i int) bool {
	return m.OldKind == pgoutput.OldRow || m.OldKind == pgoutput.OldKey && t.isKey[i]
}

// remove writes a deleted row.
func (s *session) remove(t *table, m *pgoutput.Message) error {
	if err := t.width(m.Old); err != nil {
		return err
	}
	if err := t.checkKey(m.Old, pgoutput.Tuple{}, pgoutput.OldNone); err != nil {
		return err
	}
	if m.OldKind == pgoutput.OldKey {
		s.out.Delete(t.schema, cdc.OldKey)
		s.keyTuple(t, m.Old)
		return nil
	}
	s.out.Delete(t.schema, cdc.OldFull)
	s.out.StartTuple(m.Old.Len())
	for tuple := m.Old; ; {
		kind, value, ok := tuple.Next()
		if !ok {
			return nil
		}
		s.value(kind, value)
	}
}

// keyTuple writes a tuple of the key columns; the others are NULL.
func (s *session) keyTuple(t *table, tuple pgoutput.Tuple) {
	s.out.StartTuple(tuple.Len())
	for i := 0; ; i++ {
		kind, value, ok := tuple.Next()
		if !ok {
			return
		}
		if !t.isKey[i] {
			kind = pgoutput.Null
		}
		s.value(kind, value)
	}
}

func (s *session) value(kind pgoutput.ValueKind, value []byte) {
	switch kind {
	case pgoutput.Text:
		s.out.Text(value)
	case pgoutput.Unchanged:
		s.out.Unchanged()
	default:
		s.out.Null()
	}
}

// width checks that a tuple is of the table that was described last.
func (t *table) width(tuple pgoutput.Tuple) error {
	if tuple.Len() != len(t.schema.Columns) {
		return fmt.Errorf("decode change of %s: a row of %d columns, the table has %d", t.name, tuple.Len(), len(t.schema.Columns))
	}
	return nil
}

// keyDiffers reports whether the old tuple has another key than the new one.
func (t *table) keyDiffers(m *pgoutput.Message) bool {
	for i, fresh, was := 0, m.New, m.Old; ; i++ {
		kind, value, ok := fresh.Next()
		if !ok {
			return false
		}
		wasKind, wasValue, _ := was.Next()
		if !t.isKey[i] || kind == pgoutput.Unchanged {
			continue
		}
		if kind != wasKind || !bytes.Equal(value, wasValue) {
			return true
		}
	}
}

// checkKey refuses a row whose key is not there in full. fill is the old tuple, from
// which an unchanged value can be taken.
func (t *table) checkKey(tuple, fill pgoutput.Tuple, fillKind pgoutput.OldKind) error {
	for i := 0; ; i++ {
		kind, _, ok := tuple.Next()
		if !ok {
			return nil
		}
		fillValue, _, _ := fill.Next()
		if !t.isKey[i] {
			continue
		}
		if kind == pgoutput.Unchanged && fillKind != pgoutput.OldNone {
			kind = fillValue
		}
		if kind != pgoutput.Text {
			return fmt.Errorf("decode change of %s: the server sent no value of key column %q. Run: ALTER TABLE %s REPLICA IDENTITY FULL, then copy the table anew",
				t.name, t.schema.Columns[i].Name, t.name.sqlName())
		}
	}
}
