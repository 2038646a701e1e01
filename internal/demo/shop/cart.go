package shop

import "fmt"

const insertCarts = `INSERT INTO carts (token, score, weight, tags, address, payload, expires, opened, ratio)
SELECT token::uuid, score, weight, tags::text[], address::inet, decode(payload, 'hex'), expires::interval, opened::time, ratio::numeric
FROM unnest($1::text[], $2::float8[], $3::float4[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
  AS x(token, score, weight, tags, address, payload, expires, opened, ratio)`

func (s *session) fillCarts() { s.insertCarts(1 + s.rng.IntN(30)) }

func (s *session) insertCarts(n int) {
	tokens, scores, weights := make([]string, n), make([]float64, n), make([]*float32, n)
	tags, addresses, payloads := make([]string, n), make([]*string, n), make([]string, n)
	expires, opened, ratios := make([]string, n), make([]string, n), make([]string, n)
	for i := range n {
		tokens[i], scores[i] = s.uuid(), s.float()
		if s.chance(80) {
			w := float32(s.rng.IntN(2000000)-1000000) / 64
			weights[i] = &w
			a := fmt.Sprintf("10.%d.%d.0/%d", s.rng.IntN(256), s.rng.IntN(256), 24+s.rng.IntN(9))
			addresses[i] = &a
		}
		tags[i] = fmt.Sprintf(`{"a, b",NULL,"q\"u","%s"}`, firstNames[s.rng.IntN(len(firstNames))])
		payloads[i] = fmt.Sprintf("00ff%x", s.noise(s.rng.IntN(40)))
		expires[i] = fmt.Sprintf("%d months %d days %d.%06d seconds", s.rng.IntN(40)-20, s.rng.IntN(60)-30, s.rng.IntN(90000), s.rng.IntN(1000000))
		opened[i] = fmt.Sprintf("%02d:%02d:%02d.%06d", s.rng.IntN(24), s.rng.IntN(60), s.rng.IntN(60), s.rng.IntN(1000000))
		ratios[i] = s.decimal(18, s.rng.IntN(30))
		s.ledger.put(Carts, tokens[i])
		s.carts.add(tokens[i])
	}
	s.tx.change(n, insertCarts, tokens, scores, weights, tags, addresses, payloads, expires, opened, ratios)
}

// float ranges over many magnitudes.
func (s *session) float() float64 {
	f := s.rng.NormFloat64()
	for range s.rng.IntN(12) {
		f *= 1000
	}
	return f
}

func (s *session) changeCarts() {
	places := s.carts.some(s.rng, 1+s.rng.IntN(15))
	if len(places) == 0 {
		s.fillCarts()
		return
	}
	s.tx.change(len(places), "UPDATE carts SET score = $2, weight = -weight, expires = expires + '1 mon 3 days 00:00:00.5' WHERE token = ANY($1::text[]::uuid[])",
		s.cartTokens(places), s.float())
}

func (s *session) dropCarts() {
	places := s.carts.some(s.rng, 1)
	if len(places) == 0 {
		s.fillCarts()
		return
	}
	token := s.carts.remove(places[0])
	s.tx.change(1, "DELETE FROM carts WHERE token = $1::text::uuid", token)
	s.ledger.drop(Carts, token)
}

func (s *session) cartTokens(places []int) []string {
	tokens := make([]string, len(places))
	for i, at := range places {
		tokens[i] = s.carts.items[at]
	}
	return tokens
}

// emptyCarts truncates between inserts of the same transaction.
func (s *session) emptyCarts() {
	s.insertCarts(1 + s.rng.IntN(5))
	s.tx.steps = append(s.tx.steps, step{sql: "TRUNCATE carts", rows: -1})
	s.tx.changes++
	for _, token := range s.carts.items {
		s.ledger.drop(Carts, token)
	}
	s.carts = pool[string]{}
	s.insertCarts(1 + s.rng.IntN(5))
}

// stockKeys are the articles that all sessions take from.
var stockKeys = func() []string {
	var keys []string
	for _, stem := range skuStems {
		for n := range 5 {
			keys = append(keys, fmt.Sprintf("%s/%d", stem, n))
		}
	}
	return keys
}()

// fillStock is the first transaction of all.
func (s *session) fillStock() tx {
	s.tx = tx{}
	s.tx.control("BEGIN")
	s.tx.change(len(stockKeys), "INSERT INTO stock (sku, quantity, moves) SELECT sku, 1000000, 0 FROM unnest($1::text[]) AS sku", stockKeys)
	s.tx.control("COMMIT")
	for _, key := range stockKeys {
		s.ledger.put(Stock, key)
	}
	return s.tx
}
