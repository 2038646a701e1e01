package starrocks_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// wide is a row of eight columns and about 200 bytes, of the types that are usual.
func wide(t testing.TB) (*cdc.Schema, apply.Row) {
	t.Helper()
	schema := sinktest.Schema(
		t, "wide", []string{"id"}, sinktest.Column("id", cdc.TypeInt8, "bigint"),
		sinktest.Column("customer", cdc.TypeInt4, "integer"), sinktest.Column("status", cdc.TypeText, "text"),
		sinktest.Numeric("amount", 12, 2), sinktest.Column("ratio", cdc.TypeFloat8, "double precision"),
		sinktest.Column("created", cdc.TypeTimestampTZ, "timestamp with time zone"),
		sinktest.Column("active", cdc.TypeBool, "boolean"), sinktest.Column("note", cdc.TypeText, "text"),
	)
	row := sinktest.Insert("1234567890", "42", "shipped", "1234.56", "0.125", "2024-05-06 07:08:09.123456+00", "t",
		strings.Repeat("the quick brown fox ", 6))
	row.Position.Commit = 0x16B374D848
	return schema, row
}

func TestRowIsWrittenWithItsAuditColumns(t *testing.T) {
	t.Parallel()
	schema := sinktest.Schema(t, "t", []string{"id"}, sinktest.Column("id", cdc.TypeInt8, "bigint"), sinktest.Column("v", cdc.TypeText, "text"))
	const at = `"dbmazz_synced_at":"2024-01-02 03:04:05.000006","dbmazz_cdc_version":255`
	for _, test := range []struct {
		mode starrocks.DeleteMode
		row  apply.Row
		want string
	}{
		{starrocks.DeleteSoft, sinktest.Insert("1", "a"), `{"id":1,"v":"a","dbmazz_op_type":0,"dbmazz_is_deleted":false,` + at + `}`},
		{starrocks.DeleteSoft, sinktest.Update("1", nil), `{"id":1,"v":null,"dbmazz_op_type":1,"dbmazz_is_deleted":false,` + at + `}`},
		{starrocks.DeleteSoft, sinktest.Update("1", sinktest.Unchanged), `{"id":1,"dbmazz_op_type":1,"dbmazz_is_deleted":false,` + at + `}`},
		{starrocks.DeleteSoft, sinktest.Delete("1", "a"), `{"id":1,"v":"a","dbmazz_op_type":2,"dbmazz_is_deleted":true,` + at + `}`},
		{starrocks.DeleteSoft, sinktest.DeleteKey("1", nil), `{"id":1,"dbmazz_op_type":2,"dbmazz_is_deleted":true,` + at + `}`},
		{starrocks.DeleteHard, sinktest.Insert("1", "a"), `{"id":1,"v":"a","dbmazz_op_type":0,"dbmazz_is_deleted":false,` + at + `,"__op":0}`},
		{starrocks.DeleteHard, sinktest.Update("1", sinktest.Unchanged), `{"id":1,"dbmazz_op_type":1,"dbmazz_is_deleted":false,` + at + `}`},
		{starrocks.DeleteHard, sinktest.Delete("1", "a"), `{"id":1,"__op":1}`},
		{starrocks.DeleteHard, sinktest.DeleteKey("1", nil), `{"id":1,"__op":1}`},
	} {
		test.row.Position.Commit = 255
		got, err := starrocks.NewRowWriter(schema, test.mode).Append(nil, &test.row)
		if err != nil || string(got) != test.want {
			t.Errorf("%s: got %s, error %v\nwant %s", test.mode, got, err, test.want)
		}
	}
}

func TestEncodingARowAllocatesNothing(t *testing.T) {
	schema, row := wide(t)
	grown := sinktest.Schema(t, "grown", []string{"id"}, append(schema.Columns,
		sinktest.Column("doc", cdc.TypeJSONB, "jsonb"), sinktest.Column("raw", cdc.TypeJSON, "json"), sinktest.Column("real", cdc.TypeFloat4, "real"))...)
	row.Tuple = append(row.Tuple, sinktest.Tuple(`{"a": [1, 0.30000000000000004, "x"]}`, `{"k": {"l": 1}, "m": [{}]}`, "1.5")...)
	for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
		w := starrocks.NewRowWriter(grown, mode)
		buffer := make([]byte, 0, 4096)
		allocs := testing.AllocsPerRun(1000, func() {
			var err error
			if buffer, err = w.Append(buffer[:0], &row); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %.1f allocations per row", mode, allocs)
		}
		if !json.Valid(buffer) {
			t.Errorf("%s is not JSON", buffer)
		}
	}
}

func TestRowThatCannotBeStoredNamesItsPlaceOnly(t *testing.T) {
	t.Parallel()
	schema := sinktest.Schema(
		t, "t", []string{"a", "b"}, sinktest.Column("secret", cdc.TypeText, "text"), sinktest.Column("b", cdc.TypeText, "text"),
		sinktest.Column("a", cdc.TypeInt8, "bigint"), sinktest.Column("day", cdc.TypeDate, "date"),
	)
	for _, test := range []struct {
		row  apply.Row
		want []string
	}{
		{sinktest.Insert("hidden", "k\n", "5", "infinity"), []string{"public.t", `a=5, b=k\n`, "column day (date -> DATE)", "VARCHAR"}},
		{sinktest.Insert("hidden", nil, "5", nil), []string{"column b", "missing"}},
		{sinktest.Update("hidden", sinktest.Unchanged, "5", nil), []string{"column b", "missing"}},
		{sinktest.Insert("hidden", strings.Repeat("k", 121), "5", nil), []string{"128 bytes", "a=5"}},
	} {
		_, err := starrocks.NewRowWriter(schema, starrocks.DeleteSoft).Append(nil, &test.row)
		if err == nil {
			t.Errorf("row is accepted, want an error with %q", test.want)
			continue
		}
		for _, part := range test.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("error %q does not say %q", err, part)
			}
		}
		if strings.Contains(err.Error(), "hidden") {
			t.Errorf("error shows other data: %v", err)
		}
	}
	// The key is the bigint's 8 bytes and the text, which comes last.
	row := sinktest.Insert("hidden", strings.Repeat("k", 120), "5", nil)
	if _, err := starrocks.NewRowWriter(schema, starrocks.DeleteSoft).Append(nil, &row); err != nil {
		t.Errorf("a key of 128 bytes is refused: %v", err)
	}
}

func BenchmarkEncodeRow(b *testing.B) {
	schema, row := wide(b)
	w := starrocks.NewRowWriter(schema, starrocks.DeleteSoft)
	buffer := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buffer, _ = w.Append(buffer[:0], &row)
	}
	b.SetBytes(int64(len(row.Tuple)))
}
