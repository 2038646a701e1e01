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
		copyAnewHint,
	}
	refuseMovedType = &refusal{
		"the update left the value out, and from a column of this type it cannot be read back exactly",
		"set REPLICA IDENTITY FULL in PostgreSQL, so that updates of the key carry whole rows",
	}
)

// applyMoved delivers the load of the rows whose key has changed while some of their
// values were not sent. These values are read from the old rows, before any load of
// the batch changes those. Whether that has happened the label's state tells; if it is
// forgotten, or was another one, the audit columns of the new rows do.
func (a *applyRun) applyMoved(ctx context.Context, g *group, buffer *[]byte) error {
	s, l := a.sink, a.layout
	r := &request{table: l.table, label: a.label(), rows: int64(len(g.rows)), missing: a.lookFor(g.rows)}
	if err := checkLabel(r.label); err != nil {
		return err
	}
	state, err := s.settle(ctx, l.table, r.label)
	if err != nil {
		return fmt.Errorf("read moved rows of %s: %w", l.table, err)
	}
	done, err := s.resolved(ctx, r, state)
	if err != nil {
		return err
	}
	if done {
		a.committed(r.rows, 0)
		return nil
	}
	conn, err := s.reading(ctx, l.table)
	if err != nil {
		return fmt.Errorf("read moved rows of %s: %w", l.table, err)
	}
	defer conn.Close()
	// A part of a batch that was refused has another label, so that an aborted one
	// tells nothing either.
	rows, err := a.movedLeft(ctx, conn, g)
	if err != nil {
		return fmt.Errorf("read moved rows of %s: %w", l.table, err)
	}
	if len(rows) == 0 {
		a.committed(r.rows, 0)
		return nil
	}
	body, err := a.movedBody(ctx, conn, rows, buffer)
	if err != nil {
		return err
	}
	a.loads-- // The label is asked for again below, and is the same.
	return a.send(ctx, g, body, rows)
}

// movedLeft returns the rows of the group that are still to be loaded. If a row that moved
// has what the batch gives it, a load was committed, and what it lacked is left: all rows
// that moved but this one, if they were in none, or what StarRocks has left out.
func (a *applyRun) movedLeft(ctx context.Context, conn *sql.Conn, g *group) ([]int32, error) {
	var moved, optional []int32
	for _, i := range g.rows {
		switch row := &a.batch.Rows[i]; {
		case !a.reads(row):
		case row.Optional:
			optional = append(optional, i)
		default:
			moved = append(moved, i)
		}
	}
	if len(moved) == 0 {
		moved = optional
	}
	for _, i := range moved {
		if _, err := a.layout.keyValues(a.batch.Rows[i].Tuple); err != nil {
			return nil, a.numbered(int(i), err)
		}
	}
	lacking, err := a.without(ctx, conn, moved, a.madeByBatch())
	if err != nil || len(lacking) == len(moved) {
		return g.rows, err
	}
	absent, err := a.absent(ctx, conn, g.rows)
	if err != nil {
		return nil, err
	}
	return absent, a.readable(ctx, conn, absent)
}

// movedBody makes the body of the load of these rows in buffer.
func (a *applyRun) movedBody(ctx context.Context, conn *sql.Conn, rows []int32, buffer *[]byte) ([]byte, error) {
	body := a.movedWriter(buffer)
	var moved, optional []int32
	for _, i := range rows {
		switch row := &a.batch.Rows[i]; {
		case row.Optional && a.reads(row):
			optional = append(optional, i)
		case a.reads(row):
			moved = append(moved, i)
		default:
			if err := body.add(a.writer, i, row, row.Tuple); err != nil {
				return nil, err
			}
		}
	}
	for chunk := range slices.Chunk(moved, movedRowsRead) {
		tuples, err := a.fill(ctx, conn, chunk)
		if err != nil {
			return nil, err
		}
		for n, i := range chunk {
			if err := body.addRead(i, tuples[n]); err != nil {
				return nil, err
			}
		}
	}
	if err := body.addOptional(ctx, conn, optional); err != nil {
		return nil, err
	}
	return body.end(), nil
}

// movedBody is the body of the one load that all rows that moved are in.
type movedBody struct {
	*applyRun
	reading *writer
	buffer  *[]byte
	body    []byte
	rows    []int32 // of the batch that are in body
}

func (a *applyRun) movedWriter(buffer *[]byte) *movedBody {
	reading := *a.writer
	reading.layout = a.layout.reading()
	return &movedBody{applyRun: a, reading: &reading, buffer: buffer, body: append((*buffer)[:0], '[')}
}

func (m *movedBody) add(w *writer, i int32, row *apply.Row, tuple cdc.Tuple) error {
	if len(m.rows) > 0 {
		m.body = append(m.body, ',')
	}
	var refused columnRefusal
	if m.body, refused = w.append(m.body, row, tuple, formFull); refused.refusal != nil {
		return m.refused(int(i), refused)
	}
	m.rows = append(m.rows, i)
	*m.buffer = m.body
	if len(m.body) > movedBytesMax {
		return permanent(fmt.Errorf("apply batch %s: the rows of table %s whose key has changed are more than 1 GiB with the values that the updates left out: set REPLICA IDENTITY FULL for such updates, and copy the table anew",
			m.batch.ID, m.layout.schema.Name()))
	}
	return nil
}

// addRead adds a row that was completed with values of StarRocks.
func (m *movedBody) addRead(i int32, tuple cdc.Tuple) error {
	// The values that were sent are checked as always.
	row := &m.batch.Rows[i]
	if _, refused := m.writer.append(nil, row, row.Tuple, formPresent); refused.refusal != nil {
		return m.refused(int(i), refused)
	}
	return m.add(m.reading, i, row, m.layout.settled(row.Tuple, tuple, &m.writer.scratch))
}

func (m *movedBody) end() []byte {
	m.body = append(m.body, ']')
	*m.buffer = m.body
	return m.body
}

// reading returns the layout for values that come from StarRocks.
func (l *layout) reading() *layout {
	other := *l
	other.columns = slices.Clone(l.columns)
	for i := range other.columns {
		other.columns[i].stored, other.columns[i].nulls = true, false
	}
	return &other
}

// fill returns the tuples of rows with the unchanged values of their old rows.
func (a *applyRun) fill(ctx context.Context, conn *sql.Conn, rows []int32) ([]cdc.Tuple, error) {
	tuples, err := a.completed(ctx, conn, rows, a.sink.notDeleted(a.layout))
	if err != nil {
		return nil, err
	}
	if n := slices.IndexFunc(tuples, func(t cdc.Tuple) bool { return t == nil }); n >= 0 {
		return nil, a.refused(int(rows[n]), columnRefusal{refuseMoved, -1})
	}
	return tuples, nil
}

// completed is fill for old rows for which the extra condition is true. The tuple of a row
// without one is nil.
func (a *applyRun) completed(ctx context.Context, conn *sql.Conn, rows []int32, extra string) ([]cdc.Tuple, error) {
	l := a.layout
	read, err := a.unchangedColumns(rows)
	if err != nil {
		return nil, err
	}
	from := make([]cdc.Tuple, len(rows))
	keys := make([]string, len(rows))
	for n, i := range rows {
		from[n] = a.batch.Rows[i].MovedFrom
		if keys[n], err = l.sinkKey(from[n]); err != nil {
			return nil, a.movedError(int(i), err)
		}
	}
	old, err := a.readRows(ctx, conn, from, read, extra)
	if err != nil {
		return nil, fmt.Errorf("read moved rows of %s: %w", l.table, err)
	}
	tuples := make([]cdc.Tuple, len(rows))
	for n, i := range rows {
		if stored, ok := old[keys[n]]; ok {
			tuples[n] = complete(a.batch.Rows[i].Tuple, stored.values, len(l.columns))
		}
	}
	return tuples, nil
}

// movedError names the row of the batch in an error about the key that it had before.
func (a *applyRun) movedError(i int, err error) error {
	if e, ok := errors.AsType[*apply.RowError](err); ok {
		e.Reason = "the row moved from the key " + e.Key + ", under which StarRocks would have what the update left out: " + e.Reason
		e.Key = a.layout.rowText(&a.batch.Rows[i])
	}
	return a.numbered(i, err)
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
				return nil, a.refused(int(n), columnRefusal{refuseSyntax, i})
			}
			tuple = rest
			if v.Kind != cdc.Unchanged {
				continue
			}
			switch l.columns[i].how {
			case encodeText, encodeDecimal, encodeInt, encodeLargeInt, encodeJSON:
				need[i] = true
			default:
				return nil, a.refused(int(n), columnRefusal{refuseMovedType, i})
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

// storedRow is a row as a query shows it.
type storedRow struct {
	values  []sql.NullString // by column, unset where it was not asked for
	version cdc.LSN          // zero if it has none
	deleted bool             // marked
}

// readRows reads the rows with the keys of the tuples for which the extra condition,
// which begins with AND or is empty, is true. They are by sinkKey.
func (a *applyRun) readRows(ctx context.Context, conn *sql.Conn, keys []cdc.Tuple, read []int, extra string) (map[string]*storedRow, error) {
	l := a.layout
	condition, err := l.keyCondition(keys)
	if err != nil {
		return nil, err
	}
	asked := make(map[string]bool, len(keys))
	for _, tuple := range keys {
		key, err := l.sinkKey(tuple)
		if err != nil {
			return nil, err
		}
		asked[key] = true
	}
	columns := append(slices.Clone(l.key), read...)
	names := []string{quoteName(l.audit[atVersion]), quoteName(l.audit[atDeleted])}
	for _, i := range columns {
		names = append(names, quoteName(l.columns[i].name))
	}
	result, err := conn.QueryContext(ctx, "SELECT "+strings.Join(names, ", ")+" FROM "+a.sink.tableName(l.table)+" WHERE ("+condition+")"+extra)
	if err != nil {
		return nil, sqlError(err)
	}
	defer result.Close()
	rows := map[string]*storedRow{}
	for result.Next() {
		row := &storedRow{values: make([]sql.NullString, len(l.columns))}
		var version sql.NullInt64
		var deleted sql.NullString
		into := []any{&version, &deleted}
		for _, i := range columns {
			into = append(into, &row.values[i])
		}
		if err := result.Scan(into...); err != nil {
			return nil, sqlError(err)
		}
		row.version = cdc.LSN(version.Int64) //nolint:gosec // As it was written.
		row.deleted = deleted.String == "1" || strings.EqualFold(deleted.String, "true")
		var key strings.Builder
		for _, i := range l.key {
			addKeyText(&key, l.columns[i].canonicalStored(row.values[i].String))
		}
		if !asked[key.String()] {
			return nil, fmt.Errorf("a key comes back other than it was written; StarRocks before %d.%d.%d does not show microseconds", versionMicros[0], versionMicros[1], versionMicros[2])
		}
		rows[key.String()] = row
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
		if len(l.key) == 1 {
			conditions[n] = l.columns[l.key[0]].literal(values[0])
			continue
		}
		parts := make([]string, len(l.key))
		for k, i := range l.key {
			parts[k] = quoteName(l.columns[i].name) + " = " + l.columns[i].literal(values[k])
		}
		conditions[n] = "(" + strings.Join(parts, " AND ") + ")"
	}
	if len(l.key) == 1 {
		return quoteName(l.columns[l.key[0]].name) + " IN (" + strings.Join(conditions, ", ") + ")", nil
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
