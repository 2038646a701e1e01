package compare_test

import (
	"testing"

	"github.com/dbmazz/dbmazz/internal/demo/compare"
)

func TestValuesAreComparedByWhatTheyMean(t *testing.T) {
	t.Parallel()
	tests := []struct {
		typeName, source, sink string
		same                   bool
	}{
		{"bool", "t", "1", true},
		{"bool", "f", "1", false},
		{"int8", "9223372036854775807", "9223372036854775807", true},
		{"int8", "9007199254740993", "9007199254740992", false},
		{"numeric", "12.50", "12.5", true},
		{"numeric", "0.10", "0.1000000000000000055", false},
		{"numeric", "-1", "1", false},
		{"float8", "1e+21", "1000000000000000000000", true},
		{"float8", "0", "-0", false},
		{"float8", "0.1", "0.10000000000000002", false},
		{"float4", "0.1", "0.10000000149011612", true},
		{"date", "2024-02-29", "2024-02-29", true},
		{"date", "2024-02-29", "2024-03-01", false},
		{"timestamp", "2024-01-02 03:04:05.5", "2024-01-02 03:04:05.500000", true},
		{"timestamptz", "2024-01-02 03:04:05+00", "2024-01-02 03:04:05", true},
		{"timestamptz", "2024-01-02 03:04:05.000001+00", "2024-01-02 03:04:05", false},
		{"timestamptz", "2024-01-02 05:04:05+02", "2024-01-02 05:04:05", false},
		{"text", `\N`, `\N`, true},
		{"text", "e\u0301", "\u00e9", false},
		{"_text", "{1,NULL}", "{1,NULL}", true},
		{"jsonb", `{"a": 1, "b": [1.50, null]}`, `{"b":[1.5,null],"a":1}`, true},
		{"jsonb", `{"a": 1}`, `{"a": "1"}`, false},
		{"jsonb", `{"a": null}`, `{}`, false},
		{"jsonb", `{"a": 9007199254740993}`, `{"a": 9007199254740992}`, false},
		{"jsonb", `{"a": 19.99}`, `{"a": 19.98999999999998}`, false},
		{"jsonb", `{"a": 0.0000001}`, `{"a": 1e-07}`, true},
		{"jsonb", `"\u00e9"`, `"é"`, true},
		{"jsonb", `[1, 2]`, `[2, 1]`, false},
	}
	for _, test := range tests {
		same, err := compare.Equal(test.typeName, []byte(test.source), []byte(test.sink))
		if same != test.same || err != nil {
			t.Errorf("%s %s and %s: got %t (%v); want %t", test.typeName, test.source, test.sink, same, err, test.same)
		}
	}
}

func TestValuesThatDoNotParseAreDifferent(t *testing.T) {
	t.Parallel()
	for _, test := range [][3]string{
		{"bool", "t", "true"},
		{"numeric", "1", "one"},
		{"float8", "1", ""},
		{"timestamp", "2024-01-02 03:04:05", "2024-01-02T03:04:05"},
		{"timestamptz", "2024-01-02 03:04:05+00", "2024-01-02 03:04:05+00"},
		{"jsonb", `{"a": 1}`, `{"a": 1, "a": 1}`},
		{"jsonb", `{"a": 1}`, `{"a": 1} {}`},
		{"jsonb", `{"a": 1}`, `{"a": `},
	} {
		if same, err := compare.Equal(test[0], []byte(test[1]), []byte(test[2])); same || err == nil {
			t.Errorf("%s %s and %s: got %t (%v); want an error", test[0], test[1], test[2], same, err)
		}
	}
}

func TestNullIsOnlyEqualToNull(t *testing.T) {
	t.Parallel()
	for _, typeName := range []string{"text", "int4", "jsonb", "timestamptz"} {
		for _, test := range []struct {
			source, sink []byte
			same         bool
		}{{nil, nil, true}, {nil, []byte{}, false}, {[]byte("null"), nil, false}} {
			if same, err := compare.Equal(typeName, test.source, test.sink); same != test.same || err != nil {
				t.Errorf("%s %q and %q: got %t (%v); want %t", typeName, test.source, test.sink, same, err, test.same)
			}
		}
	}
}
