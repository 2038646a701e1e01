package shop

import (
	"math/rand/v2"
)

// order is a row of orders with the lines of its items.
type order struct {
	id    int64
	lines []int32
}

// price is a key of the price history.
type price struct {
	sku, day string
}

// session makes the transactions of one connection. It works on rows whose numbers no other session uses.
type session struct {
	content

	index, count int
	ledger       *Ledger
	tx           tx

	lastID    int64 // Of customers and orders, before the session's share is taken.
	customers pool[int64]
	former    pool[int64] // Customers that have gone and may come back.
	orders    pool[*order]
	archived  pool[int64]
	prices    pool[price]
	carts     pool[string]
}

func newSession(seed uint64, index, count int) *session {
	return &session{
		content: content{rand.New(rand.NewPCG(seed, uint64(index)))}, //nolint:gosec // Equal seeds make equal loads.
		index:   index, count: count, ledger: newLedger(),
	}
}

// tx is one transaction.
type tx struct {
	steps   []step
	changes int // Row changes and truncates that the commit makes.
}

// step is one statement of a transaction, or the rows of one COPY.
type step struct {
	sql  string
	args []any
	rows int // How many rows it must touch; negative where nobody counts.
	copy []byte
}

// change adds a statement whose rows count as changes.
func (t *tx) change(rows int, sql string, args ...any) {
	t.steps = append(t.steps, step{sql: sql, args: args, rows: rows})
	t.changes += rows
}

// vain adds a statement that a rollback takes back.
func (t *tx) vain(rows int, sql string, args ...any) {
	t.steps = append(t.steps, step{sql: sql, args: args, rows: rows})
}

// control adds a statement that touches no rows.
func (t *tx) control(sql string) {
	t.steps = append(t.steps, step{sql: sql, rows: -1})
}

// act is one kind of transaction and how often it comes.
type act struct {
	weight int
	run    func(*session)
}

// acts are the kinds of transactions of every session.
var acts = []act{
	{50, (*session).signUp},
	{5, (*session).importCustomers},
	{60, (*session).touchCustomers},
	{16, (*session).rewriteCustomer},
	{14, (*session).leave},
	{8, (*session).comeBack},
	{8, (*session).renumberCustomer},
	{90, (*session).buy},
	{4, (*session).importOrders},
	{90, (*session).ship},
	{60, (*session).reprice},
	{25, (*session).cancel},
	{30, (*session).archive},
	{24, (*session).amendArchive},
	{20, (*session).renumberOrder},
	{24, (*session).swapLines},
	{24, (*session).changeOfMind},
	{10, (*session).walkAway},
	{16, (*session).fleeting},
	{30, (*session).quotePrices},
	{3, (*session).importPrices},
}

// cartActs are those of the first session, which has the carts to itself: a truncate touches all of them.
var cartActs = []act{
	{20, (*session).fillCarts},
	{25, (*session).changeCarts},
	{8, (*session).dropCarts},
	{3, (*session).emptyCarts},
}

// next makes a transaction that changes something, or one that is rolled back.
func (s *session) next() tx {
	s.tx = tx{}
	s.tx.control("BEGIN")
	choices := acts
	if s.index == 0 && s.chance(12) {
		choices = cartActs
	}
	pick(s, choices)(s)
	if last := s.tx.steps[len(s.tx.steps)-1]; last.sql != "ROLLBACK" {
		s.tx.control("COMMIT")
	}
	return s.tx
}

func pick(s *session, choices []act) func(*session) {
	total := 0
	for _, a := range choices {
		total += a.weight
	}
	at := s.rng.IntN(total)
	for _, a := range choices {
		if at -= a.weight; at < 0 {
			return a.run
		}
	}
	return choices[0].run
}

// newID returns a number that no other session uses.
func (s *session) newID() int64 {
	s.lastID++
	return s.lastID*int64(s.count) + int64(s.index)
}

// customerIDs chooses customers, after making some if there are none.
func (s *session) customerIDs(n int) []int64 {
	if s.customers.len() == 0 {
		s.insertCustomers(1)
	}
	places := s.customers.some(s.rng, n)
	ids := make([]int64, len(places))
	for i, at := range places {
		ids[i] = s.customers.items[at]
	}
	return ids
}

// someOrder chooses an order that has items, after making one if need be.
func (s *session) someOrder() *order {
	for range 10 {
		if s.orders.len() > 0 {
			if o := s.orders.items[s.orders.pick(s.rng)]; len(o.lines) > 0 {
				return o
			}
		}
	}
	return s.insertOrder(2)
}
