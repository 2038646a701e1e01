package e2e_test

import (
	"testing"
	"time"
)

const alteredDDL = "CREATE TABLE item (id int PRIMARY KEY, a text, b text, c text, d text)"

func TestColumnsDroppedOneAfterTheOtherTakeNoChangeWithThem(t *testing.T) {
	t.Parallel()
	r := setup(t, alteredDDL, "item")
	s := r.start()
	r.db.Exec("INSERT INTO item SELECT i, 'a', 'b', 'c', 'd' FROM generate_series(1, 9) i")
	r.db.Exec(`BEGIN; UPDATE item SET d = 'before' WHERE id < 4; ALTER TABLE item DROP COLUMN b; INSERT INTO item VALUES (10, 'a', 'c', 'between');
		ALTER TABLE item DROP COLUMN c; UPDATE item SET a = 'after' WHERE id > 2; DELETE FROM item WHERE id = 9; COMMIT`)
	r.same(s, "item")
}

func TestColumnsThatChangeWhileDownArriveInOrder(t *testing.T) {
	t.Parallel()
	r := setup(t, alteredDDL, "item")
	s := r.start()
	r.db.Exec("INSERT INTO item SELECT i, 'a', 'b', 'c', 'd' FROM generate_series(1, 9) i")
	r.settle(s)
	s.terminate(20 * time.Second)
	r.db.Exec("UPDATE item SET b = 'old shape' WHERE id < 4")
	r.db.Exec("ALTER TABLE item ADD COLUMN e text; INSERT INTO item VALUES (10, 'a', 'b', 'c', 'd', 'new shape')")
	r.db.Exec("ALTER TABLE item DROP COLUMN b; UPDATE item SET e = 'newest shape' WHERE id > 5; DELETE FROM item WHERE id = 1")
	s = r.start()
	r.same(s, "item")
}
