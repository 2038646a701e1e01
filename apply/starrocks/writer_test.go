package starrocks_test

import (
	"testing"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

func TestDatabaseIsCreatedIfThatIsAskedFor(t *testing.T) {
	t.Parallel()
	_, server := setup(t, starrockstest.Options{}, nil)
	other := connect(t, server, func(c *starrocks.Config) { c.Database, c.CreateDatabase = "replayed", true })
	if err := other.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultMySQL, SQL: "^CREATE DATABASE", Code: 5203, Message: "Access denied; you need (at least one of) the CREATE DATABASE privilege(s) on CATALOG default_catalog for this operation."})
	schema := items(t)
	wantError(t, other.Prepare(t.Context(), schema), true, `"replayed"`, "Access denied", "GRANT CREATE DATABASE ON CATALOG default_catalog TO USER 'root'")
	for range 2 {
		if err := other.Prepare(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		if err := other.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Apply(t.Context(), sinktest.NewBatch(schema, "x").Of(sinktest.Insert("1", "a", nil))); err != nil {
		t.Fatal(err)
	}
	if data, err := server.Rows("replayed", "items"); err != nil || len(data.Rows) != 1 {
		t.Errorf("got %d rows, %v", len(data.Rows), err)
	}
}

func TestWritersAreCountedByInstance(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.Instance = "apply-1:a" })
	schema := items(t)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	b := sinktest.NewBatch(schema, "x")
	idle := process(t, server, schema, func(c *starrocks.Config) { c.Instance = "apply-2" })
	if err := idle.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	batch := b.Of(sinktest.Insert("1", "a", nil))
	for range 2 {
		if _, err := sink.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := sink.Truncate(t.Context(), b.Truncate()); err != nil {
		t.Fatal(err)
	}
	writers := server.Stats().Writers
	if w := writers["dbmazz/apply-1:a"]; w.Loads != 1 {
		t.Errorf("the writer has %+v, want 1 load", w)
	}
	if w := writers["dbmazz/apply-1 a"]; w.Statements != 2 { // CREATE TABLE and UPDATE
		t.Errorf("the writer has %+v, want 2 statements", w)
	}
	if w, ok := writers["dbmazz/apply-2"]; ok {
		t.Errorf("the idle one has %+v", w)
	}
}

func TestRowErrorsOfTheClientNameTheRow(t *testing.T) {
	t.Parallel()
	sink, _, b := prepared(t, nil)
	for name, rows := range map[string][]apply.Row{
		"value":   {sinktest.Insert("1", "a", nil), sinktest.Insert("2", "b", "bad \xff")},
		"key":     {sinktest.Insert("1", "a", nil), sinktest.Insert("x", "b", nil)},
		"partial": {sinktest.Insert("1", "a", nil), sinktest.Update("x", "b", sinktest.Unchanged)},
		"moved":   {sinktest.Insert("1", "a", nil), sinktest.Moved(sinktest.Tuple("9", nil, nil), "2", "b", sinktest.Unchanged)},
		"from":    {sinktest.Insert("1", "a", nil), sinktest.Moved(sinktest.Tuple("x", nil, nil), "2", "b", sinktest.Unchanged)},
	} {
		for _, guarded := range []bool{false, true} {
			if guarded && name == "moved" {
				continue // Stays out.
			}
			batch := b.Of(rows...)
			batch.Guarded = guarded
			_, err := sink.Apply(t.Context(), batch)
			if row := rowOf(err); row != 2 {
				t.Errorf("%s, guarded %t: row %d is named, want 2: %v", name, guarded, row, err)
			}
		}
	}
}
