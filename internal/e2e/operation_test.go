package e2e_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// deleteModes runs a test once for each SINK_DELETE_MODE.
func deleteModes(t *testing.T, test func(t *testing.T, mode string)) {
	t.Helper()
	for _, mode := range []string{"soft", "hard"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			test(t, mode)
		})
	}
}

// inBatches runs the steps of a test, each as one transaction: all in one batch, or
// each in a batch of its own.
func (r *rig) inBatches(s *service, together bool, steps ...string) {
	r.t.Helper()
	if together {
		s.pause()
	}
	for _, step := range steps {
		r.db.Exec("BEGIN;" + step + ";COMMIT")
		if !together {
			r.settle(s)
		}
	}
	if together {
		r.captured(s)
		s.resume()
	}
}

// captured waits until everything committed is in the queue.
func (r *rig) captured(s *service) {
	r.t.Helper()
	goal := r.mark()
	eventually(r.t, "everything committed is in the queue", func() (bool, string) {
		status := s.look()
		at, _, found := strings.Cut(status.GetCapturedPosition(), ".")
		return found && parseLSN(r.t, at) >= goal, status.String()
	})
}

// row is one row of a sink's table, by column.
func (r *rig) row(table, where string) map[string]starrockstest.Cell {
	r.t.Helper()
	data, err := r.sink.Query("SELECT * FROM " + sinkDatabase + "." + table + " WHERE " + where)
	if err != nil || len(data.Rows) > 1 {
		r.t.Fatalf("query the sink: %d rows, %v", len(data.Rows), err)
	}
	if len(data.Rows) == 0 {
		return nil
	}
	row := map[string]starrockstest.Cell{}
	for i, name := range data.Columns {
		row[name] = data.Rows[0][i]
	}
	return row
}

// count counts the rows of a sink's table.
func (r *rig) count(table, where string) int {
	r.t.Helper()
	data, err := r.sink.Query("SELECT * FROM " + sinkDatabase + "." + table + " WHERE " + where)
	if err != nil {
		r.t.Fatalf("query the sink: %v", err)
	}
	return len(data.Rows)
}

func TestInsertUpdateAndDeleteReachTheSink(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, name text, qty int)", "item")
		s := r.set("SINK_DELETE_MODE", mode).start()
		r.db.Exec("INSERT INTO item SELECT i, 'item ' || i, i FROM generate_series(1, 50) i")
		r.same(s, "item")
		inserted := r.row("item", "id = 7")
		r.db.Exec("UPDATE item SET qty = qty + 1000 WHERE id % 2 = 1")
		r.db.Exec("DELETE FROM item WHERE id > 40")
		r.db.Exec("INSERT INTO item VALUES (41, 'back again', NULL)")
		r.same(s, "item")

		updated := r.row("item", "id = 7")
		if inserted["dbmazz_op_type"].Text != "0" || updated["dbmazz_op_type"].Text != "1" {
			t.Errorf("dbmazz_op_type is %v after the insert and %v after the update, want 0 and 1", inserted["dbmazz_op_type"], updated["dbmazz_op_type"])
		}
		if before, after := inserted["dbmazz_cdc_version"].Text, updated["dbmazz_cdc_version"].Text; len(before) > len(after) || (len(before) == len(after) && before >= after) {
			t.Errorf("dbmazz_cdc_version went from %s to %s, want it to grow", before, after)
		}
		deleted := r.row("item", "id = 45")
		if mode == "hard" {
			if deleted != nil {
				t.Errorf("the deleted row is still there: %v", deleted)
			}
			return
		}
		if deleted["dbmazz_is_deleted"].Text != "1" || deleted["dbmazz_op_type"].Text != "2" {
			t.Errorf("the deleted row is %v, want it marked", deleted)
		}
	})
}

func TestOneBatchKeepsTheLastStateOfEachKey(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, name text)", "item")
		s := r.set("SINK_DELETE_MODE", mode).start()
		r.inBatches(s, true,
			"INSERT INTO item VALUES (1, 'a'), (2, 'a'), (3, 'a'), (4, 'a')",
			"DELETE FROM item WHERE id IN (1, 2)",
			"INSERT INTO item VALUES (2, 'again'); UPDATE item SET name = 'changed' WHERE id = 3",
			"DELETE FROM item WHERE id = 3; INSERT INTO item VALUES (3, 'b'); DELETE FROM item WHERE id = 3",
			"UPDATE item SET name = NULL WHERE id = 4")
		r.same(s, "item")
		if n := r.loads("item"); n != 1 {
			t.Errorf("%d loads, want one batch", n)
		}
	})
}

// bothWays runs a test for each delete mode, with all steps in one batch and with each
// in a batch of its own.
func bothWays(t *testing.T, test func(t *testing.T, mode string, together bool)) {
	t.Helper()
	deleteModes(t, func(t *testing.T, mode string) {
		for _, together := range []bool{true, false} {
			t.Run(fmt.Sprintf("one batch %t", together), func(t *testing.T) {
				t.Parallel()
				test(t, mode, together)
			})
		}
	})
}

func TestUnchangedToastKeepsItsValue(t *testing.T) {
	t.Parallel()
	const ddl = `CREATE TABLE %[1]s (id int PRIMARY KEY, title text, body text, extra jsonb, n int);
		ALTER TABLE %[1]s ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN extra SET STORAGE EXTERNAL, REPLICA IDENTITY %[2]s;`
	steps := []string{
		"INSERT INTO doc SELECT i, 't' || i, repeat('body ' || i || ' ', 3000), jsonb_build_object('k', repeat('x', 9000), 'i', i), 0 FROM generate_series(1, 10) i",
		"UPDATE doc SET n = 1 WHERE id <= 8",
		"UPDATE doc SET title = 'second', extra = jsonb_build_object('new', repeat('y', 5000 + id)) WHERE id IN (2, 3)",
		"UPDATE doc SET body = 'short' WHERE id = 3; UPDATE doc SET n = n + 1",
		"DELETE FROM doc WHERE id = 4; INSERT INTO doc VALUES (11, 'late', repeat('z', 20000), NULL, 5); UPDATE doc SET title = 'later' WHERE id = 11",
		"UPDATE doc SET body = NULL WHERE id = 5; UPDATE doc SET n = 9 WHERE id = 5; UPDATE doc SET n = 8 WHERE id IN (1, 6, 7)",
	}
	bothWays(t, func(t *testing.T, mode string, together bool) {
		r := setup(t, fmt.Sprintf(ddl, "doc", "DEFAULT")+fmt.Sprintf(ddl, "doc_full", "FULL"), "doc", "doc_full")
		s := r.set("SINK_DELETE_MODE", mode).start()
		both := make([]string, len(steps))
		for i, step := range steps {
			both[i] = step + ";" + strings.NewReplacer("INTO doc ", "INTO doc_full ", "UPDATE doc ", "UPDATE doc_full ", "FROM doc ", "FROM doc_full ").Replace(step)
		}
		r.inBatches(s, together, both...)
		r.same(s, "doc", "doc_full")
	})
}

func TestDeleteAfterAPartialUpdateOfTheSameBatch(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, mode string, together bool) {
		r := setup(t, "CREATE TABLE doc (id int PRIMARY KEY, v text, body text); ALTER TABLE doc ALTER COLUMN body SET STORAGE EXTERNAL", "doc")
		s := r.set("SINK_DELETE_MODE", mode).start()
		r.db.Exec("INSERT INTO doc SELECT i, 'v', repeat('b', 5000) FROM generate_series(1, 6) i")
		r.same(s, "doc")
		r.inBatches(s, together, "UPDATE doc SET v = 'w' WHERE id <= 4", "DELETE FROM doc WHERE id <= 2",
			"UPDATE doc SET id = 100 WHERE id = 5", "INSERT INTO doc VALUES (2, 'again', NULL)")
		r.same(s, "doc")
	})
}

// TestUnchangedToastBehindThe64thColumnKeepsItsValue is for sets of columns that do not
// fit a machine word.
func TestUnchangedToastBehindThe64thColumnKeepsItsValue(t *testing.T) {
	t.Parallel()
	var columns []string
	for i := 1; i <= 80; i++ {
		columns = append(columns, fmt.Sprintf("c%d text", i))
	}
	r := setup(t, "CREATE TABLE wide (id int PRIMARY KEY, "+strings.Join(columns, ", ")+")", "wide")
	r.db.Exec("ALTER TABLE wide ALTER COLUMN c79 SET STORAGE EXTERNAL, ALTER COLUMN c2 SET STORAGE EXTERNAL")
	s := r.start()
	r.inBatches(s, true, "INSERT INTO wide (id, c1, c2, c79, c80) VALUES (1, 'a', repeat('b', 9000), repeat('c', 9000), 'd')",
		"UPDATE wide SET c1 = 'new' WHERE id = 1")
	r.inBatches(s, false, "UPDATE wide SET c80 = 'new', c2 = repeat('B', 9000) WHERE id = 1", "UPDATE wide SET c3 = 'new' WHERE id = 1")
	r.same(s, "wide")
}

// keyChanges are what happens to five rows, by name of the table.
var keyChanges = []struct {
	table string
	steps []string
}{
	{"one", []string{"UPDATE doc SET id = 101 WHERE id = 1"}},
	{"with_values", []string{"UPDATE doc SET id = 101, title = 'moved', body = repeat('n', 9000) WHERE id = 1"}},
	{"chain", []string{"UPDATE doc SET id = 101 WHERE id = 1; UPDATE doc SET id = 201 WHERE id = 101; UPDATE doc SET id = 301, title = 'far' WHERE id = 201"}},
	{"chain_in_steps", []string{"UPDATE doc SET id = 101 WHERE id = 1", "UPDATE doc SET id = 201, title = 'there' WHERE id = 101", "UPDATE doc SET id = 1 WHERE id = 201"}},
	{"key_taken_again", []string{"UPDATE doc SET id = 101 WHERE id = 1; INSERT INTO doc VALUES (1, 'new one', repeat('q', 9000))"}},
	{"swap", []string{"UPDATE doc SET id = -1 WHERE id = 1; UPDATE doc SET id = 1 WHERE id = 2; UPDATE doc SET id = 2 WHERE id = -1"}},
	{"moved_and_deleted", []string{"UPDATE doc SET id = 101 WHERE id = 1", "DELETE FROM doc WHERE id = 101"}},
	{"onto_deleted_key", []string{"DELETE FROM doc WHERE id = 2", "UPDATE doc SET id = 2 WHERE id = 1", "UPDATE doc SET title = 'after' WHERE id = 2"}},
	{"every_row", []string{"UPDATE doc SET id = id + 1000", "UPDATE doc SET title = title || '!' WHERE id % 2 = 0"}},
	{"then_shortened", []string{"UPDATE doc SET id = 101 WHERE id = 1", "UPDATE doc SET body = 'short' WHERE id = 101", "UPDATE doc SET id = 102 WHERE id = 101"}},
}

func TestKeyChangesMoveTheRow(t *testing.T) {
	t.Parallel()
	bothWays(t, func(t *testing.T, mode string, together bool) {
		var ddl, fill string
		var tables []string
		for _, change := range keyChanges {
			tables = append(tables, change.table)
			ddl += "CREATE TABLE " + change.table + " (id int PRIMARY KEY, title text, body text);" +
				"ALTER TABLE " + change.table + " ALTER COLUMN body SET STORAGE EXTERNAL;"
			fill += "INSERT INTO " + change.table + " SELECT i, 't' || i, repeat('body ' || i || ' ', 2000) FROM generate_series(1, 5) i;"
		}
		r := setup(t, ddl, tables...)
		s := r.set("SINK_DELETE_MODE", mode).start()
		r.db.Exec(fill)
		r.same(s, tables...)
		if together {
			s.pause()
		}
		for step := range 3 {
			var steps []string
			for _, change := range keyChanges {
				if step < len(change.steps) {
					steps = append(steps, strings.ReplaceAll(change.steps[step], " doc ", " "+change.table+" "))
				}
			}
			for _, one := range steps {
				r.db.Exec("BEGIN;" + one + ";COMMIT")
			}
			if !together {
				r.settle(s)
			}
		}
		if together {
			r.captured(s)
			s.resume()
		}
		r.same(s, tables...)
	})
}

func TestKeyChangeOfARowOfTheSameBatchMovesIt(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		r := setup(t, "CREATE TABLE doc (id int PRIMARY KEY, body text); ALTER TABLE doc ALTER COLUMN body SET STORAGE EXTERNAL", "doc")
		s := r.set("SINK_DELETE_MODE", mode).start()
		r.inBatches(s, true,
			"INSERT INTO doc VALUES (1, repeat('a', 9000)); UPDATE doc SET id = 2 WHERE id = 1; UPDATE doc SET id = 3 WHERE id = 2",
			"UPDATE doc SET id = 4 WHERE id = 3; INSERT INTO doc VALUES (3, 'x')")
		r.same(s, "doc")
	})
}

func TestTruncateEmptiesTheSinkInOrder(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		r := setup(t, "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY REFERENCES a, v text)", "a", "b")
		s := r.set("SINK_DELETE_MODE", mode).start()
		const fill = "INSERT INTO a SELECT i, 'v' FROM generate_series(1, 20) i; INSERT INTO b SELECT i, 'v' FROM generate_series(1, 10) i"
		r.inBatches(s, false, fill, "TRUNCATE a CASCADE")
		r.same(s, "a", "b")
		r.inBatches(s, true, fill, "TRUNCATE b; INSERT INTO b VALUES (3, 'after')",
			"TRUNCATE a, b; INSERT INTO a VALUES (1, 'first'); INSERT INTO b VALUES (1, 'x')", "INSERT INTO a VALUES (2, 'last')")
		r.same(s, "a", "b")
		want := map[string]int{"soft": 20, "hard": 2}[mode]
		if n := r.count("a", "id > 0"); n != want {
			t.Errorf("the sink has %d rows of a, deleted ones included, want %d", n, want)
		}
	})
}

func TestCompositeKeysInAnotherOrderThanTheColumns(t *testing.T) {
	t.Parallel()
	deleteModes(t, func(t *testing.T, mode string) {
		r := setup(t, `CREATE TABLE line (note text, pos smallint, at timestamptz, ord bigint, sku varchar(20), PRIMARY KEY (sku, ord, pos))`, "line")
		s := r.set("SINK_DELETE_MODE", mode).start()
		r.db.Exec("INSERT INTO line SELECT 'n' || i, i % 3, '2024-02-29 23:59:59.123456+05'::timestamptz + i * interval '1 h', i / 3, 'sku-' || (i % 7) FROM generate_series(1, 200) i")
		r.same(s, "line")
		r.db.Exec("UPDATE line SET note = 'x' WHERE sku = 'sku-3'")
		r.db.Exec("UPDATE line SET ord = ord + 1000 WHERE sku = 'sku-4'")
		r.db.Exec("UPDATE line SET sku = 'o''ne \\ \"two\"', note = E'line\\nbreak\\t\\\\N' WHERE sku = 'sku-5' AND pos = 1")
		r.db.Exec("DELETE FROM line WHERE pos = 2")
		r.same(s, "line")
	})
}

func TestReplicaIdentityIndexIsTheKey(t *testing.T) {
	t.Parallel()
	r := setup(t, `CREATE TABLE u (note text, code text NOT NULL, big text); CREATE UNIQUE INDEX u_code ON u (code);
		ALTER TABLE u REPLICA IDENTITY USING INDEX u_code; ALTER TABLE u ALTER COLUMN big SET STORAGE EXTERNAL`, "u")
	s := r.start()
	r.db.Exec("INSERT INTO u SELECT 'n', 'c' || i, repeat('b', 5000) FROM generate_series(1, 10) i")
	r.db.Exec("UPDATE u SET note = 'changed' WHERE code = 'c3'; UPDATE u SET code = 'moved' WHERE code = 'c4'; DELETE FROM u WHERE code = 'c5'")
	r.same(s, "u")
}

func TestQuotedAndMixedCaseNames(t *testing.T) {
	t.Parallel()
	r := setup(t, `CREATE SCHEMA "My Shop"; CREATE TABLE "My Shop"."Order Items" ("Id" int, "select" text, "we""ird" text, "Ünï" int, "a.b" int, PRIMARY KEY ("Id"));
		CREATE TABLE "UPPER" (id int PRIMARY KEY, "Value" text); CREATE TABLE "order" (id int PRIMARY KEY, v text)`,
		`"My Shop"."Order Items"`, `"UPPER"`, `order`)
	s := r.start()
	r.db.Exec(`INSERT INTO "My Shop"."Order Items" SELECT i, 'a', 'b', i, i FROM generate_series(1, 9) i; INSERT INTO "UPPER" VALUES (1, 'x'); INSERT INTO "order" VALUES (1, 'y')`)
	r.db.Exec(`UPDATE "My Shop"."Order Items" SET "we""ird" = 'c' WHERE "Id" < 5; DELETE FROM "My Shop"."Order Items" WHERE "Id" = 9`)
	r.same(s, "My Shop.Order Items", "UPPER", "order")
}

func TestTwoSchemasWithATableOfTheSameName(t *testing.T) {
	t.Parallel()
	const two = "INSERT INTO a.t SELECT i, 'a' FROM generate_series(1, 5) i; INSERT INTO b.t SELECT i, 'b' FROM generate_series(3, 8) i; INSERT INTO t VALUES (3, 'public')"
	r := setup(t, "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY, v text); CREATE TABLE b.t (id int PRIMARY KEY, v text); CREATE TABLE t (id int PRIMARY KEY, v text)",
		"a.t", "b.t", "t")
	s := r.start()
	r.db.Exec(two)
	r.db.Exec("UPDATE a.t SET v = 'changed' WHERE id = 4; DELETE FROM b.t WHERE id = 4")
	r.same(s, "a.t", "b.t", "t")
}

func TestSavepointsAndInterleavedTransactionsKeepCommitOrder(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text)", "item")
	s := r.start()
	one, two := r.db.Connect(), r.db.Connect()
	run := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	run(one, "BEGIN; INSERT INTO item VALUES (1, 'one'), (2, 'one')")
	run(two, "BEGIN; INSERT INTO item VALUES (10, 'two'); SAVEPOINT s; INSERT INTO item VALUES (11, 'never'); ROLLBACK TO s; INSERT INTO item VALUES (12, 'two')")
	r.db.Exec("INSERT INTO item VALUES (20, 'alone')")
	run(one, "SAVEPOINT a; UPDATE item SET v = 'never' WHERE id = 1; SAVEPOINT b; DELETE FROM item WHERE id = 2; RELEASE b; ROLLBACK TO a; INSERT INTO item VALUES (3, 'one')")
	run(two, "COMMIT")
	r.settle(s)
	if r.row("item", "id = 1") != nil {
		t.Error("a row of an open transaction is in the sink")
	}
	run(two, "BEGIN; UPDATE item SET v = 'two' WHERE id = 20; INSERT INTO item VALUES (30, 'never'); ROLLBACK")
	run(one, "UPDATE item SET v = 'one' WHERE id = 20; COMMIT")
	r.same(s, "item")
	if got := r.row("item", "id = 20")["v"].Text; got != "one" {
		t.Errorf("row 20 is %q, want that of the later commit", got)
	}
}

func TestTransactionLargerThanABatchArrivesWhole(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE big (id int PRIMARY KEY, v text, n bigint); CREATE TABLE small (id int PRIMARY KEY)", "big", "small")
	s := r.set("FLUSH_BYTES", "1MiB").set("FLUSH_SIZE", "5000").start()
	r.db.Exec("BEGIN; INSERT INTO small VALUES (1); INSERT INTO big SELECT i, 'value ' || i, i * 7 FROM generate_series(1, 200000) i; UPDATE big SET n = -n WHERE id % 10 = 0; INSERT INTO small VALUES (2); COMMIT")
	r.db.Exec("DELETE FROM big WHERE id % 1000 = 0")
	r.same(s, "big", "small")
	if n := r.loads("big"); n < 3 {
		t.Errorf("%d loads, want the transaction in several batches", n)
	}
}

// TestNoTornTransactionIsVisible: every transaction moves an amount from one row to
// others, and batches are as small as they get; at any moment the sum is the same.
func TestNoTornTransactionIsVisible(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE account (id int PRIMARY KEY, amount int)", "account")
	s := r.set("FLUSH_SIZE", "1").set("MIN_LOAD_INTERVAL_MS", "0").start()
	r.db.Exec("INSERT INTO account SELECT i, 100 FROM generate_series(0, 9) i")
	r.settle(s)
	random := random(t)
	for range 150 {
		r.db.Exec(fmt.Sprintf("UPDATE account SET amount = amount - 9 WHERE id = %[1]d; UPDATE account SET amount = amount + 1 WHERE id <> %[1]d", random.IntN(10)))
		data, err := r.sink.Rows(sinkDatabase, "account")
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, row := range data.Rows {
			n, err := strconv.Atoi(row[1].Text)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if sum != 1000 {
			t.Fatalf("the sum in the sink is %d: a part of a transaction is visible", sum)
		}
	}
	r.same(s, "account")
}

func TestTablesThatAreNotConfiguredStayOut(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE wanted (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY, v text)", "wanted")
	r.db.Exec("CREATE PUBLICATION " + r.env["SOURCE_PUBLICATION_NAME"] + " FOR ALL TABLES")
	s := r.start()
	r.db.Exec("INSERT INTO other VALUES (1, 'x'); INSERT INTO wanted VALUES (1, 'x'); INSERT INTO other VALUES (2, 'y')")
	r.same(s, "wanted")
	for _, name := range r.sink.Tables() {
		if strings.HasSuffix(name, ".other") {
			t.Errorf("the sink has %s", name)
		}
	}
}
