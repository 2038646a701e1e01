package cdc

import (
	"encoding/binary"
	"errors"
)

// The MessagePack codes that records are made of.
// https://github.com/msgpack/msgpack/blob/master/spec.md
const (
	codeFixArray = 0x90
	codeFixStr   = 0xa0
	codeNil      = 0xc0
	codeFalse    = 0xc2
	codeUint8    = 0xcc
	codeUint16   = 0xcd
	codeUint32   = 0xce
	codeUint64   = 0xcf
	codeInt64    = 0xd3
	codeStr8     = 0xd9
	codeStr16    = 0xda
	codeStr32    = 0xdb
	codeArray16  = 0xdc
	codeArray32  = 0xdd
)

// errMalformed is what the wire readers answer to bytes that are not what the format
// says; Reader adds where.
var errMalformed = errors.New("malformed bytes")

func appendUint(b []byte, n uint64) []byte {
	switch {
	case n < 128:
		return append(b, byte(n))
	case n < 1<<8:
		return append(b, codeUint8, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, codeUint16), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, codeUint32), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, codeUint64), n)
}

func appendInt(b []byte, n int64) []byte {
	if n >= 0 {
		return appendUint(b, uint64(n))
	}
	return binary.BigEndian.AppendUint64(append(b, codeInt64), uint64(n)) //nolint:gosec // Two's complement is the format.
}

func appendArrayHeader(b []byte, n int) []byte {
	switch {
	case n < 16:
		return append(b, codeFixArray|byte(n))
	case n < 1<<16:
		return append(b, codeArray16, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, codeArray32), uint32(n)) //nolint:gosec // Columns of a table.
}

func appendStrHeader(b []byte, n int) []byte {
	switch {
	case n < 32:
		return append(b, codeFixStr|byte(n))
	case n < 1<<8:
		return append(b, codeStr8, byte(n))
	case n < 1<<16:
		return append(b, codeStr16, byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, codeStr32), uint32(n)) //nolint:gosec // PostgreSQL's values are below 1 GiB.
}

// wire reads MessagePack from the front of a byte slice. After an error every further
// read answers zero values and keeps the error.
type wire struct {
	rest []byte
	err  error
}

func (w *wire) fail() { w.err, w.rest = errMalformed, nil }

func (w *wire) take(n int) []byte {
	if n < 0 || len(w.rest) < n {
		w.fail()
		return nil
	}
	head := w.rest[:n:n]
	w.rest = w.rest[n:]
	return head
}

func (w *wire) byte() byte {
	if len(w.rest) == 0 {
		w.fail()
		return 0
	}
	c := w.rest[0]
	w.rest = w.rest[1:]
	return c
}

// big reads n bytes as a big-endian number.
func (w *wire) big(n int) uint64 {
	var v uint64
	for _, c := range w.take(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (w *wire) uint() uint64 {
	switch c := w.byte(); {
	case c < 128:
		return uint64(c)
	case c == codeUint8:
		return w.big(1)
	case c == codeUint16:
		return w.big(2)
	case c == codeUint32:
		return w.big(4)
	case c == codeUint64:
		return w.big(8)
	}
	w.fail()
	return 0
}

func (w *wire) int() int64 {
	if len(w.rest) > 0 && w.rest[0] == codeInt64 {
		w.rest = w.rest[1:]
		return int64(w.big(8)) //nolint:gosec // Two's complement is the format.
	}
	return int64(w.uint()) //nolint:gosec // Written by appendInt.
}

func (w *wire) array() int {
	switch c := w.byte(); {
	case c&0xf0 == codeFixArray:
		return int(c & 15)
	case c == codeArray16:
		return int(w.big(2))
	case c == codeArray32:
		return int(w.big(4)) //nolint:gosec // At most 32 bits.
	}
	w.fail()
	return 0
}

// isNil consumes a nil if there is one.
func (w *wire) isNil() bool {
	if len(w.rest) > 0 && w.rest[0] == codeNil {
		w.rest = w.rest[1:]
		return true
	}
	return false
}

func (w *wire) str() []byte {
	v, rest, ok := Tuple(w.rest).Next()
	if !ok || v.Kind != Text {
		w.fail()
		return nil
	}
	w.rest = rest
	return v.Bytes
}

// tuple walks one array of column values and returns its bytes without the header.
// want is the number of columns it must have.
func (w *wire) tuple(want int) Tuple {
	if n := w.array(); w.err != nil || n != want {
		w.fail()
		return nil
	}
	start := w.rest
	rest := Tuple(start)
	for range want {
		var ok bool
		if _, rest, ok = rest.Next(); !ok {
			w.fail()
			return nil
		}
	}
	w.rest = rest
	return Tuple(start[: len(start)-len(rest) : len(start)-len(rest)])
}
