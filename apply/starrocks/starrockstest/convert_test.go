package starrockstest_test

import (
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

const refused = "<refused>"

// conversions gives for a column type and a JSON token what is stored; refused means NULL without strict mode and a
// filtered row with it.
var conversions = []struct{ typ, token, want string }{
	{"BOOLEAN", `true`, "1"},
	{"BOOLEAN", `0`, "0"},
	{"BOOLEAN", `-2.5`, "1"},
	{"BOOLEAN", `"TRUE"`, "1"},
	{"BOOLEAN", `" false "`, "0"},
	{"BOOLEAN", `"7"`, "1"},
	{"BOOLEAN", `"t"`, refused},
	{"BOOLEAN", `""`, refused},
	{"BOOLEAN", `[]`, refused},

	{"TINYINT", `127`, "127"},
	{"TINYINT", `128`, refused},
	{"TINYINT", `-128`, "-128"},
	{"TINYINT", `"-129"`, refused},
	{"SMALLINT", `32768`, refused},
	{"SMALLINT", `"32767"`, "32767"},
	{"INT", `2147483647`, "2147483647"},
	{"INT", `-2147483649`, refused},
	{"INT", `1.9`, "1"},
	{"INT", `"-1.9"`, "-1"},
	{"INT", `1e3`, "1000"},
	{"INT", `" 5 "`, "5"},
	{"INT", `"5x"`, refused},
	{"INT", `""`, refused},
	{"INT", `"0x10"`, refused},
	{"INT", `true`, refused},
	{"BIGINT", `9007199254740993`, "9007199254740993"},
	{"BIGINT", `-9223372036854775808`, "-9223372036854775808"},
	{"BIGINT", `9223372036854775808`, refused},
	{"BIGINT", `123456789012345678901234567890`, refused},
	{"BIGINT", `9.3e18`, refused},
	{"LARGEINT", `170141183460469231731687303715884105727`, "170141183460469231731687303715884105727"},
	{"LARGEINT", `"-170141183460469231731687303715884105728"`, "-170141183460469231731687303715884105728"},
	{"LARGEINT", `"170141183460469231731687303715884105728"`, refused},
	{"LARGEINT", `"1.5"`, refused},

	{"FLOAT", `1.1`, "1.1"},
	{"FLOAT", `16777217`, "16777216"},
	{"FLOAT", `1e39`, refused},
	{"FLOAT", `"inf"`, "inf"},
	{"DOUBLE", `0.1`, "0.1"},
	{"DOUBLE", `1e308`, "1e+308"},
	{"DOUBLE", `1e309`, refused},
	{"DOUBLE", `"-Infinity"`, "-inf"},
	{"DOUBLE", `"NaN"`, "nan"},
	{"DOUBLE", `"1_0"`, refused},
	{"DOUBLE", `"abc"`, refused},

	{"DECIMAL(5,2)", `1`, "1.00"},
	{"DECIMAL(5,2)", `"1.005"`, "1.01"},
	{"DECIMAL(5,2)", `-0.125`, "-0.13"},
	{"DECIMAL(5,2)", `"-0.004"`, "0.00"},
	{"DECIMAL(5,2)", `999.99`, "999.99"},
	{"DECIMAL(5,2)", `999.995`, refused},
	{"DECIMAL(5,2)", `1000`, refused},
	{"DECIMAL(5,2)", `"NaN"`, refused},
	{"DECIMAL(5,2)", `1.5e1`, "15.00"},
	{"DECIMAL(38,0)", `12345678901234567890123456789012345678`, "12345678901234567890123456789012345678"},
	{"DECIMAL(38,38)", `"0.1"`, "0.1" + strings.Repeat("0", 37)},

	{"CHAR(3)", `"abc"`, "abc"},
	{"CHAR(3)", `"abcd"`, refused},
	{"VARCHAR(4)", `"éé"`, "éé"},
	{"VARCHAR(4)", `"ééé"`, refused},
	{"VARCHAR(4)", `""`, ""},
	{"VARCHAR(9)", `"a\n\"\\\u00e9"`, "a\n\"\\é"},
	{"VARCHAR(9)", `"\ud83d\ude00"`, "😀"},
	{"VARCHAR(9)", `"\\N"`, `\N`},
	{"VARCHAR(9)", `1.10`, "1.10"},
	{"VARCHAR(9)", `true`, "1"},
	{"VARCHAR(99)", `{"b": 1, "a" : "x y"}`, `{"b":1,"a":"x y"}`},
	{"VARCHAR(9)", `null`, "NULL"},
	{"STRING", `"` + strings.Repeat("x", 65534) + `"`, refused},

	{"DATE", `"2024-02-29"`, "2024-02-29"},
	{"DATE", `"2023-02-29"`, refused},
	{"DATE", `"2024-01-01 23:59:59"`, "2024-01-01"},
	{"DATE", `20240102`, "2024-01-02"},
	{"DATE", `"24-01-02"`, "2024-01-02"},
	{"DATE", `"0000-01-01"`, "0000-01-01"},
	{"DATE", `"9999-12-31"`, "9999-12-31"},
	{"DATE", `"10000-01-01"`, refused},
	{"DATE", `"infinity"`, refused},
	{"DATE", `"0044-03-15 BC"`, refused},
	{"DATETIME", `"2024-01-02 03:04:05"`, "2024-01-02 03:04:05"},
	{"DATETIME", `"2024-01-02T03:04:05.1"`, "2024-01-02 03:04:05.100000"},
	{"DATETIME", `"2024-01-02 03:04:05.1234567"`, "2024-01-02 03:04:05.123456"},
	{"DATETIME", `"2024-01-02 03:04:05+08"`, "2024-01-02 03:04:05"},
	{"DATETIME", `"2024-01-02T03:04:05.5Z"`, "2024-01-02 03:04:05.500000"},
	{"DATETIME", `"2024-01-02"`, "2024-01-02 00:00:00"},
	{"DATETIME", `20240102030405`, "2024-01-02 03:04:05"},
	{"DATETIME", `"2024-01-02 24:00:00"`, refused},
	{"DATETIME", `"-infinity"`, refused},
	{"DATETIME", `"0044-03-15 00:00:00 BC"`, refused},
	{"DATETIME", `""`, refused},

	{"JSON", `{"b":1.0,"a":[1,"x",null,true]}`, `{"a": [1, "x", null, true], "b": 1}`},
	{"JSON", `"x"`, `"x"`},
	{"JSON", `"{}"`, `"{}"`},
	{"JSON", `null`, "NULL"},
	{"JSON", `18446744073709551615`, "18446744073709551615"},
	{"JSON", `12345678901234567890123`, "1.2345678901234568e+22"},
	{"JSON", `"<&>"`, `"<&>"`},

	{"VARBINARY", `"aGk="`, "aGk="},
	{"VARBINARY(2)", `"abc"`, refused},

	{"ARRAY<INT>", `[1,"2",null,"x",3.9]`, "[1,2,null,null,3]"},
	{"ARRAY<INT>", `[]`, "[]"},
	{"ARRAY<INT>", `"1"`, refused},
	{"ARRAY<VARCHAR(2)>", `["a","\"",  "abc"]`, `["a","\"",null]`},
	{"ARRAY<ARRAY<INT>>", `[[1],[],null]`, `[[1],[],null]`},
	{"ARRAY<DATE>", `["2024-01-01","x"]`, `["2024-01-01",null]`},
}

func TestConversionsStrictAndNot(t *testing.T) {
	t.Parallel()
	s := start(t, starrockstest.Options{})
	exec(t, s, "CREATE DATABASE d")
	tables := make(map[string]string)
	for _, c := range conversions {
		if _, ok := tables[c.typ]; !ok {
			name := "t" + string(rune('a'+len(tables)/26)) + string(rune('a'+len(tables)%26))
			tables[c.typ] = name
			exec(t, s, "CREATE TABLE d."+name+" (id INT NOT NULL, c "+c.typ+`) PRIMARY KEY(id) PROPERTIES("replication_num"="1")`)
		}
	}
	for i, c := range conversions {
		name := c.typ + " " + c.token[:min(len(c.token), 40)]
		body := `{"id":` + string(rune('0'+i%10)) + `,"c":` + c.token + `}`
		table := tables[c.typ]
		strict, err := tryLoad(t, s, table, body, headers())
		if err != nil {
			t.Fatal(err)
		}
		want := c.want
		if c.want == refused {
			if strict.Message != "too many filtered rows" || strict.Filtered != 1 {
				t.Errorf("%s strict: %s", name, strict.raw)
			}
			want = "NULL"
		} else if got := cell(t, s, table); strict.Status != "Success" || got != want {
			t.Errorf("%s strict: got %q, want %q (%s)", name, got, want, strict.Message)
		}
		exec(t, s, "TRUNCATE TABLE d."+table)
		loose, err := tryLoad(t, s, table, body, headers("strict_mode:"))
		if err != nil {
			t.Fatal(err)
		}
		if got := cell(t, s, table); loose.Status != "Success" || loose.Filtered != 0 || got != want {
			t.Errorf("%s loose: got %q, want %q (%s)", name, got, want, loose.Message)
		}
		exec(t, s, "TRUNCATE TABLE d."+table)
	}
}

func cell(t *testing.T, s *starrockstest.Server, table string) string {
	t.Helper()
	data, err := s.Rows("d", table)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case len(data.Rows) != 1:
		return "<no row>"
	case data.Rows[0][1].Null:
		return "NULL"
	default:
		return data.Rows[0][1].Text
	}
}

func TestWithoutStrictModeNotNullStillFilters(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id INT NOT NULL, v INT NOT NULL")
	if a := load(t, s, `{"id":1,"v":"x"}`, "strict_mode:"); a.Message != "too many filtered rows" {
		t.Errorf("got %s", a.raw)
	}
}

func TestMicrosecondsAreHiddenBefore335(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{"3.3.4": "2024-01-02 03:04:05", "3.3.5": "2024-01-02 03:04:05.600000"} {
		s := startTable(t, starrockstest.Options{Version: version}, "id INT NOT NULL, v DATETIME")
		mustLoad(t, s, `{"id":1,"v":"2024-01-02 03:04:05.6"}`)
		if got := query(t, s, "SELECT v FROM d.t"); got[0] != want {
			t.Errorf("%s: got %v", version, got)
		}
	}
}

func TestJSONColumnsTakeSixteenMebibytes(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id INT NOT NULL, j JSON")
	for size, want := range map[int]string{16 << 20: "Success", 16<<20 + 1: "Fail"} {
		if a := load(t, s, `{"id":1,"j":"`+strings.Repeat("x", size-2)+`"}`); a.Status != want {
			t.Errorf("%d bytes: %s", size, a.raw)
		}
	}
}
