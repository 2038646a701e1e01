package oracle_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// baseTypes lists the columns of a table with the names of their types, domains resolved.
const baseTypes = `WITH RECURSIVE b AS (
	SELECT a.attnum, a.attname, t.oid, t.typname, t.typtype, t.typbasetype FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
	WHERE a.attrelid = '%s'::regclass AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL
	SELECT b.attnum, b.attname, t.oid, t.typname, t.typtype, t.typbasetype FROM b JOIN pg_type t ON b.typtype = 'd' AND t.oid = b.typbasetype
) SELECT attname, typname FROM b WHERE typtype <> 'd'`

// find looks up what every column is in the source and in the sink, and that dbmazz has made those that
// docs/types.md promises.
func (r *rig) find(t *table) {
	r.t.Helper()
	bases := map[string]string{}
	for _, row := range r.query(fmt.Sprintf(baseTypes, "public."+t.name)) {
		bases[string(row[0])] = string(row[1])
	}
	sink, err := r.server.Rows(sinkDatabase, t.name)
	r.must(err)
	for i := range t.columns {
		c := &t.columns[i]
		at := slices.Index(sink.Columns, c.name)
		if at < 0 {
			r.t.Fatalf("the sink's table %s has no column %s, only %q", t.name, c.name, sink.Columns)
		}
		isKey := t.layout != keyID && i == 0
		c.place = place{base: bases[c.name], target: normalTarget(sink.Types[at]), key: isKey}
		c.last = t.layout == keyLast || t.layout == keyOnly
		want := c.existing
		switch {
		case isKey:
			want = c.kind.key
		case want == "":
			want = c.kind.autoTarget()
		}
		if got := c.place.target; got != want && !(want == "VARCHAR" && strings.HasPrefix(got, "VARCHAR(")) {
			r.t.Errorf("column %s of table %s, type %s: the sink has %s, want %s", c.name, t.name, c.kind.sql, got, want)
		}
	}
	t.keyNames = map[layout][]string{keyID: {"id"}, keyBoth: {"k", "id"}, keyLast: {"id", "k"}, keyOnly: {"k"}}[t.layout]
}

// key is how a refusal names a row.
func (t *table) key(id int, row []string) string {
	texts := map[layout][]string{keyID: {strconv.Itoa(id)}, keyBoth: {row[0], strconv.Itoa(id)}, keyLast: {strconv.Itoa(id), row[0]}, keyOnly: {row[0]}}[t.layout]
	return namedKey(t.keyNames, texts)
}

// judge says what must become of a row, and by which columns.
func (t *table) judge(row []string) (v verdict, because []string) {
	size := 8 // Of id.
	if t.layout == keyOnly {
		size = 0
	}
	for i := range t.columns {
		c := &t.columns[i]
		if c.place.key {
			size += c.place.encodedKey(row[i], c.last)
		}
		one := c.place.judge(row[i])
		if one != fits {
			because = append(because, c.name)
		}
		v = max(v, one)
	}
	if size > keyBytesMax {
		return refused, append(because, "")
	}
	return v, because
}

// content reads the source: rows by id.
func (r *rig) content(t *table) map[int][]string {
	r.t.Helper()
	rows := map[int][]string{}
	for _, raw := range r.query("SELECT id, " + strings.Join(t.names(), ", ") + " FROM public." + t.name) {
		id, err := strconv.Atoi(string(raw[0]))
		r.must(err)
		row := make([]string, len(t.columns))
		for i, text := range raw[1:] {
			row[i] = nullText
			if text != nil {
				row[i] = string(text)
			}
		}
		rows[id] = row
	}
	return rows
}

// held reads the sink: rows by id that are not marked as deleted.
func (r *rig) held(t *table) map[int][]string {
	r.t.Helper()
	sink, err := r.server.Rows(sinkDatabase, t.name)
	r.must(err)
	deleted, idAt := slices.Index(sink.Columns, "dbmazz_is_deleted"), slices.Index(sink.Columns, "id")
	at := make([]int, len(t.columns))
	for i, c := range t.columns {
		at[i] = slices.Index(sink.Columns, c.name)
	}
	rows := map[int][]string{}
	for _, cells := range sink.Rows {
		if cells[deleted].Text == "1" {
			continue
		}
		id, err := strconv.Atoi(cells[idAt].Text)
		r.must(err)
		row := make([]string, len(t.columns))
		for i := range row {
			row[i] = cellText(cells[at[i]])
		}
		if rows[id] != nil {
			r.t.Errorf("the sink has two rows of table %s with id %d", t.name, id)
		}
		rows[id] = row
	}
	return rows
}

func cellText(c starrockstest.Cell) string {
	if c.Null {
		return nullText
	}
	return c.Text
}

// check compares a table that every row of the source has been written to since the last call. It returns what is
// wrong, and how many rows were refused.
func (r *rig) check(t *table) (found []string, count int) {
	r.t.Helper()
	source, refusals := r.content(t), r.sink.taken(t.name)
	expected, gone := map[int][]string{}, map[string]bool{}
	for id, row := range source {
		key := t.key(id, row)
		verdict, because := t.judge(row)
		refusal := refusals[key]
		delete(refusals, key)
		if t.refused[key] && slices.Equal(row, t.source[id]) { // Nothing happened, or the same refusal again.
			gone[key] = true
			if before := t.expected[id]; before != nil {
				expected[id] = before
			}
			continue
		}
		switch {
		case refusal != nil && verdict == fits:
			found = append(found, fmt.Sprintf("table %s, row %d: refused although it fits: %v\n%s", t.name, id, refusal, t.show(id, row, refusal.Column)))
		case refusal == nil && verdict == refused:
			found = append(found, fmt.Sprintf("table %s, row %d: not refused\n%s", t.name, id, t.show(id, row, because...)))
		case refusal != nil:
			found = append(found, t.checkRefusal(refusal, because)...)
		}
		if refusal == nil {
			expected[id] = row
			continue
		}
		gone[key] = true
		if before := t.expected[id]; before != nil && t.key(id, before) == key { // A row that got another key is deleted first.
			expected[id] = before
		}
	}
	for key, refusal := range refusals {
		if !t.refused[key] { // Else it was to be deleted in the sink, which never had it.
			found = append(found, fmt.Sprintf("table %s: refused a row that the source does not have, %s: %v", t.name, key, refusal))
		}
	}
	t.expected, t.refused, t.source = expected, gone, source
	return append(found, t.differences(expected, r.held(t))...), len(gone)
}

// checkRefusal checks that the error names the place.
func (t *table) checkRefusal(refusal *apply.RowError, because []string) (found []string) {
	named := refusal.Column != "" && refusal.Type != "" && refusal.Target != "" || slices.Contains(because, "") && refusal.Column == ""
	if !named || refusal.Table != "public."+t.name || !slices.Contains(because, refusal.Column) || refusal.Reason == "" || refusal.Hint == "" {
		found = append(found, fmt.Sprintf("table %s: refused for the wrong reason, want one of the columns %q: %#v", t.name, because, refusal))
	}
	if strings.Contains(refusal.Hint, "bug") {
		found = append(found, fmt.Sprintf("table %s: refused as a bug: %v", t.name, refusal))
	}
	return found
}

// differences compares what the sink holds with what it must hold.
func (t *table) differences(expected, held map[int][]string) (found []string) {
	for id, row := range expected {
		sink := held[id]
		if sink == nil {
			found = append(found, fmt.Sprintf("table %s, row %d: missing in the sink\n%s", t.name, id, t.show(id, row)))
			continue
		}
		for i := range t.columns {
			if c := &t.columns[i]; !c.place.same(row[i], sink[i]) {
				found = append(found, fmt.Sprintf("table %s, row %d: differs, the sink holds %s\n%s", t.name, id, short(sink[i]), t.show(id, row, c.name)))
			}
		}
	}
	for id := range held {
		if expected[id] == nil {
			found = append(found, fmt.Sprintf("table %s, row %d: only in the sink", t.name, id))
		}
	}
	return found
}

// show prints columns of a row: how they were written and what PostgreSQL prints.
func (t *table) show(id int, row []string, columns ...string) string {
	var lines []string
	for i := range t.columns {
		c := &t.columns[i]
		if !slices.Contains(columns, c.name) && !(len(columns) == 0 && i == 0) && !slices.Contains(columns, "") {
			continue
		}
		line := fmt.Sprintf("    %s %s -> %s: PostgreSQL prints %s", c.name, c.kind.sql, c.place.target, short(row[i]))
		if written := t.written[id%moved]; written != nil {
			line += ", written as " + short(written[i].sql(c.kind.sql))
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func short(text string) string {
	const shown = 400
	if text == nullText {
		return "NULL"
	}
	if len(text) > shown {
		return fmt.Sprintf("%q... (%d bytes)", text[:shown], len(text))
	}
	return strconv.Quote(text)
}
