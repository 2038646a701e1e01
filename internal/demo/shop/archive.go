package shop

import (
	"bytes"
	"fmt"
	"strings"
)

// archive moves an order to the table of the same name in the other schema.
func (s *session) archive() {
	if s.orders.len() == 0 {
		s.buy()
		return
	}
	o := s.deleteOrder(s.orders.pick(s.rng))
	noise := 50
	if s.chance(40) {
		noise = profileBytes
	}
	s.tx.change(1, `INSERT INTO "Archive".orders (id, total, archived_at, document) VALUES ($1, $2::text::numeric, $3::text::timestamp, $4::text::jsonb)`,
		o.id, s.decimal(10, 2), s.moment()[:19], s.document(noise))
	s.ledger.put(Archived, o.id)
	s.archived.add(o.id)
}

// amendArchive changes rows whose changes carry the whole old row.
func (s *session) amendArchive() {
	if s.archived.len() == 0 {
		s.archive()
		return
	}
	at := s.archived.pick(s.rng)
	id := s.archived.items[at]
	switch s.rng.IntN(5) {
	case 0:
		s.archived.remove(at)
		s.tx.change(1, `DELETE FROM "Archive".orders WHERE id = $1`, id)
		s.ledger.drop(Archived, id)
	case 1:
		to := s.newID()
		s.archived.items[at] = to
		s.tx.change(1, `UPDATE "Archive".orders SET id = $2 WHERE id = $1`, id, to)
		s.ledger.drop(Archived, id)
		s.ledger.put(Archived, to)
	default:
		s.tx.change(1, `UPDATE "Archive".orders SET total = NULL, archived_at = $2::text::timestamp WHERE id = $1`, id, s.moment()[:19])
	}
}

var skuStems = []string{"A", `b"q`, "ü'n", `\N`, "🎸", "a b", "100%", "Z"}

// quotePrices writes a key of text and date in a table whose names need quotes.
func (s *session) quotePrices() {
	for range 1 + s.rng.IntN(8) {
		if s.prices.len() > 20 && s.chance(60) {
			s.changePrice()
			continue
		}
		p := s.newPrice()
		s.tx.change(1, `INSERT INTO "Archive"."PriceHistory" ("Sku", "ValidOn", "Price", "Reason ?") VALUES ($1, $2::text::date, $3::text::numeric, $4)`,
			p.sku, p.day, s.decimal(7, 3), s.maybeText())
		s.ledger.put(PriceHistory, p.sku, p.day)
		s.prices.add(p)
	}
}

// newPrice makes a key that was never used, and notes it nowhere.
func (s *session) newPrice() price {
	for {
		p := price{fmt.Sprintf("%s-%d-%d", skuStems[s.rng.IntN(len(skuStems))], s.index, s.rng.IntN(500)), s.date()}
		if _, ever := s.ledger.Left(PriceHistory, Key(p.sku, p.day)); !ever {
			return p
		}
	}
}

func (s *session) changePrice() {
	at := s.prices.pick(s.rng)
	p := s.prices.items[at]
	switch s.rng.IntN(4) {
	case 0:
		s.prices.remove(at)
		s.tx.change(1, `DELETE FROM "Archive"."PriceHistory" WHERE "Sku" = $1 AND "ValidOn" = $2::text::date`, p.sku, p.day)
		s.ledger.drop(PriceHistory, p.sku, p.day)
	case 1:
		to := s.newPrice()
		s.prices.items[at] = to
		s.tx.change(1, `UPDATE "Archive"."PriceHistory" SET "Sku" = $3, "ValidOn" = $4::text::date WHERE "Sku" = $1 AND "ValidOn" = $2::text::date`,
			p.sku, p.day, to.sku, to.day)
		s.ledger.drop(PriceHistory, p.sku, p.day)
		s.ledger.put(PriceHistory, to.sku, to.day)
	default:
		s.tx.change(1, `UPDATE "Archive"."PriceHistory" SET "Price" = $3::text::numeric WHERE "Sku" = $1 AND "ValidOn" = $2::text::date`,
			p.sku, p.day, s.decimal(7, 3))
	}
}

var copyEscapes = strings.NewReplacer(`\`, `\\`, "\t", `\t`, "\n", `\n`, "\r", `\r`)

// importPrices comes in by COPY.
func (s *session) importPrices() {
	n := 50 + s.rng.IntN(200)
	var rows bytes.Buffer
	for range n {
		p := s.newPrice()
		fmt.Fprintf(&rows, "%s\t%s\t%s\t%s\n", copyEscapes.Replace(p.sku), p.day, s.decimal(7, 3), copyEscapes.Replace(s.text()))
		s.ledger.put(PriceHistory, p.sku, p.day)
		s.prices.add(p)
	}
	s.tx.steps = append(s.tx.steps, step{
		sql: `COPY "Archive"."PriceHistory" ("Sku", "ValidOn", "Price", "Reason ?") FROM STDIN`, rows: n, copy: rows.Bytes(),
	})
	s.tx.changes += n
}
