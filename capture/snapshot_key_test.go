package capture_test

import (
	"testing"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// Each table has keys in an order that is not the plain one, or that are equal to some and
// different to others.
func TestCopyFollowsTheOrderOfAnyKey(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec(`CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN code AS varchar(8) COLLATE "C";
CREATE COLLATION anycase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE numbers (id numeric PRIMARY KEY, v text);
INSERT INTO numbers SELECT i / 7.0, 'v' FROM generate_series(-30, 30) i; INSERT INTO numbers VALUES ('NaN', 'v'), (1e30, 'v'), (2.50, 'v');
CREATE TABLE floats (id float8 PRIMARY KEY, v text);
INSERT INTO floats SELECT i / 3.0, 'v' FROM generate_series(-30, 30) i WHERE i <> 0; INSERT INTO floats VALUES ('-0', 'zero'), ('NaN', 'v'), ('Infinity', 'v'), ('-Infinity', 'v'), (1e-300, 'v');
CREATE TABLE times (id timestamptz, day date, v text, PRIMARY KEY (day, id));
INSERT INTO times SELECT now() + i * interval '1 hour', CASE WHEN i % 2 = 0 THEN current_date ELSE 'infinity' END, 'v' FROM generate_series(1, 40) i;
INSERT INTO times VALUES ('infinity', '-infinity', 'v'), ('-infinity', 'infinity', 'v'), ('0044-03-15 12:00:00+00 BC', '0044-03-15 BC', 'v');
CREATE TABLE padded (id char(5), n mood, v text, PRIMARY KEY (n, id));
INSERT INTO padded SELECT i::text, (ARRAY['sad', 'ok', 'happy'])[1 + i % 3]::mood, 'v' FROM generate_series(1, 40) i; INSERT INTO padded VALUES ('', 'ok', 'v'), ('a''\ ', 'sad', 'v');
CREATE TABLE loose (id citext PRIMARY KEY, v text);
INSERT INTO loose SELECT CASE WHEN i % 2 = 0 THEN 'K' ELSE 'k' END || i, 'v' FROM generate_series(1, 40) i;
CREATE TABLE coded (id code, tag "char", bits bit(3), v text, PRIMARY KEY (id, bits, tag));
INSERT INTO coded SELECT 'c' || i / 4, chr(65 + i % 3)::"char", (i % 8)::bit(3), 'v' FROM generate_series(1, 40) i;
CREATE TABLE listed (id int[] PRIMARY KEY, v text);
INSERT INTO listed SELECT ARRAY[i % 3, i], 'v' FROM generate_series(1, 40) i; INSERT INTO listed VALUES ('{}', 'v'), ('{1,NULL}', 'v');
CREATE TABLE named (id text COLLATE anycase NOT NULL, n int NOT NULL, v text);
CREATE UNIQUE INDEX named_id ON named (id COLLATE "C", n DESC); ALTER TABLE named REPLICA IDENTITY USING INDEX named_id;
INSERT INTO named SELECT CASE WHEN i % 2 = 0 THEN 'Ab' ELSE 'aB' END || i / 2 % 5, i, 'v' FROM generate_series(1, 40) i;
CREATE TABLE pattern (id text NOT NULL, n int NOT NULL, v text);
CREATE UNIQUE INDEX pattern_id ON pattern (n, id text_pattern_ops); ALTER TABLE pattern REPLICA IDENTITY USING INDEX pattern_id;
INSERT INTO pattern SELECT chr(60 + i % 40), i / 10, 'v' FROM generate_series(1, 40) i`)
		tables := []string{"numbers", "floats", "times", "padded", "loose", "coded", "listed", "named", "pattern"}
		r := copying(t, db, tables...)
		r.cfg.SnapshotChunkRows, r.cfg.SnapshotWorkers = 7, 4
		r.start()
		r.copied()
		for _, name := range tables {
			r.same(name, "v")
		}
	})
}
