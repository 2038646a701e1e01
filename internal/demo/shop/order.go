package shop

import (
	"bytes"
	"fmt"
	"slices"
)

const (
	insertOrders = `INSERT INTO orders (id, customer_id, status, total, placed_at, remark)
SELECT id, customer, status::order_status, total::numeric, placed::timestamptz, remark
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[]) AS x(id, customer, status, total, placed, remark)`

	insertItems = `INSERT INTO order_items (order_id, line, title, price, quantity)
SELECT id, line, title, price::numeric, quantity
FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::text[], $5::smallint[]) AS x(id, line, title, price, quantity)`
)

var statuses = []string{"new", "paid", "shipped", `returned, "damaged"`}

func (s *session) status() string { return statuses[s.rng.IntN(len(statuses))] }

// orderRows are the arguments of insertOrders.
func (s *session) orderRows(ids []int64) []any {
	n := len(ids)
	customers, states, totals := make([]int64, n), make([]string, n), make([]string, n)
	placed, remarks := make([]string, n), make([]*string, n)
	for i := range ids {
		customers[i], states[i], totals[i] = s.customerIDs(1)[0], s.status(), s.decimal(10, 2)
		placed[i], remarks[i] = s.moment(), s.maybeText()
	}
	return []any{ids, customers, states, totals, placed, remarks}
}

// itemRows are the arguments of insertItems.
func (s *session) itemRows(orders []int64, lines []int32) []any {
	n := len(orders)
	titles, prices, quantities := make([]string, n), make([]string, n), make([]int16, n)
	for i := range orders {
		titles[i], prices[i], quantities[i] = s.text(), s.decimal(10, 4), int16(s.rng.IntN(65536)-32768) //nolint:gosec // The range of int16.
	}
	return []any{orders, lines, titles, prices, quantities}
}

// insertOrder adds an order and its items: rows of two tables.
func (s *session) insertOrder(items int) *order {
	o := &order{id: s.newID()}
	s.tx.change(1, insertOrders, s.orderRows([]int64{o.id})...)
	s.insertItems(o, items)
	s.ledger.put(Orders, o.id)
	s.orders.add(o)
	return o
}

func (s *session) insertItems(o *order, n int) {
	if n == 0 {
		return
	}
	ids := slices.Repeat([]int64{o.id}, n)
	lines := make([]int32, n)
	for i := range lines {
		lines[i] = int32(i + 1) //nolint:gosec // A few.
		s.ledger.put(OrderItems, o.id, lines[i])
	}
	o.lines = lines
	s.tx.change(n, insertItems, s.itemRows(ids, lines)...)
}

// buy takes the items from the stock, which all sessions share: one row only, so that nobody waits in a circle.
func (s *session) buy() {
	for range 1 + s.rng.IntN(5) {
		s.insertOrder(s.rng.IntN(6))
	}
	if s.chance(50) {
		s.tx.change(1, "UPDATE stock SET quantity = quantity - $2::integer, moves = moves + 1 WHERE sku = $1",
			stockKeys[s.rng.IntN(len(stockKeys))], 1+s.rng.IntN(9))
	}
}

// importOrders comes in by COPY, many rows in one transaction.
func (s *session) importOrders() {
	n := 100 + s.rng.IntN(500)
	var rows bytes.Buffer
	for range n {
		o := &order{id: s.newID()}
		fmt.Fprintf(&rows, "%d\t%d\tnew\t%s\t%s\t\\N\n", o.id, s.rng.Int64N(1<<40), s.decimal(9, 2), s.moment())
		s.ledger.put(Orders, o.id)
		s.orders.add(o)
	}
	s.tx.steps = append(s.tx.steps, step{
		sql: "COPY orders (id, customer_id, status, total, placed_at, remark) FROM STDIN", rows: n, copy: rows.Bytes(),
	})
	s.tx.changes += n
}

func (s *session) ship() {
	places := s.orders.some(s.rng, 1+s.rng.IntN(120))
	if len(places) == 0 {
		s.buy()
		return
	}
	ids := make([]int64, len(places))
	for i, at := range places {
		ids[i] = s.orders.items[at].id
	}
	s.tx.change(len(ids), "UPDATE orders SET status = $2::text::order_status, shipped_on = $3::text::date WHERE id = ANY($1::bigint[])",
		ids, s.status(), s.date())
}

func (s *session) reprice() {
	for range 1 + s.rng.IntN(8) {
		s.repriceOne(s.someOrder())
	}
}

func (s *session) repriceOne(o *order) {
	s.tx.change(len(o.lines), "UPDATE order_items SET price = $2::text::numeric, quantity = quantity / 2 WHERE order_id = $1",
		o.id, s.decimal(10, 4))
	s.tx.change(1, "UPDATE orders SET total = $2::text::numeric, remark = $3 WHERE id = $1", o.id, s.decimal(10, 2), s.maybeText())
}

func (s *session) cancel() {
	for range 1 + s.rng.IntN(6) {
		s.someOrder()
		s.deleteOrder(s.orders.pick(s.rng))
	}
}

func (s *session) deleteOrder(at int) *order {
	o := s.orders.remove(at)
	if len(o.lines) > 0 {
		s.tx.change(len(o.lines), "DELETE FROM order_items WHERE order_id = $1", o.id)
	}
	s.tx.change(1, "DELETE FROM orders WHERE id = $1", o.id)
	for _, line := range o.lines {
		s.ledger.drop(OrderItems, o.id, line)
	}
	s.ledger.drop(Orders, o.id)
	return o
}

// renumberOrder changes the key of an order and one column of its items' keys.
func (s *session) renumberOrder() {
	o := s.someOrder()
	from, to := o.id, s.newID()
	s.tx.change(len(o.lines), "UPDATE order_items SET order_id = $2 WHERE order_id = $1", from, to)
	s.tx.change(1, "UPDATE orders SET id = $2 WHERE id = $1", from, to)
	for _, line := range o.lines {
		s.ledger.drop(OrderItems, from, line)
		s.ledger.put(OrderItems, to, line)
	}
	s.ledger.drop(Orders, from)
	s.ledger.put(Orders, to)
	o.id = to
}

// swapLines exchanges two keys by way of a third.
func (s *session) swapLines() {
	o := s.someOrder()
	if len(o.lines) < 2 {
		s.ship()
		return
	}
	const swap = "UPDATE order_items SET line = $3 WHERE order_id = $1 AND line = $2"
	a, b := o.lines[0], o.lines[1]
	parking := -1 - s.rng.Int32N(1000)
	if _, used := s.ledger.Left(OrderItems, keyOf([]any{o.id, parking})); used {
		parking -= 1000
	}
	for _, move := range [][2]int32{{a, parking}, {b, a}, {parking, b}} {
		s.tx.change(1, swap, o.id, move[0], move[1])
		s.ledger.drop(OrderItems, o.id, move[0])
		s.ledger.put(OrderItems, o.id, move[1])
	}
}
