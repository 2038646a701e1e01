package oracle_test

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

func netKinds() []kind {
	mac := func(r rnd, n int) string {
		return r.repeat(n, ":", func() string { return hex.EncodeToString(randomBytes(r, 1)) })
	}
	bits := func(low, high int) gen {
		return func(r rnd) value {
			return lit(r.repeat(r.between(low, high), "", func() string { return pick(r, "0", "1") }))
		}
	}
	return []kind{
		{name: "uuid", sql: "uuid", auto: "VARCHAR(36)", key: "VARCHAR(36)", tame: texts([]string{
			"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", "a0eebc999c0b4ef8bb6d6bb9bd380a11",
		}, func(r rnd) value { return lit(hex.EncodeToString(randomBytes(r, 16))) })},
		{name: "inet", sql: "inet", key: keyText, tame: texts([]string{"0.0.0.0", "255.255.255.255/32", "::1", "::", "::ffff:1.2.3.4", "10.1.2.3/8", "fe80::1/64", "2001:db8::/32"}, func(r rnd) value {
			b := randomBytes(r, 4)
			return lit(fmt.Sprintf("%d.%d.%d.%d/%d", b[0], b[1], b[2], b[3], r.between(0, 32)))
		}, func(r rnd) value {
			return lit(r.repeat(8, ":", func() string { return strconv.FormatInt(int64(r.IntN(pick(r, 1, 65536))), 16) }) + pick(r, "", "/64", "/127", "/0"))
		})},
		{name: "cidr", sql: "cidr", key: keyText, tame: texts([]string{"0.0.0.0/0", "192.168.0.0/16", "10", "::/0", "2001:db8::/32", "1.2.3.4"}, func(r rnd) value {
			return lit(fmt.Sprintf("%d.%d.0.0/%d", r.IntN(256), r.IntN(256), r.between(16, 32)))
		})},
		{name: "macaddr", sql: "macaddr", key: keyText, tame: func(r rnd) value { return lit(mac(r, 6)) }},
		{name: "macaddr8", sql: "macaddr8", key: keyText, tame: func(r rnd) value { return lit(mac(r, 8)) }},
		{name: "bit1", sql: "bit(1)", key: keyText, tame: bits(1, 1)},
		{name: "bit37", sql: "bit(37)", key: keyText, tame: bits(37, 37)},
		{name: "varbit", sql: "varbit", key: keyText, tame: bits(0, 200)},
		{name: "varbit9", sql: "varbit(9)", key: keyText, tame: bits(0, 9)},
	}
}

func geometryKinds() []kind {
	number := func(r rnd) string {
		if r.in(5) {
			return pick(r, "NaN", "Infinity", "-Infinity")
		}
		return literal(r, floats(64))
	}
	point := func(r rnd) string { return "(" + number(r) + "," + number(r) + ")" }
	points := func(r rnd, low, high int) string {
		return r.repeat(r.between(low, high), ",", func() string { return point(r) })
	}
	return []kind{
		{name: "point", sql: "point", tame: func(r rnd) value { return lit(point(r)) }},
		{name: "line", sql: "line", tame: func(r rnd) value {
			return lit(fmt.Sprintf("{%d,%s,%s}", r.between(1, 9), literal(r, floats(64)), literal(r, floats(64))))
		}},
		{name: "lseg", sql: "lseg", tame: func(r rnd) value { return lit("[" + points(r, 2, 2) + "]") }},
		{name: "box", sql: "box", tame: func(r rnd) value { return lit(points(r, 2, 2)) }},
		{name: "path", sql: "path", tame: func(r rnd) value {
			brackets := pick(r, "[]", "()")
			return lit(brackets[:1] + points(r, 1, 6) + brackets[1:])
		}},
		{name: "polygon", sql: "polygon", tame: func(r rnd) value { return lit("(" + points(r, 1, 6) + ")") }},
		{name: "circle", sql: "circle", tame: func(r rnd) value { return lit(fmt.Sprintf("<%s,%d.5>", point(r), r.IntN(100))) }},
	}
}

func catalogKinds() []kind {
	words := func(list ...string) gen { return texts(list) }
	lsn := texts([]string{"0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848", "0/1"}, func(r rnd) value {
		return lit(fmt.Sprintf("%X/%X", r.Uint32(), r.Uint32()))
	})
	snapshot := words("10:20:10,14,15", "1:1:", "9223372036854775000:9223372036854775000:", "3:900:5")
	return []kind{
		{name: "lsn", sql: "pg_lsn", key: keyText, tame: lsn},
		{name: "xid", sql: "xid", tame: unsigned(32)},
		{name: "xid8", sql: "xid8", key: keyText, tame: unsigned(63)},
		{name: "cid", sql: "cid", tame: unsigned(32)},
		{name: "tid", sql: "tid", key: keyText, tame: func(r rnd) value { return lit(fmt.Sprintf("(%d,%d)", r.Uint32(), r.IntN(65536))) }},
		{name: "txidsnap", sql: "txid_snapshot", tame: snapshot},
		{name: "pgsnap", sql: "pg_snapshot", tame: snapshot},
		{name: "int2vector", sql: "int2vector", tame: words("", "1", "1 2 3", "-32768 32767")},
		{name: "oidvector", sql: "oidvector", key: keyText, tame: words("", "0", "1 2 3", "4294967295")},
		{name: "refcursor", sql: "refcursor", tame: anyText(30)},
		{name: "aclitem", sql: "aclitem", tame: words("=r/postgres", "postgres=arwdDxt/postgres", "postgres=r*/postgres", "=/postgres")},
		{name: "regclass", sql: "regclass", key: keyText, tame: words("pg_class", "pg_type", "s2.\"Odd Table\"", "0", "123456789", "information_schema.tables")},
		{name: "regtype", sql: "regtype", key: keyText, tame: words("integer", "timestamp with time zone", "s2.mood", "mood", "text[]", "0", "\"char\"")},
		{name: "regproc", sql: "regproc", key: keyText, tame: words("now", "pg_catalog.int4in", "0", "s2.oracle_twice")},
		{name: "regprocedure", sql: "regprocedure", key: keyText, tame: words("abs(integer)", "now()", "s2.oracle_twice(integer)")},
		{name: "regoper", sql: "regoper", key: keyText, tame: words("pg_catalog.||/", "|/", "0")},
		{name: "regoperator", sql: "regoperator", key: keyText, tame: words("+(integer,integer)", "-(none,bigint)", "||(text,text)")},
		{name: "regnamespace", sql: "regnamespace", key: keyText, tame: words("public", "pg_catalog", "s2", "0")},
		{name: "regrole", sql: "regrole", key: keyText, tame: words("postgres", "0", "pg_monitor")},
		{name: "regconfig", sql: "regconfig", key: keyText, tame: words("english", "simple")},
		{name: "regdictionary", sql: "regdictionary", key: keyText, tame: words("simple", "english_stem")},
		{name: "regcollation", sql: "regcollation", key: keyText, tame: words("\"C\"", "\"POSIX\"", "\"default\"")},
	}
}

func searchKinds() []kind {
	lexeme := func(r rnd) string {
		return "'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace("x"+anyText(12)(r).text) + "'"
	}
	return []kind{
		{name: "tsvector", sql: "tsvector", key: keyText, tame: texts([]string{"", "a", "a:1A b:2,3C c:16383", "'quo''ted':5 'back\\\\slash'"},
			func(r rnd) value {
				return lit(r.repeat(r.between(0, 6), " ", func() string { return lexeme(r) + pick(r, "", ":1", ":2A,5B,9", ":16383D") }))
			},
			func(r rnd) value { return expr("to_tsvector('english', " + quoteText(anyText(80)(r).text) + ")") })},
		{name: "tsquery", sql: "tsquery", key: keyText, tame: texts([]string{"", "a & b", "!a | (b <-> c)", "a <3> b", "'x':*AB & !!c"},
			func(r rnd) value {
				return lit(r.repeat(r.between(1, 4), pick(r, " & ", " | ", " <-> ", " & !"), func() string { return lexeme(r) + pick(r, "", ":*", ":AB") }))
			},
			func(r rnd) value { return expr("plainto_tsquery('english', " + quoteText(anyText(40)(r).text) + ")") })},
	}
}

func extensionKinds() []kind {
	quoted := func(text string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"` }
	labels := func(r rnd) string {
		return r.repeat(r.between(1, 6), ".", func() string { return pick(r, "a", "Top", "x_1", "B2", "z") })
	}
	return []kind{
		{name: "hstore", sql: "hstore", key: keyText, needs: "hstore", tame: texts([]string{"", `a=>1`, `"a"=>NULL`, `"a"=>"NULL", ""=>""`, `a=>1, a=>2`}, func(r rnd) value {
			return lit(r.repeat(r.IntN(5), ", ", func() string {
				return quoted(anyText(15)(r).text) + "=>" + pick(r, "NULL", quoted(anyText(15)(r).text))
			}))
		})},
		{name: "ltree", sql: "ltree", key: keyText, needs: "ltree", tame: texts([]string{""}, func(r rnd) value { return lit(labels(r)) })},
		{name: "lquery", sql: "lquery", needs: "ltree", tame: texts([]string{"*", "a.*{1,2}.b", "!x.*", "a*@|b%.c"}, func(r rnd) value { return lit("*." + labels(r)) })},
		{name: "ltxtquery", sql: "ltxtquery", needs: "ltree", tame: texts([]string{"a & b", "!x | y*", "(a | b@) & c%"})},
		{name: "cube", sql: "cube", key: keyText, needs: "cube", tame: texts([]string{"(1,2),(3,4)", "0", "(1.5,-0)", "(1e300)"}, func(r rnd) value {
			return lit("(" + r.repeat(r.between(1, 5), ",", func() string { return literal(r, floats(64)) }) + ")")
		})},
		{name: "seg", sql: "seg", key: keyText, needs: "seg", tame: texts([]string{"1 .. 2", "~5", "<1.50", "1.5(+-)0.3", "1 ..", ".. 3.00"})},
		{name: "isbn", sql: "isbn", key: keyText, needs: "isn", tame: texts([]string{"0-393-04002-X", "978-0-393-04002-9"})},
		{name: "ean13", sql: "ean13", key: keyText, needs: "isn", tame: texts([]string{"978-0-393-04002-9", "220356483481?"})},
		{name: "lo", sql: "lo", auto: "BIGINT", key: "BIGINT", needs: "lo", tame: unsigned(32)},
		{name: "geometry", sql: "geometry", key: keyText, needs: "postgis", tame: texts([]string{"SRID=4326;LINESTRING(0 0,1 1)", "POINT EMPTY", "SRID=3857;POINT ZM(1 2 3 -0)"}, shapes)},
		{name: "geopoint", sql: "geometry(Point,4326)", key: keyText, needs: "postgis", tame: func(r rnd) value { return lit("SRID=4326;POINT(" + spot(r) + ")") }},
		{name: "geography", sql: "geography", key: keyText, needs: "postgis", tame: texts([]string{"POINT EMPTY", "LINESTRING(0 0,10 80)"}, func(r rnd) value { return lit("SRID=4326;POINT(" + spot(r) + ")") })},
		{name: "box2d", sql: "box2d", needs: "postgis", tame: texts([]string{"BOX(0 0,1 1)", "BOX(-1.5 0.1,1e20 3)"})},
		{name: "box3d", sql: "box3d", needs: "postgis", tame: texts([]string{"BOX3D(0 0 0,1 1 1)", "BOX3D(-1.5 0.1 -0,1e20 3 4)"})},
		{name: "vector", sql: "vector", key: keyText, needs: "vector", tame: texts([]string{"[1,2,3]", "[0.1,-0,1e20]", "[1]"})},
		{name: "vector3", sql: "vector(3)", key: keyText, needs: "vector", tame: texts([]string{"[1,2,3]", "[0.1,-0,1e20]"}, func(r rnd) value {
			return lit("[" + r.repeat(3, ",", func() string { return strconv.FormatFloat(r.NormFloat64(), 'g', -1, 32) }) + "]")
		})},
	}
}

// spot is a longitude and a latitude.
func spot(r rnd) string {
	return strconv.FormatFloat(360*r.Float64()-180, 'g', -1, 64) + " " + strconv.FormatFloat(180*r.Float64()-90, 'g', -1, 64)
}

// shapes draws geometries of PostGIS.
func shapes(r rnd) value {
	ring := func() string {
		from := spot(r)
		return "(" + from + "," + r.repeat(r.between(2, 5), ",", func() string { return spot(r) }) + "," + from + ")"
	}
	forms := []func() string{
		func() string { return "POINT(" + spot(r) + ")" },
		func() string {
			return "LINESTRING(" + r.repeat(r.between(2, 20), ",", func() string { return spot(r) }) + ")"
		},
		func() string { return "POLYGON(" + r.repeat(r.between(1, 3), ",", ring) + ")" },
		func() string {
			return "MULTIPOINT(" + r.repeat(r.between(1, 5), ",", func() string { return spot(r) }) + ")"
		},
		func() string { return "CIRCULARSTRING(0 0," + spot(r) + ",1 0)" },
	}
	one := func() string { return pick(r, forms...)() }
	if r.in(20) {
		return lit("GEOMETRYCOLLECTION(" + r.repeat(r.between(1, 4), ",", one) + ")")
	}
	return lit(pick(r, "", "SRID=4326;", "SRID=3857;") + one())
}
