package shop

// changeOfMind takes a part of the transaction back to a savepoint, and goes on.
func (s *session) changeOfMind() {
	o := s.insertOrder(1 + s.rng.IntN(3))
	s.tx.control("SAVEPOINT mind")
	s.inVain(o)
	s.tx.control("ROLLBACK TO SAVEPOINT mind")
	s.tx.change(1, "UPDATE orders SET remark = $2 WHERE id = $1", o.id, s.maybeText())
	if s.chance(50) {
		s.tx.control("SAVEPOINT kept")
		s.tx.change(len(o.lines), "UPDATE order_items SET title = $2 WHERE order_id = $1", o.id, s.text())
		s.tx.control("RELEASE SAVEPOINT kept")
	}
}

// inVain writes what a rollback takes back.
func (s *session) inVain(o *order) {
	s.tx.vain(1, insertOrders, s.orderRowsInVain()...)
	s.tx.vain(1, "UPDATE orders SET total = 0 WHERE id = $1", o.id)
	if len(o.lines) > 0 {
		s.tx.vain(len(o.lines), "DELETE FROM order_items WHERE order_id = $1", o.id)
	}
	s.tx.vain(1, insertCustomers, s.customerRows([]int64{s.newID()})...)
}

// orderRowsInVain names no customer, so that none is made for it.
func (s *session) orderRowsInVain() []any {
	return []any{
		[]int64{s.newID()}, []int64{0}, []string{s.status()}, []string{s.decimal(10, 2)}, []string{s.moment()}, []*string{s.maybeText()},
	}
}

// walkAway rolls everything back: nothing of it may be seen.
func (s *session) walkAway() {
	if s.orders.len() == 0 {
		s.buy()
		return
	}
	s.inVain(s.orders.items[s.orders.pick(s.rng)])
	s.tx.control("ROLLBACK")
}

// fleeting makes rows that no transaction but its own ever sees.
func (s *session) fleeting() {
	id := s.newID()
	s.tx.change(1, insertCustomers, s.customerRows([]int64{id})...)
	s.tx.change(1, "UPDATE customers SET name = $2 WHERE id = $1", id, s.name())
	s.tx.change(1, "DELETE FROM customers WHERE id = $1", id)
	s.ledger.put(Customers, id)
	s.ledger.drop(Customers, id)
	o := s.insertOrder(3)
	s.tx.change(3, "UPDATE order_items SET quantity = 7 WHERE order_id = $1", o.id)
	s.deleteOrder(s.orders.len() - 1)
}
