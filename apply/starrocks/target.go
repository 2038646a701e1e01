package starrocks

import (
	"fmt"
	"strconv"
	"strings"
)

// targetKind is a StarRocks column type without its parameters.
type targetKind uint8

// The types of columns that rows can be written to.
const (
	targetOther targetKind = iota
	targetBoolean
	targetTinyInt
	targetSmallInt
	targetInt
	targetBigInt
	targetLargeInt
	targetFloat
	targetDouble
	targetDecimal
	targetVarchar
	targetDate
	targetDateTime
	targetJSON
)

// Limits of StarRocks: https://docs.starrocks.io/docs/sql-reference/data-types/
const (
	varcharBytesMax    = 1048576
	jsonBytesMax       = 16 << 20
	decimalDigitsMax   = 38 // 76 since 4.0, not used for tables that are created here
	keyTextBytes       = 65533
	columnNameRunesMax = 1024
)

// target is a StarRocks column type.
type target struct {
	kind             targetKind
	length           int // VARCHAR, in bytes
	precision, scale int // DECIMAL
	text             string
}

func varchar(bytes int) target {
	return target{kind: targetVarchar, length: min(bytes, varcharBytesMax)}
}

func decimal(precision, scale int) target {
	return target{kind: targetDecimal, precision: precision, scale: scale}
}

func simple(kind targetKind) target { return target{kind: kind} }

var kindNames = [...]string{
	targetOther: "", targetBoolean: "BOOLEAN", targetTinyInt: "TINYINT", targetSmallInt: "SMALLINT", targetInt: "INT",
	targetBigInt: "BIGINT", targetLargeInt: "LARGEINT", targetFloat: "FLOAT", targetDouble: "DOUBLE",
	targetDecimal: "DECIMAL", targetVarchar: "VARCHAR", targetDate: "DATE", targetDateTime: "DATETIME", targetJSON: "JSON",
}

// String prints the type as DDL has it.
func (t target) String() string {
	switch t.kind {
	case targetOther:
		return strings.ToUpper(t.text)
	case targetVarchar:
		return fmt.Sprintf("VARCHAR(%d)", t.length)
	case targetDecimal:
		return fmt.Sprintf("DECIMAL(%d,%d)", t.precision, t.scale)
	default:
		return kindNames[t.kind]
	}
}

// keySize returns how many bytes a value takes in the encoded primary key; zero means
// that it depends on the value.
func (t target) keySize() int {
	switch t.kind {
	case targetBoolean, targetTinyInt:
		return 1
	case targetSmallInt:
		return 2
	case targetInt, targetDate:
		return 4
	case targetBigInt, targetDateTime:
		return 8
	case targetLargeInt:
		return 16
	default:
		return 0
	}
}

// parseTarget reads the type that information_schema.columns.COLUMN_TYPE shows. MySQL's
// names for BOOLEAN and LARGEINT, which StarRocks uses there, are understood.
func parseTarget(text string) target {
	lower := strings.ToLower(strings.TrimSpace(text))
	name, rest, _ := strings.Cut(lower, "(")
	inside, after, _ := strings.Cut(rest, ")")
	t := target{text: text}
	switch strings.TrimSpace(name) {
	case "boolean", "bool":
		t.kind = targetBoolean
	case "tinyint":
		t.kind = targetTinyInt
		if strings.TrimSpace(inside) == "1" {
			t.kind = targetBoolean
		}
	case "smallint":
		t.kind = targetSmallInt
	case "int", "integer":
		t.kind = targetInt
	case "bigint":
		t.kind = targetBigInt
		if strings.Contains(after, "unsigned") {
			t.kind = targetLargeInt
		}
	case "bigint unsigned", "largeint":
		t.kind = targetLargeInt
	case "float":
		t.kind = targetFloat
	case "double":
		t.kind = targetDouble
	case "date":
		t.kind = targetDate
	case "datetime":
		t.kind = targetDateTime
	case "json":
		t.kind = targetJSON
	case "string":
		t.kind, t.length = targetVarchar, keyTextBytes
	case "varchar":
		if n, err := strconv.Atoi(strings.TrimSpace(inside)); err == nil {
			t.kind, t.length = targetVarchar, n
		}
	case "decimal", "decimal32", "decimal64", "decimal128", "decimal256", "decimalv3":
		t.kind, t.precision, t.scale = parseDecimalParameters(inside)
	}
	return t
}

func parseDecimalParameters(inside string) (kind targetKind, precision, scale int) {
	p, s, _ := strings.Cut(inside, ",")
	precision, err := strconv.Atoi(strings.TrimSpace(p))
	if err != nil {
		return targetOther, 0, 0
	}
	if s = strings.TrimSpace(s); s != "" {
		if scale, err = strconv.Atoi(s); err != nil {
			return targetOther, 0, 0
		}
	}
	return targetDecimal, precision, scale
}
