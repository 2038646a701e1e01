package starrockstest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

func sample(t *testing.T) *starrockstest.Server {
	t.Helper()
	s := startTable(t, starrockstest.Options{}, "id INT NOT NULL, g VARCHAR(5), n DECIMAL(10,2), f DOUBLE, d DATETIME, b BOOLEAN")
	mustLoad(t, s, strings.Join([]string{
		`{"id":1,"g":"a","n":"1.10","f":0.5,"d":"2024-01-01 00:00:00","b":true}`,
		`{"id":2,"g":"b","n":"2.20","f":1.5,"d":"2024-01-02 00:00:00","b":false}`,
		`{"id":3,"g":"a","n":"-3.30","f":null,"d":null,"b":null}`,
		`{"id":-4,"g":null,"n":null,"f":2,"d":"2023-12-31 23:59:59.5","b":true}`,
	}, "\n"))
	return s
}

func TestSelect(t *testing.T) {
	t.Parallel()
	s := sample(t)
	tests := []struct {
		stmt string
		want []string
	}{
		{"SELECT id FROM d.t", []string{"-4", "1", "2", "3"}},
		{"SELECT id FROM d.t ORDER BY g DESC, id", []string{"2", "1", "3", "-4"}},
		{"SELECT id FROM d.t ORDER BY n", []string{"-4", "3", "1", "2"}},
		{"SELECT id FROM d.t LIMIT 1 OFFSET 2", []string{"2"}},
		{"SELECT id FROM d.t LIMIT 2, 1", []string{"2"}},
		{"SELECT id FROM d.t WHERE g = 'a' AND n > 0", []string{"1"}},
		{"SELECT id FROM d.t WHERE g = 'a' OR id = 2", []string{"1", "2", "3"}},
		{"SELECT id FROM d.t WHERE NOT g = 'a'", []string{"2"}},
		{"SELECT id FROM d.t WHERE g <> 'a'", []string{"2"}},
		{"SELECT id FROM d.t WHERE g IS NULL", []string{"-4"}},
		{"SELECT id FROM d.t WHERE g IS NOT NULL AND d IS NULL", []string{"3"}},
		{"SELECT id FROM d.t WHERE id IN (1, 3, NULL)", []string{"1", "3"}},
		{"SELECT id FROM d.t WHERE id NOT IN (1, 3)", []string{"-4", "2"}},
		{"SELECT id FROM d.t WHERE id NOT IN (1, NULL)", []string{}},
		{"SELECT id FROM d.t WHERE id BETWEEN 1 AND 2", []string{"1", "2"}},
		{"SELECT id FROM d.t WHERE id NOT BETWEEN 1 AND 2", []string{"-4", "3"}},
		{"SELECT id FROM d.t WHERE g LIKE '_' AND g NOT LIKE 'b%'", []string{"1", "3"}},
		{"SELECT id FROM d.t WHERE d >= '2024-01-01' AND d < '2024-01-02'", []string{"1"}},
		{"SELECT id FROM d.t WHERE n = 1.1", []string{"1"}},
		{"SELECT id FROM d.t WHERE b", []string{"-4", "1"}},
		{"SELECT id FROM d.t WHERE g <=> NULL", []string{"-4"}},
		{"SELECT COUNT(*), COUNT(g), COUNT(DISTINCT g), SUM(id), SUM(n), MIN(d), MAX(g), AVG(f) FROM d.t", []string{
			"4|3|2|2|0.00|2023-12-31 23:59:59.500000|b|1.3333333333333333",
		}},
		{"SELECT COUNT(*), SUM(id), MAX(id) FROM d.t WHERE id > 99", []string{"0|NULL|NULL"}},
		{"SELECT g, COUNT(*) AS c, SUM(n) FROM d.t GROUP BY g ORDER BY c DESC, g", []string{"a|2|-2.20", "NULL|1|NULL", "b|1|2.20"}},
		{"SELECT g x FROM d.t GROUP BY 1 HAVING COUNT(*) > 1", []string{"a"}},
		{"SELECT DISTINCT b FROM d.t ORDER BY b", []string{"NULL", "0", "1"}},
		{"SELECT id + 1, id * n, -id, id / 2, id % 2 FROM d.t WHERE id = 3", []string{"4|-9.90|-3|1.5|1"}},
		{"SELECT coalesce(g, 'none'), length(g), upper(g), concat(g, '-', id), if(b, 'y', 'n') FROM d.t WHERE id IN (-4, 2)", []string{"none|NULL|NULL|NULL|y", "b|1|B|b-2|n"}},
		{"SELECT CAST(n AS INT), CAST(g AS INT), CAST(d AS DATE) FROM d.t WHERE id = 1", []string{"1|NULL|2024-01-01"}},
		{"SELECT t.id FROM d.t AS t WHERE t.id = 1", []string{"1"}},
		{"SELECT 1 + 1, 'a', NULL, 1.50, true", []string{"2|a|NULL|1.50|1"}},
		{"SELECT COUNT(*) FROM information_schema.columns WHERE TABLE_SCHEMA = 'd' AND table_name = 't'", []string{"6"}},
		{"SELECT TABLE_MODEL, DISTRIBUTE_KEY FROM information_schema.tables_config", []string{"PRI_KEYS|`id`"}},
		{"SELECT STATE, SINK_ROWS FROM information_schema.loads WHERE DATABASE_NAME='d'", []string{"FINISHED|4"}},
		{"SHOW COMPUTE NODES", []string{}},
		{"SHOW VARIABLES LIKE 'lower_case%'", []string{"lower_case_table_names|0"}},
	}
	for _, tt := range tests {
		t.Run(tt.stmt, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, query(t, s, tt.stmt)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStatementsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := sample(t)
	exec(t, s, `CREATE TABLE d.dup (id INT, v INT) DUPLICATE KEY(id)`+one)
	for stmt, want := range map[string]string{
		"SELECT g, COUNT(*) FROM d.t":                 "must be an aggregate expression or appear in GROUP BY clause",
		"SELECT * FROM d.t GROUP BY g":                "must be an aggregate expression",
		"SELECT COUNT(*) FROM d.t WHERE COUNT(*) > 1": "Invalid use of group function",
		"SELECT nope FROM d.t":                        "Column 'nope' cannot be resolved",
		"SELECT id FROM d.t ORDER BY 2":               "ORDER BY position 2",
		"SELECT nope(1)":                              "unsupported by the stand-in: function nope",
		"SELECT * FROM d.t, d.t":                      "unsupported by the stand-in",
		"SELECT * FROM d.t JOIN d.t u":                "unsupported by the stand-in",
		"SELECT * FROM (SELECT 1) x":                  "unsupported by the stand-in",
		"SELECT 1 UNION SELECT 2":                     "unsupported by the stand-in",
		"SELECT id FROM d.t WHERE id = (SELECT 1)":    "unsupported by the stand-in",
		"SELECT 'x":                                           "unterminated string",
		"SELECT ~1":                                           "unexpected character",
		"SELECT 1; SELECT 2":                                  "Unexpected input",
		"GRANT ALL":                                           "unsupported by the stand-in",
		"SELECT * FROM information_schema.nope":               "Unknown table 'information_schema.nope'",
		"UPDATE d.t SET id = 2 WHERE id = 1":                  "primary key column cannot be updated: id",
		"UPDATE d.t SET g = 'x'":                              "must specify where clause",
		"UPDATE d.t SET g = 'toolong' WHERE id = 1":           "out of range",
		"UPDATE d.t SET nope = 1 WHERE id = 1":                "do not existing column 'nope'",
		"DELETE FROM d.dup WHERE id = 1 OR v = 2":             "op should be AND",
		"DELETE FROM d.dup WHERE id = v":                      "should be value",
		"DELETE FROM d.dup WHERE abs(id) = 1":                 "should be column name",
		"DELETE FROM d.dup WHERE NOT id = 1":                  "Where clause only supports",
		"DELETE FROM d.dup WHERE x = 1":                       "Unknown column 'x'",
		"UPDATE d.dup SET v = 1 WHERE id = 1":                 "only support updating primary key table",
		"DELETE FROM d.t":                                     "must specify where clause",
		"INSERT INTO d.t (g) VALUES ('x')":                    "'id' must be explicitly mentioned in column permutation",
		"INSERT INTO d.t (id, id) VALUES (1, 2)":              "specified twice",
		"INSERT INTO d.t (id) VALUES (1, 2)":                  "Column count doesn't match value count",
		"INSERT INTO d.t (id) VALUES (NULL)":                  "NULL value in non-nullable column 'id'",
		"INSERT INTO d.t (id) VALUES (3000000000)":            "out of range",
		"INSERT INTO d.t SELECT 1":                            "unsupported by the stand-in",
		"SELECT @@nope":                                       "Unknown system variable 'nope'",
		"ADMIN SET FRONTEND CONFIG (\"nope\"=\"1\")":          "does not exist",
		"SHOW ALTER TABLE COLUMN FROM nope":                   "Unknown database 'nope'",
		"SHOW TABLES":                                         "No database selected",
		"USE nope":                                            "Unknown database 'nope'",
		"SELECT id FROM d.t WHERE id IN (SELECT id FROM d.t)": "unsupported by the stand-in",
	} {
		if err := s.Exec(stmt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", stmt, err)
		}
	}
	if got := query(t, s, "SELECT COUNT(*), COUNT(g) FROM d.t"); got[0] != "4|3" {
		t.Errorf("refused statements left %v", got)
	}
}

func TestUpdateAndDelete(t *testing.T) {
	t.Parallel()
	s := sample(t)
	exec(
		t, s, "UPDATE d.t SET g = concat(g, 'x'), n = n + 1, b = NULL WHERE g = 'a'",
		"DELETE FROM d.t WHERE g IS NULL OR id = 2", "INSERT INTO d.t VALUES (9, '', 0.005, 1, '2024-01-01', true), (1, 'z', NULL, NULL, NULL, NULL)",
	)
	if diff := cmp.Diff([]string{
		"1|z|NULL|NULL|NULL|NULL", "3|ax|-2.30|NULL|NULL|NULL", "9||0.01|1|2024-01-01 00:00:00|1",
	}, query(t, s, "SELECT * FROM d.t")); diff != "" {
		t.Error(diff)
	}
	exec(t, s, `CREATE TABLE d.dup (id INT, v INT) DUPLICATE KEY(id)`+one, "INSERT INTO d.dup VALUES (1,1),(1,1),(2,2),(3,NULL),(4,4)",
		"DELETE FROM d.dup WHERE id <= 1 AND v <> 7", "DELETE FROM d.dup WHERE v IS NULL", "DELETE FROM d.dup WHERE id IN (4, 5)", "DELETE FROM d.dup WHERE id = -1", "SYNC")
	if got := query(t, s, "SELECT * FROM d.dup"); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	if err := s.Exec("UPDATE d.dup SET v = 1 WHERE id = 2"); err == nil || !strings.Contains(err.Error(), "only support updating primary key table") {
		t.Errorf("got %v", err)
	}
}

func TestShowStatements(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id INT NOT NULL, v VARCHAR(5) NULL DEFAULT \"a\" COMMENT \"c\", d DECIMAL(10,2)")
	want := "t|CREATE TABLE `t` (\n  `id` int(11) NOT NULL COMMENT \"\",\n  `v` varchar(5) NULL DEFAULT \"a\" COMMENT \"c\",\n" +
		"  `d` decimal(10, 2) NULL COMMENT \"\"\n) ENGINE=OLAP \nPRIMARY KEY(`id`)\nDISTRIBUTED BY HASH(`id`)\nPROPERTIES (\n\"replication_num\" = \"1\"\n);"
	if got := query(t, s, "SHOW CREATE TABLE d.t"); got[0] != want {
		t.Errorf("got %s", got[0])
	}
	if diff := cmp.Diff([]string{"id|int(11)|NO|true|NULL|", "v|varchar(5)|YES|false|a|", "d|decimal(10, 2)|YES|false|NULL|"}, query(t, s, "DESC d.t")); diff != "" {
		t.Error(diff)
	}
	data, err := s.Query("SHOW BACKENDS")
	if err != nil {
		t.Fatal(err)
	}
	row := make(map[string]string)
	for i, c := range data.Columns {
		row[c] = data.Rows[0][i].Text
	}
	if got := row["IP"] + ":" + row["HttpPort"]; got != s.BEHTTP() || row["Alive"] != "true" {
		t.Errorf("got %v", row)
	}
	if data, err = s.Query("SHOW FRONTENDS"); err != nil || len(data.Rows) != 1 {
		t.Fatalf("got %v, %v", data, err)
	}
	for i, c := range data.Columns {
		row[c] = data.Rows[0][i].Text
	}
	if got := row["IP"] + ":" + row["HttpPort"]; got != s.FEHTTP() || row["Role"] != "LEADER" || row["QueryPort"] != s.MySQL()[strings.LastIndex(s.MySQL(), ":")+1:] {
		t.Errorf("got %v", row)
	}
	// The text of SHOW CREATE TABLE makes the same table again.
	exec(t, s, strings.Replace(strings.TrimPrefix(query(t, s, "SHOW CREATE TABLE d.t")[0], "t|"), "`t`", "d.`u`", 1))
	if diff := cmp.Diff(query(t, s, "DESC d.t"), query(t, s, "DESC d.u")); diff != "" {
		t.Error(diff)
	}
}
