package e2e_test

import (
	"fmt"
	"testing"
)

// noise is SQL for so many times 32 characters that cannot be packed, other ones for each i.
func noise(times int) string {
	return fmt.Sprintf("(SELECT string_agg(md5(i::text || ' ' || j), '') FROM generate_series(1, %d) j)", times)
}

// TestTransactionLargerThanTheStreamPassesThroughIt: apply must not wait for the end of a
// transaction that can only come once its beginning is gone.
func TestTransactionLargerThanTheStreamPassesThroughIt(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text)", "item")
	s := r.set("BUS_MAX_BYTES", "4MiB").set("BUS_RETENTION", "0").start()
	r.db.Exec("INSERT INTO item SELECT i, repeat(md5(i::text), 100) FROM generate_series(1, 3000) i")
	r.same(s, "item")
}

// TestTheSmallestStreamTakesRowsThatCannotBePacked: a frame may be a quarter of the stream at
// most, however large it could be.
func TestTheSmallestStreamTakesRowsThatCannotBePacked(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text)", "item")
	s := r.set("BUS_MAX_BYTES", "1MiB").set("BUS_RETENTION", "0").start()
	r.db.Exec("INSERT INTO item SELECT i, " + noise(100) + " FROM generate_series(1, 500) i")
	r.same(s, "item")
}
