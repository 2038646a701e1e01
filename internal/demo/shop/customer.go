package shop

const insertCustomers = `INSERT INTO customers (id, public_id, name, note, active, joined_at, profile, photo)
SELECT id, public_id::uuid, name, note, active, joined::timestamptz, profile::jsonb, photo
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::text[], $8::text[])
  AS x(id, public_id, name, note, active, joined, profile, photo)`

// customerRows are the arguments of insertCustomers.
func (s *session) customerRows(ids []int64) []any {
	n := len(ids)
	uuids, names, notes := make([]string, n), make([]string, n), make([]*string, n)
	active, joined, profiles, photos := make([]bool, n), make([]string, n), make([]string, n), make([]*string, n)
	for i := range ids {
		uuids[i], names[i], notes[i] = s.uuid(), s.name(), s.maybeText()
		active[i], joined[i] = s.chance(80), s.moment()
		profiles[i], photos[i] = s.profile(), s.photo()
	}
	return []any{ids, uuids, names, notes, active, joined, profiles, photos}
}

func (s *session) addCustomers(ids []int64) {
	s.tx.change(len(ids), insertCustomers, s.customerRows(ids)...)
	for _, id := range ids {
		s.ledger.put(Customers, id)
		s.customers.add(id)
	}
}

func (s *session) insertCustomers(n int) {
	ids := make([]int64, n)
	for i := range ids {
		ids[i] = s.newID()
	}
	s.addCustomers(ids)
}

func (s *session) signUp() { s.insertCustomers(1) }

func (s *session) importCustomers() { s.insertCustomers(5 + s.rng.IntN(40)) }

// touchCustomers leaves the large columns alone, which is what most updates do.
func (s *session) touchCustomers() {
	ids := s.customerIDs(1 + s.rng.IntN(120))
	if s.chance(50) {
		s.tx.change(len(ids), "UPDATE customers SET seen_at = $2::text::timestamptz, active = NOT active WHERE id = ANY($1::bigint[])",
			ids, s.moment())
		return
	}
	s.tx.change(len(ids), "UPDATE customers SET note = $2, name = $3 WHERE id = ANY($1::bigint[])", ids, s.maybeText(), s.name())
}

// rewriteCustomer changes one large column and leaves the other alone.
func (s *session) rewriteCustomer() {
	ids := s.customerIDs(1)
	switch s.rng.IntN(3) {
	case 0:
		s.tx.change(1, "UPDATE customers SET profile = $2::text::jsonb WHERE id = ANY($1::bigint[])", ids, s.profile())
	case 1:
		s.tx.change(1, "UPDATE customers SET photo = $2 WHERE id = ANY($1::bigint[])", ids, s.photo())
	default:
		s.tx.change(1, "UPDATE customers SET profile = $2::text::jsonb WHERE id = ANY($1::bigint[])", ids, s.profile())
		s.tx.change(1, "UPDATE customers SET seen_at = NULL WHERE id = ANY($1::bigint[])", ids)
	}
}

func (s *session) leave() {
	s.customerIDs(1)
	id := s.customers.remove(s.customers.pick(s.rng))
	s.tx.change(1, "DELETE FROM customers WHERE id = $1", id)
	s.ledger.drop(Customers, id)
	s.former.add(id)
}

// comeBack gives a key that has gone a new row, at times in the transaction that takes the key away.
func (s *session) comeBack() {
	if s.former.len() == 0 || s.chance(30) {
		s.leave()
	}
	s.addCustomers([]int64{s.former.remove(s.former.pick(s.rng))})
}

// renumberCustomer changes a key and leaves the large columns alone, at times to a key that has gone before.
func (s *session) renumberCustomer() {
	s.customerIDs(1)
	from := s.customers.remove(s.customers.pick(s.rng))
	to := s.newID()
	if s.former.len() > 0 && s.chance(40) {
		to = s.former.remove(s.former.pick(s.rng))
	}
	if s.chance(30) {
		s.tx.change(1, "UPDATE customers SET note = $2 WHERE id = $1", from, s.maybeText())
	}
	s.tx.change(1, "UPDATE customers SET id = $2 WHERE id = $1", from, to)
	if s.chance(30) {
		s.tx.change(1, "UPDATE customers SET seen_at = $2::text::timestamptz WHERE id = $1", to, s.moment())
	}
	s.ledger.drop(Customers, from)
	s.ledger.put(Customers, to)
	s.former.add(from)
	s.customers.add(to)
}
