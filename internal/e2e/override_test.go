package e2e_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestColumnsAreStoredAsTheirOverridesSay covers existing rows and changes.
func TestColumnsAreStoredAsTheirOverridesSay(t *testing.T) {
	t.Parallel()
	r := setup(t, `CREATE TABLE odd (id int PRIMARY KEY, n numeric(5,2), f float8, "When" date);
		INSERT INTO odd VALUES (1, 'NaN', 'Infinity', '10000-01-01')`, "odd")
	r.set("SINK_TYPE_OVERRIDES", `odd.n=text,odd.f=null,odd."When"=text`)
	addr := freeAddr(t)
	s := r.set("METRICS_ADDR", addr).start()
	r.db.Exec("INSERT INTO odd VALUES (2, 'NaN', '-Infinity', '0044-03-15 BC'), (3, 1.5, 2.5, '2024-02-29')")
	r.settle(s)
	eventually(t, "the rows are in the sink", func() (bool, string) {
		data, err := r.sink.Rows(sinkDatabase, "odd")
		if err != nil {
			return false, err.Error()
		}
		var got []string
		for _, row := range data.Rows {
			text := ""
			for _, name := range []string{"id", "n", "f", "When"} {
				cell := row[slices.Index(data.Columns, name)]
				if cell.Null {
					cell.Text = "NULL"
				}
				text += cell.Text + " "
			}
			got = append(got, text)
		}
		slices.Sort(got)
		want := []string{"1 NaN NULL 10000-01-01 ", "2 NaN NULL 0044-03-15 BC ", "3 1.50 2.5 2024-02-29 "}
		return slices.Equal(got, want), fmt.Sprintf("the sink holds %q, want %q", got, want)
	})
	eventually(t, "both values are counted", func() (bool, string) {
		text := get(t, "http://"+addr+"/metrics", http.StatusOK)
		return strings.Contains(text, "dbmazz_values_nulled_total 2\n"), text
	})
}

func TestAnOverrideOfAColumnThatDoesNotExistIsNamed(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE odd (id int PRIMARY KEY, n numeric)", "odd")
	s := r.set("SINK_TYPE_OVERRIDES", "odd.m=text").up()
	s.complains("SINK_TYPE_OVERRIDES", `"m"`, "public.odd", "id, n")
}
