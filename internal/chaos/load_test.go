package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// tablesDDL makes the tables that are replicated. Ids come from a small range, so that
// rows are changed, moved, deleted and made again all the time.
const tablesDDL = `
	CREATE TABLE ledger (n bigint PRIMARY KEY, pad text);
	CREATE TABLE account (id bigint PRIMARY KEY, owner text, balance numeric(14,2), note text, body text, at timestamptz, active boolean);
	ALTER TABLE account ALTER COLUMN body SET STORAGE EXTERNAL;
	CREATE TABLE line (order_id bigint, pos int, sku text, qty int, body text, PRIMARY KEY (pos, order_id));
	ALTER TABLE line ALTER COLUMN body SET STORAGE EXTERNAL;
	CREATE TABLE document (id uuid PRIMARY KEY, content jsonb, body text, size double precision);
	ALTER TABLE document ALTER COLUMN body SET STORAGE EXTERNAL;
	ALTER TABLE document REPLICA IDENTITY FULL;
	CREATE TABLE scratch (id int PRIMARY KEY, v text);
	CREATE TABLE bulk (id bigint PRIMARY KEY, pad text);
	CREATE TABLE once (id int PRIMARY KEY, v text);`

var keyedTables = []string{"once", "ledger", "account", "line", "document", "scratch", "bulk"}

// onceRows is how many rows there are that are changed once at most, so that nothing covers
// up what a copy has got wrong.
const onceRows = 3000

// eventDDL makes a table without a key, and writes down beside it what happens to it, in
// the same transactions.
const eventDDL = `
	CREATE TABLE event (n bigint, v text);
	ALTER TABLE event REPLICA IDENTITY FULL;
	CREATE TABLE event_history (op int, n bigint, v text);
	CREATE FUNCTION event_happens() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF TG_OP = 'INSERT' THEN INSERT INTO event_history VALUES (0, NEW.n, NEW.v);
		ELSIF TG_OP = 'UPDATE' THEN INSERT INTO event_history VALUES (1, NEW.n, NEW.v);
		ELSE INSERT INTO event_history VALUES (2, OLD.n, OLD.v); END IF;
		RETURN NULL; END $$;
	CREATE TRIGGER event_happens AFTER INSERT OR UPDATE OR DELETE ON event FOR EACH ROW EXECUTE FUNCTION event_happens();`

// existingRows fills the tables before dbmazz has ever run.
const existingRows = `
	INSERT INTO ledger SELECT -i, 'existing' FROM generate_series(1, %[1]d) i;
	INSERT INTO account SELECT i, 'o' || i, i, 'n', repeat('e', (i %% 7) * 500), now(), i %% 2 = 0 FROM generate_series(1, %[1]d) i;
	INSERT INTO line SELECT i, p, 's' || i, p, repeat('l', p * 900) FROM generate_series(1, %[1]d / 3) i, generate_series(1, 3) p;
	INSERT INTO document SELECT md5(i::text)::uuid, jsonb_build_object('n', i), repeat('d', (i %% 5) * 700), i FROM generate_series(1, %[1]d) i;
	INSERT INTO scratch SELECT i, 'x' FROM generate_series(1, %[1]d) i;
	INSERT INTO bulk SELECT i, repeat('p', 40) FROM generate_series(1, %[1]d * 2) i;
	INSERT INTO once SELECT i, 'existing' FROM generate_series(1, %[2]d) i;`

// position asks where the log ends.
const position = "SELECT pg_current_wal_insert_lsn()::text"

const ids = 300 // how many there are of each kind

// commitPoint is a row of ledger and positions around its commit.
type commitPoint struct {
	n          int64
	before, at pglogrepl.LSN
}

// load is what all writers share.
type load struct {
	r      *run
	cancel context.CancelFunc
	wait   sync.WaitGroup
	// gate is held for reading by every transaction.
	gate sync.RWMutex

	mu        sync.Mutex
	committed []commitPoint
	failed    int
	columns   int // how many were added
	last      error
}

// writer commits random transactions on a connection of its own.
type writer struct {
	l      *load
	random *rand.Rand
	number int64
	next   int64
	pace   time.Duration
	// long has the transactions stay open for a while.
	long bool
}

// startLoad starts the writers.
func (r *run) startLoad() *load {
	ctx, cancel := context.WithCancel(r.t.Context())
	l := &load{r: r, cancel: cancel}
	for i := range r.shape.writers {
		w := &writer{l: l, random: rand.New(rand.NewPCG(r.seed, uint64(i)+1)), number: int64(i) + 1, pace: r.shape.pace, long: i == 0} //nolint:gosec // Small.
		l.wait.Go(func() { w.run(ctx) })
	}
	r.t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.wait.Wait()
}

// hold waits until no transaction is open and keeps others from beginning.
func (l *load) hold() { l.gate.Lock() }

func (l *load) resume() { l.gate.Unlock() }

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.committed)
}

func (w *writer) run(ctx context.Context) {
	var conn *pgx.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close(context.WithoutCancel(ctx)) // What was committed counts.
		}
	}()
	for w.pause(ctx, w.pace) {
		if conn == nil || conn.IsClosed() {
			var err error
			if conn, err = w.l.r.connect(ctx); err != nil {
				conn = nil
				w.pause(ctx, 50*time.Millisecond)
				continue
			}
		}
		if err := w.transaction(ctx, conn); err != nil && ctx.Err() == nil {
			w.l.mu.Lock()
			w.l.failed++
			w.l.last = err
			w.l.mu.Unlock()
			_ = conn.Close(ctx) // A fresh one is not inside a transaction.
		}
	}
}

func (w *writer) pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(w.l.r.jitter(w.random, d))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// transaction commits one and notes its position.
func (w *writer) transaction(ctx context.Context, conn *pgx.Conn) error {
	w.l.gate.RLock()
	defer w.l.gate.RUnlock()
	w.next++
	n := w.number<<40 + w.next
	statements := []string{"BEGIN", fmt.Sprintf("INSERT INTO ledger VALUES (%d, repeat('p', %d))", n, w.random.IntN(60))}
	for range 1 + w.random.IntN(5) {
		statements = append(statements, w.operation())
	}
	if n := w.next*int64(w.l.r.shape.writers) + w.number; w.l.r.shape.existing && n < onceRows {
		statements = append(statements, w.once(n))
	}
	switch w.random.IntN(8) {
	case 0:
		statements = append(statements, "SAVEPOINT a", "DELETE FROM account", "INSERT INTO ledger VALUES (-999, 'never')", "ROLLBACK TO a", w.operation())
	case 1:
		statements = append(statements, "SAVEPOINT a", w.operation(), "SAVEPOINT b", w.operation(), "ROLLBACK TO b", w.operation(), "RELEASE a")
	case 2: // A subtransaction that fails inside a function, and one that does not.
		statements = append(statements, "DO $$ BEGIN BEGIN INSERT INTO ledger VALUES (-998, 'never'); PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN NULL; END; "+
			"BEGIN "+w.operation()+"; EXCEPTION WHEN unique_violation THEN NULL; END; END $$")
	}
	if w.random.IntN(25) == 0 {
		statements = append(statements, w.rare())
	}
	if w.random.IntN(20) == 0 {
		statements = append(statements, "ROLLBACK")
	} else {
		statements = append(statements, position, "COMMIT", position)
	}
	batches := [][]string{statements}
	if w.long && w.random.IntN(3) == 0 {
		batches = nil
		for _, s := range statements {
			batches = append(batches, []string{s})
		}
	}
	return w.send(ctx, conn, n, batches)
}

// send runs the statements, with time between them if there are several batches.
func (w *writer) send(ctx context.Context, conn *pgx.Conn, n int64, batches [][]string) error {
	var positions []string
	for _, batch := range batches {
		results, err := conn.PgConn().Exec(ctx, strings.Join(batch, ";")).ReadAll()
		if err != nil {
			return err
		}
		for _, result := range results {
			if len(result.Rows) == 1 {
				positions = append(positions, string(result.Rows[0][0]))
			}
		}
		if len(batches) > 1 {
			w.pause(ctx, 40*time.Millisecond)
		}
	}
	if len(positions) != 2 {
		return nil // Rolled back.
	}
	before, err := pglogrepl.ParseLSN(positions[0])
	if err != nil {
		return err
	}
	at, err := pglogrepl.ParseLSN(positions[1])
	if err != nil {
		return err
	}
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	w.l.committed = append(w.l.committed, commitPoint{n, before, at})
	return nil
}

func (w *writer) id() int { return 1 + w.random.IntN(ids) }

// operation makes one statement.
func (w *writer) operation() string {
	id, other := w.id(), w.id()
	switch w.random.IntN(16) {
	case 0, 1, 2:
		return fmt.Sprintf(`INSERT INTO account VALUES (%d, E'o"\\%d', %d.%02d, NULL, repeat('b', %d), now(), true) ON CONFLICT (id) DO UPDATE SET owner = excluded.owner`,
			id, other, w.random.IntN(9999), w.random.IntN(100), w.random.IntN(5000))
	case 3, 4, 5: // Leaves the large value out.
		return fmt.Sprintf("UPDATE account SET balance = balance + %d.25, at = now() WHERE id = %d", w.random.IntN(50), id)
	case 6:
		return fmt.Sprintf("UPDATE account SET body = repeat('n', %d), note = 'r%d', active = NOT active WHERE id = %d", w.random.IntN(6000), other, id)
	case 7, 8:
		return fmt.Sprintf("UPDATE account SET id = %[1]d WHERE id = %[2]d AND NOT EXISTS (SELECT FROM account WHERE id = %[1]d)", other, id)
	case 9:
		return fmt.Sprintf("DELETE FROM account WHERE id = %d", id)
	case 10:
		return fmt.Sprintf(`INSERT INTO line SELECT %d, p, 's', p, repeat('l', %d) FROM generate_series(1, 3) p
			ON CONFLICT (pos, order_id) DO UPDATE SET qty = line.qty + 1`, id, w.random.IntN(4000))
	case 11:
		return fmt.Sprintf("UPDATE line SET order_id = %[1]d, sku = 'm' WHERE order_id = %[2]d AND pos = 2 AND NOT EXISTS (SELECT FROM line WHERE order_id = %[1]d AND pos = 2)", other, id)
	case 12:
		return fmt.Sprintf("DELETE FROM line WHERE order_id = %d AND pos < 3", id)
	case 13:
		return fmt.Sprintf(`INSERT INTO document VALUES (md5('%[1]d')::uuid, '{"n": %[1]d, "t": "a\"b", "list": [1, 2.50, null]}', repeat('d', %[2]d), %[1]d / 7.0)
			ON CONFLICT (id) DO UPDATE SET content = jsonb_set(document.content, '{n}', '%[1]d')`, id, w.random.IntN(5000))
	case 14:
		if w.random.IntN(2) == 0 {
			return fmt.Sprintf("DELETE FROM document WHERE id = md5('%d')::uuid", id)
		}
		return fmt.Sprintf("UPDATE document SET id = md5('%[1]d')::uuid WHERE id = md5('%[2]d')::uuid AND NOT EXISTS (SELECT FROM document WHERE id = md5('%[1]d')::uuid)", other, id)
	default:
		return w.event()
	}
}

// once changes an existing row that no other transaction changes; n is one of the
// transaction's own, below the number of rows.
func (w *writer) once(n int64) string {
	id := n * 1009 % onceRows // Anywhere in the table.
	switch w.next % 3 {
	case 0:
		return fmt.Sprintf("DELETE FROM once WHERE id = %d", id)
	case 1:
		return fmt.Sprintf("UPDATE once SET id = id + 1000000 WHERE id = %d", id)
	}
	return fmt.Sprintf("UPDATE once SET v = 'changed' WHERE id = %d", id)
}

// event changes the table without a key. Where its rows are still to be copied it only
// grows: what happened to a row before it was copied leaves no trace, and should not.
func (w *writer) event() string {
	if !w.l.r.shape.keyless {
		return fmt.Sprintf("INSERT INTO scratch VALUES (%d, 'i') ON CONFLICT (id) DO UPDATE SET v = scratch.v || 'u'", w.id())
	}
	n := w.random.IntN(20)
	switch w.random.IntN(4) {
	case 0:
		if !w.l.r.shape.existing {
			return fmt.Sprintf("UPDATE event SET v = left(v || 'x', 20), n = %d WHERE n = %d", w.random.IntN(20), n)
		}
	case 1:
		if !w.l.r.shape.existing {
			return fmt.Sprintf("DELETE FROM event WHERE n = %d", n)
		}
	}
	return fmt.Sprintf("INSERT INTO event SELECT %d, repeat('v', %d) FROM generate_series(1, %d)", n, w.random.IntN(3), 1+w.random.IntN(4))
}

// rare makes a statement that is large, or locks a whole table.
func (w *writer) rare() string {
	switch w.random.IntN(5) {
	case 0:
		return "TRUNCATE scratch; INSERT INTO scratch VALUES (" + strconv.Itoa(w.id()) + ", 'after')"
	case 1:
		w.l.mu.Lock()
		defer w.l.mu.Unlock()
		if w.l.columns == 3 {
			return w.operation()
		}
		w.l.columns++
		name := "added" + strconv.Itoa(w.l.columns)
		return fmt.Sprintf("ALTER TABLE account ADD COLUMN IF NOT EXISTS %[1]s text; UPDATE account SET %[1]s = 'a%[2]d' WHERE id %% 5 = 0", name, w.next)
	case 2:
		return fmt.Sprintf("DELETE FROM bulk WHERE id %% 7 = %d", w.random.IntN(7))
	default:
		first := w.random.IntN(20_000)
		return fmt.Sprintf("INSERT INTO bulk SELECT i, repeat('p', %d) FROM generate_series(%d, %d) i ON CONFLICT (id) DO UPDATE SET pad = excluded.pad",
			w.random.IntN(w.l.r.shape.wide), first, first+200+w.random.IntN(2500))
	}
}
