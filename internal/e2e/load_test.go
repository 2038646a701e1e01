package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// loadDDL makes the tables that a load works on.
const loadDDL = `CREATE TABLE orders (id bigint PRIMARY KEY, customer text, total numeric(12,2), note text, body text, at timestamptz);
	ALTER TABLE orders ALTER COLUMN body SET STORAGE EXTERNAL;
	CREATE TABLE lines (order_id bigint, pos int, sku text, PRIMARY KEY (pos, order_id));
	CREATE TABLE ledger (n bigint PRIMARY KEY, pad text);`

var loadTables = []string{"orders", "lines", "ledger"}

// load commits random transactions of all kinds until it is stopped. Each inserts a row
// into ledger, which tells afterwards whether a transaction that was committed before
// some position is in the sink.
type load struct {
	t      testing.TB
	random *rand.Rand
	pause  time.Duration
	dial   func(context.Context) (*pgx.Conn, error)
	cancel context.CancelFunc
	done   chan struct{}

	// Used by the goroutine only.
	ids  []int64
	next int64

	mu        sync.Mutex
	committed []commitPoint
	changes   int
	lost      int // transactions that ended in an error
	err       error
}

// commitPoint is a row of ledger and a position after its commit.
type commitPoint struct {
	n  int64
	at lsn
}

// load starts one, with random choices of its own that follow from random. pause is
// the time between two transactions.
func (r *rig) load(random *rand.Rand, pause time.Duration) *load {
	r.t.Helper()
	return r.loadOn(random, pause, nil)
}

// loadOn starts a load that works on these orders too.
func (r *rig) loadOn(random *rand.Rand, pause time.Duration, ids []int64) *load {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	l := &load{
		t: r.t, random: rand.New(rand.NewPCG(random.Uint64(), random.Uint64())), pause: pause, cancel: cancel, done: make(chan struct{}), ids: ids,
		dial: func(ctx context.Context) (*pgx.Conn, error) { return r.db.Server().Connect(ctx, r.db.Name()) },
	}
	go l.run(ctx)
	r.t.Cleanup(l.stop)
	return l
}

// stop ends the load. What was committed stays to be looked at.
func (l *load) stop() {
	l.cancel()
	<-l.done
}

func (l *load) run(ctx context.Context) {
	defer close(l.done)
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx)) // The test is about what was committed.
		}
	}()
	tick := time.NewTicker(max(l.pause, time.Microsecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = l.dial(ctx); err != nil {
				conn = nil
				continue // The test may have stopped the server.
			}
		}
		// One that is cut off may commit later, after the test has looked how far it is.
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		err := l.transaction(whole, conn)
		cancel()
		if err != nil && ctx.Err() == nil {
			l.mu.Lock()
			l.lost++
			l.err = err
			l.mu.Unlock()
			_ = conn.Close(ctx) // A fresh one cannot be inside a transaction.
		}
	}
}

// transaction commits one and notes its position.
func (l *load) transaction(ctx context.Context, conn *pgx.Conn) error {
	n := l.next
	l.next++
	statements := []string{"BEGIN", fmt.Sprintf("INSERT INTO ledger VALUES (%d, repeat('p', %d))", n, l.random.IntN(200))}
	operations := 1 + l.random.IntN(6)
	ids := append([]int64(nil), l.ids...)
	for range operations {
		statements = append(statements, l.operation(&ids))
	}
	if l.random.IntN(5) == 0 {
		statements = append(statements, "SAVEPOINT s", "DELETE FROM orders WHERE id IN (SELECT id FROM orders LIMIT 50)", "INSERT INTO ledger VALUES (-1, 'never')", "ROLLBACK TO s")
	}
	statements = append(statements, "COMMIT", "SELECT pg_current_wal_insert_lsn()::text")
	results, err := conn.PgConn().Exec(ctx, strings.Join(statements, ";")).ReadAll()
	if err != nil {
		return err
	}
	at, err := parse(results[len(results)-1].Rows)
	if err != nil {
		return err
	}
	l.ids = ids
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed = append(l.committed, commitPoint{n, at})
	l.changes += 1 + operations
	return nil
}

// operation makes one statement that changes one order, and follows which ids there
// may be. A statement that finds no row does no harm.
func (l *load) operation(ids *[]int64) string {
	if len(*ids) == 0 || l.random.IntN(4) == 0 {
		id := l.random.Int64N(1 << 40)
		*ids = append(*ids, id)
		return fmt.Sprintf(`INSERT INTO orders VALUES (%[1]d, 'c%[1]d', %[2]d.01, E'it''s "%[1]d"\n\\N', repeat('b%[1]d', %[3]d), now()) ON CONFLICT (id) DO NOTHING;
			INSERT INTO lines SELECT %[1]d, p, 's' FROM generate_series(1, 3) p ON CONFLICT DO NOTHING`,
			id, l.random.IntN(9999), l.random.IntN(800))
	}
	at := l.random.IntN(len(*ids))
	id := (*ids)[at]
	switch l.random.IntN(10) {
	case 0:
		*ids = append((*ids)[:at], (*ids)[at+1:]...)
		return fmt.Sprintf("DELETE FROM orders WHERE id = %[1]d; DELETE FROM lines WHERE order_id = %[1]d AND pos < 3", id)
	case 1, 2:
		moved := l.random.Int64N(1 << 40)
		(*ids)[at] = moved
		return fmt.Sprintf("UPDATE orders SET id = %[1]d WHERE id = %[2]d AND NOT EXISTS (SELECT FROM orders WHERE id = %[1]d)", moved, id)
	case 3:
		return fmt.Sprintf("UPDATE orders SET body = repeat('n', %d), note = NULL WHERE id = %d", l.random.IntN(6000), id)
	case 4:
		return fmt.Sprintf("UPDATE lines SET sku = 'x%d' WHERE order_id = %d", l.random.IntN(1000), id)
	default:
		return fmt.Sprintf("UPDATE orders SET total = total + %d.01, at = now() WHERE id = %d", l.random.IntN(50), id)
	}
}

func parse(rows [][][]byte) (lsn, error) {
	var position lsn
	if len(rows) != 1 {
		return 0, fmt.Errorf("want one position, got %d", len(rows))
	}
	return position, position.Scan(string(rows[0][0]))
}

// count is how many transactions were committed.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.committed)
}

// more waits until the load has committed n more transactions.
func (l *load) more(n int) {
	l.t.Helper()
	goal := l.count() + n
	eventually(l.t, "the load goes on", func() (bool, string) {
		now := l.count()
		l.mu.Lock()
		defer l.mu.Unlock()
		return now >= goal, fmt.Sprintf("%d transactions, %d lost, the last by %v", now, l.lost, l.err)
	})
}

// confirmedIsApplied checks that every transaction before the slot's confirmed position
// is in the sink. It returns how many that were.
func (r *rig) confirmedIsApplied(l *load) int {
	r.t.Helper()
	confirmed := r.confirmed()
	data, err := r.sink.Rows(sinkDatabase, "ledger")
	if err != nil {
		r.t.Fatal(err)
	}
	applied := make(map[string]bool, len(data.Rows))
	for _, row := range data.Rows {
		applied[row[0].Text] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := 0
	for _, c := range l.committed {
		if c.at > confirmed {
			continue
		}
		before++
		if !applied[strconv.FormatInt(c.n, 10)] {
			r.t.Fatalf("the slot has confirmed %s, but transaction %d, committed before %s, is not in the sink", confirmed, c.n, c.at)
		}
	}
	return before
}
