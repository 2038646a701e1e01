package compare_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/internal/demo/compare"
)

// table has one column of each kind of comparison that matters to whole rows.
var table = compare.NewTable("t", []int{0, 1}, "id", "int8", "code", "text", "amount", "numeric", "note", "text")

// texts makes a row; "NULL" is NULL.
func texts(values ...string) [][]byte {
	row := make([][]byte, len(values))
	for i, v := range values {
		if v != "NULL" {
			row[i] = []byte(v)
		}
	}
	return row
}

// source and sink are two sides that agree: three rows, and one that was deleted.
func source() [][][]byte {
	return [][][]byte{texts("1", "a", "1.50", "x"), texts("2", "a", "2", "NULL"), texts("10", "b", "3", "")}
}

func sink() [][][]byte {
	return [][][]byte{
		texts("1", "a", "1.5", "x", "0", "0", "2026-01-01 00:00:00", "100"),
		texts("2", "a", "2.00", "NULL", "1", "0", "2026-01-01 00:00:00", "101"),
		texts("3", "a", "NULL", "NULL", "2", "1", "2026-01-01 00:00:00", "102"),
		texts("10", "b", "3", "", "0", "0", "2026-01-01 00:00:00", "103"),
	}
}

type memory struct{ rows [][][]byte }

func (m *memory) Next() ([][]byte, error) {
	if len(m.rows) == 0 {
		return nil, nil
	}
	row := m.rows[0]
	m.rows = m.rows[1:]
	return row, nil
}

func (*memory) Close() error { return nil }

// history maps keys to whether the row is left.
type history map[string]bool

func (h history) Left(key []string) (left, ever bool) {
	left, ever = h[strings.Join(key, "/")]
	return left, ever
}

func (h history) Gone(yield func([]string) bool) {
	for key, left := range h {
		if !left && !yield(strings.Split(key, "/")) {
			return
		}
	}
}

func past() history {
	return history{"1/a": true, "2/a": true, "10/b": true, "3/a": false}
}

func run(t *testing.T, a, b [][][]byte, h history) compare.Result {
	t.Helper()
	result, err := compare.Compare(table, &memory{a}, &memory{b}, h)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func TestEqualSidesHaveNoDifference(t *testing.T) {
	t.Parallel()
	result := run(t, source(), sink(), past())
	if result.Count != 0 || result.Rows != 3 || result.Deleted != 1 {
		t.Errorf("got %+v; want no difference in 3 rows and 1 deleted row", result)
	}
}

func TestEveryPlantedDifferenceIsFound(t *testing.T) {
	t.Parallel()
	set := func(row, column int, value string) func([][][]byte) [][][]byte {
		return func(rows [][][]byte) [][][]byte {
			rows[row][column] = texts(value)[0]
			return rows
		}
	}
	insert := func(at int, values ...string) func([][][]byte) [][][]byte {
		return func(rows [][][]byte) [][][]byte { return slices.Insert(rows, at, texts(values...)) }
	}
	remove := func(at int) func([][][]byte) [][][]byte {
		return func(rows [][][]byte) [][][]byte { return slices.Delete(rows, at, at+1) }
	}
	tests := []struct {
		name  string
		plant func([][][]byte) [][][]byte // In the sink.
		want  string
	}{
		{"first row is missing", remove(0), `public.t id=1 code="a": is missing in the sink`},
		{"last row is missing", remove(3), `public.t id=10 code="b": is missing in the sink`},
		{"deleted row is missing", remove(2), `public.t id=3 code="a": was deleted in the source, and the sink has no row`},
		{"row that never was", insert(3, "7", "z", "1", "", "0", "0", "2026-01-01 00:00:00", "9"), `id=7 code="z": is in the sink, but never was`},
		{"deleted row that never was", insert(3, "7", "z", "1", "", "2", "1", "2026-01-01 00:00:00", "9"), `id=7 code="z": is marked as deleted in the sink, but never was`},
		{"row was not deleted", set(2, 5, "0"), `id=3 code="a": is deleted in the source, but not in the sink`},
		{"row was deleted wrongly", set(1, 5, "1"), `id=2 code="a": is marked as deleted in the sink, but not deleted`},
		{"delete has another operation", set(2, 4, "1"), `id=3 code="a": is deleted, but its audit column says otherwise: dbmazz_op_type`},
		{"number differs", set(0, 2, "1.51"), `id=1 code="a": differs in amount`},
		{"text differs", set(0, 3, "X"), `id=1 code="a": differs in note`},
		{"text has a blank more", set(0, 3, "x "), `id=1 code="a": differs in note`},
		{"text became NULL", set(0, 3, "NULL"), `id=1 code="a": differs in note`},
		{"NULL became empty", set(1, 3, ""), `id=2 code="a": differs in note`},
		{"empty became NULL", set(3, 3, "NULL"), `id=10 code="b": differs in note`},
		{"operation is delete", set(0, 4, "2"), `id=1 code="a": differs in dbmazz_op_type`},
		{"operation is NULL", set(0, 4, "NULL"), `id=1 code="a": differs in dbmazz_op_type`},
		{"time of the load is NULL", set(0, 6, "NULL"), `id=1 code="a": differs in dbmazz_synced_at`},
		{"version is NULL", set(0, 7, "NULL"), `id=1 code="a": differs in dbmazz_cdc_version`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			result := run(t, source(), test.plant(sink()), past())
			if result.Count != 1 || !strings.Contains(result.First[0].String(), test.want) {
				t.Errorf("got %d differences %v; want one: %s", result.Count, result.First, test.want)
			}
		})
	}
}

func TestSourceMustHaveWhatTheLoadLeft(t *testing.T) {
	t.Parallel()
	h := past()
	h["2/a"] = false
	result := run(t, source(), sink(), h)
	if result.Count == 0 || !strings.Contains(result.First[0].String(), "but the load did not leave it there") {
		t.Errorf("got %v; want a row that the load did not leave", result.First)
	}
	h = past()
	h["4/a"] = true
	both := append(sink()[:3:3], texts("4", "a", "1", "", "2", "1", "2026-01-01 00:00:00", "9"), sink()[3])
	result = run(t, source(), both, h)
	if result.Count != 1 || !strings.Contains(result.First[0].String(), "but the load left it in the source") {
		t.Errorf("got %v; want a row that only the sink deleted", result.First)
	}
}

func TestHardDeletesLeaveNoRow(t *testing.T) {
	t.Parallel()
	hard := *table
	hard.Hard = true
	result, err := compare.Compare(&hard, &memory{source()}, &memory{slices.Delete(sink(), 2, 3)}, past())
	if err != nil || result.Count != 0 {
		t.Errorf("got %v (%v); want no difference without the deleted row", result.First, err)
	}
	result, err = compare.Compare(&hard, &memory{source()}, &memory{sink()}, past())
	if err != nil || result.Count != 1 || !strings.Contains(result.First[0].String(), "must not keep it") {
		t.Errorf("got %v (%v); want the deleted row as a difference", result.First, err)
	}
}

func TestRowsOutOfOrderAreAnError(t *testing.T) {
	t.Parallel()
	for name, rows := range map[string][][][]byte{
		"swapped": {texts("2", "a", "2", ""), texts("1", "a", "2", "")},
		"twice":   {texts("2", "a", "2", ""), texts("2", "a", "2", "")},
	} {
		if _, err := compare.Compare(table, &memory{rows}, &memory{sink()}, past()); err == nil || !strings.Contains(err.Error(), "not in order") {
			t.Errorf("%s: got error %v; want one about the order", name, err)
		}
	}
}

func TestAllDifferencesCountAndTheFirstAreKept(t *testing.T) {
	t.Parallel()
	h := history{}
	var rows [][][]byte
	for c := 'a'; c <= 'z'; c++ {
		rows = append(rows, texts("1", string(c), "1", ""))
		h["1/"+string(c)] = true
	}
	result := run(t, rows, nil, h)
	if result.Count != 26 || len(result.First) != 20 {
		t.Errorf("got %d differences, %d kept; want 26, 20 kept", result.Count, len(result.First))
	}
	total := compare.Result{First: slices.Repeat(result.First[:1], 15)}
	total.Add(result)
	if total.Count != 26 || len(total.First) != 20 {
		t.Errorf("got a sum of %d differences, %d kept; want 26, 20 kept", total.Count, len(total.First))
	}
}
