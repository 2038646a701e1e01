package starrocks

import (
	"fmt"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// encoding says how the text that PostgreSQL printed becomes a JSON value.
type encoding uint8

const (
	encodeText       encoding = iota + 1 // a JSON string, as it is
	encodeBool                           // true or false
	encodeInt                            // a JSON number
	encodeLargeInt                       // an integer as a JSON string
	encodeFloat                          // a JSON number that is exact as a FLOAT
	encodeDouble                         // a JSON number
	encodeDecimal                        // a number as a JSON string, never rounded
	encodeJSON                           // the JSON value itself
	encodeDate                           // YYYY-MM-DD
	encodeDateTime                       // YYYY-MM-DD HH:MM:SS[.ffffff]
	encodeUTC                            // the same, from a text that ends in +00
	encodeNumericKey                     // canonical text: 1.50 and 1.5 are one key
	encodeCharKey                        // text without trailing blanks
)

// mapping is the row of the type table for one logical type of PostgreSQL.
type mapping struct {
	source cdc.Type
	// names are PostgreSQL's, for docs/types.md.
	names string
	// value and key return the type of columns that dbmazz creates.
	value, key func(c *cdc.Column) target
	// accepts lists the types of existing columns that are written to besides
	// VARCHAR, which takes any value as the text that PostgreSQL prints.
	accepts []accepted
	// keyText is how a VARCHAR key column is written; encodeText if zero.
	keyText encoding
	// valueDoc and keyDoc describe value and key where they depend on the column.
	valueDoc, keyDoc string
	// note says what is refused or otherwise worth knowing, for docs/types.md.
	note string
}

type accepted struct {
	kind targetKind
	how  encoding
}

func always(t target) func(*cdc.Column) target { return func(*cdc.Column) target { return t } }

var (
	longText = always(varchar(varcharBytesMax))
	keyText  = always(varchar(keyTextBytes))
)

// mappings is the one table of types. docs/types.md is made from it.
var mappings = []mapping{
	{
		source: cdc.TypeBool, names: "boolean",
		value: always(simple(targetBoolean)), key: always(simple(targetBoolean)),
		accepts: []accepted{{targetBoolean, encodeBool}},
	},
	{
		source: cdc.TypeInt2, names: "smallint",
		value: always(simple(targetSmallInt)), key: always(simple(targetSmallInt)),
		accepts: []accepted{
			{targetSmallInt, encodeInt},
			{targetInt, encodeInt},
			{targetBigInt, encodeInt},
			{targetLargeInt, encodeLargeInt},
			{targetDecimal, encodeDecimal},
		},
	},
	{
		source: cdc.TypeInt4, names: "integer",
		value: always(simple(targetInt)), key: always(simple(targetInt)),
		accepts: []accepted{
			{targetInt, encodeInt},
			{targetBigInt, encodeInt},
			{targetLargeInt, encodeLargeInt},
			{targetDecimal, encodeDecimal},
		},
	},
	{
		source: cdc.TypeInt8, names: "bigint",
		value: always(simple(targetBigInt)), key: always(simple(targetBigInt)),
		accepts: []accepted{{targetBigInt, encodeInt}, {targetLargeInt, encodeLargeInt}, {targetDecimal, encodeDecimal}},
	},
	{
		source: cdc.TypeOID, names: "oid",
		value: always(simple(targetBigInt)), key: always(simple(targetBigInt)),
		accepts: []accepted{{targetBigInt, encodeInt}, {targetLargeInt, encodeLargeInt}, {targetDecimal, encodeDecimal}},
	},
	{
		source: cdc.TypeFloat4, names: "real",
		value: always(simple(targetFloat)), key: keyText,
		accepts: []accepted{{targetFloat, encodeFloat}, {targetDouble, encodeDouble}},
		note:    "NaN and Infinity are refused, except in a VARCHAR column.",
	},
	{
		source: cdc.TypeFloat8, names: "double precision",
		value: always(simple(targetDouble)), key: keyText,
		accepts: []accepted{{targetDouble, encodeDouble}},
		note:    "NaN and Infinity are refused, except in a VARCHAR column.",
	},
	{
		source: cdc.TypeNumeric, names: "numeric, decimal",
		value: numericValue, key: numericKey, keyText: encodeNumericKey,
		valueDoc: "DECIMAL(p,s) up to 38 digits, a negative scale as DECIMAL(p-s,0), a scale above p as DECIMAL(s,s); " +
			"wider or without precision VARCHAR(1048576)",
		keyDoc:  "VARCHAR, without trailing zeros of the fraction",
		accepts: []accepted{{targetDecimal, encodeDecimal}, {targetBigInt, encodeInt}, {targetLargeInt, encodeLargeInt}},
		note: "Never rounded: a value with more digits than the column has is refused, and so is one that prints with a " +
			"fraction in an integer column, 1.00 too. NaN and Infinity are refused, except in a VARCHAR column.",
	},
	{
		source: cdc.TypeText, names: "text, varchar, name, citext, xml",
		value: textValue, key: textKey,
		valueDoc: "VARCHAR(4n) for varchar(n), at most and otherwise VARCHAR(1048576)",
		keyDoc:   "VARCHAR(4n) for varchar(n), at most and otherwise VARCHAR(65533)",
		note: "Lengths are bytes in StarRocks; a longer value is refused. Keys that a case-insensitive type or " +
			"collation calls equal stay apart by their bytes, as the changes of PostgreSQL name them.",
	},
	{
		source: cdc.TypeChar, names: "character(n)",
		value: textValue, key: textKey, keyText: encodeCharKey,
		valueDoc: "VARCHAR(4n)", keyDoc: "VARCHAR(4n), without trailing blanks",
		note: "A value keeps the blanks that PostgreSQL pads it with.",
	},
	{
		source: cdc.TypeBytea, names: "bytea", value: longText, key: keyText,
		note: `Hexadecimal text, \x first, so up to 524287 bytes. An existing VARBINARY column is refused: Stream Load ` +
			"stores the text's own bytes there.",
	},
	{
		source: cdc.TypeJSON, names: "json", value: always(simple(targetJSON)), key: keyText,
		accepts: []accepted{{targetJSON, encodeJSON}},
		note:    "As jsonb; an object that has a key twice is refused too, because StarRocks would keep one of them.",
	},
	{
		source: cdc.TypeJSONB, names: "jsonb", value: always(simple(targetJSON)), key: keyText,
		accepts: []accepted{{targetJSON, encodeJSON}},
		note: "Refused, except in a VARCHAR column: the JSON value null, which StarRocks would turn into SQL NULL; an integer " +
			"beyond 64 bits, as which jsonb prints 1e20 too; any other number that a double does not hold exactly; more than " +
			"16 MiB; nesting deeper than 500.",
	},
	{source: cdc.TypeUUID, names: "uuid", value: always(varchar(36)), key: always(varchar(36))},
	{
		source: cdc.TypeDate, names: "date",
		value: always(simple(targetDate)), key: always(simple(targetDate)),
		accepts: []accepted{{targetDate, encodeDate}, {targetDateTime, encodeDate}},
		note:    "Infinity, years BC and years above 9999 are refused, except in a VARCHAR column.",
	},
	{
		source: cdc.TypeTimestamp, names: "timestamp without time zone",
		value: always(simple(targetDateTime)), key: always(simple(targetDateTime)),
		accepts: []accepted{{targetDateTime, encodeDateTime}},
		note:    "As date.",
	},
	{
		source: cdc.TypeTimestampTZ, names: "timestamp with time zone",
		value: always(simple(targetDateTime)), key: always(simple(targetDateTime)),
		accepts: []accepted{{targetDateTime, encodeUTC}},
		note:    "In UTC. As date.",
	},
	{source: cdc.TypeTime, names: "time without time zone", value: always(varchar(32)), key: always(varchar(32))},
	{source: cdc.TypeTimeTZ, names: "time with time zone", value: always(varchar(32)), key: always(varchar(32))},
	{source: cdc.TypeInterval, names: "interval", value: always(varchar(128)), key: always(varchar(128))},
	{source: cdc.TypeEnum, names: "enumerations", value: always(varchar(255)), key: always(varchar(255))},
	{
		source: cdc.TypeArray, names: "arrays", value: longText, key: keyText,
		note: "The text that PostgreSQL prints, such as {1,NULL,3}. An existing ARRAY column is refused: StarRocks turns " +
			"elements that it cannot read into NULL, even in strict mode.",
	},
	{
		source: cdc.TypeOther, names: "any other type", value: longText, key: keyText,
		note: "The text that PostgreSQL prints: money, inet, ranges, composite types, geometry and the rest.",
	},
}

// mappingOf returns the row of a type. A type that this version does not know travels
// as text.
func mappingOf(t cdc.Type) *mapping {
	other := &mappings[len(mappings)-1]
	for i := range mappings {
		if mappings[i].source == t {
			return &mappings[i]
		}
	}
	return other
}

func numericValue(c *cdc.Column) target {
	precision, scale, ok := c.NumericPrecision()
	if !ok {
		return varchar(varcharBytesMax)
	}
	if scale < 0 {
		precision, scale = precision-scale, 0
	}
	precision = max(precision, scale)
	if precision > decimalDigitsMax {
		return varchar(varcharBytesMax)
	}
	return decimal(precision, scale)
}

func numericKey(c *cdc.Column) target {
	precision, scale, ok := c.NumericPrecision()
	if !ok {
		return varchar(keyTextBytes)
	}
	// The digits, a sign, a point, a zero before it; NaN has three letters.
	return varchar(max(precision, precision-scale, scale) + 3)
}

func textValue(c *cdc.Column) target { return textOf(c, varcharBytesMax) }

func textKey(c *cdc.Column) target { return textOf(c, keyTextBytes) }

// textOf allows for four bytes a character, which is UTF-8's most.
func textOf(c *cdc.Column, otherwise int) target {
	const utf8BytesMax = 4
	if n, ok := c.Length(); ok && n <= otherwise/utf8BytesMax {
		return varchar(n * utf8BytesMax)
	}
	return varchar(otherwise)
}

// createTarget returns the type of the column that dbmazz creates.
func createTarget(c *cdc.Column, key bool) target {
	m := mappingOf(c.Type)
	if key {
		return m.key(c)
	}
	return m.value(c)
}

// chooseEncoding tells how values of c are written to an existing column, or why not.
func chooseEncoding(c *cdc.Column, key bool, t target) (encoding, error) {
	m := mappingOf(c.Type)
	if t.kind == targetVarchar {
		if key && m.keyText != 0 {
			return m.keyText, nil
		}
		return encodeText, nil
	}
	for _, a := range m.accepts {
		if key && a.how == encodeDate && t.kind == targetDateTime {
			break // A query would show the key with a time.
		}
		if a.kind == t.kind && (!key || t.keySize() > 0) {
			return a.how, decimalFits(c, t)
		}
	}
	return 0, fmt.Errorf("%s cannot be stored exactly in %s", c.TypeName, t)
}

// decimalFits refuses a DECIMAL that is too narrow for the column's declared precision.
// Where none is declared every value is checked when it is written.
func decimalFits(c *cdc.Column, t target) error {
	if t.kind != targetDecimal {
		return nil
	}
	var digits, scale int
	switch c.Type {
	case cdc.TypeInt2:
		digits = 5
	case cdc.TypeInt4, cdc.TypeOID:
		digits = 10
	case cdc.TypeInt8:
		digits = 19
	default:
		precision, declared, ok := c.NumericPrecision()
		if !ok {
			return nil
		}
		digits, scale = precision-declared, max(declared, 0)
	}
	if t.scale < scale || t.precision-t.scale < digits {
		return fmt.Errorf("%s has values that do not fit %s", c.TypeName, t)
	}
	return nil
}
