package starrocks

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

const (
	// movedRowsRead is how many old rows one query asks for.
	movedRowsRead = 100
	// movedBytesMax bounds the one load that all rows that moved are in.
	movedBytesMax = 1 << 30
)

var (
	refuseMoved = &refusal{
		"the row got its key by an update that left large values out, and StarRocks does not have the row with the key before",
		"copy the table anew, and set REPLICA IDENTITY FULL if updates of its key are usual, so that they carry whole rows",
	}
	refuseMovedType = &refusal{
		"the update left the value out, and from a column of this type it cannot be read back exactly",
		"set REPLICA IDENTITY FULL in PostgreSQL, so that updates of the key carry whole rows",
	}
)

// applyMoved delivers the load of the rows whose key has changed while some of their
// values were not sent. These values are read from the old rows, before any load of
// the batch changes those. Whether that has happened the label's state tells; if it is
// forgotten, the audit columns of the new row do.
func (a *applyRun) applyMoved(ctx context.Context, g *group, buffer *[]byte) error {
	s, l := a.sink, a.layout
	label := a.label()
	if err := checkLabel(label); err != nil {
		return err
	}
	state, err := s.settle(ctx, l.table, label)
	if err != nil {
		return fmt.Errorf("read moved rows of %s: %w", l.table, err)
	}
	if state == stateCommitted {
		s.setUnpublished(l.table, label)
	}
	if state.committed() {
		a.committed(int64(len(g.rows)), 0)
		return nil
	}
	if err := s.published(ctx, l.table); err != nil {
		return err
	}
	if state == stateUnknown {
		done, err := a.movedBefore(ctx, g)
		if err != nil {
			return err
		}
		if done {
			a.committed(int64(len(g.rows)), 0)
			return nil
		}
	}
	if err := a.movedBody(ctx, g, buffer); err != nil {
		return err
	}
	a.loads-- // The label is asked for again below, and is the same.
	return a.send(ctx, g, *buffer, int64(len(g.rows)))
}

// movedBefore tells whether the load was committed although its label is forgotten.
// A load is committed as a whole, so one row of it is enough.
func (a *applyRun) movedBefore(ctx context.Context, g *group) (bool, error) {
	for _, i := range g.rows {
		row := &a.batch.Rows[i]
		if len(row.MovedFrom) == 0 {
			continue
		}
		l := a.layout
		condition, err := l.keyCondition([]cdc.Tuple{row.Tuple})
		if err != nil {
			return false, err
		}
		query := fmt.Sprintf("SELECT COUNT(*) FROM %s WHERE %s AND %s = %d AND %s = %s", a.sink.tableName(l.table), condition,
			quoteName(l.audit[3]), int64(row.Position.Commit), //nolint:gosec // As it is written.
			quoteName(l.audit[2]), quoteText(a.batch.SyncedAt.UTC().Format(synced)))
		var n int
		if err := a.sink.db.QueryRowContext(ctx, query).Scan(&n); err != nil {
			return false, fmt.Errorf("read moved rows of %s: %w", l.table, sqlError(err))
		}
		return n > 0, nil
	}
	return false, nil
}

// movedBody makes the body of the load in buffer.
func (a *applyRun) movedBody(ctx context.Context, g *group, buffer *[]byte) error {
	reading := *a.writer
	reading.layout = a.layout.reading()
	body := append((*buffer)[:0], '[')
	add := func(w *writer, row *apply.Row, tuple cdc.Tuple) error {
		if len(body) > 1 {
			body = append(body, ',')
		}
		var refused columnRefusal
		if body, refused = w.append(body, row, tuple, formFull); refused.refusal != nil {
			return a.layout.refused(row, refused)
		}
		*buffer = body
		if len(body) > movedBytesMax {
			return permanent(fmt.Errorf("apply batch %s: the rows of table %s whose key has changed are more than 1 GiB with the values that the updates left out: set REPLICA IDENTITY FULL for such updates, and copy the table anew",
				a.batch.ID, a.layout.schema.Name()))
		}
		return nil
	}
	var moved []int32
	for _, i := range g.rows {
		row := &a.batch.Rows[i]
		if len(row.MovedFrom) > 0 {
			moved = append(moved, i)
			continue
		}
		if err := add(a.writer, row, row.Tuple); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(moved, movedRowsRead) {
		tuples, err := a.fill(ctx, chunk)
		if err != nil {
			return err
		}
		for n, i := range chunk {
			row := &a.batch.Rows[i]
			// The values that were sent are checked as always.
			if _, refused := a.writer.append(nil, row, row.Tuple, formPresent); refused.refusal != nil {
				return a.layout.refused(row, refused)
			}
			if err := add(&reading, row, tuples[n]); err != nil {
				return err
			}
		}
	}
	*buffer = append(body, ']')
	return nil
}

// reading returns the layout for values that come from StarRocks.
func (l *layout) reading() *layout {
	other := *l
	other.columns = slices.Clone(l.columns)
	for i := range other.columns {
		other.columns[i].stored = true
	}
	return &other
}

// fill returns the tuples of rows with the unchanged values of their old rows.
func (a *applyRun) fill(ctx context.Context, rows []int32) ([]cdc.Tuple, error) {
	l := a.layout
	read, err := a.unchangedColumns(rows)
	if err != nil {
		return nil, err
	}
	from := make([]cdc.Tuple, len(rows))
	for n, i := range rows {
		from[n] = a.batch.Rows[i].MovedFrom
	}
	old, err := a.sink.readRows(ctx, l, from, read)
	if err != nil {
		return nil, fmt.Errorf("read moved rows of %s: %w", l.table, err)
	}
	tuples := make([]cdc.Tuple, len(rows))
	for n, i := range rows {
		row := &a.batch.Rows[i]
		key, err := l.sinkKey(row.MovedFrom)
		if err != nil {
			return nil, err
		}
		values, ok := old[key]
		if !ok {
			return nil, l.refused(row, columnRefusal{refuseMoved, -1})
		}
		tuples[n] = complete(row.Tuple, values, len(l.columns))
	}
	return tuples, nil
}

// complete replaces the unchanged values of a tuple; values are by column.
func complete(tuple cdc.Tuple, values []sql.NullString, columns int) cdc.Tuple {
	var out cdc.Tuple
	for i := range columns {
		v, rest, _ := tuple.Next()
		tuple = rest
		if v.Kind == cdc.Unchanged {
			v = cdc.Value{Kind: cdc.Null}
			if values[i].Valid {
				v = cdc.Value{Kind: cdc.Text, Bytes: []byte(values[i].String)}
			}
		}
		out = out.AppendValue(v)
	}
	return out
}

// unchangedColumns lists the columns that at least one of the rows lacks.
func (a *applyRun) unchangedColumns(rows []int32) ([]int, error) {
	l := a.layout
	need := make([]bool, len(l.columns))
	for _, n := range rows {
		row := &a.batch.Rows[n]
		tuple := row.Tuple
		for i := range l.columns {
			v, rest, ok := tuple.Next()
			if !ok {
				return nil, l.refused(row, columnRefusal{refuseSyntax, i})
			}
			tuple = rest
			if v.Kind != cdc.Unchanged {
				continue
			}
			switch l.columns[i].how {
			case encodeText, encodeDecimal, encodeInt, encodeLargeInt, encodeJSON:
				need[i] = true
			default:
				return nil, l.refused(row, columnRefusal{refuseMovedType, i})
			}
		}
	}
	var read []int
	for i, needed := range need {
		if needed {
			read = append(read, i)
		}
	}
	return read, nil
}

// readRows reads the rows with the keys of the tuples that are not deleted. The values
// are by column, those of columns that were not asked for unset.
func (s *Sink) readRows(ctx context.Context, l *layout, keys []cdc.Tuple, read []int) (map[string][]sql.NullString, error) {
	condition, err := l.keyCondition(keys)
	if err != nil {
		return nil, err
	}
	columns := append(slices.Clone(l.key), read...)
	names := make([]string, len(columns))
	for n, i := range columns {
		names[n] = quoteName(l.columns[i].name)
	}
	query := "SELECT " + strings.Join(names, ", ") + " FROM " + s.tableName(l.table) + " WHERE (" + condition + ")"
	if s.config.DeleteMode == DeleteSoft {
		deleted := quoteName(l.audit[1])
		query += " AND (" + deleted + " = false OR " + deleted + " IS NULL)"
	}
	result, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return nil, sqlError(err)
	}
	defer result.Close()
	rows := map[string][]sql.NullString{}
	for result.Next() {
		values := make([]sql.NullString, len(l.columns))
		into := make([]any, len(columns))
		for n, i := range columns {
			into[n] = &values[i]
		}
		if err := result.Scan(into...); err != nil {
			return nil, sqlError(err)
		}
		var key strings.Builder
		for _, i := range l.key {
			addKeyText(&key, l.columns[i].canonicalStored(values[i].String))
		}
		rows[key.String()] = values
	}
	return rows, sqlError(errors.Join(result.Err(), result.Close()))
}

// keyCondition is true in SQL for the rows with the keys of the tuples.
func (l *layout) keyCondition(keys []cdc.Tuple) (string, error) {
	conditions := make([]string, len(keys))
	for n, tuple := range keys {
		values, err := l.keyValues(tuple)
		if err != nil {
			return "", err
		}
		parts := make([]string, len(l.key))
		for k, i := range l.key {
			parts[k] = quoteName(l.columns[i].name) + " = " + l.columns[i].literal(values[k])
		}
		conditions[n] = "(" + strings.Join(parts, " AND ") + ")"
	}
	return strings.Join(conditions, " OR "), nil
}

// keyValues returns the texts of the key's columns, checked as any value is.
func (l *layout) keyValues(tuple cdc.Tuple) ([][]byte, error) {
	values := make([][]byte, len(l.key))
	var scratch []byte
	original := tuple
	for i := range l.columns {
		v, rest, ok := tuple.Next()
		if !ok {
			return nil, fmt.Errorf("read key of table %s: the tuple has %d of %d columns", l.schema.Name(), i, len(l.columns))
		}
		tuple = rest
		c := &l.columns[i]
		if !c.key {
			continue
		}
		r := refuseNull
		if v.Kind == cdc.Text {
			scratch, r = c.appendValue(scratch[:0], v.Bytes, nil)
		}
		if r != nil {
			return nil, l.refused(&apply.Row{Tuple: original}, columnRefusal{r, i})
		}
		values[slices.Index(l.key, i)] = v.Bytes
	}
	return values, nil
}

// sinkKey returns a text that is equal for two tuples if StarRocks has one row for both.
func (l *layout) sinkKey(tuple cdc.Tuple) (string, error) {
	values, err := l.keyValues(tuple)
	if err != nil {
		return "", err
	}
	var key strings.Builder
	for k, i := range l.key {
		addKeyText(&key, l.columns[i].canonical(values[k]))
	}
	return key.String(), nil
}

func addKeyText(key *strings.Builder, text string) {
	key.WriteString(strconv.Itoa(len(text)))
	key.WriteByte(':')
	key.WriteString(text)
}

// canonical returns the text of a key's value as StarRocks has it.
func (c *column) canonical(v []byte) string {
	switch c.how {
	case encodeNumericKey:
		v = canonicalNumeric(v)
	case encodeCharKey:
		v = trimBlanks(v)
	case encodeUTC, encodeDateTime:
		v = canonicalNumeric(bytes.TrimSuffix(v, []byte("+00")))
	case encodeBool:
		return map[bool]string{true: "1", false: "0"}[string(v) == "t"]
	default: // Stored as it is.
	}
	return string(v)
}

// canonicalStored does the same for the text that a query returns.
func (c *column) canonicalStored(text string) string {
	switch c.how {
	case encodeUTC, encodeDateTime:
		return string(canonicalNumeric([]byte(text)))
	case encodeBool:
		return map[bool]string{true: "1", false: "0"}[text == "1" || strings.EqualFold(text, "true")]
	default: // Stored as it is.
	}
	return text
}

// literal prints a checked value of the key for SQL.
func (c *column) literal(v []byte) string {
	text := c.canonical(v)
	switch c.how {
	case encodeInt, encodeLargeInt:
		return text
	case encodeBool:
		return strconv.FormatBool(text == "1")
	default: // A text.
	}
	return quoteText(text)
}
