package starrockstest

import (
	"fmt"
	"strconv"
)

// typeKind is a StarRocks column type without its parameters.
type typeKind uint8

const (
	typeBoolean typeKind = iota + 1
	typeTinyint
	typeSmallint
	typeInt
	typeBigint
	typeLargeint
	typeFloat
	typeDouble
	typeDecimal
	typeChar
	typeVarchar
	typeDate
	typeDatetime
	typeJSON
	typeVarbinary
	typeArray
)

const (
	varcharMaxBytes   = 1048576
	stringTypeBytes   = 65533
	varbinaryMaxBytes = 1048576
	jsonMaxBytes      = 16 << 20
	charMaxBytes      = 255
)

var typeNames = map[typeKind]string{
	typeBoolean: "BOOLEAN", typeTinyint: "TINYINT", typeSmallint: "SMALLINT", typeInt: "INT", typeBigint: "BIGINT",
	typeLargeint: "LARGEINT", typeFloat: "FLOAT", typeDouble: "DOUBLE", typeDecimal: "DECIMAL", typeChar: "CHAR",
	typeVarchar: "VARCHAR", typeDate: "DATE", typeDatetime: "DATETIME", typeJSON: "JSON", typeVarbinary: "VARBINARY",
	typeArray: "ARRAY",
}

// colType is a column type. length is in bytes; elem is set for arrays only.
type colType struct {
	kind             typeKind
	length           int
	precision, scale int
	elem             *colType
}

func (t colType) equal(o colType) bool {
	if t.kind != o.kind || t.length != o.length || t.precision != o.precision || t.scale != o.scale {
		return false
	}
	if t.elem == nil || o.elem == nil {
		return t.elem == o.elem
	}
	return t.elem.equal(*o.elem)
}

// String renders the type as SHOW CREATE TABLE and error messages do, in upper case.
func (t colType) String() string {
	switch t.kind {
	case typeChar, typeVarchar:
		return fmt.Sprintf("%s(%d)", typeNames[t.kind], t.length)
	case typeVarbinary:
		if t.length > 0 && t.length < varbinaryMaxBytes {
			return fmt.Sprintf("VARBINARY(%d)", t.length)
		}
		return "VARBINARY"
	case typeDecimal:
		return fmt.Sprintf("%s(%d,%d)", t.decimalName(), t.precision, t.scale)
	case typeArray:
		return "ARRAY<" + t.elem.String() + ">"
	default:
		return typeNames[t.kind]
	}
}

// primitive is the type's name without parameters, with decimals told apart by width.
func (t colType) primitive() string {
	if t.kind == typeDecimal {
		return t.decimalName()
	}
	return typeNames[t.kind]
}

func (t colType) decimalName() string {
	switch {
	case t.precision <= 9:
		return "DECIMAL32"
	case t.precision <= 18:
		return "DECIMAL64"
	case t.precision <= 38:
		return "DECIMAL128"
	default:
		return "DECIMAL256"
	}
}

// sqlName renders the type as DESC and information_schema do, in lower case.
func (t colType) sqlName() string {
	switch t.kind {
	case typeBoolean:
		return "boolean"
	case typeTinyint:
		return "tinyint(4)"
	case typeSmallint:
		return "smallint(6)"
	case typeInt:
		return "int(11)"
	case typeBigint:
		return "bigint(20)"
	case typeLargeint:
		return "largeint(40)"
	case typeDecimal:
		return "decimal(" + strconv.Itoa(t.precision) + ", " + strconv.Itoa(t.scale) + ")"
	case typeChar:
		return "char(" + strconv.Itoa(t.length) + ")"
	case typeVarchar:
		return "varchar(" + strconv.Itoa(t.length) + ")"
	case typeVarbinary:
		if t.length > 0 && t.length < varbinaryMaxBytes {
			return "varbinary(" + strconv.Itoa(t.length) + ")"
		}
		return "varbinary"
	case typeArray:
		return "array<" + t.elem.sqlName() + ">"
	default:
		return map[typeKind]string{
			typeFloat: "float", typeDouble: "double", typeDate: "date", typeDatetime: "datetime", typeJSON: "json",
		}[t.kind]
	}
}

// dataType is information_schema.columns.DATA_TYPE.
func (t colType) dataType() string {
	switch t.kind {
	case typeBoolean:
		return "tinyint"
	case typeLargeint:
		return "bigint unsigned"
	case typeTinyint:
		return "tinyint"
	case typeSmallint:
		return "smallint"
	case typeInt:
		return "int"
	case typeBigint:
		return "bigint"
	case typeDecimal:
		return "decimal"
	case typeChar:
		return "char"
	case typeVarchar:
		return "varchar"
	case typeVarbinary:
		return "varbinary"
	case typeArray:
		return "array"
	default:
		return t.sqlName()
	}
}

// canBeKey follows KeysDesc: only these types may form a primary key.
func (t colType) canBeKey() bool {
	switch t.kind {
	case typeBoolean, typeTinyint, typeSmallint, typeInt, typeBigint, typeLargeint, typeVarchar, typeDate, typeDatetime:
		return true
	default:
		return false
	}
}

// canBeDuplicateKey follows the wider rule of DUPLICATE KEY sort columns.
func (t colType) canBeDuplicateKey() bool {
	return t.canBeKey() || t.kind == typeDecimal || t.kind == typeChar
}

func (t colType) intBits() int {
	switch t.kind {
	case typeTinyint:
		return 8
	case typeSmallint:
		return 16
	case typeInt:
		return 32
	case typeBigint:
		return 64
	default:
		return 0
	}
}

func (t colType) valueKind() valueKind {
	switch t.kind {
	case typeBoolean:
		return kindBool
	case typeTinyint, typeSmallint, typeInt, typeBigint:
		return kindInt
	case typeFloat, typeDouble:
		return kindFloat
	case typeLargeint, typeDecimal:
		return kindDecimal
	case typeDate:
		return kindDate
	case typeDatetime:
		return kindDatetime
	case typeVarbinary:
		return kindBytes
	case typeJSON:
		return kindJSON
	case typeArray:
		return kindArray
	default:
		return kindString
	}
}
