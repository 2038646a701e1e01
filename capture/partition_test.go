package capture_test

import (
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// partitioned is a table of three levels. One leaf has its columns in another order, with
// a hole.
const partitioned = `
CREATE TABLE orders (region text, id int, v text, PRIMARY KEY (region, id)) PARTITION BY LIST (region);
CREATE TABLE orders_eu PARTITION OF orders FOR VALUES IN ('eu') PARTITION BY RANGE (id);
CREATE TABLE orders_eu_1 PARTITION OF orders_eu FOR VALUES FROM (0) TO (1000);
CREATE TABLE orders_eu_2 (v text, gone int, id int NOT NULL, region text NOT NULL, PRIMARY KEY (region, id));
ALTER TABLE orders_eu_2 DROP COLUMN gone;
ALTER TABLE orders_eu ATTACH PARTITION orders_eu_2 FOR VALUES FROM (1000) TO (2000);
CREATE TABLE orders_us PARTITION OF orders FOR VALUES IN ('us');
INSERT INTO orders SELECT CASE WHEN i % 2 = 0 THEN 'eu' ELSE 'us' END, i * 5, 'old' FROM generate_series(1, 300) i`

// busy changes rows of every leaf, and moves some from leaf to leaf.
const busy = `
UPDATE orders SET v = 'new' WHERE id % 7 = 0;
UPDATE orders SET id = id + 1600 WHERE region = 'eu' AND id BETWEEN 100 AND 200;
UPDATE orders SET region = 'us' WHERE region = 'eu' AND id BETWEEN 1300 AND 1400;
DELETE FROM orders WHERE id % 11 = 0;
INSERT INTO orders VALUES ('us', 5000, 'x'), ('eu', 1999, 'y')`

func TestPartitionedTableIsOneTableByItsRoot(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(partitioned)
		r := following(t, db, "public.*")
		r.cfg.SnapshotChunkRows = 100
		r.start()
		r.captures("orders")
		r.same("orders", "region, id")
		rows := 0
		for _, rec := range r.records() {
			if rec.Kind.IsRow() {
				rows++
			}
		}
		if rows != 300 {
			t.Errorf("%d rows of 300 were copied", rows)
		}
		db.Exec(busy)
		db.Exec("CREATE TABLE orders_asia PARTITION OF orders FOR VALUES IN ('asia'); INSERT INTO orders VALUES ('asia', 1, 'a')")
		r.drain()
		r.same("orders", "region, id")
		// The rows of a partition that is attached are in the sink once it is copied, and
		// those of one that is detached stay there.
		db.Exec("CREATE TABLE orders_af (LIKE orders INCLUDING ALL); INSERT INTO orders_af VALUES ('af', 1, 'a'); ALTER TABLE orders ATTACH PARTITION orders_af FOR VALUES IN ('af')")
		if err := r.c.StartSnapshot(t.Context(), []capture.Table{table("orders")}); err != nil {
			t.Fatal(err)
		}
		r.await("copied", func(s capture.Status) bool { return r.sink()["public.orders"]["af\x011"] != nil })
		r.captures("orders")
		r.same("orders", "region, id")
		if got := len(r.sink()); got != 1 {
			t.Errorf("%d tables in the stream", got)
		}
	})
}

func TestPartitionedTableIsManyTablesByItsLeaves(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(partitioned)
		r := following(t, db)
		r.cfg.Leaves, r.cfg.Tables, r.cfg.Except = true, []capture.Table{table("orders")}, []capture.Pattern{like("public.*_hidden")}
		r.start()
		r.captures("orders_eu_1", "orders_eu_2", "orders_us")
		db.Exec(busy)
		db.Exec("CREATE TABLE orders_asia PARTITION OF orders FOR VALUES IN ('asia'); INSERT INTO orders VALUES ('asia', 1, 'a'); CREATE TABLE orders_hidden PARTITION OF orders FOR VALUES IN ('h')")
		r.captures("orders_asia", "orders_eu_1", "orders_eu_2", "orders_us")
		db.Exec("CREATE TABLE orders_af (LIKE orders INCLUDING ALL); INSERT INTO orders_af VALUES ('af', 1, 'a'); ALTER TABLE orders ATTACH PARTITION orders_af FOR VALUES IN ('af'); INSERT INTO orders VALUES ('af', 2, 'b')")
		r.captures("orders_af", "orders_asia", "orders_eu_1", "orders_eu_2", "orders_us")
		for _, leaf := range []string{"orders_af", "orders_asia", "orders_eu_1", "orders_eu_2", "orders_us"} {
			r.same(leaf, "id")
		}
		db.Exec("INSERT INTO orders VALUES ('us', 6000, 'last'); ALTER TABLE orders DETACH PARTITION orders_us; INSERT INTO orders_us VALUES ('us', 7000, 'not seen')")
		r.captures("orders_af", "orders_asia", "orders_eu_1", "orders_eu_2")
		if r.value("public.orders_us", "us\x016000") == "" {
			t.Error("the last row of the leaf that was detached is missing")
		}
		if rows := r.sink()["public.orders_us"]; rows["us\x017000"] != nil && strings.Contains(r.published(), "orders_us") {
			t.Error("the leaf that was detached is captured")
		}
	})
}

func TestPublicationOfTheOtherKindOfPartitionsIsRefused(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(partitioned)
		r := following(t, db)
		r.cfg.Tables = []capture.Table{table("orders")}
		r.start()
		r.captures("orders")
		r.stop()
		r.cfg.Leaves = true
		if s := r.refused(); !strings.Contains(s.LastError, "(publish_via_partition_root = false)") || !strings.Contains(s.LastError, "SOURCE_PARTITIONS=root") {
			t.Errorf("%s", s.LastError)
		}
		db.Exec(busy)
		db.Exec(`ALTER PUBLICATION "` + r.cfg.Publication + `" SET (publish_via_partition_root = false)`)
		r.captures("orders_eu_1", "orders_eu_2", "orders_us")
		db.Exec("INSERT INTO orders VALUES ('us', 6000, 'x')")
		r.drain()
		for _, leaf := range []string{"orders_eu_1", "orders_eu_2", "orders_us"} {
			r.same(leaf, "id")
		}
		r.stop()
		r.cfg.Leaves = false
		if s := r.refused(); !strings.Contains(s.LastError, "(publish_via_partition_root = true)") || !strings.Contains(s.LastError, "SOURCE_PARTITIONS=leaf") {
			t.Errorf("%s", s.LastError)
		}
		db.Exec("DELETE FROM orders WHERE id % 5 = 0")
		db.Exec(`ALTER PUBLICATION "` + r.cfg.Publication + `" SET (publish_via_partition_root = true)`)
		r.captures("orders")
		r.same("orders", "region, id")
	})
}

func TestPartitionBesideItsRootIsRefused(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec(partitioned)
	r := newRig(t, db, "orders", "orders_us")
	if s := r.refused(); !strings.Contains(s.LastError, "'public.orders_us' is a partition of public.orders, which is listed too") {
		t.Errorf("%s", s.LastError)
	}
	r.stop()
	// Alone it is a table like any other.
	r.cfg.Tables = []capture.Table{table("orders_us")}
	r.startStreaming()
	db.Exec("INSERT INTO orders VALUES ('us', 6000, 'x')")
	r.want("insert public.orders_us (us,6000,x)")
}
