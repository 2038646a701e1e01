package shop

import (
	"bytes"
	"strings"
	"testing"
)

func TestGeneratorCoversEveryKindOfStatement(t *testing.T) {
	t.Parallel()
	found := map[string]int{}
	changes, transactions := 0, 0
	for index := range 3 {
		s := newSession(7, index, 3)
		for made := 0; made < 30_000; {
			tx := s.next()
			made += tx.changes
			changes += tx.changes
			transactions++
			var script bytes.Buffer
			for _, step := range tx.steps {
				script.WriteString(step.sql + ";")
			}
			for _, kind := range []string{
				"INSERT INTO customers", "DELETE FROM customers", "UPDATE customers SET id", "UPDATE customers SET seen_at", "UPDATE customers SET photo",
				"SET profile", "UPDATE order_items SET order_id", "SET line = $3", "TRUNCATE", "SAVEPOINT mind", "ROLLBACK TO", "RELEASE", ";ROLLBACK;", "COPY",
				"UPDATE stock", "DELETE FROM order_items WHERE order_id = $1;DELETE FROM orders", `INSERT INTO "Archive".orders`, `UPDATE "Archive".orders SET id`,
				`DELETE FROM "Archive"."PriceHistory"`, `SET "Sku"`, "DELETE FROM carts",
			} {
				if strings.Contains(script.String(), kind) {
					found[kind]++
				} else if found[kind] == 0 {
					found[kind] = 0
				}
			}
		}
	}
	t.Logf("%d changes in %d transactions: %v", changes, transactions, found)
	for kind, n := range found {
		if n == 0 {
			t.Errorf("no transaction has %q", kind)
		}
	}
}

func TestSessionsNeverShareAKey(t *testing.T) {
	t.Parallel()
	all := newLedger()
	for index := range 3 {
		s := newSession(11, index, 3)
		for range 2000 {
			s.next()
		}
		all.merge(s.ledger) // Panics on a key of two sessions.
	}
}

func TestRolledBackTransactionsCountNothing(t *testing.T) {
	t.Parallel()
	s := newSession(3, 1, 3)
	seen := 0
	for range 5000 {
		tx := s.next()
		if tx.steps[len(tx.steps)-1].sql != "ROLLBACK" {
			continue
		}
		seen++
		for _, step := range tx.steps {
			if strings.HasPrefix(step.sql, "INSERT INTO orders") && tx.changes != 0 {
				t.Fatalf("a transaction that is rolled back counts %d changes", tx.changes)
			}
		}
	}
	if seen == 0 {
		t.Fatal("no transaction was rolled back")
	}
}
