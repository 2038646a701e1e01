package starrockstest_test

import (
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

func TestDriverReadsTypedValuesInBothProtocols(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, `id BIGINT NOT NULL, b BOOLEAN, t TINYINT, s SMALLINT, i INT, l LARGEINT, f FLOAT,
		d DOUBLE, n DECIMAL(10,2), v VARCHAR(20), da DATE, dt DATETIME, j JSON, x VARBINARY, a ARRAY<INT>`)
	mustLoad(t, s, `{"id":1,"b":true,"t":-1,"s":-2,"i":-3,"l":"170141183460469231731687303715884105727","f":1.5,"d":-0.1,"n":"12.30",
		"v":"","da":"2024-02-29","dt":"2024-02-29 12:00:00.5","j":{"k":1},"x":"é","a":[1,null]}{"id":2}`)
	for _, interpolate := range []bool{true, false} {
		t.Run(fmt.Sprint(interpolate), func(t *testing.T) {
			t.Parallel()
			db := openDB(t, s, interpolate)
			var (
				id, ti, sm, i    int64
				b                bool
				f, d             float64
				l, n, v, j, x, a string
				da, dt           time.Time
			)
			row := db.QueryRowContext(t.Context(), "SELECT * FROM d.t WHERE id = ? AND v = ?", 1, "")
			if err := row.Scan(&id, &b, &ti, &sm, &i, &l, &f, &d, &n, &v, &da, &dt, &j, &x, &a); err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(id, b, ti, sm, i, l, f, d, n, v, j, x, a, da.Format(time.DateOnly), dt.Format("15:04:05.000000"))
			want := fmt.Sprint(1, true, -1, -2, -3, "170141183460469231731687303715884105727", 1.5, -0.1, "12.30", "", `{"k": 1}`, "é",
				"[1,null]", "2024-02-29", "12:00:00.500000")
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			var nv, ndt sql.NullString
			if err := db.QueryRowContext(t.Context(), "SELECT v, dt FROM d.t WHERE id = ?", 2).Scan(&nv, &ndt); err != nil || nv.Valid || ndt.Valid {
				t.Errorf("NULLs read %v %v %v", nv, ndt, err)
			}
		})
	}
}

func TestParametersArriveExactly(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id BIGINT NOT NULL, v VARCHAR(100), d DOUBLE")
	texts := []string{"", `\N`, "it's", `back\slash`, "new\nline", "nul\x00", "é😀", "%_?", `"double"`, "-- no comment"}
	for n, interpolate := range []bool{true, false} {
		db := openDB(t, s, interpolate)
		for i, text := range texts {
			id := n*100 + i - 50
			if _, err := db.ExecContext(t.Context(), "INSERT INTO d.t (id, v, d) VALUES (?, ?, ?)", id, text, -1.5); err != nil {
				t.Fatal(err)
			}
			var back string
			if err := db.QueryRowContext(t.Context(), "SELECT v FROM d.t WHERE id=? AND v=? AND d=?", id, text, -1.5).Scan(&back); err != nil || back != text {
				t.Errorf("interpolate %v: %q came back as %q, %v", interpolate, text, back, err)
			}
		}
		res, err := db.ExecContext(t.Context(), "UPDATE d.t SET v = ?, d = d - ? WHERE id >= ?", nil, 1, n*100-50)
		if err != nil {
			t.Fatal(err)
		}
		if affected, err := res.RowsAffected(); err != nil || affected != int64(len(texts)) {
			t.Errorf("affected %d, %v", affected, err)
		}
	}
	if got := query(t, s, "SELECT COUNT(*), COUNT(v), SUM(d) FROM d.t"); got[0] != "20|0|-50" {
		t.Errorf("got %v", got)
	}
}

func TestWrongPasswordIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, starrockstest.Options{Password: "other"})
	err := openDB(t, s, false).PingContext(t.Context())
	var me *mysql.MySQLError
	if !errors.As(err, &me) || me.Number != 1045 {
		t.Errorf("got %v", err)
	}
}

func TestErrorNumbersOfUnknownNames(t *testing.T) {
	t.Parallel()
	for version, want := range map[string][]uint16{"3.3.15": {5501, 5502, 1064, 1064}, "3.1.0": {1049, 1064, 1064, 1064}} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := start(t, starrockstest.Options{Version: version})
			exec(t, s, "CREATE DATABASE d")
			db := openDB(t, s, false)
			var got []uint16
			for _, stmt := range []string{"USE nodb", "SELECT * FROM d.none", "SELEC 1", "SELECT nope"} {
				_, err := db.ExecContext(t.Context(), stmt)
				var me *mysql.MySQLError
				if !errors.As(err, &me) {
					t.Fatalf("%s: %v", stmt, err)
				}
				got = append(got, me.Number)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestClientStartUpQueries(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	db := openDB(t, s, false)
	for stmt, want := range map[string]string{
		"select @@version_comment limit 1":                        "StarRocks stand-in, not StarRocks (behaves like 3.3.15)",
		"SELECT DATABASE()":                                       "",
		"select current_version()":                                "3.3.15-standin",
		"SELECT version()":                                        "8.0.33",
		"SELECT 1":                                                "1",
		"SELECT @@max_allowed_packet":                             "33554432",
		"select @@session.autocommit":                             "1",
		"SELECT 'a' 'b'":                                          "",
		"SHOW VARIABLES LIKE 'version'":                           "",
		"/* hello */ SELECT 2 -- two":                             "2",
		"SELECT `schema_name` FROM information_schema.schemata":   "d",
		"SELECT SCHEMA_NAME FROM INFORMATION_SCHEMA.SCHEMATA":     "d",
		"SELECT COUNT(*) FROM d.t":                                "0",
		"SELECT table_name FROM information_schema.tables":        "t",
		"SELECT default_catalog.d.t.id FROM default_catalog.d.t;": "",
	} {
		rows, err := db.QueryContext(t.Context(), stmt)
		if err != nil {
			if want != "" {
				t.Errorf("%s: %v", stmt, err)
			}
			continue
		}
		if rows.Next() && want != "" {
			var got string
			if err := rows.Scan(&got); err != nil || got != want {
				t.Errorf("%s: got %q, %v", stmt, got, err)
			}
		}
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, stmt := range []string{"SET NAMES utf8mb4", "USE d", "SHOW DATABASES", "SHOW TABLES FROM d", "SHOW FULL TABLES FROM d LIKE 't%'", "DESC d.t", "SHOW WARNINGS"} {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Errorf("%s: %v", stmt, err)
		}
	}
}
