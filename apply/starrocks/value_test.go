package starrocks_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

func columnOf(typ cdc.Type) cdc.Column { return sinktest.Column("v", typ, "a type") }

const refused = "REFUSED "

var values = []struct {
	typ    cdc.Type
	target string
	text   string
	want   string // JSON, or refused and a part of the reason
}{
	{cdc.TypeBool, "boolean", "t", "true"},
	{cdc.TypeBool, "tinyint(1)", "f", "false"},
	{cdc.TypeBool, "boolean", "true", refused + "form"},
	{cdc.TypeBool, "varchar(1)", "t", `"t"`},
	{cdc.TypeInt2, "smallint(6)", "-32768", "-32768"},
	{cdc.TypeInt2, "smallint(6)", "32768", refused + "integer"},
	{cdc.TypeInt4, "int(11)", "2147483647", "2147483647"},
	{cdc.TypeInt4, "int(11)", "-2147483649", refused + "integer"},
	{cdc.TypeInt4, "smallint(6)", "1", refused + "cannot be stored exactly"},
	{cdc.TypeInt8, "bigint(20)", "-9223372036854775808", "-9223372036854775808"},
	{cdc.TypeInt8, "bigint(20)", "9223372036854775808", refused + "integer"},
	{cdc.TypeInt8, "bigint(20)", "99999999999999999999", refused + "integer"},
	{cdc.TypeInt8, "bigint(20)", "007", refused + "integer"},
	{cdc.TypeInt8, "bigint(20)", "-0", refused + "integer"},
	{cdc.TypeInt8, "bigint(20)", "", refused + "integer"},
	{cdc.TypeInt8, "bigint(20)", "1e3", refused + "integer"},
	{cdc.TypeInt8, "bigint(20) unsigned", "5", `"5"`},
	{cdc.TypeInt8, "decimal(19, 0)", "-5", `"-5"`},
	{cdc.TypeInt8, "decimal(18, 0)", "5", refused + "do not fit"},
	{cdc.TypeNumeric, "largeint(40)", "-170141183460469231731687303715884105728", `"-170141183460469231731687303715884105728"`},
	{cdc.TypeNumeric, "largeint(40)", "170141183460469231731687303715884105728", refused + "integer"},
	{cdc.TypeNumeric, "largeint(40)", "1.0", refused + "integer"},
	{cdc.TypeFloat4, "float", "3.4028235e+38", "3.4028234663852886e+38"},
	{cdc.TypeFloat4, "float", "1e-45", "1e-45"},
	{cdc.TypeFloat4, "float", "NaN", refused + "NaN"},
	{cdc.TypeFloat4, "float", "1e+39", refused + "exact"},
	{cdc.TypeFloat8, "double", "-Infinity", refused + "NaN or Infinity"},
	{cdc.TypeFloat8, "double", "-0", "-0.0"},
	{cdc.TypeFloat8, "double", "1.7976931348623157e+308", "1.7976931348623157e+308"},
	{cdc.TypeFloat8, "double", "5e-324", "5e-324"},
	{cdc.TypeFloat8, "double", "0x10", refused + "form"},
	{cdc.TypeFloat8, "double", "1_0", refused + "form"},
	{cdc.TypeFloat8, "varchar(24)", "NaN", `"NaN"`},
	{cdc.TypeFloat8, "float", "1", refused + "cannot be stored exactly"},
	{cdc.TypeNumeric, "decimal(10, 2)", "-12345678.90", `"-12345678.9"`},
	{cdc.TypeNumeric, "decimal(10, 2)", "-0.05", `"-0.05"`},
	{cdc.TypeNumeric, "decimal(10, 2)", "1.005", refused + "digits"},
	{cdc.TypeNumeric, "decimal(10, 2)", "1.5000", `"1.5"`},
	{cdc.TypeNumeric, "decimal(10, 2)", "100000000", refused + "digits"},
	{cdc.TypeNumeric, "decimal(5, 5)", "0.00999", `"0.00999"`},
	{cdc.TypeNumeric, "decimal(10, 2)", "NaN", refused + "NaN"},
	{cdc.TypeNumeric, "decimal(10, 2)", "1.", refused + "form"},
	{cdc.TypeNumeric, "decimal(10, 2)", "1.2.3", refused + "form"},
	{cdc.TypeNumeric, "decimal(10, 2)", `1","x":"`, refused + "form"},
	{cdc.TypeNumeric, "varchar(100)", "1.50", `"1.50"`},
	{cdc.TypeText, "varchar(5)", "äöx", `"äöx"`},
	{cdc.TypeText, "varchar(5)", "äöü", refused + "longer"},
	{cdc.TypeText, "varchar(50)", "a\"\\\n\r\t\x00\x1f/\u2028é🎉", `"a\"\\\n\r\t\u0000\u001f/` + "\u2028é🎉\""},
	{cdc.TypeText, "varchar(50)", "a\xff", refused + "UTF-8"},
	{cdc.TypeText, "char(50)", "a", refused + "cannot be stored exactly"},
	{cdc.TypeText, "int(11)", "1", refused + "cannot be stored exactly"},
	{cdc.TypeChar, "varchar(50)", "ab  ", `"ab  "`},
	{cdc.TypeBytea, "varchar(50)", `\x00ff`, `"\\x00ff"`},
	{cdc.TypeBytea, "varbinary", `\x00ff`, refused + "cannot be stored exactly"},
	{cdc.TypeDate, "date", "2024-02-29", `"2024-02-29"`},
	{cdc.TypeDate, "date", "2023-02-29", refused + "form"},
	{cdc.TypeDate, "date", "10000-01-01", refused + "9999"},
	{cdc.TypeDate, "date", "0044-03-15 BC", refused + "BC"},
	{cdc.TypeDate, "date", "infinity", refused + "infinity"},
	{cdc.TypeTimestamp, "datetime", "2024-02-29 23:59:59.999999", `"2024-02-29 23:59:59.999999"`},
	{cdc.TypeTimestamp, "datetime", "2024-02-29 23:59:59.1234567", refused + "form"},
	{cdc.TypeTimestamp, "datetime", "2024-02-29 24:00:00", refused + "form"},
	{cdc.TypeTimestamp, "datetime", "2024-02-29 00:00:00+00", refused + "form"},
	{cdc.TypeTimestamp, "datetime", "-infinity", refused + "infinity"},
	{cdc.TypeTimestamp, "datetime", "12024-02-29 00:00:00", refused + "9999"},
	{cdc.TypeTimestamp, "datetime", "0044-03-15 00:00:00 BC", refused + "BC"},
	{cdc.TypeTimestampTZ, "datetime", "2024-02-29 00:00:00.5+00", `"2024-02-29 00:00:00.5"`},
	{cdc.TypeTimestampTZ, "datetime", "2024-02-29 00:00:00+02", refused + "UTC"},
	{cdc.TypeTimestampTZ, "datetime", "infinity", refused + "infinity"},
	{cdc.TypeTimestampTZ, "datetime", "0044-03-15 00:00:00+00 BC", refused + "BC"},
	{cdc.TypeTimestampTZ, "datetime", "", refused + "UTC"},
	{cdc.TypeTimestampTZ, "varchar(40)", "infinity", `"infinity"`},
	{cdc.TypeArray, "array<int(11)>", "{1}", refused + "cannot be stored exactly"},
	{cdc.TypeArray, "varchar(40)", `{1,NULL,"a b"}`, `"{1,NULL,\"a b\"}"`},
	{cdc.Type(99), "varchar(40)", "x", `"x"`},
	{cdc.TypeJSONB, "json", `{"a": [1, -2.50, 0.1, 1e30, true, null, "é\n\ud83c\udf89"]}`, `{"a": [1, -2.50, 0.1, 1e30, true, null, "é\n\ud83c\udf89"]}`},
	{cdc.TypeJSONB, "json", " null ", refused + "null"},
	{cdc.TypeJSONB, "json", "nullx", refused + "form"},
	{cdc.TypeJSONB, "json", `"x"`, `"x"`},
	{cdc.TypeJSONB, "json", "9223372036854775807", "9223372036854775807"},
	{cdc.TypeJSONB, "json", "[9223372036854775808]", refused + "number"},
	{cdc.TypeJSONB, "json", "[0.10000000000000000001]", refused + "number"},
	{cdc.TypeJSONB, "json", "[0.30000000000000004, 1.0, 0.0, -0.0, 100.0, 1E+2, 0.001]", "[0.30000000000000004, 1.0, 0.0, -0.0, 100.0, 1E+2, 0.001]"},
	{cdc.TypeJSONB, "json", "[1e400]", refused + "number"},
	{cdc.TypeJSONB, "json", "[1e-400]", refused + "number"},
	{cdc.TypeJSONB, "json", "[12345678901234567.5]", refused + "number"},
	{cdc.TypeJSONB, "json", `{"a":1}}`, refused + "form"},
	{cdc.TypeJSONB, "json", `{"a":1},{"b":2}`, refused + "form"},
	{cdc.TypeJSONB, "json", `[1,]`, refused + "form"},
	{cdc.TypeJSONB, "json", `[01]`, refused + "form"},
	{cdc.TypeJSONB, "json", ``, refused + "form"},
	{cdc.TypeJSONB, "json", strings.Repeat("[", 501), refused + "nested"},
	{cdc.TypeJSONB, "json", strings.Repeat("[", 500) + strings.Repeat("]", 500), strings.Repeat("[", 500) + strings.Repeat("]", 500)},
	{cdc.TypeJSONB, "json", `"` + strings.Repeat("x", 16<<20) + `"`, refused + "16 MiB"},
	{cdc.TypeJSON, "json", `{"a":{"a":1,"b":2},"b":[{"a":1},{"a":2}]}`, `{"a":{"a":1,"b":2},"b":[{"a":1},{"a":2}]}`},
	{cdc.TypeJSON, "json", `{"a":1,"b":{},"a":1}`, refused + "twice"},
	{cdc.TypeJSON, "json", `[{"x":{"a":1,"\u0061":1}}]`, refused + "twice"},
	{cdc.TypeJSON, "json", `["\ud800"]`, refused + "escape"},
	{cdc.TypeJSON, "json", `["\udc00\ud800"]`, refused + "escape"},
	{cdc.TypeJSON, "varchar(40)", `{"a":1,"a":1e999}`, `"{\"a\":1,\"a\":1e999}"`},
}

func TestValuesAreWrittenExactlyOrRefused(t *testing.T) {
	t.Parallel()
	for _, test := range values {
		got, reason := starrocks.EncodeValue(columnOf(test.typ), false, test.target, []byte(test.text))
		if want, isRefusal := strings.CutPrefix(test.want, refused); isRefusal {
			if !strings.Contains(reason, want) {
				t.Errorf("type %d, %.40q into %s: refused with %q, want %q (wrote %.40s)", test.typ, test.text, test.target, reason, want, got)
			}
			continue
		}
		if got != test.want || reason != "" {
			t.Errorf("type %d, %.40q into %s: got %.60s, refused %q; want %.60s", test.typ, test.text, test.target, got, reason, test.want)
		}
	}
}

func TestManyKeysOfAnObjectAreCompared(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 15, 16, 17, 18, 40, 300} {
		var members []string
		for i := range n {
			members = append(members, fmt.Sprintf(`"k%d":{"k0":%d}`, i, i))
		}
		good := "{" + strings.Join(members, ",") + "}"
		if _, reason := starrocks.EncodeValue(columnOf(cdc.TypeJSON), false, "json", []byte(good)); reason != "" {
			t.Errorf("%d different keys are refused: %s", n, reason)
		}
		for _, again := range []int{0, n / 2, n - 1} {
			bad := strings.TrimSuffix(good, "}") + fmt.Sprintf(`,"k%d":1}`, again)
			if _, reason := starrocks.EncodeValue(columnOf(cdc.TypeJSON), false, "json", []byte(bad)); !strings.Contains(reason, "twice") {
				t.Errorf("key %d of %d twice is not refused: %q", again, n, reason)
			}
		}
	}
}

func TestKeysAreCanonical(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		typ        cdc.Type
		text, want string
	}{
		{cdc.TypeNumeric, "1.00", `"1"`},
		{cdc.TypeNumeric, "-10.50", `"-10.5"`},
		{cdc.TypeNumeric, "100", `"100"`},
		{cdc.TypeNumeric, "0.00", `"0"`},
		{cdc.TypeNumeric, "NaN", `"NaN"`},
		{cdc.TypeChar, "ab  ", `"ab"`},
		{cdc.TypeText, "ab  ", `"ab  "`},
		{cdc.TypeFloat8, "1.5", `"1.5"`},
	} {
		got, reason := starrocks.EncodeValue(columnOf(test.typ), true, "varchar(100)", []byte(test.text))
		if got != test.want {
			t.Errorf("key %q: got %s, refused %q; want %s", test.text, got, reason, test.want)
		}
	}
	if _, reason := starrocks.EncodeValue(columnOf(cdc.TypeNumeric), true, "decimal(10,2)", []byte("1")); reason == "" {
		t.Error("a DECIMAL key column is accepted")
	}
}

// FuzzEncodeValue states that what is written is one JSON value, and that reading it
// gives the value that PostgreSQL printed.
func FuzzEncodeValue(f *testing.F) {
	targets := []string{"boolean", "bigint(20)", "int(11)", "smallint(6)", "largeint(40)", "float", "double", "decimal(20, 5)", "varchar(200)", "json", "date", "datetime"}
	for _, seed := range []string{"t", "-12", "1.50", "NaN", "1e+20", "a\"\\\n", "\xff", `{"a":[1,"\ud83c\udf89",null]}`, "2024-02-29", "2024-02-29 01:02:03.4+00", "-0", ""} {
		for typ := range cdc.TypeArray + 1 {
			f.Add(uint8(typ), uint8(typ), false, []byte(seed))
		}
	}
	f.Fuzz(func(t *testing.T, typ, target uint8, key bool, text []byte) {
		targetType := targets[int(target)%len(targets)]
		out, reason := starrocks.EncodeValue(columnOf(cdc.Type(typ%24)), key, targetType, text)
		if reason != "" {
			return
		}
		if !json.Valid([]byte(out)) || !utf8.ValidString(out) {
			t.Fatalf("%q into %s: %s is not JSON", text, targetType, out)
		}
		roundTrip(t, targetType, key, text, out)
	})
}

func roundTrip(t *testing.T, targetType string, key bool, text []byte, out string) {
	t.Helper()
	var unquoted string
	isString := json.Unmarshal([]byte(out), &unquoted) == nil && out != "null"
	switch {
	case targetType == "json":
		if out != string(text) {
			t.Fatalf("JSON %q was changed to %q", text, out)
		}
	case strings.HasPrefix(targetType, "varchar"):
		if !isString || (!key && unquoted != string(text)) || (key && !strings.HasPrefix(string(text), unquoted)) {
			t.Fatalf("text %q was changed to %q", text, unquoted)
		}
	case strings.HasPrefix(targetType, "decimal"), strings.HasPrefix(targetType, "largeint"):
		want, ok1 := new(big.Rat).SetString(string(text))
		got, ok2 := new(big.Rat).SetString(unquoted)
		if !ok1 || !ok2 || want.Cmp(got) != 0 {
			t.Fatalf("number %q was changed to %q", text, unquoted)
		}
	case targetType == "float":
		want, err1 := strconv.ParseFloat(string(text), 32)
		got, err2 := strconv.ParseFloat(out, 64)
		if err1 != nil || err2 != nil || math.Abs(got) > math.MaxFloat32 || math.Float32bits(float32(want)) != math.Float32bits(float32(got)) {
			t.Fatalf("number %q was changed to %q", text, out)
		}
	case targetType == "double":
		want, err1 := strconv.ParseFloat(string(text), 64)
		got, err2 := strconv.ParseFloat(out, 64)
		if err1 != nil || err2 != nil || math.Float64bits(want) != math.Float64bits(got) {
			t.Fatalf("number %q was changed to %q", text, out)
		}
	case targetType == "boolean":
		if (out == "true") != (string(text) == "t") {
			t.Fatalf("boolean %q was changed to %q", text, out)
		}
	case strings.HasPrefix(targetType, "date"):
		if !isString || strings.TrimSuffix(string(text), "+00") != unquoted {
			t.Fatalf("date %q was changed to %q", text, unquoted)
		}
	default:
		if out != string(text) {
			t.Fatalf("integer %q was changed to %q", text, out)
		}
	}
}
