package main

import (
	"errors"
	"testing"
)

var testColumns = []string{"id", "s", "n", "j", deletedColumn}

func parsed(t *testing.T, text string, list ...string) (*sunk, []arrived, error) {
	t.Helper()
	table, err := newSunk(testColumns)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := table.parseBody([]byte(text), list, nil)
	if err == nil {
		table.apply(rows)
	}
	return table, rows, err
}

func TestBodyIsSummedUp(t *testing.T) {
	t.Parallel()
	table, rows, err := parsed(t, `[{"id":1,"s":"a\"b","n":5,"j":{"x":["}",{}]},"dbmazz_is_deleted":false},`+
		`{"n":-7,"s":null,"id":3,"j":null,"dbmazz_is_deleted":false},{"id":4,"s":"gone","n":9,"j":[],"dbmazz_is_deleted":true}]`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := table.sums(), (sums{Rows: 2, IDs: 4, Numbers: -2, Bytes: 3}); got != want || len(rows) != 3 {
		t.Errorf("%d rows make %+v, want %+v", len(rows), got, want)
	}
}

func TestPartialBodyMarksRows(t *testing.T) {
	t.Parallel()
	table, _, err := parsed(t, `[{"id":1,"s":"ab","n":5,"j":null,"dbmazz_is_deleted":false},{"id":2,"s":"ab","n":5,"j":null,"dbmazz_is_deleted":false}]`)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := table.parseBody([]byte(`[{"id":1,"dbmazz_is_deleted":true}]`), []string{"id", deletedColumn}, nil)
	if err != nil {
		t.Fatal(err)
	}
	table.apply(rows)
	rows, err = table.parseBody([]byte(`[{"id":2,"__op":1}]`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	table.apply(rows)
	if got := table.sums(); got != (sums{}) {
		t.Errorf("what is left of deleted rows is %+v", got)
	}
}

func TestBodyThatIsWrongIsRefused(t *testing.T) {
	t.Parallel()
	const row = `{"id":1,"s":"x","n":5,"j":null,"dbmazz_is_deleted":false`
	for name, text := range map[string]string{
		"no array":              row + `}`,
		"no end":                `[` + row + `}`,
		"more after the end":    `[` + row + `}] `,
		"a column is missing":   `[{"id":1,"s":"x","n":5,"dbmazz_is_deleted":false}]`,
		"a column twice":        `[` + row + `,"s":"y"}]`,
		"an unknown column":     `[` + row + `,"z":1}]`,
		"no id":                 `[{"id":null,"s":"x","n":5,"j":null,"dbmazz_is_deleted":false}]`,
		"a number as text":      `[{"id":1,"s":"x","n":"5","j":null,"dbmazz_is_deleted":false}]`,
		"a control character":   "[{\"id\":1,\"s\":\"\x01\",\"n\":5,\"j\":null,\"dbmazz_is_deleted\":false}]",
		"text that is no UTF-8": "[{\"id\":1,\"s\":\"\xff\",\"n\":5,\"j\":null,\"dbmazz_is_deleted\":false}]",
		"text without an end":   `[{"id":1,"s":"x\`,
		"nothing":               ``,
	} {
		if _, _, err := parsed(t, text); !errors.Is(err, errBody) {
			t.Errorf("%s: the error is %v", name, err)
		}
	}
}
