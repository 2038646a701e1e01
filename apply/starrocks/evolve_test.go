package starrocks_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// bounded is character varying(n).
func bounded(n int32) cdc.Column {
	c := sinktest.Column("v", cdc.TypeText, fmt.Sprintf("character varying(%d)", n))
	c.Mod, c.BaseMod = n+4, n+4
	return c
}

func withKey(t *testing.T, columns ...cdc.Column) *cdc.Schema {
	t.Helper()
	return sinktest.Schema(t, "items", []string{"id"}, append([]cdc.Column{sinktest.Column("id", cdc.TypeInt8, "bigint")}, columns...)...)
}

// columnText reads column v by id.
func columnText(t *testing.T, server *starrockstest.Server) string {
	t.Helper()
	data, err := server.Query("SELECT v FROM shop.items ORDER BY id")
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, row := range data.Rows {
		text := row[0].Text
		if row[0].Null {
			text = "NULL"
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, " ")
}

func columnType(t *testing.T, server *starrockstest.Server, name string) string {
	t.Helper()
	data, err := server.Rows("shop", "items")
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range data.Columns {
		if n == name {
			return strings.NewReplacer("DECIMAL32", "DECIMAL", "DECIMAL64", "DECIMAL", "DECIMAL128", "DECIMAL").Replace(strings.ToUpper(data.Types[i]))
		}
	}
	return ""
}

var widenings = []struct {
	name        string
	before      cdc.Column
	old         string // a value before
	after       cdc.Column
	fresh       string // a value after
	want, found string // the type, and both values
}{
	{"int2 to int4", sinktest.Column("v", cdc.TypeInt2, "smallint"), "7", sinktest.Column("v", cdc.TypeInt4, "integer"), "70000", "INT", "7 70000"},
	{"int4 to int8", sinktest.Column("v", cdc.TypeInt4, "integer"), "7", sinktest.Column("v", cdc.TypeInt8, "bigint"), "5000000000", "BIGINT", "7 5000000000"},
	{"int4 to text", sinktest.Column("v", cdc.TypeInt4, "integer"), "7", sinktest.Column("v", cdc.TypeText, "text"), "seven", "VARCHAR(1048576)", "7 seven"},
	{"real to double", sinktest.Column("v", cdc.TypeFloat4, "real"), "1.5", sinktest.Column("v", cdc.TypeFloat8, "double precision"), "1.1", "DOUBLE", "1.5 1.1"},
	{"longer varchar", bounded(2), "ab", bounded(20), strings.Repeat("x", 20), "VARCHAR(80)", "ab " + strings.Repeat("x", 20)},
	{"varchar to text", bounded(2), "ab", sinktest.Column("v", cdc.TypeText, "text"), strings.Repeat("x", 200), "VARCHAR(1048576)", "ab " + strings.Repeat("x", 200)},
	{"more digits", sinktest.Numeric("v", 5, 2), "123.45", sinktest.Numeric("v", 10, 2), "12345678.90", "DECIMAL(10,2)", "123.45 12345678.90"},
	{"more scale, fewer digits", sinktest.Numeric("v", 5, 1), "1234.5", sinktest.Numeric("v", 5, 4), "1.2345", "DECIMAL(8,4)", "1234.5000 1.2345"},
	{"more digits than DECIMAL has", sinktest.Numeric("v", 38, 0), "7", sinktest.Numeric("v", 38, 38), "0.5", "VARCHAR(1048576)", "7 0.5"},
	{"date to timestamp", sinktest.Column("v", cdc.TypeDate, "date"), "2020-02-29", sinktest.Column("v", cdc.TypeTimestamp, "timestamp without time zone"), "2021-01-01 10:11:12", "DATETIME", "2020-02-29 00:00:00 2021-01-01 10:11:12"},
	{"json to text", sinktest.Column("v", cdc.TypeJSONB, "jsonb"), "[1]", sinktest.Column("v", cdc.TypeText, "text"), "x", "VARCHAR(1048576)", "[1] x"},
	{"timestamp to date", sinktest.Column("v", cdc.TypeTimestamp, "timestamp without time zone"), "2020-01-01 10:00:00", sinktest.Column("v", cdc.TypeDate, "date"), "2021-01-01", "DATETIME", "2020-01-01 10:00:00 2021-01-01 00:00:00"},
	{"narrower", bounded(20), "abc", bounded(2), "ab", "VARCHAR(80)", "abc ab"},
	{"smaller integer", sinktest.Column("v", cdc.TypeInt8, "bigint"), "7", sinktest.Column("v", cdc.TypeInt4, "integer"), "8", "BIGINT", "7 8"},
	{"text to int4", sinktest.Column("v", cdc.TypeText, "text"), "7", sinktest.Column("v", cdc.TypeInt4, "integer"), "8", "VARCHAR(1048576)", "7 8"},
}

func TestColumnsAreWidenedAndTakeTheRowsOfBothSchemas(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"3.1.10", "3.3.15", "4.0.1"} {
		for _, test := range widenings {
			t.Run(version+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				sink, server := setup(t, starrockstest.Options{Version: version, AlterDuration: 20 * time.Millisecond}, nil)
				before, after := withKey(t, test.before), withKey(t, test.after)
				for i, step := range []struct {
					schema *cdc.Schema
					value  string
				}{{before, test.old}, {after, test.fresh}, {before, test.old}, {after, test.fresh}} {
					if err := sink.Prepare(t.Context(), step.schema); err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
					batch := sinktest.NewBatch(step.schema, fmt.Sprint("b", i)).Of(sinktest.Insert(fmt.Sprint(i%2+1), step.value))
					if _, err := sink.Apply(t.Context(), batch); err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
					if i > 0 && (columnType(t, server, "v") != test.want || columnText(t, server) != test.found) {
						t.Errorf("step %d: %s: %s, want %s: %s", i, columnType(t, server, "v"), columnText(t, server), test.want, test.found)
					}
				}
			})
		}
	}
}

func TestTypesThatCannotBeWidenedAreRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		before, after cdc.Column
		want          []string
	}{
		{"boolean to integer", sinktest.Column("v", cdc.TypeBool, "boolean"), sinktest.Column("v", cdc.TypeInt4, "integer"), []string{"DROP COLUMN `v`, and dbmazz adds it as INT", "dbmazz snapshot --tables public.items"}},
		{"boolean to text", sinktest.Column("v", cdc.TypeBool, "boolean"), sinktest.Column("v", cdc.TypeText, "text"), []string{"DROP COLUMN `v`"}},
		{"integer to numeric", sinktest.Column("v", cdc.TypeInt4, "integer"), sinktest.Numeric("v", 12, 2), []string{"DROP COLUMN `v`, and dbmazz adds it as DECIMAL(12,2)"}},
		{"timestamp to text", sinktest.Column("v", cdc.TypeTimestamp, "timestamp without time zone"), sinktest.Column("v", cdc.TypeText, "text"), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sink, _ := setup(t, starrockstest.Options{}, nil)
			if err := sink.Prepare(t.Context(), withKey(t, test.before)); err != nil {
				t.Fatal(err)
			}
			wantError(t, sink.Prepare(t.Context(), withKey(t, test.after)), true, append(test.want, "`v`")...)
		})
	}
}

func TestSomebodyElsesTextColumnsKeepTheirLength(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, nil)
	create(t, server, "id BIGINT NOT NULL, v VARCHAR(40) COMMENT 'what the customer said', w VARCHAR(5)", "PRIMARY KEY(id)")
	if err := sink.Prepare(t.Context(), withKey(t, bounded(100), sinktest.Column("w", cdc.TypeText, "text"))); err != nil {
		t.Fatal(err)
	}
	if v, w := columnType(t, server, "v"), columnType(t, server, "w"); v != "VARCHAR(40)" || w != "VARCHAR(5)" {
		t.Errorf("they are %s and %s", v, w)
	}
}

func TestRowsThatAreThereGetTheDefaultOfAnAddedColumn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		column        cdc.Column
		missing, want string
	}{
		{sinktest.Column("v", cdc.TypeInt4, "integer"), "-7", "-7"},
		{sinktest.Column("v", cdc.TypeBool, "boolean"), "t", "1"},
		{sinktest.Column("v", cdc.TypeBool, "boolean"), "f", "0"},
		{sinktest.Column("v", cdc.TypeText, "text"), "", ""},
		{sinktest.Column("v", cdc.TypeText, "text"), `it's a \ "new" one`, `it's a \ "new" one`},
		{sinktest.Column("v", cdc.TypeText, "text"), "\\N", "\\N"},
		{bounded(3), "äöü", "äöü"},
		{sinktest.Numeric("v", 10, 2), "1.50", "1.50"},
		{sinktest.Column("v", cdc.TypeFloat8, "double precision"), "0.1", "0.1"},
		{sinktest.Column("v", cdc.TypeDate, "date"), "2020-02-29", "2020-02-29"},
		{sinktest.Column("v", cdc.TypeTimestampTZ, "timestamp with time zone"), "2020-02-29 01:02:03.456+00", "2020-02-29 01:02:03.456000"},
		{sinktest.Column("v", cdc.TypeUUID, "uuid"), "11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-555555555555"},
		{sinktest.Column("v", cdc.TypeEnum, "mood"), "happy", "happy"},
		{sinktest.Column("v", cdc.TypeArray, "integer[]"), "{1,NULL}", "{1,NULL}"},
		// StarRocks has no default for JSON; capture has the table copied.
		{sinktest.Column("v", cdc.TypeJSONB, "jsonb"), "{}", "NULL"},
	} {
		t.Run(test.column.TypeName+" "+test.missing, func(t *testing.T) {
			t.Parallel()
			sink, server := setup(t, starrockstest.Options{}, nil)
			before := withKey(t)
			test.column.Missing = &test.missing
			after := withKey(t, test.column)
			b := sinktest.NewBatch(before, "b")
			steps := []struct {
				schema *cdc.Schema
				batch  func() error
			}{
				{before, func() error { _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1"))); return err }},
				{after, func() error {
					_, err := sink.Apply(t.Context(), sinktest.NewBatch(after, "a").Of(sinktest.Insert("2", nil)))
					return err
				}},
				// Rows that are older than the column, applied late.
				{before, func() error { _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("3"))); return err }},
			}
			for i, step := range steps {
				if err := sink.Prepare(t.Context(), step.schema); err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if err := step.batch(); err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
			}
			if got, want := columnText(t, server), test.want+" NULL "+test.want; got != want {
				t.Errorf("the column has %s, want %s", got, want)
			}
		})
	}
}

func TestDefaultThatStarRocksCannotHoldIsRefused(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, nil)
	if err := sink.Prepare(t.Context(), withKey(t)); err != nil {
		t.Fatal(err)
	}
	missing := "NaN"
	c := sinktest.Column("v", cdc.TypeFloat8, "double precision")
	c.Missing = &missing
	wantError(t, sink.Prepare(t.Context(), withKey(t, c)), true, `column "v"`, "NaN", "dbmazz snapshot --tables public.items")
	exec(t, server, "ALTER TABLE shop.items ADD COLUMN v STRING")
	if err := sink.Prepare(t.Context(), withKey(t, c)); err != nil {
		t.Errorf("after the column was added by hand: %v", err)
	}
}

func TestColumnWithADefaultIsWidened(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{AlterDuration: 20 * time.Millisecond}, nil)
	missing := "7"
	small := sinktest.Column("v", cdc.TypeInt4, "integer")
	small.Missing = &missing
	before, added, after := withKey(t), withKey(t, small), withKey(t, sinktest.Column("v", cdc.TypeInt8, "bigint"))
	if err := sink.Prepare(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Apply(t.Context(), sinktest.NewBatch(before, "b").Of(sinktest.Insert("1"))); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*cdc.Schema{added, after} {
		if err := sink.Prepare(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if columnType(t, server, "v") != "BIGINT" || columnText(t, server) != "7" {
		t.Errorf("it is %s with %s", columnType(t, server, "v"), columnText(t, server))
	}
}

func TestSchemaChangeWhoseAnswerIsLostIsNotDoneTwice(t *testing.T) {
	t.Parallel()
	for _, kind := range []starrockstest.FaultKind{starrockstest.FaultMySQLLost, starrockstest.FaultMySQLDrop} {
		for _, test := range widenings[:2] {
			t.Run(string(kind)+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				sink, server := setup(t, starrockstest.Options{AlterDuration: 50 * time.Millisecond}, nil)
				if err := sink.Prepare(t.Context(), withKey(t, test.before)); err != nil {
					t.Fatal(err)
				}
				missing := "1"
				other := sinktest.Column("w", cdc.TypeInt4, "integer")
				other.Missing = &missing
				after := withKey(t, test.after, other)
				if err := server.Script(
					starrockstest.Fault{Kind: kind, SQL: "ADD COLUMN"}, starrockstest.Fault{Kind: kind, SQL: "MODIFY COLUMN"},
				); err != nil {
					t.Fatal(err)
				}
				// As whoever calls does: again, in another process.
				for n := 0; sink.Prepare(t.Context(), after) != nil; n++ {
					if n > 20 {
						t.Fatal("it does not get done")
					}
					sink = connect(t, server, nil)
				}
				if columnType(t, server, "v") != test.want || columnType(t, server, "w") != "INT" {
					t.Errorf("the columns are %s and %s", columnType(t, server, "v"), columnType(t, server, "w"))
				}
				if jobs := rewrites(t, server); jobs != 1 {
					t.Errorf("the rows were rewritten %d times", jobs)
				}
			})
		}
	}
}

// rewrites counts the schema changes that took time.
func rewrites(t *testing.T, server *starrockstest.Server) (n int) {
	t.Helper()
	data, err := server.Query("SHOW ALTER TABLE COLUMN FROM shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range data.Rows {
		for i, name := range data.Columns {
			if name == "State" && row[i].Text != "FINISHED" {
				t.Errorf("a schema change is %s", row[i].Text)
			}
		}
		n++
	}
	return n - 1 // That of the added column.
}

func TestRowThatMovedFromAKeyThatStarRocksCannotHoldIsNamedByBothKeys(t *testing.T) {
	t.Parallel()
	sink, _ := setup(t, starrockstest.Options{}, nil)
	schema := sinktest.Schema(
		t, "items", []string{"k", "id"}, sinktest.Column("k", cdc.TypeTimestampTZ, "timestamp with time zone"),
		sinktest.Column("id", cdc.TypeInt8, "bigint"), sinktest.Column("v", cdc.TypeText, "text"),
	)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	moved := sinktest.Moved(sinktest.Tuple("10000-01-01 00:00:00+00", "1", nil), "2020-01-01 00:00:00+00", "2", sinktest.Unchanged)
	_, err := sink.Apply(t.Context(), sinktest.NewBatch(schema, "b").Of(moved))
	wantError(t, err, false, "with key k=2020-01-01 00:00:00+00, id=2", "moved from the key k=10000-01-01 00:00:00+00, id=1")
}
