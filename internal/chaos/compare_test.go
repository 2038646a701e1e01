package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// verdict is how source and sink differ.
type verdict struct {
	rows                      int
	lost, duplicated, altered int
	first                     []string
}

func (v *verdict) equal() bool { return v.lost+v.duplicated+v.altered == 0 }

func (v *verdict) differ(counter *int, format string, args ...any) {
	*counter++
	if len(v.first) < 12 {
		v.first = append(v.first, fmt.Sprintf(format, args...))
	}
}

// content is a table: the values of a row by column, rows by key.
type content map[string]map[string]string

// compare reads both sides. The rules are written down here once more, apart from those
// of the sink, so that one mistake cannot hide the other.
func (r *run) compare(ctx context.Context) (*verdict, error) {
	conn, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	const settings = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET extra_float_digits = 3; SET bytea_output = 'hex'"
	if _, err := conn.Exec(ctx, settings); err != nil {
		return nil, err
	}
	v := &verdict{}
	for _, table := range keyedTables {
		if err := r.compareTable(ctx, conn, table, v); err != nil {
			return nil, fmt.Errorf("compare %s: %w", table, err)
		}
	}
	if r.shape.keyless {
		if err := r.compareEvents(ctx, conn, v); err != nil {
			return nil, fmt.Errorf("compare event: %w", err)
		}
	}
	return v, nil
}

func (r *run) compareTable(ctx context.Context, conn *pgx.Conn, table string, v *verdict) error {
	results, err := conn.PgConn().Exec(ctx, "SELECT * FROM "+table).ReadAll()
	if err != nil {
		return err
	}
	sink, err := r.sink.Rows(sinkDatabase, table)
	if err != nil {
		return err
	}
	var names []string
	for _, field := range results[0].FieldDescriptions {
		names = append(names, field.Name)
	}
	got, err := sinkContent(table, sink, names, v)
	if err != nil {
		return err
	}
	for _, row := range results[0].Rows {
		v.rows++
		values := map[string]string{}
		for i, name := range names {
			values[name] = canonical(table, name, row[i])
		}
		key := keyOf(table, values)
		other, ok := got[key]
		delete(got, key)
		if !ok {
			v.differ(&v.lost, "%s %s is missing in the sink", table, key)
			continue
		}
		for name, value := range values {
			if other[name] != value {
				v.differ(&v.altered, "%s %s, column %s: source %.60q (%d bytes), sink %.60q (%d bytes)", table, key, name, value, len(value), other[name], len(other[name]))
			}
		}
	}
	for key := range got {
		v.differ(&v.duplicated, "%s %s is in the sink only", table, key)
	}
	return nil
}

// sinkContent reads what the sink does not mark as deleted.
func sinkContent(table string, sink starrockstest.TableData, names []string, v *verdict) (content, error) {
	at := map[string]int{}
	for _, name := range append(slices.Clone(names), opColumn, deletedColumn, versionColumn) {
		if at[name] = slices.Index(sink.Columns, name); at[name] < 0 {
			return nil, fmt.Errorf("the sink has no column %s", name)
		}
	}
	out := content{}
	for _, row := range sink.Rows {
		deleted := row[at[deletedColumn]].Text == "1"
		if deleted != (row[at[opColumn]].Text == "2") {
			v.differ(&v.altered, "%s: the audit columns of a row contradict each other", table)
		}
		if deleted {
			continue
		}
		values := map[string]string{}
		for _, name := range names {
			cell := row[at[name]]
			text := []byte(cell.Text)
			if cell.Null {
				text = nil
			} else if text == nil {
				text = []byte{}
			}
			values[name] = canonical(table, name, text)
		}
		key := keyOf(table, values)
		if out[key] != nil {
			v.differ(&v.duplicated, "%s %s is in the sink twice", table, key)
		}
		out[key] = values
	}
	return out, nil
}

// The audit columns of the sink.
const (
	opColumn      = "dbmazz_op_type"
	deletedColumn = "dbmazz_is_deleted"
	versionColumn = "dbmazz_cdc_version"
)

func keyOf(table string, values map[string]string) string {
	switch table {
	case "ledger":
		return values["n"]
	case "line":
		return values["order_id"] + "/" + values["pos"]
	}
	return values["id"]
}

const nullText = "\x00NULL"

// canonical gives a value one text, whichever side it comes from.
func canonical(table, column string, text []byte) string {
	if text == nil {
		return nullText
	}
	s := string(text)
	switch {
	case column == "active":
		return map[string]string{"t": "1", "f": "0", "1": "1", "0": "0"}[s]
	case column == "balance":
		if rat, ok := new(big.Rat).SetString(s); ok {
			return rat.RatString()
		}
	case column == "size":
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return strconv.FormatFloat(f, 'g', -1, 64)
		}
	case column == "at":
		s = strings.TrimSuffix(s, "+00")
		if strings.Contains(s, ".") {
			s = strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
		}
	case table == "document" && column == "content":
		return canonicalJSON(s)
	}
	return s
}

func canonicalJSON(text string) string {
	var document any
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		return "not JSON: " + text
	}
	out, err := json.Marshal(document)
	if err != nil {
		return "not JSON: " + text
	}
	return string(out)
}

// compareEvents counts every change of the table without a key.
func (r *run) compareEvents(ctx context.Context, conn *pgx.Conn, v *verdict) error {
	results, err := conn.PgConn().Exec(ctx, "SELECT op, n, v, count(*) FROM event_history GROUP BY 1, 2, 3").ReadAll()
	if err != nil {
		return err
	}
	sink, err := r.sink.Rows(sinkDatabase, "event")
	if err != nil {
		return err
	}
	got := map[string]int{}
	op, n, text := slices.Index(sink.Columns, opColumn), slices.Index(sink.Columns, "n"), slices.Index(sink.Columns, "v")
	for _, row := range sink.Rows {
		got[row[op].Text+" "+row[n].Text+" "+row[text].Text]++
	}
	for _, row := range results[0].Rows {
		what := string(row[0]) + " " + string(row[1]) + " " + string(row[2])
		want, err := strconv.Atoi(string(row[3]))
		if err != nil {
			return err
		}
		v.rows += want
		for range want - got[what] {
			v.differ(&v.lost, "event %q: it happened %d times and is there %d times", what, want, got[what])
		}
		for range got[what] - want {
			v.differ(&v.duplicated, "event %q: it happened %d times and is there %d times", what, want, got[what])
		}
		delete(got, what)
	}
	for what, times := range got {
		v.differ(&v.duplicated, "event %q: it never happened and is there %d times", what, times)
	}
	return nil
}
