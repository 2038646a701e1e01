package starrockstest

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
)

const (
	charsetUTF8   = 33
	charsetBinary = 63
)

// encodeResult builds typed fields and rows itself: the library's helper sends an empty string as NULL and times as
// strings.
func encodeResult(res *result, binaryRows, micros bool) *mysql.Result {
	if res.columns == nil {
		out := mysql.NewResultReserveResultset(0)
		out.AffectedRows = res.affected
		return out
	}
	set := &mysql.Resultset{FieldNames: make(map[string]int)}
	for _, c := range res.columns {
		set.Fields = append(set.Fields, fieldOf(c))
	}
	for _, row := range res.rows {
		if binaryRows {
			set.RowDatas = append(set.RowDatas, binaryRow(res.columns, row, micros))
		} else {
			set.RowDatas = append(set.RowDatas, textRow(res.columns, row, micros))
		}
	}
	return mysql.NewResult(set)
}

func fieldOf(c outColumn) *mysql.Field {
	f := &mysql.Field{Name: []byte(c.name), OrgName: []byte(c.name), Charset: charsetBinary, Type: mysqlType(c.typ)}
	switch c.typ.kind {
	case typeChar, typeVarchar, typeLargeint, typeJSON, typeArray:
		f.Charset = charsetUTF8
		f.ColumnLength = uint32(max(c.typ.length, 255))
	case typeDecimal:
		f.ColumnLength, f.Decimal = uint32(c.typ.precision+2), uint8(c.typ.scale)
	case typeFloat, typeDouble:
		f.ColumnLength, f.Decimal = 24, 31
	default:
		f.ColumnLength = 20
	}
	return f
}

func mysqlType(t colType) uint8 {
	switch t.kind {
	case typeBoolean, typeTinyint:
		return mysql.MYSQL_TYPE_TINY
	case typeSmallint:
		return mysql.MYSQL_TYPE_SHORT
	case typeInt:
		return mysql.MYSQL_TYPE_LONG
	case typeBigint:
		return mysql.MYSQL_TYPE_LONGLONG
	case typeFloat:
		return mysql.MYSQL_TYPE_FLOAT
	case typeDouble:
		return mysql.MYSQL_TYPE_DOUBLE
	case typeDecimal:
		return mysql.MYSQL_TYPE_NEWDECIMAL
	case typeDate:
		return mysql.MYSQL_TYPE_DATE
	case typeDatetime:
		return mysql.MYSQL_TYPE_DATETIME
	case typeChar:
		return mysql.MYSQL_TYPE_STRING
	case typeVarbinary:
		return mysql.MYSQL_TYPE_BLOB
	default:
		return mysql.MYSQL_TYPE_VAR_STRING
	}
}

func textRow(cols []outColumn, row []value, micros bool) mysql.RowData {
	var b []byte
	for i, v := range row {
		if v.isNull() {
			b = append(b, 0xfb)
			continue
		}
		b = append(b, mysql.PutLengthEncodedString([]byte(v.render(cols[i].typ, micros)))...)
	}
	return b
}

func binaryRow(cols []outColumn, row []value, micros bool) mysql.RowData {
	bitmap := (len(cols) + 7 + 2) / 8
	b := make([]byte, 1+bitmap)
	for i, v := range row {
		if v.isNull() {
			b[1+(i+2)/8] |= 1 << ((i + 2) % 8)
			continue
		}
		b = appendBinary(b, cols[i].typ, v, micros)
	}
	return b
}

func appendBinary(b []byte, t colType, v value, micros bool) []byte {
	switch mysqlType(t) {
	case mysql.MYSQL_TYPE_TINY:
		return append(b, byte(v.num))
	case mysql.MYSQL_TYPE_SHORT:
		return binary.LittleEndian.AppendUint16(b, uint16(v.num))
	case mysql.MYSQL_TYPE_LONG:
		return binary.LittleEndian.AppendUint32(b, uint32(v.num))
	case mysql.MYSQL_TYPE_LONGLONG:
		return binary.LittleEndian.AppendUint64(b, uint64(v.num))
	case mysql.MYSQL_TYPE_FLOAT:
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v.float())))
	case mysql.MYSQL_TYPE_DOUBLE:
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(v.float()))
	case mysql.MYSQL_TYPE_DATE:
		return appendBinaryTime(b, v.num*microsPerDay, false)
	case mysql.MYSQL_TYPE_DATETIME:
		return appendBinaryTime(b, v.num, micros)
	default:
		return append(b, mysql.PutLengthEncodedString([]byte(v.render(t, micros)))...)
	}
}

func appendBinaryTime(b []byte, micros int64, fraction bool) []byte {
	sec, frac := floorDiv(micros, microsPerSecond)
	t := time.Unix(sec, 0).UTC()
	size := byte(4)
	switch {
	case frac != 0 && fraction:
		size = 11
	case t.Hour()+t.Minute()+t.Second() > 0:
		size = 7
	}
	b = binary.LittleEndian.AppendUint16(append(b, size), uint16(t.Year()))
	b = append(b, byte(t.Month()), byte(t.Day()))
	if size > 4 {
		b = append(b, byte(t.Hour()), byte(t.Minute()), byte(t.Second()))
	}
	if size > 7 {
		b = binary.LittleEndian.AppendUint32(b, uint32(frac))
	}
	return b
}
