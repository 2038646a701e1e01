package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// workload is changes of tables that have a key column id, from 1 on, and the columns n, a number, and s, a text, whose
// sums tell whether the sink has what the source has. In its statements {rows} is the number of row changes and {size}
// that of a transaction.
type workload struct {
	name   string
	tables []string
	schema string
	// before makes rows that are there before the slot is, load makes the changes.
	before, load string
	size         int
	// share is how many of the row changes of the command line it makes, in percent.
	share int
	// split has it read by two processes too, in the long run: one workload tells what that costs.
	split bool
	// exact is the number of row changes where it does not depend on the command line.
	exact int
	// mark is one more transaction of one row; a run is over when it has arrived.
	mark string
	// changed says which rows of the source the changes were of, empty for all.
	changed string
	// hard has deletes remove the rows in the sink.
	hard bool
}

const (
	plainTable = `CREATE TABLE t (id bigint PRIMARY KEY, s text, a text, n bigint, d numeric(12,2), e timestamptz, f bool, g text)`
	// plainRows inserts rows of about 200 bytes.
	plainRows = `INSERT INTO t SELECT j, 'customer ' || j, md5(j::text), j * 7, j * 1.25, now(), j % 2 = 0, repeat('x', 80) FROM generate_series({from}, {to}) j;`
	plainMark = `INSERT INTO t VALUES ({rows} + 1, 'mark', 'mark', 1, 1, now(), true, 'mark')`
)

// plainFrom inserts the rows from one number to another.
func plainFrom(from, to string) string {
	return strings.NewReplacer("{from}", from, "{to}", to).Replace(plainRows)
}

// loop runs statements once per transaction; i counts them from 1.
func loop(statements string) string {
	return `DO $$ BEGIN FOR i IN 1 .. {rows} / {size} LOOP ` + statements + ` COMMIT; END LOOP; END $$`
}

// insertion makes rows in transactions of a size.
func insertion(name string, size, share int) workload {
	return workload{
		name: name, tables: []string{"t"}, schema: plainTable, size: size, share: share, mark: plainMark, split: size == 100,
		load: loop(plainFrom("(i - 1) * {size} + 1", "i * {size}")),
	}
}

// wide has rows of 100 columns.
func wide() workload {
	const more = 97
	var columns, values []string
	for i := range more {
		columns = append(columns, fmt.Sprintf("c%d text", i))
		values = append(values, fmt.Sprintf("'v%d ' || j", i))
	}
	return workload{
		name: "wide", tables: []string{"t"}, size: 100, share: 15,
		schema: `CREATE TABLE t (id bigint PRIMARY KEY, s text, n bigint, ` + strings.Join(columns, ", ") + `)`,
		load: loop(`INSERT INTO t SELECT j, 'row ' || j, j * 7, ` + strings.Join(values, ", ") +
			` FROM generate_series((i - 1) * {size} + 1, i * {size}) j;`),
		mark: `INSERT INTO t (id, s, n) VALUES ({rows} + 1, 'mark', 1)`,
	}
}

// pgbench makes the transactions of the program of that name: three updates and an insert.
func pgbench() workload {
	return workload{
		name: "pgbench", tables: []string{"accounts", "tellers", "branches", "history"}, size: 4, share: 80,
		schema: `CREATE TABLE accounts (id bigint PRIMARY KEY, bid int, n bigint, s text);
CREATE TABLE tellers (id bigint PRIMARY KEY, bid int, n bigint, s text);
CREATE TABLE branches (id bigint PRIMARY KEY, n bigint, s text);
CREATE TABLE history (id bigint PRIMARY KEY, tid bigint, bid bigint, aid bigint, n bigint, at timestamptz, s text)`,
		before: `INSERT INTO accounts SELECT j, 1, 0, repeat('x', 84) FROM generate_series(1, 100000) j;
INSERT INTO tellers SELECT j, 1, 0, repeat('x', 84) FROM generate_series(1, 10) j;
INSERT INTO branches VALUES (1, 0, repeat('x', 88))`,
		load: loop(`UPDATE accounts SET n = n + i WHERE id = 1 + (i * 7919) % 100000;
UPDATE tellers SET n = n + i WHERE id = 1 + i % 10; UPDATE branches SET n = n + i WHERE id = 1;
INSERT INTO history VALUES (i, 1 + i % 10, 1, 1 + (i * 7919) % 100000, i, now(), repeat('x', 22));`),
		changed: `n <> 0`,
		mark:    `INSERT INTO history VALUES ({rows} + 1, 1, 1, 1, 1, now(), 'mark')`,
	}
}

var workloads = []workload{
	insertion("insert-1", 1, 60),
	insertion("insert-100", 100, 100),
	insertion("insert-10000", 10_000, 60),
	{
		name: "insert-million", tables: []string{"t"}, schema: plainTable, size: 1, exact: 1_000_000, mark: plainMark,
		load: plainFrom("1", "{rows}"),
	},
	{
		name: "update", tables: []string{"t"}, schema: plainTable, size: 100, share: 100, before: plainFrom("1", "{rows}"), mark: plainMark,
		load: loop(`UPDATE t SET n = n + i, d = d + 1 WHERE id BETWEEN (i - 1) * {size} + 1 AND i * {size};`),
	},
	deletion("delete", true),
	deletion("delete-soft", false),
	pgbench(),
	wide(),
	{
		// Documents of 8 KB.
		name: "json", tables: []string{"t"}, size: 100, share: 6,
		schema: `CREATE TABLE t (id bigint PRIMARY KEY, n bigint, s text, doc jsonb)`,
		load: loop(`INSERT INTO t SELECT j, j * 7, 'doc ' || j, (SELECT jsonb_object_agg('field ' || k, md5((j * k)::text)) FROM generate_series(1, 165) k)
FROM generate_series((i - 1) * {size} + 1, i * {size}) j;`),
		mark: `INSERT INTO t VALUES ({rows} + 1, 1, 'mark', '{}')`,
	},
	{
		// All changes are of ten rows.
		name: "hot", tables: []string{"t"}, schema: plainTable, size: 10, share: 100, mark: plainMark, before: plainFrom("1", "{size}"),
		load: loop(`UPDATE t SET n = n + 1, s = 'change ' || i WHERE id <= {size};`),
	},
}

func deletion(name string, hard bool) workload {
	return workload{
		name: name, tables: []string{"t"}, schema: plainTable, size: 100, share: 150, before: plainFrom("1", "{rows}"), mark: plainMark, hard: hard,
		load: loop(`DELETE FROM t WHERE id BETWEEN (i - 1) * {size} + 1 AND i * {size};`),
	}
}

func workloadNames() []string {
	names := make([]string, 0, len(workloads))
	for i := range workloads {
		names = append(names, workloads[i].name)
	}
	return names
}

func workloadNamed(name string) (workload, bool) {
	i := slices.IndexFunc(workloads, func(w workload) bool { return w.name == name })
	if i < 0 {
		return workload{}, false
	}
	return workloads[i], true
}

// changes is how many row changes the workload makes for the number on the command line, without the mark.
func (w *workload) changes(rows int) int {
	if w.exact > 0 {
		return w.exact
	}
	return max(1, rows*w.share/100/w.size) * w.size
}

// statement fills in sizes.
func (w *workload) statement(text string, changes int) string {
	return strings.NewReplacer("{rows}", strconv.Itoa(changes), "{size}", strconv.Itoa(w.size)).Replace(text)
}
