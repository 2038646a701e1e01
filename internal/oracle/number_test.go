package oracle_test

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

func numberKinds() []kind {
	notFinite := texts([]string{"NaN", "Infinity", "-Infinity", "inf", "-inf"})
	kinds := []kind{
		{name: "bool", sql: "boolean", auto: "BOOLEAN", key: "BOOLEAN", tame: texts([]string{"t", "f", "true", "no", "1", "off"})},
		{
			name: "int2", sql: "smallint", auto: "SMALLINT", key: "SMALLINT", tame: integers(16),
			also: []string{"INT", "BIGINT", "LARGEINT", "DECIMAL(5,0)", "DECIMAL(38,10)"},
		},
		{name: "int4", sql: "integer", auto: "INT", key: "INT", tame: integers(32), also: []string{"BIGINT", "LARGEINT", "DECIMAL(10,0)"}},
		{name: "int8", sql: "bigint", auto: "BIGINT", key: "BIGINT", tame: integers(64), also: []string{"LARGEINT", "DECIMAL(19,0)", "DECIMAL(38,0)"}},
		{name: "oid", sql: "oid", auto: "BIGINT", key: "BIGINT", tame: unsigned(32), also: []string{"LARGEINT", "DECIMAL(10,0)"}},
		{name: "float4", sql: "real", auto: "FLOAT", key: keyText, tame: floats(32), wild: notFinite, also: []string{"DOUBLE"}},
		{name: "float8", sql: "double precision", auto: "DOUBLE", key: keyText, tame: floats(64), wild: notFinite},
		{name: "num", sql: "numeric", key: keyText, tame: numerics, wild: wildNumerics, also: []string{"DECIMAL(38,10)", "DECIMAL(9,0)"}},
		{name: "num38", sql: "numeric(38,0)", auto: "DECIMAL(38,0)", key: "VARCHAR", tame: decimals(38, 0), wild: nan, also: []string{"LARGEINT"}},
		{name: "num38_38", sql: "numeric(38,38)", auto: "DECIMAL(38,38)", key: "VARCHAR", tame: decimals(38, 38), wild: nan},
		{name: "num38_19", sql: "numeric(38,19)", auto: "DECIMAL(38,19)", key: "VARCHAR", tame: decimals(38, 19), wild: nan},
		{name: "num20_6", sql: "numeric(20,6)", auto: "DECIMAL(20,6)", key: "VARCHAR", tame: decimals(20, 6), wild: nan, also: []string{"DECIMAL(30,10)"}},
		{name: "num18", sql: "numeric(18,0)", auto: "DECIMAL(18,0)", key: "VARCHAR", tame: decimals(18, 0), wild: nan, also: []string{"BIGINT"}},
		{name: "num5_2", sql: "decimal(5,2)", auto: "DECIMAL(5,2)", key: "VARCHAR", tame: decimals(5, 2), wild: nan},
		{name: "num1", sql: "numeric(1)", auto: "DECIMAL(1,0)", key: "VARCHAR", tame: decimals(1, 0), wild: nan},
		{name: "num39_1", sql: "numeric(39,1)", key: "VARCHAR", tame: decimals(39, 1), wild: nan},
		{name: "num1000", sql: "numeric(1000,500)", key: "VARCHAR", tame: decimals(1000, 500), wild: nan},
		{name: "num10_m3", sql: "numeric(10,-3)", auto: "DECIMAL(13,0)", key: "VARCHAR", since: 15, tame: decimals(12, 0), wild: nan},
		{name: "num3_5", sql: "numeric(3,5)", auto: "DECIMAL(5,5)", key: "VARCHAR", since: 15, tame: smallFraction, wild: nan},
		{name: "money", sql: "money", key: keyText, tame: moneys},
	}
	return kinds
}

// integers draws signed integers of up to so many bits, the edges of every width among them.
func integers(bits int) gen {
	return func(r rnd) value {
		width := r.between(1, bits)
		switch r.IntN(6) {
		case 0:
			return lit(pick(r, "0", "1", "-1", "10", "-10", "99", "100"))
		case 1:
			return lit(strconv.FormatInt(-1<<(bits-1), 10))
		case 2:
			return lit(strconv.FormatInt(1<<(bits-1)-1, 10))
		case 3:
			edge := int64(1)<<(width-1) - 1
			return lit(strconv.FormatInt(pick(r, edge, -edge-1, -edge), 10))
		}
		return lit(strconv.FormatInt(int64(r.Uint64())>>(64-width), 10))
	}
}

func unsigned(bits int) gen {
	return func(r rnd) value {
		if r.in(30) {
			return lit(pick(r, "0", "1", strconv.FormatUint(1<<bits-1, 10), strconv.FormatUint(1<<(bits-1), 10), strconv.FormatUint(1<<(bits-1)-1, 10)))
		}
		return lit(strconv.FormatUint(r.Uint64()>>(64-r.between(1, bits)), 10))
	}
}

// floats draws finite floating point numbers: edges, short decimal fractions, all patterns of bits, and results of
// the server's own arithmetic.
func floats(bits int) gen {
	edges := []string{"0", "-0", "1", "-1", "0.1", "0.3", "1e-5", "123456.75", "16777216", "16777217", "1e15", "1e16", "1e17", "-1e20", "1e21", "1e22"}
	if bits == 32 {
		edges = append(edges, "3.4028235e38", "-3.4028235e38", "1.17549435e-38", "1e-45", "-1e-45", "1.4e-45", "8388608.5", "0.33333334")
	} else {
		edges = append(edges, "1.7976931348623157e308", "-1.7976931348623157e308", "2.2250738585072014e-308", "2.2250738585072011e-308", "5e-324", "-5e-324",
			"9007199254740993", "9007199254740992", "1e23", "8.41e21", "5.0e-324", "0.1234567890123456789", "3.4028235677973366e38")
	}
	return texts(edges,
		func(r rnd) value { return lit(floatBits(r, bits)) },
		func(r rnd) value { return lit(floatBits(r, bits)) },
		func(r rnd) value {
			return lit(fmt.Sprintf("%d.%0*d", r.between(-1000, 1000), r.between(1, 8), r.IntN(100)))
		},
		func(r rnd) value {
			return expr(fmt.Sprintf("%d::float8 / %d", r.between(-100, 100), r.between(1, 100)))
		},
		func(r rnd) value { return expr(fmt.Sprintf("sqrt(%d) * 1e%d", r.IntN(1000), r.between(-20, 20))) },
	)
}

func floatBits(r rnd, bits int) string {
	for {
		f := math.Float64frombits(r.Uint64())
		if bits == 32 {
			f = float64(math.Float32frombits(r.Uint32()))
		}
		if !math.IsNaN(f) && !math.IsInf(f, 0) {
			return strconv.FormatFloat(f, 'g', -1, bits)
		}
	}
}

func nan(rnd) value { return lit("NaN") }

// digits draws n decimal digits, with runs of one digit more often than by chance.
func digits(r rnd, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('0' + r.IntN(10))
		if i > 0 && r.in(30) {
			b[i] = b[i-1]
		}
	}
	if n > 0 && r.in(10) {
		return strings.Repeat(pick(r, "0", "9"), n)
	}
	return string(b)
}

// decimals draws numbers of numeric(precision, scale); some have more digits than the scale, which the server rounds.
func decimals(precision, scale int) gen {
	return func(r rnd) value {
		whole, fraction, head := r.IntN(precision-scale+1), r.IntN(scale+1), ""
		switch r.IntN(8) {
		case 0:
			return lit(pick(r, "0", "-0", "0.00", "-0.0"))
		case 1:
			whole, fraction = precision-scale, scale
		case 2:
			head = pick(r, "0", "4") // Rounding carries nothing over.
			fraction = scale + r.IntN(5)
		case 3:
			if scale < precision {
				return lit(pick(r, "1", "-1", "7e0", "1.0", "1.000000"))
			}
		}
		if whole+fraction == 0 {
			return lit("0")
		}
		text := pick(r, "", "", "-") + digits(r, whole)
		if fraction > 0 {
			text += "." + head + digits(r, fraction-len(head))
		}
		return lit(text)
	}
}

// smallFraction draws numbers of numeric(3,5).
func smallFraction(r rnd) value {
	return lit(pick(r, "", "-") + "0.00" + digits(r, r.between(1, 3)))
}

// numerics draws numbers without precision that fit DECIMAL(38,10) mostly.
func numerics(r rnd) value {
	switch r.IntN(5) {
	case 0:
		return lit(pick(r, "0", "-0", "0.0", "1.10", "1.1", "1.100", "10", "10.0", "1e10", "1e-10", "-1", "100", "1000000"))
	case 1:
		return expr(fmt.Sprintf("%d::numeric / %d", r.between(-100, 100), r.between(1, 100)))
	}
	return decimals(38, 10)(r)
}

func wildNumerics(r rnd) value {
	switch r.IntN(40) {
	case 0:
		return lit(pick(r, "1e131071", "-1e131071", "1e-16383", "9e100", "1e1000"))
	case 1, 2, 3:
		return lit("NaN")
	case 4, 5, 6:
		if r.major >= 14 {
			return lit(pick(r, "Infinity", "-Infinity"))
		}
	}
	return decimals(r.between(1, 200), r.between(0, 1))(r)
}

func moneys(r rnd) value {
	if r.in(30) {
		return lit(pick(r, "0", "-0.01", "0.01", "92233720368547758.07", "-92233720368547758.08", "999.99", "1000", "1000000"))
	}
	return lit(fmt.Sprintf("%d.%02d", r.Int64N(1<<r.between(1, 56))-1<<r.between(0, 55), r.IntN(100)))
}
