package starrockstest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

const one = ` PROPERTIES("replication_num"="1")`

func TestCreateTableRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, starrockstest.Options{})
	exec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (id INT NOT NULL) PRIMARY KEY(id)"+one)
	tests := []struct{ name, stmt, want string }{
		{"inline primary key", "CREATE TABLE d.x (id INT NOT NULL PRIMARY KEY, v INT)" + one, "Unexpected input 'PRIMARY'"},
		{"decimal key", "CREATE TABLE d.x (id DECIMAL(10,0) NOT NULL) PRIMARY KEY(id)" + one, "primary key column[id] type not supported: decimal(10, 0)"},
		{"char key", "CREATE TABLE d.x (id CHAR(3) NOT NULL) PRIMARY KEY(id)" + one, "primary key column[id] type not supported: char(3)"},
		{"binary key", "CREATE TABLE d.x (id VARBINARY NOT NULL) PRIMARY KEY(id)" + one, "type not supported"},
		{"key not first", "CREATE TABLE d.x (v INT, id INT NOT NULL) PRIMARY KEY(id)" + one, "ordered prefix of the schema"},
		{"keys out of order", "CREATE TABLE d.x (a INT, b INT) PRIMARY KEY(b, a)" + one, "ordered prefix of the schema"},
		{"unknown key", "CREATE TABLE d.x (a INT) PRIMARY KEY(b)" + one, "doesn't exist"},
		{"nullable key", "CREATE TABLE d.x (id INT NULL) PRIMARY KEY(id)" + one, "cannot be nullable"},
		{"default replication", "CREATE TABLE d.x (id INT NOT NULL) PRIMARY KEY(id)", "Table replication num should be less than or equal to the number of available BE nodes"},
		{"replication 3", `CREATE TABLE d.x (id INT NOT NULL) PRIMARY KEY(id) PROPERTIES("replication_num"="3")`, "replication num"},
		{"reserved name", "CREATE TABLE d.x (id INT NOT NULL, `__op` INT) PRIMARY KEY(id)" + one, "Column name '__op' is reserved"},
		{"duplicate names", "CREATE TABLE d.x (id INT NOT NULL, v INT, V INT) PRIMARY KEY(id)" + one, "Duplicate column name 'V'"},
		{"long varchar", "CREATE TABLE d.x (id INT NOT NULL, v VARCHAR(1048577)) PRIMARY KEY(id)" + one, "Varchar size must be <= 1048576"},
		{"long char", "CREATE TABLE d.x (id INT NOT NULL, v CHAR(256)) PRIMARY KEY(id)" + one, "Char size must be <= 255"},
		{"wide decimal", "CREATE TABLE d.x (id INT NOT NULL, v DECIMAL(39,0)) PRIMARY KEY(id)" + one, "DECIMAL's precision should range from 1 to 38"},
		{"scale", "CREATE TABLE d.x (id INT NOT NULL, v DECIMAL(5,6)) PRIMARY KEY(id)" + one, "scale"},
		{"bare default", "CREATE TABLE d.x (id INT NOT NULL, v INT DEFAULT 0) PRIMARY KEY(id)" + one, "Unexpected input '0'"},
		{"bad default", `CREATE TABLE d.x (id INT NOT NULL, v INT DEFAULT "x") PRIMARY KEY(id)` + one, "Invalid default value for 'v'"},
		{"null default", "CREATE TABLE d.x (id INT NOT NULL, v INT NOT NULL DEFAULT NULL) PRIMARY KEY(id)" + one, "null default value to non nullable column"},
		{"json default", `CREATE TABLE d.x (id INT NOT NULL, v JSON DEFAULT "{}") PRIMARY KEY(id)` + one, "only supports DEFAULT NULL"},
		{"timestamp default", "CREATE TABLE d.x (id INT NOT NULL, v INT DEFAULT CURRENT_TIMESTAMP) PRIMARY KEY(id)" + one, "only for DATETIME"},
		{"exists", "CREATE TABLE d.t (id INT NOT NULL) PRIMARY KEY(id)" + one, "Table 't' already exists"},
		{"unknown database", "CREATE TABLE e.t (id INT NOT NULL) PRIMARY KEY(id)" + one, "Unknown database 'e'"},
		{"no database", "CREATE TABLE t (id INT NOT NULL) PRIMARY KEY(id)" + one, "No database selected"},
		{"unknown property", `CREATE TABLE d.x (id INT NOT NULL) PRIMARY KEY(id) PROPERTIES("replication_num"="1","x"="y")`, "Unknown properties: {x=y}"},
		{"distribution", "CREATE TABLE d.x (id INT NOT NULL, v INT) PRIMARY KEY(id) DISTRIBUTED BY HASH(v)" + one, "must be key column"},
		{"random", "CREATE TABLE d.x (id INT NOT NULL, v INT) PRIMARY KEY(id) DISTRIBUTED BY RANDOM" + one, "hash distribution"},
		{"sort key", "CREATE TABLE d.x (id INT NOT NULL, v JSON) PRIMARY KEY(id) ORDER BY(v)" + one, "sort key column[v] type not supported"},
		{"column name", "CREATE TABLE d.x (id INT NOT NULL, `a=b` INT) PRIMARY KEY(id)" + one, "Incorrect column name 'a=b'"},
		{"unknown type", "CREATE TABLE d.x (id UUID NOT NULL) PRIMARY KEY(id)" + one, "Unexpected input 'UUID'"},
		{"timestamp type", "CREATE TABLE d.x (id INT NOT NULL, v TIMESTAMP) PRIMARY KEY(id)" + one, "Unexpected input 'TIMESTAMP'"},
		{"reserved word", "CREATE TABLE d.x (id INT NOT NULL, select INT) PRIMARY KEY(id)" + one, "Unexpected input 'select'"},
		{"unsupported model", "CREATE TABLE d.x (id INT NOT NULL) UNIQUE KEY(id)" + one, "unsupported by the stand-in"},
		{"database exists", "CREATE DATABASE d", "database exists"},
		{"database name", "CREATE DATABASE `1x`", "Incorrect database name"},
		{"drop unknown database", "DROP DATABASE e", "database doesn't exist"},
		{"drop unknown table", "DROP TABLE d.e", "Unknown table 'd.e'"},
		{"truncate unknown table", "TRUNCATE TABLE d.e", "Unknown table 'd.e'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if err := s.Exec(tt.stmt); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	exec(t, s, "CREATE TABLE IF NOT EXISTS d.t (other INT) PRIMARY KEY(other)", "CREATE DATABASE IF NOT EXISTS d", "DROP TABLE IF EXISTS d.e", "DROP DATABASE IF EXISTS e")
}

func TestNamesOfTablesAreCaseSensitiveAndOfColumnsNot(t *testing.T) {
	t.Parallel()
	s := start(t, starrockstest.Options{})
	exec(
		t, s, "CREATE DATABASE d",
		"CREATE TABLE d.`T` (`Id` INT NOT NULL, `v w` INT) PRIMARY KEY(`iD`)"+one,
		"CREATE TABLE d.`t` (id INT NOT NULL) PRIMARY KEY(id)"+one,
		"INSERT INTO d.T (ID, `V W`) VALUES (1, 2)",
	)
	if got := query(t, s, "SELECT `V w`, iD FROM d.T"); got[0] != "2|1" {
		t.Errorf("got %v", got)
	}
	if got := query(t, s, "SELECT COUNT(*) FROM d.t"); got[0] != "0" {
		t.Errorf("got %v", got)
	}
	if err := s.Exec("SELECT * FROM D.t"); err == nil {
		t.Error("the database D was found")
	}
}

func TestAlterRefusals(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, `id INT NOT NULL, v INT, s VARCHAR(10) DEFAULT "x", n INT NOT NULL, j JSON, f DOUBLE`)
	tests := []struct{ clause, want string }{
		{"ADD COLUMN IF NOT EXISTS x INT", "Unexpected input 'IF'"},
		{"ADD COLUMN x INT KEY", "Can not add key column: x for primary key table"},
		{"ADD COLUMN V INT", "Can not add column which already exists in base table: V"},
		{"ADD COLUMN x INT, ADD COLUMN X INT", "already exists in base table: X"},
		{"ADD COLUMN __op INT", "Column name '__op' is reserved"},
		{"ADD COLUMN x INT FIRST", "before key column"},
		{"ADD COLUMN x INT AFTER nope", "does not found"},
		{"ADD COLUMN x INT PRIMARY KEY", "Unexpected input 'PRIMARY'"},
		{"DROP COLUMN id", "Can not drop key column in primary data model table"},
		{"DROP COLUMN nope", "Column does not exists: nope"},
		{"MODIFY COLUMN id BIGINT NOT NULL", "Can not modify key column: id for primary key table"},
		{"MODIFY COLUMN nope INT", "does not exists"},
		{"MODIFY COLUMN v SMALLINT", "Can not change INT to SMALLINT"},
		{"MODIFY COLUMN v INT NOT NULL", "Can not change from nullable to non-nullable"},
		{`MODIFY COLUMN v INT DEFAULT "1"`, "Can not change default value"},
		{`MODIFY COLUMN s VARCHAR(9) DEFAULT "x"`, "Cannot shorten string length"},
		{"MODIFY COLUMN f FLOAT", "Can not change DOUBLE to FLOAT"},
		{"MODIFY COLUMN j INT", "Can not change JSON to INT"},
		{"RENAME COLUMN nope TO x", "not exists"},
		{"RENAME COLUMN v TO s", "already used"},
		{"RENAME COLUMN v TO x, DROP COLUMN v", "unsupported"},
		{"ADD INDEX i (v)", "unsupported by the stand-in"},
	}
	for _, tt := range tests {
		if err := s.Exec("ALTER TABLE d.t " + tt.clause); err == nil || (!strings.Contains(err.Error(), tt.want) && tt.want != "unsupported") {
			t.Errorf("%s: %v", tt.clause, err)
		}
	}
	if got := query(t, s, "DESC d.t"); len(got) != 6 {
		t.Errorf("refused changes left %v", got)
	}
}

func TestTypeChangesFollowTheMatrix(t *testing.T) {
	t.Parallel()
	texts := "VARCHAR(5) VARCHAR(6) "
	allowed := map[string]string{
		"TINYINT":       texts + "SMALLINT INT BIGINT LARGEINT DOUBLE",
		"SMALLINT":      texts + "INT BIGINT LARGEINT DOUBLE",
		"INT":           texts + "BIGINT LARGEINT DOUBLE DATE",
		"BIGINT":        texts + "LARGEINT DOUBLE",
		"LARGEINT":      texts,
		"FLOAT":         texts + "DOUBLE",
		"DOUBLE":        texts,
		"DECIMAL(9,2)":  texts + "DECIMAL(20,2) DECIMAL(20,4)",
		"DECIMAL(20,2)": texts,
		"DECIMAL(20,4)": texts,
		"CHAR(5)":       texts + "CHAR(6)",
		"CHAR(6)":       "VARCHAR(6)",
		"VARCHAR(5)":    "VARCHAR(6) JSON TINYINT SMALLINT INT BIGINT FLOAT DOUBLE DATE",
		"VARCHAR(6)":    "JSON TINYINT SMALLINT INT BIGINT FLOAT DOUBLE DATE",
		"JSON":          texts,
		"DATE":          "DATETIME",
		"DATETIME":      "DATE",
		"BOOLEAN":       "",
		"VARBINARY":     "",
		"ARRAY<INT>":    "",
	}
	s := start(t, starrockstest.Options{})
	exec(t, s, "CREATE DATABASE d")
	for from, targets := range allowed {
		for to := range allowed {
			if to == from {
				continue
			}
			want := slices.Contains(strings.Fields(targets), to)
			exec(t, s, "CREATE TABLE d.m (id INT NOT NULL, v "+from+") PRIMARY KEY(id)"+one)
			if err := s.Exec("ALTER TABLE d.m MODIFY COLUMN v " + to); (err == nil) != want {
				t.Errorf("%s to %s: %v, want allowed %v", from, to, err, want)
			}
			exec(t, s, "DROP TABLE d.m")
		}
	}
}

func TestAddColumnIsInstantAndOldRowsReadTheDefault(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	mustLoad(t, s, `{"id":1,"v":"a"}`)
	exec(t, s, `ALTER TABLE d.t ADD COLUMN a INT DEFAULT "5", ADD COLUMN b DATETIME AFTER v`, "ALTER TABLE d.t ADD COLUMN (c INT, e VARCHAR(3) NOT NULL DEFAULT \"e\")")
	mustLoad(t, s, `{"id":2,"v":"b","e":"x"}`)
	if diff := cmp.Diff([]string{"1|a|NULL|5|NULL|e", "2|b|NULL|NULL|NULL|x"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	exec(t, s, "ALTER TABLE d.t DROP COLUMN v, DROP COLUMN e", "ALTER TABLE d.t ADD COLUMN v INT", "ALTER TABLE d.t RENAME COLUMN a TO z")
	if diff := cmp.Diff([]string{"1|NULL|5|NULL|NULL", "2|NULL|NULL|NULL|NULL"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	if err := s.Exec("ALTER TABLE d.t ADD COLUMN q INT NOT NULL"); err == nil {
		t.Error("NOT NULL without a default was added")
	}
}

func alterState(t *testing.T, s *starrockstest.Server) string {
	t.Helper()
	return query(t, s, `SHOW ALTER TABLE COLUMN FROM d WHERE TableName = "t" ORDER BY CreateTime DESC LIMIT 1`)[0]
}

func TestModifyColumnRunsInTheBackground(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := startTable(t, starrockstest.Options{Now: c.Now, AlterDuration: time.Minute}, "id INT NOT NULL, v INT")
	mustLoad(t, s, `{"id":1,"v":7}`)
	conn := beginAndDrop(t, s, "older", "")
	exec(t, s, "ALTER TABLE d.t MODIFY COLUMN v VARCHAR(20)")
	if got := alterState(t, s); !strings.Contains(got, "|WAITING_TXN|") {
		t.Errorf("got %s", got)
	}
	_ = conn.Close()
	cancel(t, s, "older")
	if got := alterState(t, s); !strings.Contains(got, "|RUNNING|") {
		t.Errorf("got %s", got)
	}
	err := s.Exec("ALTER TABLE d.t ADD COLUMN x INT")
	if err == nil || !strings.Contains(err.Error(), "A schema change operation is in progress on the table t. Please wait until") {
		t.Errorf("got %v", err)
	}
	mustLoad(t, s, `{"id":2,"v":8}`)
	c.advance(time.Minute)
	if got := alterState(t, s); !strings.Contains(got, "|FINISHED|") {
		t.Errorf("got %s", got)
	}
	mustLoad(t, s, `{"id":3,"v":"nine"}`)
	if diff := cmp.Diff([]string{"1|7", "2|8", "3|nine"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	exec(t, s, "ALTER TABLE d.t MODIFY COLUMN v INT")
	if got := alterState(t, s); !strings.Contains(got, "|RUNNING|") {
		t.Errorf("got %s", got)
	}
	c.advance(time.Minute)
	if got := alterState(t, s); !strings.Contains(got, "|CANCELLED|convert column v") {
		t.Errorf("got %s", got)
	}
	if diff := cmp.Diff([]string{"1|7", "2|8", "3|nine"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
}

func TestLoadThatSpansAModifyKeepsItsValues(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := startTable(t, starrockstest.Options{Now: c.Now, AlterDuration: time.Second}, "id INT NOT NULL, v INT")
	exec(t, s, "ALTER TABLE d.t MODIFY COLUMN v VARCHAR(20)")
	script(t, s, starrockstest.Fault{Kind: starrockstest.FaultHoldBeforeCommit})
	got := make(chan answer, 1)
	go func() {
		a, err := tryLoad(t, s, "t", `{"id":1,"v":7}`, headers("label: x"))
		if err != nil {
			a.Status = err.Error()
		}
		got <- a
	}()
	waitFor(t, func() bool { return state(t, s, "x") == "PREPARE" })
	_ = alterState(t, s)
	c.advance(time.Second)
	if st := alterState(t, s); !strings.Contains(st, "|FINISHED|") {
		t.Errorf("got %s", st)
	}
	s.Release()
	if a := <-got; a.Status != "Success" {
		t.Errorf("got %+v", a)
	}
	if diff := cmp.Diff([]string{"1|7"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
}

func TestAddColumnIsAJobWithoutFastSchemaEvolution(t *testing.T) {
	t.Parallel()
	for _, opts := range []starrockstest.Options{{Version: "3.1.0"}, {DisableFastSchemaEvolution: true}} {
		c := newClock()
		opts.Now, opts.AlterDuration = c.Now, time.Second
		s := startTable(t, opts, twoColumns)
		mustLoad(t, s, `{"id":1}`)
		exec(t, s, `ALTER TABLE d.t ADD COLUMN x INT DEFAULT "3"`)
		if got := query(t, s, "SELECT * FROM d.t"); got[0] != "1|NULL" {
			t.Errorf("got %v", got)
		}
		a := load(t, s, `{"id":2,"x":1}`, "columns: id,v,x")
		if a.Status != "Success" {
			t.Errorf("got %s", a.raw)
		}
		_ = alterState(t, s)
		c.advance(time.Second)
		if diff := cmp.Diff([]string{"1|NULL|3", "2|NULL|3"}, query(t, s, "SELECT * FROM d.t")); diff != "" {
			t.Error(diff)
		}
	}
}

func TestRenameColumnNeeds332(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{Version: "3.3.1"}, twoColumns)
	if err := s.Exec("ALTER TABLE d.t RENAME COLUMN v TO w"); err == nil {
		t.Error("renamed")
	}
}
