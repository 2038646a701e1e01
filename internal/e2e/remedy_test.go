package e2e_test

import (
	"fmt"
	"testing"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// TestTheRemedyForARowThatIsNotInTheSinkIsEnough: somebody has removed rows from the sink, and
// the next changes of these leave their large values out. Apply stops, since it would alter
// them, and what the message says to do makes everything equal.
func TestTheRemedyForARowThatIsNotInTheSinkIsEnough(t *testing.T) {
	t.Parallel()
	const large = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 2000) i)"
	for name, change := range map[string]string{
		"changed":     "UPDATE item SET n = n + 1 WHERE id = 3",
		"another key": "UPDATE item SET id = 103 WHERE id = 3",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setupOn(t, pgtest.Database(t), starrockstest.Options{},
				fmt.Sprintf("CREATE TABLE item (id int PRIMARY KEY, n int, v text); INSERT INTO item SELECT i, i, %s FROM generate_series(1, 5) i;", large), "item")
			a := r.set("SNAPSHOT", "initial").onSocket()
			_, apply := a.both()
			r.settle(apply)
			apply.copied()
			if err := r.sink.Exec("DELETE FROM " + sinkDatabase + ".item WHERE id = 3"); err != nil {
				t.Fatal(err)
			}
			r.db.Exec(change + "; INSERT INTO item VALUES (6, 6, 'behind it')")
			apply.complains("public.item", "SINK_REFUSED_ROWS=dead-letter", "dbmazz snapshot", "REPLICA IDENTITY FULL")
			apply.kill()
			r.set("SINK_REFUSED_ROWS", "dead-letter")
			apply = a.apply("apply-2")
			r.settle(apply)
			command := a.process(map[string]string{"GRPC_ADDR": apply.address()}, "snapshot", "--tables", "public.item")
			if code := command.exitCode(patience); code != 0 {
				t.Fatalf("exit code %d:\n%s", code, command.out.String())
			}
			r.same(apply, "item")
			r.db.Exec("UPDATE item SET n = n + 10")
			r.same(apply, "item")
			if letters := a.letters(); len(letters) != 1 {
				t.Errorf("letters %+v, want that of the row", letters)
			}
		})
	}
}
