package starrocks_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

func TestTableIsCreatedWithItsKeyFirst(t *testing.T) {
	t.Parallel()
	schema := sinktest.Schema(
		t, "o'rders", []string{"b", "a"}, sinktest.Column("v", cdc.TypeJSONB, "jsonb"),
		sinktest.Column("a", cdc.TypeTimestampTZ, "timestamp with time zone"), sinktest.Numeric("b", 10, 2), sinktest.Numeric("n", 10, 2),
	)
	want := "CREATE TABLE IF NOT EXISTS `db`.`o'rders` (`b` VARCHAR(13) NOT NULL COMMENT 'numeric(10,2)', " +
		"`a` DATETIME NOT NULL COMMENT 'timestamp with time zone', `v` JSON NULL COMMENT 'jsonb', `n` DECIMAL(10,2) NULL COMMENT 'numeric(10,2)', " +
		"`dbmazz_op_type` TINYINT NULL COMMENT '0 insert, 1 update, 2 delete', `dbmazz_is_deleted` BOOLEAN NULL COMMENT 'true if the row is deleted in the source', " +
		"`dbmazz_synced_at` DATETIME NULL COMMENT 'when the batch was planned, UTC', `dbmazz_cdc_version` BIGINT NULL COMMENT 'commit LSN of the change') " +
		"ENGINE=OLAP PRIMARY KEY(`b`, `a`) COMMENT 'public.o\\'rders' DISTRIBUTED BY HASH(`b`, `a`) PROPERTIES(\"replication_num\" = \"1\")"
	if got := starrocks.CreateTable(schema, 1); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	sink, server := setup(t, starrockstest.Options{}, nil)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	data, err := server.Rows("shop", "o'rders")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(data.Columns, " "); !strings.HasPrefix(got, "b a v n dbmazz_op_type") {
		t.Errorf("columns are %s", got)
	}
}

func TestDefaultTypes(t *testing.T) {
	t.Parallel()
	withLength := func(typ cdc.Type, n int32) cdc.Column {
		c := columnOf(typ)
		c.BaseMod = n + 4
		return c
	}
	for _, test := range []struct {
		column     cdc.Column
		value, key string
	}{
		{sinktest.Numeric("n", 38, 38), "DECIMAL(38,38)", "VARCHAR(41)"},
		{sinktest.Numeric("n", 39, 0), "VARCHAR(1048576)", "VARCHAR(42)"},
		{sinktest.Numeric("n", 5, -3), "DECIMAL(8,0)", "VARCHAR(11)"},
		{sinktest.Numeric("n", 3, 5), "DECIMAL(5,5)", "VARCHAR(8)"},
		{columnOf(cdc.TypeNumeric), "VARCHAR(1048576)", "VARCHAR(65533)"},
		{withLength(cdc.TypeText, 50), "VARCHAR(200)", "VARCHAR(200)"},
		{withLength(cdc.TypeText, 10485760), "VARCHAR(1048576)", "VARCHAR(65533)"},
		{withLength(cdc.TypeChar, 3), "VARCHAR(12)", "VARCHAR(12)"},
		{columnOf(cdc.TypeText), "VARCHAR(1048576)", "VARCHAR(65533)"},
		{columnOf(cdc.TypeFloat8), "DOUBLE", "VARCHAR(65533)"},
		{columnOf(cdc.TypeOther), "VARCHAR(1048576)", "VARCHAR(65533)"},
		{columnOf(cdc.Type(77)), "VARCHAR(1048576)", "VARCHAR(65533)"},
	} {
		if got := starrocks.DefaultType(test.column, false); got != test.value {
			t.Errorf("%s: value is %s, want %s", test.column.TypeName, got, test.value)
		}
		if got := starrocks.DefaultType(test.column, true); got != test.key {
			t.Errorf("%s: key is %s, want %s", test.column.TypeName, got, test.key)
		}
	}
}

func create(t *testing.T, server *starrockstest.Server, columns, key string) {
	t.Helper()
	exec(t, server, fmt.Sprintf("CREATE TABLE shop.items (%s) %s DISTRIBUTED BY HASH(id) PROPERTIES(\"replication_num\"=\"1\")", columns, key))
}

func TestExistingTablesThatDoNotFitAreRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, columns, key string
		want               []string
	}{
		{"model", "id BIGINT, name STRING, note STRING", "DUPLICATE KEY(id)", []string{"not a PRIMARY KEY table", "DUP"}},
		{"key", "id BIGINT NOT NULL, name VARCHAR(10) NOT NULL, note STRING", "PRIMARY KEY(id, name)", []string{"key is (id, name)", "source is (id)"}},
		{"key type", "id INT NOT NULL, name STRING, note STRING", "PRIMARY KEY(id)", []string{`key column "id"`, "BIGINT", "cannot change a key column"}},
		{
			"all at once", "id BIGINT NOT NULL, name INT, note VARBINARY, dbmazz_op_type STRING, x INT NOT NULL", "PRIMARY KEY(id)",
			[]string{
				"DROP COLUMN `note`", "audit column dbmazz_op_type", `column "x" is not in the source`,
				"MODIFY COLUMN `x` INT NULL",
			},
		},
		{"not null", "id BIGINT NOT NULL, name STRING NOT NULL, note STRING", "PRIMARY KEY(id)", []string{"MODIFY COLUMN `name` VARCHAR(65533) NULL"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sink, server := setup(t, starrockstest.Options{}, nil)
			create(t, server, test.columns, test.key)
			wantError(t, sink.Prepare(t.Context(), items(t)), true, append(test.want, "public.items")...)
		})
	}
}

func TestExistingTableGetsWhatItLacksAndKeepsItsOwn(t *testing.T) {
	t.Parallel()
	for _, slow := range []bool{false, true} {
		sink, server := setup(t, starrockstest.Options{DisableFastSchemaEvolution: slow}, nil)
		create(t, server, `ID BIGINT NOT NULL, Name STRING, mine INT NOT NULL DEFAULT "7"`, "PRIMARY KEY(ID)")
		schema := items(t)
		if err := sink.Prepare(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Apply(t.Context(), sinktest.NewBatch(schema, "x").Of(sinktest.Insert("1", "a", "n"), sinktest.DeleteKey("2", nil, nil))); err != nil {
			t.Fatal(err)
		}
		data, err := server.Query("SELECT ID, Name, mine, note, dbmazz_is_deleted FROM shop.items ORDER BY ID")
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(data.Rows); got != "[[{1 false} {a false} {7 false} {n false} {0 false}] [{2 false} { true} {7 false} { true} {1 false}]]" {
			t.Errorf("slow %t: rows are %s", slow, got)
		}
	}
}

func TestSourceTablesThatStarRocksCannotTakeAreRefused(t *testing.T) {
	t.Parallel()
	sink, _ := setup(t, starrockstest.Options{}, nil)
	text := func(name string) cdc.Column { return sinktest.Column(name, cdc.TypeText, "text") }
	id := sinktest.Column("id", cdc.TypeInt8, "bigint")
	for _, test := range []struct {
		schema *cdc.Schema
		want   []string
	}{
		{sinktest.Schema(t, "t1", nil, id, sinktest.Column("dbmazz_cdc_ordinal", cdc.TypeInt8, "bigint")), []string{"public.t1", "audit column"}},
		{sinktest.Schema(t, "t2", []string{"id"}, id, text("Name"), text("name")), []string{`"Name" and "name"`, "rename"}},
		{sinktest.Schema(t, "t3", []string{"id"}, id, text("DBMAZZ_OP_TYPE")), []string{"audit column"}},
		{sinktest.Schema(t, "t4", []string{"id"}, id, text("__op")), []string{"reserves"}},
		{sinktest.Schema(t, "t5", []string{"id"}, id, text("a=b"), text("c\nd")), []string{`"a=b"`, `"c\nd"`}},
	} {
		wantError(t, sink.Prepare(t.Context(), test.schema), true, test.want...)
	}
}

func TestMissingTableIsAnErrorUnlessTablesAreCreated(t *testing.T) {
	t.Parallel()
	sink, _ := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.CreateTables = false })
	wantError(t, sink.Prepare(t.Context(), items(t)), true, "Table 'items' not found in StarRocks. Create the table before starting CDC", "CREATE TABLE")
}

func TestTwoTablesNeverShareOne(t *testing.T) {
	t.Parallel()
	named := func(namespace, table string) *cdc.Schema { return &cdc.Schema{Namespace: namespace, Table: table} }
	names, err := starrocks.NameTables([]*cdc.Schema{named("public", "t"), named("sales", "t"), named("public", "T"), named("public", "t")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{"public.t": "t", "sales.t": "sales__t", "public.T": "T"} {
		if names[source] != want {
			t.Errorf("%s is %q, want %q", source, names[source], want)
		}
	}
	_, err = starrocks.NameTables([]*cdc.Schema{named("public", "a__t"), named("a", "t"), named("public", "x/y")}, nil)
	wantError(t, err, false, "public.a__t and a.t", `"a__t"`, "SINK_TABLE_NAME", "public.x/y")

	template := starrocks.TemplateTableName("{schema}_{table}")
	if name := template(named("{table}", "t")); name != "{table}_t" {
		t.Errorf("a template gives %s", name)
	}
	_, err = starrocks.NameTables([]*cdc.Schema{named("a_b", "c"), named("a", "b_c"), named("x", "y"), named("b", "d"), named("b", "d")}, template)
	wantError(t, err, false, "a_b.c and a.b_c", `"a_b_c"`)
	if _, err = starrocks.NameTables([]*cdc.Schema{named("a", "t"), named("b", "u")}, starrocks.TemplateTableName("{table}")); err != nil {
		t.Error(err)
	}
	if name := starrocks.TemplateTableName("")(named("a", "t")); name != "a__t" {
		t.Errorf("the default is %s", name)
	}

	sink, _ := setup(t, starrockstest.Options{}, func(c *starrocks.Config) {
		c.TableName = func(*cdc.Schema) string { return "one" }
	})
	first, second := items(t), items(t)
	second.Namespace = "sales"
	if err := sink.Prepare(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	wantError(t, sink.Prepare(t.Context(), second), true, "public.items and sales.items")
	fresh, server := setup(t, starrockstest.Options{}, func(c *starrocks.Config) {
		c.TableName = func(*cdc.Schema) string { return "one" }
	})
	wantError(t, fresh.CheckTables(t.Context(), []*cdc.Schema{first, second}), true, "public.items and sales.items")
	if _, err := server.Rows("shop", "one"); err == nil {
		t.Error("a table was made before all names were looked at")
	}
}

func TestKeysThatFoldIntoOneLeaveTheRowThatIsAlive(t *testing.T) {
	t.Parallel()
	for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
		sink, server := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.DeleteMode = mode })
		schema := sinktest.Schema(t, "items", []string{"id"}, sinktest.Column("id", cdc.TypeNumeric, "numeric"), sinktest.Column("name", cdc.TypeText, "text"))
		if err := sink.Prepare(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		b := sinktest.NewBatch(schema, "fold")
		for _, rows := range [][]apply.Row{
			{sinktest.Insert("1.0", "a"), sinktest.Insert("2", "b")},
			{sinktest.DeleteKey("1.0", nil), sinktest.Update("1.00", "a2"), sinktest.Update("2.0", "b2"), sinktest.DeleteKey("2", nil)},
			{sinktest.DeleteKey("2.0", nil), sinktest.DeleteKey("2.00", nil), sinktest.Moved(sinktest.Tuple("1.00", nil), "1.000", sinktest.Unchanged), sinktest.DeleteKey("1.00", nil)},
		} {
			if _, err := sink.Apply(t.Context(), b.Of(rows...)); err != nil {
				t.Fatal(err)
			}
		}
		if got := fmt.Sprint((reader{server}).Rows(t, schema)); got != "[[1 a2]]" {
			t.Errorf("%s: rows are %s", mode, got)
		}
		_, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("3", "a"), sinktest.Insert("3.0", "b")))
		wantError(t, err, true, "two rows of table public.items")
	}
}

func TestOldStarRocksAndMissingDatabaseAreRefused(t *testing.T) {
	t.Parallel()
	for text, good := range map[string]bool{"3.1.3": true, "3.1.10": true, "3.1.2": false, "4": true, "3.3.15-7ac1b9c": true, "4.0.1": true, "main-1a2b3c": true, "3.2-rc01": true, "3.0.9": false, "2.5.22": false} {
		if err := starrocks.CheckVersion(text); (err == nil) != good {
			t.Errorf("version %s: %v", text, err)
		}
	}
	old, _ := setup(t, starrockstest.Options{Version: "3.0.9"}, nil)
	wantError(t, old.Check(t.Context()), true, "StarRocks 3.0.9", "too old", "3.1")
	sink, _ := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.Database = "missing" })
	wantError(t, sink.Check(t.Context()), true, "CREATE DATABASE `missing`")
}

func TestConfigProblemsAreReportedTogetherAndWithoutThePassword(t *testing.T) {
	t.Parallel()
	_, err := starrocks.New(starrocks.Config{URL: "http://u:" + password + "@host:8030", MySQLAddr: "host", DeleteMode: "x", Password: password, LoadTimeout: 1})
	wantError(t, err, false, "SINK_URL", "MySQL address", "SINK_DATABASE", "SINK_USER", "SINK_DELETE_MODE", "load timeout")
	c := starrocks.Config{URL: "http://h:8030", Password: password}
	if text := fmt.Sprintf("%v %+v %#v %s", c, c, c, c.LogValue()); strings.Contains(text, password) {
		t.Errorf("the configuration shows its password: %s", text)
	}
}

func TestApplyWithoutPrepareIsAnError(t *testing.T) {
	t.Parallel()
	sink, _ := setup(t, starrockstest.Options{}, nil)
	_, err := sink.Apply(t.Context(), sinktest.NewBatch(items(t), "x").Of(sinktest.Insert("1", nil, nil)))
	wantError(t, err, false, "Prepare")
}

func TestLabelsThatStarRocksWouldNotTakeAreRefused(t *testing.T) {
	t.Parallel()
	sink, _, b := prepared(t, nil)
	for _, id := range []string{strings.Repeat("x", 128), "a b", "ä"} {
		batch := b.Of(sinktest.Insert("1", nil, nil))
		batch.ID = id
		_, err := sink.Apply(t.Context(), batch)
		wantError(t, err, true, "label")
	}
}

func TestRefusedRowsAreQuotedWithoutValues(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"Error: Value 'secret' is out of range. The type of 'amount' is DECIMAL64(10,2). Row: {\"amount\":1}": "Value '?' is out of range. The type of 'amount' is DECIMAL64(10,2)",
		"Error: NULL value in non-nullable column 'amount'. Row: [1, NULL]":                                   "NULL value in non-nullable column 'amount'",
		"Error: number 4711 in 'x' is bad.":                                                                   "number ? in '?' is bad",
	} {
		if got, _ := starrocks.RefusalText(line, "id", "amount"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRowErrorIsFoundByItsType(t *testing.T) {
	t.Parallel()
	sink, _, b := prepared(t, nil)
	_, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "\xff", nil)))
	var row *apply.RowError
	if !errors.As(err, &row) || row.Column != "name" || row.Key != "id=1" {
		t.Errorf("got %v", err)
	}
}
