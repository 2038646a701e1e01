package starrocks_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// members reads a JSON object whose keys are all different.
func members(t *testing.T, data []byte) map[string]json.RawMessage {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		t.Fatalf("%s is not an object: %v", data, err)
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if _, twice := out[name.(string)]; twice {
			t.Fatalf("%s has %q twice", data, name)
		}
		out[name.(string)] = value
	}
	if _, err := d.Token(); err != nil || d.InputOffset() != int64(len(data)) {
		t.Fatalf("%s does not end where the object does: %v", data, err)
	}
	return out
}

// fuzzTypes are those of the columns of [FuzzRow], whose names are as odd as the rule for
// names allows.
var fuzzTypes = []struct {
	name string
	typ  cdc.Type
}{
	{"id", cdc.TypeInt8},
	{`a"b\c`, cdc.TypeText},
	{"näme €", cdc.TypeBool},
	{"i2", cdc.TypeInt2},
	{"i4", cdc.TypeInt4},
	{"f4", cdc.TypeFloat4},
	{"f8", cdc.TypeFloat8},
	{"num", cdc.TypeNumeric},
	{"doc", cdc.TypeJSON},
	{"docb", cdc.TypeJSONB},
	{"d", cdc.TypeDate},
	{"ts", cdc.TypeTimestamp},
	{"tz", cdc.TypeTimestampTZ},
	{"bin", cdc.TypeBytea},
}

// FuzzRow states that the body of a row is one JSON object with each column once, and
// that every value reads back as PostgreSQL printed it. Values are separated by a zero
// byte, which PostgreSQL has in none; \x01 stands for NULL, \x02 for a value not sent.
func FuzzRow(f *testing.F) {
	f.Add(uint8(0), []byte("1\x00a\"\\\n\x00t\x00-3\x004\x001.5\x002.25\x0010.50\x00{\"a\":1}\x00[]\x002024-02-29\x002024-02-29 01:02:03\x002024-02-29 01:02:03.5+00\x00\\xff"))
	f.Add(uint8(5), []byte("1\x00\x02\x00\x01\x00\x01\x00\x02"))
	f.Add(uint8(2), []byte("7\x00\xff"))
	schema := fuzzSchema(f)
	writers := map[starrocks.DeleteMode]*starrocks.RowWriter{}
	for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
		writers[mode] = starrocks.NewRowWriter(schema, mode)
	}
	f.Fuzz(func(t *testing.T, how uint8, data []byte) {
		texts := bytes.Split(data, []byte{0})
		if len(texts) > len(schema.Columns) {
			return
		}
		row := apply.Row{Op: []apply.Op{apply.OpInsert, apply.OpUpdate, apply.OpDelete}[how/2%3], Position: cdc.Position{Commit: 255, Ordinal: 1}}
		var values []cdc.Value
		for i := range schema.Columns {
			v := cdc.Value{Kind: cdc.Null}
			switch {
			case i >= len(texts) || string(texts[i]) == "\x01":
			case string(texts[i]) == "\x02":
				v, row.Partial = cdc.Value{Kind: cdc.Unchanged}, true
			default:
				v = cdc.Value{Kind: cdc.Text, Bytes: texts[i]}
			}
			values, row.Tuple = append(values, v), row.Tuple.AppendValue(v)
		}
		mode := []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard}[how%2]
		body, err := writers[mode].Append(nil, &row)
		if err != nil {
			return
		}
		if !utf8.Valid(body) {
			t.Fatalf("%q is not UTF-8", body)
		}
		checkBody(t, schema, &row, values, members(t, body), mode)
	})
}

func fuzzSchema(tb testing.TB) *cdc.Schema {
	tb.Helper()
	var columns []cdc.Column
	for _, c := range fuzzTypes {
		columns = append(columns, sinktest.Column(c.name, c.typ, "type"))
	}
	columns[7] = sinktest.Numeric("num", 20, 5)
	return sinktest.Schema(tb, "t", []string{"id"}, columns...)
}

func checkBody(t *testing.T, schema *cdc.Schema, row *apply.Row, values []cdc.Value, got map[string]json.RawMessage, mode starrocks.DeleteMode) {
	t.Helper()
	removed := row.Op == apply.OpDelete && mode == starrocks.DeleteHard
	for i, v := range values {
		name, isKey := schema.Columns[i].Name, slices.Contains(schema.Key, i)
		out, sent := got[name]
		switch {
		case removed && !isKey, v.Kind == cdc.Unchanged:
			if sent {
				t.Fatalf("%q was written as %s", name, out)
			}
		case !sent:
			t.Fatalf("%q was left out: %v", name, got)
		case v.Kind == cdc.Null:
			if string(out) != "null" {
				t.Fatalf("NULL of %q was written as %s", name, out)
			}
		default:
			target, text := strings.ToLower(starrocks.DefaultType(schema.Columns[i], isKey)), v.Bytes
			if target == "json" {
				text = bytes.Trim(text, " \t\n\r") // Blanks around a document are between the tokens of the body.
			}
			roundTrip(t, target, isKey, text, string(out))
		}
	}
	if version := string(got["dbmazz_cdc_version"]); !removed && version != "255" {
		t.Fatalf("the version is %q", version)
	}
	if op := string(got["__op"]); mode == starrocks.DeleteHard && removed != (op == "1") {
		t.Fatalf("__op is %q", op)
	}
}

// FuzzCreateTable states that whatever tables and columns are called, the statement has
// the names, types and comments that were meant, and nothing else.
func FuzzCreateTable(f *testing.F) {
	f.Add("t", "id", "name", "text", uint8(1))
	f.Add("o'r`d\"ers", "a`b", `c\'d`, `enum'); DROP TABLE x; -- `, uint8(0))
	f.Add("t\\", "id`", "``", `\`, uint8(2))
	f.Fuzz(func(t *testing.T, table, key, column, typeName string, how uint8) {
		for _, name := range []string{table, key, column, typeName} {
			// What is refused before, and what PostgreSQL has in no name.
			if name == "" || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
				return
			}
		}
		if strings.EqualFold(key, column) || strings.HasPrefix(strings.ToLower(key), "dbmazz_") || strings.HasPrefix(strings.ToLower(column), "dbmazz_") {
			return
		}
		schema := &cdc.Schema{OID: 1, Namespace: "public", Table: table, Columns: []cdc.Column{
			sinktest.Column(key, cdc.TypeInt8, typeName), sinktest.Column(column, cdc.Type(how%23), typeName),
		}}
		if how%2 == 1 {
			schema.Key = []int{0}
		}
		if err := schema.Seal(); err != nil {
			t.Fatal(err)
		}
		sql := starrocks.CreateTable(schema, int(how%4))
		got, err := starrockstest.ParseTable(sql)
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if got.Database != "db" || got.Comment != "public."+table {
			t.Fatalf("%s: %+v", sql, got)
		}
		found := map[string]starrockstest.ParsedColumn{}
		for _, c := range got.Columns {
			found[c.Name] = c
		}
		for _, name := range []string{key, column} {
			if c, ok := found[name]; !ok || c.Comment != typeName {
				t.Fatalf("%s: column %q is %+v", sql, name, c)
			}
		}
		if schema.Key != nil && !slices.Equal(got.Key, []string{key}) {
			t.Fatalf("%s: the key is %q", sql, got.Key)
		}
		if want := map[bool]int{true: 6, false: 7}[schema.Key != nil]; len(got.Columns) != want {
			t.Fatalf("%s: %d columns, want %d", sql, len(got.Columns), want)
		}
	})
}
