package starrocks_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

func override(column string, policy starrocks.OverridePolicy) starrocks.Override {
	return starrocks.Override{Namespace: "public", Table: "items", Column: column, Policy: policy}
}

func overriding(list ...starrocks.Override) func(*starrocks.Config) {
	return func(c *starrocks.Config) { c.Overrides = list }
}

func overrideSchema(t *testing.T) *cdc.Schema {
	t.Helper()
	return sinktest.Schema(t, "items", []string{"id"}, sinktest.Column("id", cdc.TypeInt8, "bigint"), sinktest.Numeric("n", 5, 2),
		sinktest.Column("f", cdc.TypeFloat8, "double precision"), sinktest.Column("j", cdc.TypeJSONB, "jsonb"), sinktest.Column("v", cdc.TypeText, "text"))
}

// cells returns a row of the sink by column, NULL as such.
func cells(t *testing.T, server *starrockstest.Server, key string) map[string]string {
	t.Helper()
	data, err := server.Rows("shop", "items")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range data.Rows {
		found := map[string]string{}
		for i, name := range data.Columns {
			found[name] = row[i].Text
			if row[i].Null {
				found[name] = "NULL"
			}
		}
		if found["id"] == key {
			return found
		}
	}
	t.Fatalf("the sink has no row %s", key)
	return nil
}

func TestAColumnOverriddenAsTextHoldsWhatPostgreSQLPrints(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, overriding(override("n", starrocks.OverrideText), override("f", starrocks.OverrideText), override("j", starrocks.OverrideText)))
	schema := overrideSchema(t)
	prepareAndApply(t, sink, schema, "text", sinktest.Insert("1", "1.50", "NaN", "null", "x"))
	got := cells(t, server, "1")
	for name, want := range map[string]string{"n": "1.50", "f": "NaN", "j": "null"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	// Without the override the column goes on as it is.
	other := connect(t, server, nil)
	prepareAndApply(t, other, schema, "later", sinktest.Insert("2", "2.50", "Infinity", "null", "x"))
	if got := cells(t, server, "2")["f"]; got != "Infinity" {
		t.Errorf("f is %q without the override, want Infinity", got)
	}
}

func prepareAndApply(t *testing.T, sink *starrocks.Sink, schema *cdc.Schema, id string, row apply.Row) {
	t.Helper()
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Apply(t.Context(), sinktest.NewBatch(schema, id).Of(row)); err != nil {
		t.Fatal(err)
	}
}

func TestValuesThatDoNotFitBecomeNULLWhereAllowedAndAreCounted(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, overriding(override("f", starrocks.OverrideNull), override("j", starrocks.OverrideNull)))
	schema := overrideSchema(t)
	batch := sinktest.NewBatch(schema, "nulls")
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	result, err := sink.Apply(t.Context(), batch.Of(
		sinktest.Insert("1", "1.50", "NaN", `{"a": 18446744073709551616}`, "x"), sinktest.Insert("2", "1.50", "1.5", `{"a": 1}`, "x")))
	if err != nil || result.Nulled != 2 {
		t.Fatalf("%d values became NULL, want 2: %v", result.Nulled, err)
	}
	if got := cells(t, server, "1"); got["f"] != "NULL" || got["j"] != "NULL" || got["n"] != "1.50" {
		t.Errorf("the row is %v", got)
	}
	if got := cells(t, server, "2"); got["f"] != "1.5" || got["j"] == "NULL" {
		t.Errorf("values that fit became %v", got)
	}
	// The row gets another key, with a large value left out.
	moved := sinktest.Moved(sinktest.Tuple("2", nil, nil, nil, nil), "3", "1.50", "Infinity", "[1e400]", sinktest.Unchanged)
	if result, err = sink.Apply(t.Context(), batch.Of(sinktest.DeleteKey("2", nil, nil, nil, nil), moved)); err != nil || result.Nulled != 2 {
		t.Fatalf("%d values became NULL, want 2: %v", result.Nulled, err)
	}
	if got := cells(t, server, "3"); got["f"] != "NULL" || got["j"] != "NULL" || got["v"] != "x" {
		t.Errorf("the row that moved is %v", got)
	}
	_, err = sink.Apply(t.Context(), batch.Of(sinktest.Insert("4", "1234.50", "1", "1", "x")))
	if refusal, ok := errors.AsType[*apply.RowError](err); !ok || refusal.Column != "n" {
		t.Errorf("a column without an override: %v, want a refusal of n", err)
	}
}

func TestOverridesThatCannotBeAreRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	schema := overrideSchema(t)
	for name, test := range map[string]struct {
		table    string
		override starrocks.Override
		wants    []string
	}{
		"NULL in a key": {override: override("id", starrocks.OverrideNull), wants: []string{"SINK_TYPE_OVERRIDES", `"id"`, "part of the key"}},
		"text in a column of another type": {
			table:    "id BIGINT NOT NULL, n DECIMAL(5,2), f DOUBLE, j JSON, v STRING",
			override: override("n", starrocks.OverrideText), wants: []string{`"n"`, "as text", "DECIMAL(5,2)", "MODIFY COLUMN `n` VARCHAR(1048576)"},
		},
		"text in a key of another type": {
			table:    "id BIGINT NOT NULL, n DECIMAL(5,2), f DOUBLE, j JSON, v STRING",
			override: override("id", starrocks.OverrideText), wants: []string{`"id"`, "as text", "cannot change a key column"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink, server := setup(t, starrockstest.Options{}, overriding(test.override))
			if test.table != "" {
				create(t, server, test.table, "PRIMARY KEY(id)")
			}
			err := sink.Prepare(t.Context(), schema)
			for _, want := range test.wants {
				if err == nil || !strings.Contains(err.Error(), want) || !starrocks.IsPermanent(err) {
					t.Errorf("error %v lacks %q, or is not permanent", err, want)
				}
			}
		})
	}
}

func TestOverridesOfColumnsThatDoNotExistAreErrors(t *testing.T) {
	t.Parallel()
	unknown := starrocks.Override{Namespace: "public", Table: "gone", Column: "x", Policy: starrocks.OverrideText}
	sink, _ := setup(t, starrockstest.Options{}, overriding(override("N", starrocks.OverrideText), override("w", starrocks.OverrideNull), override("n", starrocks.OverrideNull), unknown))
	err := sink.CheckConfig([]*cdc.Schema{overrideSchema(t)})
	if err == nil || !strings.Contains(err.Error(), `"N"`) || !strings.Contains(err.Error(), `"w"`) || strings.Contains(err.Error(), `"n" of`) || !strings.Contains(err.Error(), "id, n, f, j, v") {
		t.Errorf("%v, want an error about N and w that lists the columns", err)
	}
}
