package capture_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

const largeValue = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i)"

func TestUnchangedLargeValuesStayMarkedUnderDefaultIdentity(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, n int, v text)")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t SELECT 1, 1, " + largeValue)
	db.Exec("UPDATE t SET n = 2")
	db.Exec("UPDATE t SET id = 2")
	db.Exec("DELETE FROM t")
	r.want(
		"insert public.t (1,1,c*32000)",
		"update public.t (1,2,=)",
		"update public.t key(1,~,~) (2,2,=)",
		"delete public.t key(2,~,~)",
	)
}

func TestUnchangedLargeValuesAreFilledFromTheOldRowUnderFullIdentity(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, n int, v text); ALTER TABLE t REPLICA IDENTITY FULL")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t SELECT 1, 1, " + largeValue)
	db.Exec("UPDATE t SET n = NULL")
	db.Exec("UPDATE t SET id = 2")
	db.Exec("DELETE FROM t")
	r.want(
		"insert public.t (1,1,c*32000)",
		"update public.t (1,~,c*32000)",
		"update public.t key(1,~,~) (2,~,c*32000)",
		"delete public.t old(2,~,c*32000)",
	)
}

func TestLargeKeyThatDidNotChangeIsSentInFull(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	// A key that is stored outside of the row: larger than an index takes unless
	// it compresses, so it is made to stay uncompressed but short enough.
	db.Exec("CREATE TABLE t (id text PRIMARY KEY, n int, pad text); ALTER TABLE t ALTER id SET STORAGE EXTERNAL, ALTER pad SET STORAGE EXTERNAL")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (repeat('k', 2300), 1, repeat('p', 3000))")
	db.Exec("UPDATE t SET n = 2")
	r.want("insert public.t (k*2300,1,p*3000)", "update public.t (k*2300,2,=)")
}

func TestCompositeKeyKeepsTheOrderOfItsIndex(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (a int, b text, c int, v int, PRIMARY KEY (c, a))")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1, 'x', 3, 0)")
	db.Exec("UPDATE t SET a = 2, v = 1")
	db.Exec("DELETE FROM t")
	r.want("insert public.t (1,x,3,0)", "update public.t key(1,~,3,~) (2,x,3,1)", "delete public.t key(2,~,3,~)")
	if diff := cmp.Diff([]int{2, 0}, r.records()[1].Table.Key); diff != "" {
		t.Errorf("key (-want +got):\n%s", diff)
	}
}

func TestReplicaIdentityIndexIsTheKey(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(`CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL, b int NOT NULL);
CREATE UNIQUE INDEX u ON t (b, a) INCLUDE (id); ALTER TABLE t REPLICA IDENTITY USING INDEX u`)
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1, 2, 3)")
	db.Exec("UPDATE t SET id = 9")
	db.Exec("UPDATE t SET a = 8")
	db.Exec("DELETE FROM t")
	r.want("insert public.t (1,2,3)", "update public.t (9,2,3)", "update public.t key(~,2,3) (9,8,3)", "delete public.t key(~,8,3)")
	if diff := cmp.Diff([]int{2, 1}, r.records()[1].Table.Key); diff != "" {
		t.Errorf("key (-want +got):\n%s", diff)
	}
}

func TestNamesThatNeedQuotesAndEqualNamesInTwoSchemas(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(`CREATE SCHEMA "S 1"; CREATE TABLE "S 1"."Odd ""name""; -- é" ("Id.1" int PRIMARY KEY, "select" text);
CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t (id int PRIMARY KEY); CREATE TABLE b.t (id int PRIMARY KEY, x int)`)
	r := newRig(t, db, `S 1.Odd "name"; -- é`, "a.t", "b.t")
	r.startStreaming()
	db.Exec(`BEGIN; INSERT INTO "S 1"."Odd ""name""; -- é" VALUES (1, 'x'); INSERT INTO a.t VALUES (1); INSERT INTO b.t VALUES (1, 2); COMMIT`)
	db.Exec("TRUNCATE a.t, b.t")
	r.want(`insert S 1.Odd "name"; -- é (1,x)`, "insert a.t (1)", "insert b.t (1,2)", "truncate a.t b.t flags 0")
}

func TestSubtransactionsThatWereRolledBackDoNotArrive(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec(`BEGIN; INSERT INTO t VALUES (1); SAVEPOINT a; INSERT INTO t VALUES (2); SAVEPOINT b; INSERT INTO t VALUES (3);
ROLLBACK TO a; INSERT INTO t VALUES (4); RELEASE a; INSERT INTO t VALUES (5); COMMIT; BEGIN; INSERT INTO t VALUES (6); ROLLBACK`)
	r.want("insert public.t (1)", "insert public.t (4)", "insert public.t (5)")
	records := r.records()
	if first, last := records[1].Position, records[3].Position; first.Commit != last.Commit || first.Ordinal != 1 || last.Ordinal != 3 {
		t.Errorf("positions %s to %s, want ordinals 1 to 3 of one commit", first, last)
	}
}

func TestInterleavedTransactionsArriveInCommitOrder(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.startStreaming()
	one, two := db.Connect(), db.Connect()
	for _, step := range []struct {
		conn int
		sql  string
	}{{1, "BEGIN"}, {2, "BEGIN"}, {1, "INSERT INTO t VALUES (1)"}, {2, "INSERT INTO t VALUES (2)"}, {1, "INSERT INTO t VALUES (3)"}, {2, "COMMIT"}, {1, "INSERT INTO t VALUES (4)"}, {1, "COMMIT"}} {
		conn := one
		if step.conn == 2 {
			conn = two
		}
		if _, err := conn.Exec(t.Context(), step.sql); err != nil {
			t.Fatal(err)
		}
	}
	r.want("insert public.t (2)", "insert public.t (1)", "insert public.t (3)", "insert public.t (4)")
}

func TestPartitionedTableArrivesUnderItsOwnName(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(`CREATE TABLE p (id int, k int, v text, PRIMARY KEY (k, id)) PARTITION BY LIST (k);
CREATE TABLE p1 (v text, id int NOT NULL, k int NOT NULL); ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2)`)
	r := newRig(t, db, "p")
	r.startStreaming()
	db.Exec("INSERT INTO p VALUES (1, 1, 'a'), (2, 2, 'b')")
	db.Exec("UPDATE p SET v = 'c' WHERE id = 1")
	db.Exec("DELETE FROM p WHERE id = 2")
	r.want("insert public.p (1,1,a)", "insert public.p (2,2,b)", "update public.p (1,1,c)", "delete public.p key(2,2,~)")
}

func TestSchemaSaysLogicalTypes(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(`CREATE DOMAIN money2 AS numeric(10,2); CREATE DOMAIN price AS money2 CHECK (VALUE > 0); CREATE TYPE mood AS ENUM ('ok');
CREATE TABLE t (id int PRIMARY KEY, a price, b mood, c int[], d mood[], e varchar(7), f numeric(5,1)[], g inet, h price[], gone int, i text NOT NULL, j char(3), k jsonb,
  l int GENERATED ALWAYS AS (id + 1) STORED);
ALTER TABLE t DROP COLUMN gone`)
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec(`INSERT INTO t VALUES (1, 1.5, 'ok', '{1}', '{ok}', 'x', '{1}', '::1', '{1}', 'i', 'j', '{}')`)
	r.want("insert public.t (1,1.50,ok,{1},{ok},x,{1.0},::1,{1.00},i,j  ,{})")
	s := r.records()[1].Table
	var got []string
	for _, c := range s.Columns {
		precision, scale, _ := c.NumericPrecision()
		got = append(got, fmt.Sprintf("%s %d/%d %s %t %d.%d", c.Name, c.Type, c.Elem, c.TypeName, c.NotNull, precision*btoi(c.Type == cdc.TypeNumeric), scale*btoi(c.Type == cdc.TypeNumeric)))
	}
	want := []string{
		"id 3/0 integer true 0.0", "a 7/0 public.price false 10.2", "b 20/0 public.mood false 0.0", "c 22/3 integer[] false 0.0", "d 22/20 public.mood[] false 0.0",
		"e 8/0 character varying(7) false 0.0", "f 22/7 numeric(5,1)[] false 0.0", "g 0/0 inet false 0.0", "h 22/7 public.price[] false 0.0",
		"i 8/0 text true 0.0", "j 9/0 character(3) false 0.0", "k 12/0 jsonb false 0.0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(r.stream.Tables(), []*cdc.Schema{s}, cmpopts.IgnoreUnexported(cdc.Schema{})); diff != "" {
		t.Errorf("the schema that was announced is not the one that is used (-announced +used):\n%s", diff)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestSchemaChangeInTheStreamMakesAnotherSchema(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (b int, a int, v text, PRIMARY KEY (a, b))")
	r := newRig(t, db, "t")
	r.startStreaming()
	r.stop()
	// All of it happens before capture sees any of it: the catalog is ahead.
	db.Exec("INSERT INTO t VALUES (1, 1, 'x')")
	db.Exec("ALTER TABLE t ADD COLUMN w int DEFAULT 7")
	db.Exec("INSERT INTO t VALUES (2, 2, 'y')")
	db.Exec("ALTER TABLE t DROP COLUMN v")
	db.Exec("INSERT INTO t VALUES (3, 3, 8)")
	db.Exec("ALTER TABLE t RENAME b TO bb; ALTER TABLE t ALTER bb TYPE bigint")
	db.Exec("INSERT INTO t VALUES (4, 4, 9)")
	r.start()
	r.want("insert public.t (1,1,x)", "insert public.t (2,2,y,7)", "insert public.t (3,3,8)", "insert public.t (4,4,9)")
	prints := map[cdc.Fingerprint]bool{}
	for _, rec := range r.records() {
		if rec.Table != nil {
			prints[rec.Table.Fingerprint()] = true
			if len(rec.Table.Key) != 2 {
				t.Errorf("key %v", rec.Table.Key)
			}
		}
	}
	if len(prints) != 4 {
		t.Errorf("%d schemas, want 4", len(prints))
	}
}

func TestHugeValuePassesAndMemoryShrinksAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1, repeat('x', 50000000)), (2, 'y')")
	db.Exec("INSERT INTO t VALUES (3, repeat('z', 3000000))")
	r.want("insert public.t (1,x*50000000)", "insert public.t (2,y)", "insert public.t (3,z*3000000)")
}

// A receive buffer that is too narrow for a packet would let nothing through, whatever the
// size of the messages.
func TestRowsOfAnySizePassWithoutAStop(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL")
	r := newRig(t, db, "t")
	r.startStreaming()
	r.stop()
	const sizes = "(ARRAY[10, 300, 8000, 8000, 8000, 33000, 70000])[1 + i / 100 % 7]"
	for n := range 3 {
		db.Exec(fmt.Sprintf("INSERT INTO t SELECT i, repeat('v', %s) FROM generate_series(%d, %d) i", sizes, 1+n*700, (n+1)*700))
	}
	for range 100 {
		db.Exec("UPDATE t SET id = -id WHERE id IN (SELECT id FROM t WHERE id > 0 AND length(v) < 1000 LIMIT 4)")
	}
	began := time.Now()
	r.start()
	r.drain()
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	if n := len(r.changes()); n != 3*700+100*4 {
		t.Errorf("%d changes", n)
	}
}

func TestLargeTransactionSpansFrames(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := newRig(t, db, "t")
	r.cfg.FrameBytes = 256 << 10
	r.startStreaming()
	db.Exec("INSERT INTO t SELECT i, repeat('v', 100) FROM generate_series(1, 20000) i")
	r.drain()
	changes := r.changes()
	if len(changes) != 20000 || !strings.HasPrefix(changes[19999], "insert public.t (20000,") {
		t.Fatalf("%d changes, the last is %s", len(changes), changes[len(changes)-1])
	}
	frames := r.stream.Frames()
	if len(frames) < 5 || !frames[0].Header.Open || frames[len(frames)-1].Header.Open {
		t.Errorf("%d frames", len(frames))
	}
}
