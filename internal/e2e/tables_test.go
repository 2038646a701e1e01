package e2e_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// sinkTables are the tables of the sink's database.
func (r *rig) sinkTables() []string {
	r.t.Helper()
	data, err := r.sink.Query("SELECT TABLE_NAME FROM information_schema.tables WHERE TABLE_SCHEMA = '" + sinkDatabase + "'")
	if err != nil {
		r.t.Fatal(err)
	}
	var names []string
	for _, row := range data.Rows {
		names = append(names, row[0].Text)
	}
	slices.Sort(names)
	return names
}

// arrives waits until a table of the sink has a number of rows that are not deleted.
func (r *rig) arrives(s *service, table string, rows int) {
	r.t.Helper()
	eventually(r.t, table+" arrives", func() (bool, string) {
		if !slices.Contains(r.sinkTables(), table) {
			return false, "there is no such table; " + s.look().String()
		}
		n := r.count(table, "dbmazz_is_deleted = false")
		return n == rows, s.look().String()
	})
}

func TestTablesUnderAPatternComeAndGoByThemselves(t *testing.T) {
	t.Parallel()
	r := setup(t, `CREATE SCHEMA shop; CREATE TABLE shop.a (id int PRIMARY KEY, v text); INSERT INTO shop.a SELECT i, 'a' FROM generate_series(1, 100) i;
CREATE TABLE shop.audit_a (id int PRIMARY KEY); CREATE TABLE shop.nokey (id int)`, "shop.*", "!shop.audit_*")
	r.set("TABLES_INTERVAL_S", "1").set("SINK_TABLE_NAME", "{schema}_{table}")
	s := r.start()
	r.arrives(s, "shop_a", 100)
	eventually(t, "the status names what is left out", func() (bool, string) {
		detail := s.stage("capture").GetDetail()
		return strings.Contains(detail, "shop.nokey") && strings.Contains(detail, "ADD PRIMARY KEY"), detail
	})
	r.db.Exec("CREATE TABLE shop.b (id int PRIMARY KEY, v text); INSERT INTO shop.b SELECT i, 'b' FROM generate_series(1, 50) i")
	r.arrives(s, "shop_b", 50)
	s.kill()
	r.db.Exec(`DELETE FROM shop.b WHERE id > 40; CREATE TABLE shop.c (id int PRIMARY KEY); INSERT INTO shop.c VALUES (1);
DROP TABLE shop.a; CREATE TABLE shop.a (id int PRIMARY KEY, v text, more text); INSERT INTO shop.a VALUES (1000, 'x', 'y')`)
	s = r.start()
	r.arrives(s, "shop_b", 40)
	r.arrives(s, "shop_c", 1)
	r.arrives(s, "shop_a", 1)
	if row := r.row("shop_a", "id = 1000"); row["more"].Text != "y" {
		t.Errorf("the table that was made anew: %v", row)
	}
	r.db.Exec("DROP TABLE shop.c")
	eventually(t, "the table goes", func() (bool, string) {
		tables := s.look().GetTables()
		return slices.Equal(tables, []string{"public.mark", "shop.a", "shop.b"}), strings.Join(tables, ",")
	})
	r.arrives(s, "shop_c", 1)
	if tables := r.sinkTables(); !slices.Equal(tables, []string{"public_mark", "shop_a", "shop_b", "shop_c"}) {
		t.Errorf("the sink has %v", tables)
	}
	s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{Tables: []string{"mark", "shop.?", "!shop.a"}}))
	eventually(t, "the pattern of the call counts", func() (bool, string) {
		tables := s.look().GetTables()
		return slices.Equal(tables, []string{"public.mark", "shop.b"}), strings.Join(tables, ",")
	})
	r.db.Exec("INSERT INTO shop.b VALUES (60, 'x')")
	r.settle(s)
	r.arrives(s, "shop_b", 41)
	s.terminate(patience)
	s = r.set("SINK_TABLE_NAME", "").up()
	s.complains(`the pipeline writes to tables that are named by SINK_TABLE_NAME="{schema}_{table}"`)
}

func TestTablesThatWouldShareATargetAreRefusedByName(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE SCHEMA shop; CREATE TABLE shop.a (id int PRIMARY KEY); CREATE TABLE a (id int PRIMARY KEY)", "a", "shop.*")
	r.set("SINK_TABLE_NAME", "{table}").set("TABLES_INTERVAL_S", "1")
	s := r.up()
	s.complains("tables public.a and shop.a would both be written to", "SINK_TABLE_NAME")
	r.db.Exec("ALTER TABLE shop.a RENAME TO b; INSERT INTO shop.b VALUES (1)")
	s.serving()
	r.arrives(s, "b", 1)
	// One that joins later is left out: nothing goes into a table that is another's, also
	// when the other is gone.
	r.db.Exec("CREATE TABLE shop.mark (id int PRIMARY KEY); INSERT INTO shop.mark VALUES (1); DROP TABLE shop.b; CREATE SCHEMA more; CREATE TABLE more.b (id int PRIMARY KEY)")
	s.succeeds(s.control.ReloadConfig(s.call(), &pb.ReloadConfigRequest{Tables: []string{"mark", "a", "shop.*", "more.*"}}))
	eventually(t, "the log names what is left out", func() (bool, string) {
		log := s.out.String()
		return strings.Contains(log, "tables public.mark and shop.mark would both") && strings.Contains(log, "tables shop.b and more.b would both"), ""
	})
	r.db.Exec("INSERT INTO a VALUES (1)")
	r.same(s, "a")
}

// TestWhatAPublicationLeavesOutIsNotInTheSink: neither the columns nor the rows, whether
// they were copied or changed, and the tables beside it are as they are.
func TestWhatAPublicationLeavesOutIsNotInTheSink(t *testing.T) {
	t.Parallel()
	if major(t) < 15 {
		// skip: PostgreSQL 13 and 14 cannot have such publications.
		t.Skip("row filters and column lists came with PostgreSQL 15")
	}
	r := setup(t, `CREATE TABLE part (id int, shown bool, v text, secret text, PRIMARY KEY (id, shown)); CREATE TABLE whole (id int PRIMARY KEY, v text);
CREATE TABLE listed_in_no_table (id int PRIMARY KEY)`, "part", "whole")
	r.db.Exec(`CREATE PUBLICATION "` + r.env["SOURCE_PUBLICATION_NAME"] + `" FOR TABLE mark, whole, part (id, shown, v) WHERE (shown AND id < 90) WITH (publish_via_partition_root = true)`)
	r.db.Exec("INSERT INTO part SELECT i, i % 3 > 0, 'v' || i, 'secret' FROM generate_series(1, 100) i; INSERT INTO whole VALUES (1, 'w')")
	s := r.start()
	check := func(when string) {
		t.Helper()
		r.same(s, "whole")
		data, err := r.sink.Rows(sinkDatabase, "part")
		if err != nil || slices.Contains(data.Columns, "secret") {
			t.Fatalf("%s: the columns are %v, %v", when, data.Columns, err)
		}
		at := func(name string) int { return slices.Index(data.Columns, name) }
		var got []string
		for _, row := range data.Rows {
			if row[at("dbmazz_is_deleted")].Text == "0" || row[at("dbmazz_is_deleted")].Text == "false" {
				got = append(got, row[at("id")].Text+" "+row[at("v")].Text)
			}
		}
		want := pgtest.Value[[]string](r.db, "SELECT array_agg(id || ' ' || v) FROM part WHERE shown AND id < 90")
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the sink has %v, want %v", when, got, want)
		}
	}
	check("copied")
	r.db.Exec("UPDATE part SET shown = false WHERE id IN (1, 2); UPDATE part SET shown = true WHERE id IN (3, 6); UPDATE part SET v = 'x', secret = 'y' WHERE id IN (3, 4, 9)")
	r.db.Exec("DELETE FROM part WHERE id IN (5, 12); INSERT INTO part VALUES (-1, true, 'new', 'secret'), (-2, false, 'new', 'secret'), (1000, true, 'new', 'secret'); UPDATE whole SET v = 'x'")
	check("changed")
	s.succeeds(s.control.StartSnapshot(s.call(), &pb.StartSnapshotRequest{Tables: []string{"part"}}))
	s.copied()
	check("copied again")
	if tables := r.sinkTables(); !slices.Equal(tables, []string{"mark", "part", "whole"}) {
		t.Errorf("the sink has %v", tables)
	}
}

// TestPublicationForEverythingIsTakenAsItIs, with only the tables that are wanted.
func TestPublicationForEverythingIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	for name, clause := range map[string]string{"all tables": "FOR ALL TABLES", "schemas": "FOR TABLES IN SCHEMA public, shop"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "schemas" && major(t) < 15 {
				// skip: PostgreSQL 13 and 14 cannot have such publications.
				t.Skip("publications of schemas came with PostgreSQL 15")
			}
			r := setup(t, `CREATE SCHEMA shop; CREATE TABLE shop.a (id int PRIMARY KEY, v text); INSERT INTO shop.a VALUES (1, 'a');
CREATE TABLE shop.audit_a (id int PRIMARY KEY); INSERT INTO shop.audit_a VALUES (1); CREATE TABLE other (id int PRIMARY KEY)`, "shop.*", "!shop.audit_*")
			r.db.Exec(`CREATE PUBLICATION "` + r.env["SOURCE_PUBLICATION_NAME"] + `" ` + clause + ` WITH (publish_via_partition_root = true)`)
			s := r.set("TABLES_INTERVAL_S", "1").start()
			r.db.Exec("INSERT INTO shop.a VALUES (2, 'b'); INSERT INTO shop.audit_a VALUES (2); INSERT INTO other VALUES (1); CREATE TABLE shop.b (id int PRIMARY KEY); INSERT INTO shop.b VALUES (1)")
			r.arrives(s, "shop__b", 1)
			r.db.Exec("UPDATE shop.a SET v = v || '!'; INSERT INTO shop.b VALUES (2)")
			r.same(s, "shop.a", "shop.b")
			if tables := r.sinkTables(); !slices.Equal(tables, []string{"mark", "shop__a", "shop__b"}) {
				t.Errorf("the sink has %v", tables)
			}
			if n := pgtest.Value[int](r.db, "SELECT count(*) FROM pg_publication_rel"); n != 0 {
				t.Errorf("%d tables were added to the publication", n)
			}
		})
	}
}
