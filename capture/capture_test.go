package capture_test

import (
	"testing"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestEveryOperationArrivesInOrder(t *testing.T) {
	t.Parallel()
	pgtest.ForEachMajor(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text, n numeric(10,2))")
		r := newRig(t, db, "t")
		r.startStreaming()
		db.Exec("INSERT INTO t VALUES (1, 'a', 1.5), (2, NULL, NULL)")
		db.Exec("UPDATE t SET v = 'b' WHERE id = 1")
		db.Exec("UPDATE t SET id = 3 WHERE id = 1")
		db.Exec("DELETE FROM t WHERE id = 2")
		db.Exec("TRUNCATE t RESTART IDENTITY CASCADE")
		r.want(
			"insert public.t (1,a,1.50)",
			"insert public.t (2,~,~)",
			"update public.t (1,b,1.50)",
			"update public.t key(1,~,~) (3,b,1.50)",
			"delete public.t key(2,~,~)",
			"truncate public.t flags 3",
		)
	})
}
