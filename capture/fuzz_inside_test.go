package capture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// copyText writes a value as CopyAttributeOutText of PostgreSQL's copyto.c does.
func copyText(out []byte, value []byte) []byte {
	for _, b := range value {
		switch b {
		case '\b':
			out = append(out, `\b`...)
		case '\f':
			out = append(out, `\f`...)
		case '\n':
			out = append(out, `\n`...)
		case '\r':
			out = append(out, `\r`...)
		case '\t':
			out = append(out, `\t`...)
		case '\v':
			out = append(out, `\v`...)
		case '\\':
			out = append(out, `\\`...)
		default:
			out = append(out, b)
		}
	}
	return out
}

func fuzzReader(columns int) (*copyReader, *chunk) {
	c := &chunk{table: &tableCopy{Table: Table{Schema: "public", Name: "t"}}}
	return &copyReader{c: c, columns: columns, limit: 1 << 30}, c
}

func copied(t *testing.T, c *chunk) (rows [][]cdc.Value) {
	t.Helper()
	for i := range c.ends {
		var values []cdc.Value
		for row := c.row(i); len(row) > 0; {
			v, rest, ok := row.Next()
			if !ok {
				t.Fatalf("row %d cannot be walked", i)
			}
			values, row = append(values, v), rest
		}
		rows = append(rows, values)
	}
	return rows
}

// FuzzCopyRows states that rows come out of COPY's text as they went in, wherever the
// network cuts it. The first byte says how many columns there are, the second where it
// is cut; values are separated by 0xff, and an empty one is NULL where its place is odd.
func FuzzCopyRows(f *testing.F) {
	f.Add([]byte("\x03\x05a\xffb\\N\xff\xfftab\tnew\nline\xff\\.\xff\\\\"))
	f.Add([]byte("\x01\x00\\N\xff\\\xff\r\n\xff"))
	f.Add([]byte("\x00\x01"))
	f.Fuzz(func(t *testing.T, seed []byte) {
		if len(seed) < 2 {
			return
		}
		columns, step := int(seed[0]%6), int(seed[1]%13)+1
		var want [][]cdc.Value
		var text []byte
		fields := bytes.Split(seed[2:], []byte{0xff})
		if columns == 0 {
			// PostgreSQL sends an empty line for a row without columns.
			want, text, fields = make([][]cdc.Value, len(fields)), bytes.Repeat([]byte{'\n'}, len(fields)), nil
		}
		for row := range slices.Chunk(fields, max(columns, 1)) {
			if len(row) < columns {
				break
			}
			values := make([]cdc.Value, len(row))
			for i, field := range row {
				if i > 0 {
					text = append(text, '\t')
				}
				if values[i] = (cdc.Value{Kind: cdc.Text, Bytes: field}); len(field) == 0 && i%2 == 1 {
					values[i] = cdc.Value{Kind: cdc.Null}
					text = append(text, `\N`...)
				}
				text = copyText(text, field)
			}
			want, text = append(want, values), append(text, '\n')
		}
		r, c := fuzzReader(columns)
		for part := range slices.Chunk(text, step) {
			if n, err := r.Write(part); err != nil || n != len(part) {
				t.Fatalf("%q: %d bytes, %v", part, n, err)
			}
		}
		got := copied(t, c)
		if !slices.EqualFunc(want, got, sameValues) {
			t.Fatalf("%q: %s", text, cmp.Diff(want, got, cmpopts.EquateEmpty()))
		}
	})
}

func sameValues(a, b []cdc.Value) bool {
	return slices.EqualFunc(a, b, func(v, w cdc.Value) bool { return v.Kind == w.Kind && bytes.Equal(v.Bytes, w.Bytes) })
}

// FuzzCopyBytes states that no bytes do more than to be refused, and that what is taken
// has as many rows as lines and as many values as columns.
func FuzzCopyBytes(f *testing.F) {
	f.Add([]byte("1\ta\\tb\n2\t\\N\n"), uint8(2))
	f.Add([]byte("\\\n\\"), uint8(1))
	f.Add([]byte("\n\n"), uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, columns uint8) {
		r, c := fuzzReader(int(columns))
		_, err := r.Write(text)
		rows := copied(t, c)
		if lines := bytes.Count(text, []byte{'\n'}); err == nil && lines != len(rows) {
			t.Fatalf("%q: %d rows", text, len(rows))
		}
		for _, row := range rows {
			if len(row) != int(columns) {
				t.Fatalf("%q: %d values in %d columns", text, len(row), columns)
			}
		}
	})
}

// FuzzVisibility states that a snapshot that is accepted sees what its text says.
func FuzzVisibility(f *testing.F) {
	f.Add("3:3:", uint32(2))
	f.Add("4294967290:4294967300:4294967295,4294967297", uint32(1))
	f.Add("10:20:10,14,19", uint32(14))
	f.Fuzz(func(t *testing.T, text string, xid uint32) {
		v, err := parseVisibility(text)
		if err != nil {
			return
		}
		full := v.widen(xid)
		if uint32(full) != xid { //nolint:gosec // The lower half.
			t.Fatalf("%q: %d became %d", text, xid, full)
		}
		want := full < v.xmin || (full < v.xmax && !slices.Contains(v.running, full))
		if got := v.sees(xid); got != want {
			t.Fatalf("%q sees %d: %t", text, full, got)
		}
		list := strings.Trim(strings.ReplaceAll(fmt.Sprint(v.running), " ", ","), "[]")
		again, err := parseVisibility(fmt.Sprintf("%d:%d:%s", v.xmin, v.xmax, list))
		if err != nil || again.xmin != v.xmin || again.xmax != v.xmax || !slices.Equal(again.running, v.running) {
			t.Fatalf("%q was printed as %+v: %v", text, again, err)
		}
	})
}

// FuzzSnapshotState states that what is remembered of a copy comes back as it was, and
// that what is not such a state is an error.
func FuzzSnapshotState(f *testing.F) {
	f.Add([]byte(`{"version":1,"tables":[{"table":{"Schema":"public","Name":"t"},"state":"copying","marks":[{"key":["1"],"at":"0/1.2","rows":3}],"singles":[{"key":["x"]}]}]}`))
	f.Add([]byte(`{"version":1,"tables":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := decodeSnapshotState(data)
		if err != nil {
			return
		}
		for _, c := range state.Tables {
			state.find(c.Table)
		}
		data, err = json.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeSnapshotState(data)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := json.Marshal(again); err != nil || !bytes.Equal(data, second) {
			t.Fatalf("%s became %s: %v", data, second, err)
		}
	})
}
