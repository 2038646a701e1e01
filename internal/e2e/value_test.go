package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestLongTextIsExactOrRefused: 900 kB fit the sink's largest VARCHAR, 5 MB do not.
func TestLongTextIsExactOrRefused(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE doc (id int PRIMARY KEY, body text)", "doc")
	s := r.start()
	r.db.Exec("INSERT INTO doc VALUES (1, repeat('0123456789', 90000))")
	r.same(s, "doc")
	r.db.Exec("INSERT INTO doc VALUES (77, repeat('secretword', 500000))")
	bad := r.mark()
	s.complains("public.doc", "body", "id=77", "longer than the column")
	r.never(bad, 2*time.Second)
	r.secrets = append(r.secrets, "secretword")
}

// never checks for a while that the slot does not confirm a position that lies behind a
// change which the sink cannot take.
func (r *rig) never(bad lsn, span time.Duration) {
	r.t.Helper()
	stays(r.t, span, "what is not in the sink is not confirmed", func() (bool, string) {
		now := r.confirmed()
		return now < bad, fmt.Sprintf("slot at %s, the bad change is before %s", now, bad)
	})
}

const typesDDL = `CREATE TYPE mood AS ENUM ('sad', 'so so', 'very "happy"'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE kinds (id bigint PRIMARY KEY,
	b boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision, n numeric(20,6), nwide numeric(50,10), nany numeric, nneg numeric(5,-2),
	t text, vc varchar(10), c char(6), nm name, ba bytea, j json, jb jsonb, u uuid, d date, ts timestamp, tstz timestamptz, tm time, tmtz timetz, iv interval,
	m mood, dom positive, ia int[], ta text[], ip inet, mc macaddr, bits bit(5), vb varbit, mon money, r int4range, p point, ts6 timestamp(3), pr pair, x xml, o oid)`

var kindsRows = []string{
	`(1, true, 1, 2, 3, 1.5, 2.25, 3.141593, 12345678901234567890123456789.0123456789, 1.500, 12300,
	 'plain', 'vc', 'ab', 'nm', '\x00ff10', '{"b": 1, "a": [1, 2.50]}', '{"b": 1, "a": [1, 2.50, true, null], "s": "x\ny"}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
	 '2024-02-29', '2024-02-29 23:59:59.123456', '2024-02-29 23:59:59.5+05:30', '23:59:59.999999', '12:00:00+02', '1 year 2 mons 3 days 04:05:06.7',
	 'very "happy"', 5, '{1,NULL,3}', '{"a b",NULL,"c\"d",""}', '192.168.0.1/24', '08:00:2b:01:02:03', B'10101', B'1', '1234.50', '[1,5)', '(1.5,-2)', '2024-01-01 00:00:00.1239',
	 ROW(1, 'x,"y'), '<a>1</a>', 12345)`,
	`(2, false, -32768, -2147483648, -9223372036854775808, -3.4e38, -1.7976931348623157e308, -99999999999999.999999, -0.0000000001, 0, -12300,
	 '', '', '', '', '', '[]', '{}', '00000000-0000-0000-0000-000000000000', '0001-01-01', '0001-01-01 00:00:00', '1900-01-01 00:00:00+00', '00:00:00', '00:00:00-12', '0',
	 'sad', 1, '{}', '{}', '::1', 'ff:ff:ff:ff:ff:ff', B'00000', B'', '-0.01', 'empty', '(0,0)', '1999-12-31 23:59:59.9996', ROW(NULL, NULL), '<b/>', 0)`,
	`(3, true, 32767, 2147483647, 9223372036854775807, 1e-40, 5e-324, 0.000001, 1, 123456789012345678901234567890.123456789, 0,
	 E'quote '' double " back \\ tab \t newline \n return \r null \\N emoji 😀 zero\u200bwidth \u0001 end', 'äöüß€😀', E'a\n', 'ñ', decode('deadbeef', 'hex'), '"scalar"', '123456789012345678', 'ffffffff-ffff-ffff-ffff-ffffffffffff',
	 '9999-12-31', '9999-12-31 23:59:59.999999', '9999-12-31 23:59:59+00', '24:00:00', '24:00:00+14', '-1 days +00:00:01',
	 'so so', 2147483647, '{{1,2},{3,4}}', '{NULL}', '10.0.0.0/8', '01:02:03:04:05:06', B'11111', B'1010', '92233720368547758.07', '(,)', '(1e300,1e-300)', '2000-01-01', ROW(2, ''), 'text only', 4294967295)`,
	`(4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
	 NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)`,
	`(5, true, 0, 0, 0, 0.1, 0.1, 0, 0, 1e20, 100, '\N', 'NULL', 'null', 'true', '\x5c4e', '{"a":"\u00e9\ud83d\ude00\\"}', '{"k": 1e15, "neg": -0.5, "deep": [[[{}]]]}', gen_random_uuid(),
	 '1970-01-01', '1970-01-01', '1970-01-01+00', '12:34:56', '12:34:56+00', '-178000000 years', 'sad', 7, '{-1}', '{NULL,"NULL"}', '0.0.0.0', '00:00:00:00:00:00', B'01010', B'111', '0', '[,)', '(-0,0)', '2024-06-30 12:00:00', ROW(3, 'NULL'), '', 1)`,
}

func TestEveryCommonTypeArrivesExactly(t *testing.T) {
	t.Parallel()
	ddl := typesDDL
	if major(t) < 15 {
		ddl = strings.Replace(ddl, "numeric(5,-2)", "numeric(5,0)", 1) // Negative scales came with 15.
	}
	deleteModes(t, func(t *testing.T, mode string) {
		r := setup(t, ddl, "kinds")
		s := r.set("SINK_DELETE_MODE", mode).start()
		for _, row := range kindsRows {
			r.db.Exec("INSERT INTO kinds VALUES " + row)
		}
		r.same(s, "kinds")
		r.db.Exec("UPDATE kinds SET b = NOT b, t = t || ' changed', tstz = tstz + interval '1 microsecond' WHERE id < 5 AND id <> 3")
		r.db.Exec("UPDATE kinds SET id = id + 100")
		r.same(s, "kinds")
	})
}

// TestLargestRealArrives is for a value that is in range as a real, but whose shortest
// text is out of range when it is read as a double.
func TestLargestRealArrives(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE reals (id int PRIMARY KEY, v real)", "reals")
	s := r.start()
	r.db.Exec("INSERT INTO reals VALUES (1, '3.4028235e38'), (2, '-3.4028235e38'), (3, '1.17549435e-38'), (4, '1e-45'), (5, '16777217')")
	r.same(s, "reals")
}

// keyKinds are types of keys with values in SQL.
var keyKinds = []struct {
	typ    string
	values []string
}{
	{"boolean", []string{"true", "false"}},
	{"smallint", []string{"-1", "32767"}},
	{"bigint", []string{"-9223372036854775808", "5"}},
	{"numeric", []string{"1.50", "-0.001"}},
	{"numeric(10,2)", []string{"1.5", "99999999.99"}},
	{"text", []string{"'a b'", `E'quote \'\' \\ "x" \n'`, "'ä😀'"}},
	{"varchar(20)", []string{"'x'", "'X'"}},
	{"char(5)", []string{"'ab'", "'abc'"}},
	{"uuid", []string{"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"}},
	{"date", []string{"'2024-02-29'"}},
	{"timestamp", []string{"'2024-02-29 01:02:03.4'", "'2024-02-29 01:02:03'"}},
	{"timestamptz", []string{"'2024-02-29 01:02:03.4+07'", "'2024-02-29 00:00:00+00'"}},
	{"bytea", []string{`'\xdead'`}},
	{"time", []string{"'12:00:00.5'"}},
	{"inet", []string{"'10.0.0.1'"}},
	{"double precision", []string{"1.5", "1e300"}},
}

// TestEveryCommonTypeWorksAsAKey covers keys whose text in the sink differs from the
// source's, in all that finds a row by its key.
func TestEveryCommonTypeWorksAsAKey(t *testing.T) {
	t.Parallel()
	var ddl string
	var names []string
	for i, kind := range keyKinds {
		name := fmt.Sprintf("key%d", i)
		names = append(names, name)
		ddl += "CREATE TABLE " + name + " (k " + kind.typ + ", n int, v text, body text, PRIMARY KEY (k, n));" +
			"ALTER TABLE " + name + " ALTER COLUMN body SET STORAGE EXTERNAL;"
	}
	r := setup(t, ddl, names...)
	s := r.start()
	for i, kind := range keyKinds {
		for _, value := range kind.values {
			r.db.Exec("INSERT INTO " + names[i] + " SELECT " + value + ", n, 'v', repeat('b', 5000) FROM generate_series(1, 4) n")
		}
	}
	r.same(s, names...)
	for _, name := range names {
		r.db.Exec("UPDATE " + name + " SET v = 'changed' WHERE n = 1; DELETE FROM " + name + " WHERE n = 2; UPDATE " + name + " SET n = 33 WHERE n = 3")
	}
	r.same(s, names...)
}
