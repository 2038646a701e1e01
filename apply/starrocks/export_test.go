package starrocks

import (
	"context"
	"net/http"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Impatient makes a sink retry at a pace fit for tests.
func Impatient(s *Sink) {
	// The stand-in cannot close a connection without an answer while the client
	// waits for "100 Continue".
	s.load.http.Transport.(*http.Transport).ExpectContinueTimeout = 200 * time.Millisecond
	s.retry = backoff{first: time.Millisecond, longest: 10 * time.Millisecond, attempts: 8, polls: 10, appear: 50 * time.Millisecond}
	s.appendBytes = 200
}

// Patient makes a sink wait for rows that may still become visible.
func Patient(s *Sink) { s.retry.appear = time.Minute }

// EncodeValue writes one value for a column of the given type in StarRocks.
func EncodeValue(c cdc.Column, key bool, targetType string, text []byte) (json, refused string) {
	t := parseTarget(targetType)
	how, err := chooseEncoding(&c, key, t)
	if err != nil {
		return "", err.Error()
	}
	col := column{source: &c, target: t, how: how, key: key}
	out, r := col.appendValue(nil, text, new(jsonScratch))
	if r != nil {
		return "", r.reason
	}
	return string(out), ""
}

// DefaultType returns the type of the column that Prepare creates.
func DefaultType(c cdc.Column, key bool) string { return createTarget(&c, key).String() }

// CreateTable returns the statement that Prepare runs.
func CreateTable(s *cdc.Schema, replicas int) string {
	return createTable(s, "`db`."+quoteName(s.Table), replicas)
}

// RowWriter encodes rows of a table as Prepare would create it.
type RowWriter struct {
	w *writer
}

// NewRowWriter returns a writer for soft or hard deletes.
func NewRowWriter(s *cdc.Schema, mode DeleteMode) *RowWriter {
	l := &layout{schema: s, table: s.Table, key: s.Key, columns: make([]column, len(s.Columns))}
	keys := keySet(s)
	for i := range s.Columns {
		c := &s.Columns[i]
		t := createTarget(c, keys[i])
		how, err := chooseEncoding(c, keys[i], t)
		if err != nil {
			panic(err)
		}
		l.columns[i] = column{source: c, name: c.Name, target: t, how: how}
	}
	l.appends = isAppend(s)
	for _, a := range auditOf(s) {
		l.audit = append(l.audit, a.name)
	}
	l.seal(mode, defaultMaxBodyBytes)
	return &RowWriter{newWriter(l, mode, "2024-01-02 03:04:05.000006")}
}

// Append appends a row as Apply does.
func (r *RowWriter) Append(dst []byte, row *apply.Row) ([]byte, error) {
	as := formFull
	if row.Partial {
		as = formPresent
	}
	if row.KeyOnly {
		as = formKey
	}
	dst, refused := r.w.append(dst, row, row.Tuple, as)
	if refused.refusal != nil {
		return dst, r.w.layout.refused(row, refused)
	}
	return dst, nil
}

// BodyBytes is the room that Apply makes for the body of a batch of the table.
func (r *RowWriter) BodyBytes(batch *apply.TableBatch) int { return r.w.layout.bodyBytes(batch) }

// Put makes the request of one load.
func (s *Sink) Put(ctx context.Context, body []byte) error {
	_, err := s.load.put(ctx, &request{table: "t", label: "label", body: body})
	return err
}

// CheckVersion is checkVersion.
var CheckVersion = checkVersion

// RefusalText is refusalText with columns of the given names.
func RefusalText(line string, names ...string) (text, name string) {
	columns := make([]column, len(names))
	for i := range names {
		columns[i].name = names[i]
	}
	return refusalText(line, columns)
}

// TypeRow is a row of docs/types.md.
type TypeRow struct{ Names, Value, Key, Accepts, Note string }

// TypeRows is the table of types for people.
func TypeRows() []TypeRow {
	var rows []TypeRow
	for i := range mappings {
		m := &mappings[i]
		c := &cdc.Column{Type: m.source, Mod: -1, BaseMod: -1}
		row := TypeRow{Names: m.names, Value: m.valueDoc, Key: m.keyDoc, Note: m.note}
		if row.Value == "" {
			row.Value = m.value(c).String()
		}
		if row.Key == "" {
			row.Key = m.key(c).String()
		}
		for _, a := range m.accepts {
			row.Accepts += kindNames[a.kind] + ", "
		}
		row.Accepts += "VARCHAR"
		rows = append(rows, row)
	}
	return rows
}
