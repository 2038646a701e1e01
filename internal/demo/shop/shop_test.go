package shop_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/internal/demo/shop"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const seed = 20260101

// run drives a load into a fresh database.
func run(t *testing.T, o shop.Options) (*pgtest.DB, *shop.Load) {
	t.Helper()
	t.Logf("seed %d", o.Seed)
	db := pgtest.Database(t)
	if err := shop.Create(t.Context(), db.Connect()); err != nil {
		t.Fatal(err)
	}
	load := shop.New(o)
	connect := func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, db.URL()) }
	if err := load.Run(t.Context(), connect); err != nil {
		t.Fatal(err)
	}
	return db, load
}

// keys returns the primary keys of a table.
func keys(t *testing.T, db *pgtest.DB, table shop.Table) map[string]bool {
	t.Helper()
	columns := map[shop.Table]string{
		shop.Customers: "id::text", shop.Orders: "id::text", shop.OrderItems: "concat_ws(E'\\x1f', order_id, line)",
		shop.Stock: "sku", shop.Carts: "token::text", shop.Archived: "id::text",
		shop.PriceHistory: `concat_ws(E'\x1f', "Sku", "ValidOn")`,
	}[table]
	rows, err := db.Connect().Query(t.Context(), "SELECT "+columns+" FROM "+table.String())
	if err != nil {
		t.Fatal(err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, key := range found {
		set[key] = true
	}
	return set
}

func TestLedgerKnowsEveryKeyOfTheSource(t *testing.T) {
	t.Parallel()
	db, load := run(t, shop.Options{Seed: seed, Changes: 20_000})
	ledger := load.Ledger()
	for _, table := range shop.Tables() {
		left, gone := ledger.Count(table)
		found := keys(t, db, table)
		t.Logf("%s: %d rows left, %d keys gone", table, left, gone)
		if left != len(found) {
			t.Errorf("%s has %d rows, the ledger %d", table, len(found), left)
		}
		for key := range found {
			if left, _ := ledger.Left(table, key); !left {
				t.Errorf("%s has %q, the ledger has not", table, key)
			}
		}
		if left == 0 || (gone == 0 && table != shop.Stock) {
			t.Errorf("%s: the load leaves %d rows and %d keys that have gone, which checks little", table, left, gone)
		}
	}
	if w := load.Written(); w < 20_000 || w > 22_000 {
		t.Errorf("%d changes were written instead of 20,000", w)
	}
}

func TestSameSeedMakesSameRowsWhateverTheTiming(t *testing.T) {
	t.Parallel()
	var sums [2]map[string]string
	for i := range sums {
		db, _ := run(t, shop.Options{Seed: seed, Changes: 4000})
		sums[i] = map[string]string{}
		for _, table := range shop.Tables() {
			var sum string
			db.QueryRow(fmt.Sprintf("SELECT count(*) || ' ' || coalesce(md5(string_agg(x::text, '|' ORDER BY x::text COLLATE \"C\")), '') FROM %s x", table)).Scan(&sum)
			sums[i][table.String()] = sum
		}
	}
	if diff := cmp.Diff(sums[0], sums[1]); diff != "" {
		t.Errorf("two runs of one seed differ:\n%s", diff)
	}
}

func TestLoadHasEveryKindOfChange(t *testing.T) {
	t.Parallel()
	db, _ := run(t, shop.Options{Seed: seed, Changes: 20_000})
	for name, query := range map[string]string{
		"large documents out of line":    "SELECT count(*) FROM customers WHERE pg_column_size(profile) > 2000",
		"large text stored uncompressed": "SELECT count(*) FROM customers WHERE pg_column_size(photo) > 2000",
		"text that looks like NULL":      `SELECT count(*) FROM customers WHERE name LIKE '%\\N'`,
		"line breaks":                    `SELECT count(*) FROM orders WHERE remark LIKE E'%\n%'`,
		"emoji":                          `SELECT count(*) FROM order_items WHERE title LIKE '%🎸%'`,
		"nulls":                          "SELECT count(*) FROM orders WHERE remark IS NULL",
		"microseconds":                   "SELECT count(*) FROM customers WHERE joined_at <> date_trunc('milliseconds', joined_at)",
		"moves of the shared stock":      "SELECT count(*) FROM stock WHERE moves > 1",
		"negative amounts":               "SELECT count(*) FROM orders WHERE total < 0",
	} {
		var n int
		db.QueryRow(query).Scan(&n)
		if n == 0 {
			t.Errorf("the load has no %s", name)
		}
	}
}
