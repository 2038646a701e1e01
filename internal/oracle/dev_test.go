package oracle_test

import (
	"testing"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestDevGenerators(t *testing.T) {
	forMajors(t, func(t *testing.T, major int, db *pgtest.DB) {
		r := seeded(t, major)
		has := available(t, db)
		kinds, _ := kindsOf(major, has)
		db.Exec(ownDDL(major, has))
		conn := db.Connect().PgConn()
		for _, k := range kinds {
			bad := 0
			for range 150 {
				v := k.any(r)
				if _, err := conn.Exec(t.Context(), "SELECT "+v.sql(k.sql)).ReadAll(); err != nil && bad < 2 {
					bad++
					t.Errorf("%s %.300s: %v", k.name, v.sql(k.sql), err)
				}
			}
		}
	})
}
