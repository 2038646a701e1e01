package starrockstest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

func TestCSVConversions(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, `id INT NOT NULL, v VARCHAR(5), n INT, l BIGINT, b BOOLEAN, x VARBINARY, j JSON, a ARRAY<VARCHAR(9)>`)
	mustLoad(t, s, strings.Join([]string{
		"1\t\t1.9\t5\ttrue\taGk=\t{\"a\":1}\t[\"x\",null]",
		"2\t\\N\t\\N\t\\N\tFALSE\tnot base64!\t\\N\t[]",
		"",
		"3\tab\t-1\t0\t2\t\t1\t\\N",
	}, "\n"), "format: csv")
	want := []string{
		`1||1|5|1|hi|{"a": 1}|["x",null]`,
		`2|NULL|NULL|NULL|0|not base64!|NULL|[]`,
		`3|ab|-1|0|1||1|NULL`,
	}
	if diff := cmp.Diff(want, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
}

func TestCSVRefusals(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id INT NOT NULL, v VARCHAR(5), n BIGINT, b BOOLEAN")
	tests := []struct{ name, body, want string }{
		{"too few fields", "1\ta\t2", "Target column count: 4 doesn't match source value column count: 3"},
		{"too many fields", "1\ta\t2\ttrue\tx", "Target column count: 4 doesn't match source value column count: 5"},
		{"fraction in bigint", "1\ta\t2.5\ttrue", "Value '2.5' is out of range. The type of 'n' is BIGINT"},
		{"empty number", "1\ta\t\ttrue", "The type of 'n' is BIGINT"},
		{"letter as boolean", "1\ta\t2\tt", "The type of 'b' is BOOLEAN"},
		{"too long", "1\tabcdef\t2\ttrue", "The type of 'v' is VARCHAR(5)"},
		{"null key", "\\N\ta\t2\ttrue", "NULL value in non-nullable column 'id'"},
		{"invalid utf-8", "1\t\xff\t2\ttrue", "Invalid UTF-8 row"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := load(t, s, tt.body+"\n", "format: csv")
			if a.Message != "too many filtered rows" {
				t.Fatalf("got %s", a.raw)
			}
			if _, text := get(t, a.ErrorURL); !strings.Contains(text, tt.want) {
				t.Errorf("got %s", text)
			}
		})
	}
}

func TestCSVSeparatorsAndHeader(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	mustLoad(t, s, "v\x01id||a\x011||b\n\x012||", "format: csv", `column_separator: \x01`, "row_delimiter: ||", "skip_header: 1", "columns: v,id")
	if diff := cmp.Diff([]string{"1|a", "2|b\n"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	if a := load(t, s, "1,a", "format: csv", `enclose: "`); !strings.Contains(a.Message, "unsupported by the stand-in: header enclose") {
		t.Errorf("got %s", a.raw)
	}
}
