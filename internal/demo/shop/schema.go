package shop

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"
)

//go:embed schema.sql
var schemaSQL string

// Table names a table of the shop.
type Table struct {
	Schema, Name string
}

// String is the name as SQL takes it.
func (t Table) String() string {
	if t.Schema == "public" {
		return t.Name
	}
	return pgx.Identifier{t.Schema, t.Name}.Sanitize()
}

// The tables of the shop.
var (
	Customers    = Table{"public", "customers"}
	Orders       = Table{"public", "orders"}
	OrderItems   = Table{"public", "order_items"}
	Stock        = Table{"public", "stock"}
	Carts        = Table{"public", "carts"}
	Archived     = Table{"Archive", "orders"}
	PriceHistory = Table{"Archive", "PriceHistory"}
)

// Tables lists all of them.
func Tables() []Table {
	return []Table{Customers, Orders, OrderItems, Stock, Carts, Archived, PriceHistory}
}

// Create makes the tables, empty.
func Create(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, schemaSQL); err != nil {
		return fmt.Errorf("create the tables of the shop: %w", err)
	}
	return nil
}
