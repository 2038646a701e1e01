package e2e_test

import (
	"slices"
	"strings"
	"testing"

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
