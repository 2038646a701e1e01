package starrockstest_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// TestConditionsThatNameKeys give the rows that they give where the whole table is read, which a second NOT NOT brings
// about.
func TestConditionsThatNameKeys(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := startTable(t, starrockstest.Options{}, "id INT NOT NULL, g VARCHAR(5)")
	exec(t, s, `CREATE TABLE d.two (a VARCHAR(9) NOT NULL, b LARGEINT NOT NULL, n INT) PRIMARY KEY(a, b) DISTRIBUTED BY HASH(a) PROPERTIES("replication_num"="1")`)
	var one, two []string
	for i := range 8 {
		one = append(one, fmt.Sprintf("(%d, 'g%d')", i-4, i%3))
		two = append(two, fmt.Sprintf("('a%d', %d, %d)", i%3, i-4, i%4))
	}
	exec(t, s, "INSERT INTO d.t VALUES "+strings.Join(one, ","), "INSERT INTO d.two VALUES "+strings.Join(two, ","))
	number := func() string { return fmt.Sprint(random.IntN(12) - 6) }
	leaf := map[string]func() string{
		"t": func() string {
			return []string{
				"id = " + number(), "id IN (" + number() + ", " + number() + ", NULL)", "id NOT IN (" + number() + ")", "id = '" + number() + "'",
				"id = 9999999999", "g = 'g1'", "id > " + number(), "id = id", "id = 1.0",
			}[random.IntN(9)]
		},
		"two": func() string {
			return []string{
				"a = 'a1'", "a IN ('a1', 'a2', 'x')", "b = " + number(), "b IN (" + number() + ", " + number() + ")", "b = 00000000000000000000000000000000000000003",
				"(a = 'a0' AND b = " + number() + ")", "n = 1", "a = 1", "b <> " + number(), "b = '" + number() + "'",
			}[random.IntN(10)]
		},
	}
	var condition func(table string, depth int) string
	condition = func(table string, depth int) string {
		if depth == 0 || random.IntN(3) == 0 {
			return leaf[table]()
		}
		return "(" + condition(table, depth-1) + []string{" AND ", " OR "}[random.IntN(2)] + condition(table, depth-1) + ")"
	}
	for range 2000 {
		table := []string{"t", "two"}[random.IntN(2)]
		where := condition(table, 3)
		named := query(t, s, "SELECT * FROM d."+table+" WHERE "+where)
		all := query(t, s, "SELECT * FROM d."+table+" WHERE NOT (NOT ("+where+"))")
		if diff := cmp.Diff(all, named); diff != "" {
			t.Fatalf("%s: %s", where, diff)
		}
	}
}
