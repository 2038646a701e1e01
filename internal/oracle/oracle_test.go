package oracle_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

const (
	valuesEnv     = "ORACLE_VALUES"
	majorsEnv     = "ORACLE_MAJORS"
	seedEnv       = "ORACLE_SEED"
	valuesDefault = 20_000
	// rowsMax bounds the rows of a table in one round.
	rowsMax = 300
)

// number reads a variable that holds a number.
func number(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

// seeded makes the random choices of a test; the seed is in its log.
func seeded(t testing.TB, major int) rnd {
	t.Helper()
	seed := number(t, seedEnv, uint64(time.Now().UnixNano()))
	t.Logf("%s=%d", seedEnv, seed)
	return rnd{Rand: rand.New(rand.NewPCG(seed, uint64(major))), major: major}
}

// majors returns the versions to test.
func majors(t testing.TB) []int {
	t.Helper()
	installed := pgtest.Majors()
	if len(installed) == 0 {
		t.Fatalf("%v: run \"make setup-postgres\"", pgtest.ErrNoServer)
	}
	switch text := os.Getenv(majorsEnv); text {
	case "":
		return slices.Compact([]int{installed[0], installed[len(installed)-1]})
	case "all":
		return installed
	default:
		var list []int
		for word := range strings.SplitSeq(text, ",") {
			major, err := strconv.Atoi(strings.TrimSpace(word))
			if err != nil {
				t.Fatalf("%s is %q, want versions such as 13,18 or all", majorsEnv, text)
			}
			list = append(list, major)
		}
		return list
	}
}

// forMajors runs a test on a server of each version, with a database of its own.
func forMajors(t *testing.T, run func(t *testing.T, major int, db *pgtest.DB)) {
	t.Helper()
	for _, major := range majors(t) {
		onMajor(t, major, run)
	}
}

func onMajor(t *testing.T, major int, run func(t *testing.T, major int, db *pgtest.DB)) {
	t.Helper()
	t.Run("postgres-"+strconv.Itoa(major), func(t *testing.T) {
		run(t, major, servers.of(t, major).Database(t))
	})
}

// available tells which extensions a database can have, and whether it has XML.
func available(t testing.TB, db *pgtest.DB) map[string]bool {
	t.Helper()
	has := map[string]bool{}
	for _, name := range pgtest.Value[[]string](db, "SELECT array_agg(name::text) FROM pg_available_extensions") {
		has[name] = true
	}
	_, err := db.Connect().Exec(context.WithoutCancel(t.Context()), "SELECT '<a/>'::xml")
	has["libxml"] = err == nil
	return has
}

// TestEveryValueArrivesExactlyOrIsRefused is the oracle.
func TestEveryValueArrivesExactlyOrIsRefused(t *testing.T) {
	forMajors(t, func(t *testing.T, major int, db *pgtest.DB) {
		r := seeded(t, major)
		has := available(t, db)
		kinds, missing := kindsOf(major, has)
		t.Logf("%d types; not on this server: %s", len(kinds), strings.Join(missing, ", "))
		hostile(db)
		mode := pick(r, starrocks.DeleteSoft, starrocks.DeleteHard)
		values, keys := int(number(t, valuesEnv, valuesDefault)), 100
		if values <= valuesDefault {
			keys = 25 // Tables take most of a short run's time.
		}
		o := &oracle{rig: newRig(t, db.URL(), mode), r: r, tables: tableSet(kinds, keys, r)}
		o.streams = major >= 14 && r.in(50)
		o.setUp(ownDDL(major, has))
		columns := 0
		for _, table := range o.tables {
			columns += len(table.columns)
		}
		const writes = 2 // Inserted and updated.
		for o.values < values {
			o.round(min(rowsMax, 1+(values-o.values)/(writes*columns)))
		}
		t.Logf("%d values in %d tables with %d columns, %d rows refused as documented, deletes are %s, large transactions streamed: %t",
			o.values, len(o.tables), columns, o.refused, mode, o.streams)
	})
}

// oracle is one run.
type oracle struct {
	*rig
	r      rnd
	tables []*table
	rounds int
	// values counts those that were written and compared, refused the rows that were rightly refused.
	values, refused int
}

// setUp makes types and tables and starts the pipeline.
func (o *oracle) setUp(ddl string) {
	o.t.Helper()
	o.exec(o.writer, ddl)
	var names []string
	for _, t := range o.tables {
		o.exec(o.writer, t.ddl())
		if sink := t.sinkDDL(); sink != "" {
			o.sinkExec(sink)
		}
		names = append(names, t.name)
	}
	o.start(names)
	for _, t := range o.tables {
		o.find(t)
	}
}

// round writes rows to every table, changes all of them, gives some another key and deletes them, and compares after
// each step.
func (o *oracle) round(rows int) {
	o.t.Helper()
	for _, t := range o.tables {
		t.rows = rows
		if t.wild > 0 && len(t.columns) == 1 {
			t.rows *= 3 // Refusals have many reasons.
		}
	}
	o.insert()
	o.compare("insert", true)
	if o.rounds == 0 {
		o.proveSharp()
	}
	o.update()
	o.compare("update", true)
	o.move()
	o.compare("move", false)
	o.remove()
	o.compare("delete", false)
	o.rounds++
}

// proveSharp makes sure that the comparison sees alterations of what has just arrived.
func (o *oracle) proveSharp() {
	o.t.Helper()
	const shown = 20
	made := map[string]int{}
	if unseen := o.plant(made); len(unseen) > 0 {
		o.t.Fatalf("%d planted alterations were not seen, the first:\n%s", len(unseen), strings.Join(unseen[:min(len(unseen), shown)], "\n"))
	}
	for _, alteration := range alterations {
		if made[alteration.name] == 0 {
			o.t.Logf("there was no value to plant %q in", alteration.name)
		}
	}
}

// ids lists the rows of a share of the table, the which-th of three.
func (t *table) ids(which int) []int {
	var ids []int
	for id := 1; id <= t.rows; id++ {
		if id%3 == which {
			ids = append(ids, id)
		}
	}
	return ids
}

// insert writes a third of the rows by COPY, a third in one transaction and a third one by one.
func (o *oracle) insert() {
	o.t.Helper()
	var bulk, single strings.Builder
	for _, t := range o.tables {
		if ids := t.ids(0); len(ids) > 0 && t.layout != keyOnly {
			o.copy(t, ids)
		} else if len(ids) > 0 {
			bulk.WriteString(t.insert(o.r, ids))
		}
		if ids := t.ids(1); len(ids) > 0 {
			bulk.WriteString(t.insert(o.r, ids))
		}
		for _, id := range t.ids(2) {
			single.WriteString("BEGIN;" + t.insert(o.r, []int{id}) + "COMMIT;")
		}
	}
	o.exec(o.writer, "BEGIN;"+bulk.String()+"COMMIT;")
	o.exec(o.writer, single.String())
}

func (o *oracle) copy(t *table, ids []int) {
	o.t.Helper()
	rows := t.copyRows(o.r, ids)
	if _, err := o.writer.CopyFrom(o.t.Context(), strings.NewReader(rows), "COPY "+t.into()+" FROM STDIN"); err != nil {
		o.t.Fatalf("copy into %s: %v\n%.2000s", t.name, err, rows)
	}
}

// update changes half of the rows in one transaction and half one by one, some columns only where nothing may be refused.
func (o *oracle) update() {
	o.t.Helper()
	var bulk, single strings.Builder
	for _, t := range o.tables {
		for id := 1; id <= t.rows; id++ {
			statement := t.update(o.r, id, t.complete() && o.r.in(50))
			if id%2 == 0 {
				bulk.WriteString(statement)
			} else if statement != "" {
				single.WriteString("BEGIN;" + statement + "COMMIT;")
			}
		}
	}
	o.exec(o.writer, "BEGIN;"+bulk.String()+"COMMIT;")
	o.exec(o.writer, single.String())
}

// complete tells that the sink has all rows: what an update leaves out can be found there.
func (t *table) complete() bool { return t.wild == 0 && len(t.refused) == 0 }

// move gives rows another key, with everything else as it is.
func (o *oracle) move() {
	o.t.Helper()
	for _, t := range o.tables {
		if t.complete() {
			o.exec(o.writer, fmt.Sprintf("UPDATE %s SET id = id + %d", t.name, moved))
		}
	}
}

// remove empties the tables, by deletes and by truncates in turn.
func (o *oracle) remove() {
	o.t.Helper()
	for _, t := range o.tables {
		if o.rounds%2 == 0 {
			o.exec(o.writer, "DELETE FROM "+t.name)
		} else {
			o.exec(o.writer, "TRUNCATE "+t.name)
		}
	}
}

// compare waits for the sink and compares all tables. New values are counted.
func (o *oracle) compare(step string, count bool) {
	o.t.Helper()
	o.settle()
	const shown = 30
	var found []string
	for _, t := range o.tables {
		wrong, refused := o.check(t)
		found = append(found, wrong...)
		if count {
			o.values += len(t.columns) * len(t.source)
			o.refused += refused
		}
	}
	if o.sink.lost != nil {
		found = append(found, o.sink.lost.Error())
	}
	if len(found) > 0 {
		o.t.Fatalf("after %s, round %d: %d findings, the first:\n%s", step, o.rounds+1, len(found), strings.Join(found[:min(len(found), shown)], "\n"))
	}
}
