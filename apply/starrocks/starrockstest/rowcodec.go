package starrockstest

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
)

// A stored row is a run of cells: uvarint(column id << 2 | form), then the payload. A column that is missing reads
// as the default it was added with, which is how fast schema evolution needs no rewrite.
const (
	formNull = iota + 1
	formInt
	formText
)

func appendCell(buf []byte, id uint64, v value) []byte {
	switch v.kind {
	case kindNull:
		return binary.AppendUvarint(buf, id<<2|formNull)
	case kindBool, kindInt, kindFloat, kindDate, kindDatetime:
		buf = binary.AppendUvarint(buf, id<<2|formInt)
		return binary.AppendVarint(buf, v.num)
	default:
		buf = binary.AppendUvarint(buf, id<<2|formText)
		buf = binary.AppendUvarint(buf, uint64(len(v.text)))
		return append(buf, v.text...)
	}
}

// encodeRow appends the cells of the columns in use; vals is parallel to s.columns.
func (s *schema) encodeRow(buf []byte, vals []value) []byte {
	for i, c := range s.columns {
		buf = appendCell(buf, c.id, vals[i])
	}
	return buf
}

// decodeRow fills vals, parallel to s.columns, from a stored row.
func (s *schema) decodeRow(row string, vals []value) error {
	for i, c := range s.columns {
		vals[i] = c.initial
	}
	return s.overlayRow(row, vals)
}

// overlayRow puts the cells of a stored row over vals and leaves the others alone.
func (s *schema) overlayRow(row string, vals []value) error {
	for len(row) > 0 {
		tag, n := uvarint(row)
		if n <= 0 {
			return fmt.Errorf("decode row: bad cell tag")
		}
		row = row[n:]
		v, used, err := decodeCell(row, tag&3)
		if err != nil {
			return err
		}
		row = row[used:]
		if i, ok := s.byID[tag>>2]; ok {
			if v.kind != kindNull {
				v.kind = s.columns[i].typ.valueKind()
			}
			vals[i] = v
		}
	}
	return nil
}

func decodeCell(row string, form uint64) (v value, used int, err error) {
	switch form {
	case formNull:
		return null, 0, nil
	case formInt:
		u, n := uvarint(row)
		if n <= 0 {
			return null, 0, fmt.Errorf("decode row: bad integer cell")
		}
		return value{kind: kindInt, num: int64(u>>1) ^ -int64(u&1)}, n, nil
	default:
		size, n := uvarint(row)
		if n <= 0 || uint64(len(row)-n) < size {
			return null, 0, fmt.Errorf("decode row: bad text cell")
		}
		return value{kind: kindString, text: row[n : n+int(size)]}, n + int(size), nil
	}
}

// uvarint is binary.Uvarint over a string, which saves a copy.
func uvarint(s string) (x uint64, n int) {
	var shift uint
	for i := 0; i < len(s) && i < binary.MaxVarintLen64; i++ {
		b := s[i]
		x |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return x, i + 1
		}
		shift += 7
	}
	return 0, 0
}

// appendKey encodes the key columns so that byte order is key order and the length is what StarRocks limits:
// fixed sizes, and text with two more bytes and one per NUL byte unless it comes last.
func (s *schema) appendKey(buf []byte, vals []value) []byte {
	for n, i := range s.key {
		v := vals[i]
		last := n == len(s.key)-1
		switch s.columns[i].typ.kind {
		case typeBoolean:
			buf = append(buf, byte(v.num))
		case typeTinyint:
			buf = append(buf, byte(v.num)^0x80)
		case typeSmallint:
			buf = binary.BigEndian.AppendUint16(buf, uint16(v.num)^0x8000)
		case typeInt, typeDate:
			buf = binary.BigEndian.AppendUint32(buf, uint32(v.num)^0x80000000)
		case typeBigint, typeDatetime:
			buf = binary.BigEndian.AppendUint64(buf, uint64(v.num)^(1<<63))
		case typeLargeint:
			buf = appendLargeintKey(buf, v.text)
		default:
			buf = appendTextKey(buf, v.text, last)
		}
	}
	return buf
}

func appendTextKey(buf []byte, text string, last bool) []byte {
	if last {
		return append(buf, text...)
	}
	if strings.IndexByte(text, 0) < 0 {
		buf = append(buf, text...)
		return append(buf, 0, 0)
	}
	for i := range len(text) {
		buf = append(buf, text[i])
		if text[i] == 0 {
			buf = append(buf, 1)
		}
	}
	return append(buf, 0, 0)
}

func appendLargeintKey(buf []byte, text string) []byte {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok {
		n = new(big.Int)
	}
	// Shifting the range to start at zero keeps byte order and numeric order the same.
	n.Sub(n, largeintMin)
	var b [16]byte
	n.FillBytes(b[:])
	return append(buf, b[:]...)
}
