package cdc

import "encoding/binary"

// wireDepth is more than the nesting of a schema, which is a map, a list of columns, a
// column and what is in it, or of a frame's header.
const wireDepth = 8

// skipValue returns what follows the first MessagePack value of data. ok is false if it is
// cut short, or deeper than that. The decoder believes the lengths that it reads, and would
// take gigabytes for a few bytes that are corrupt.
//
// https://github.com/msgpack/msgpack/blob/master/spec.md#formats
func skipValue(data []byte, depth int) (rest []byte, ok bool) {
	if len(data) == 0 || depth == 0 {
		return nil, false
	}
	head, rest := data[0], data[1:]
	switch {
	case head <= 0x7f || head >= 0xe0: // a small integer
		return rest, true
	case head <= 0x8f:
		return skipValues(rest, 2*uint64(head&0x0f), depth-1)
	case head <= 0x9f:
		return skipValues(rest, uint64(head&0x0f), depth-1)
	case head <= 0xbf:
		return skipBytes(rest, uint64(head&0x1f))
	}
	f := formats[head-0xc0]
	if len(rest) < f.length {
		return nil, false
	}
	n := lengthOf(rest[:f.length])
	if rest = rest[f.length:]; f.values > 0 {
		return skipValues(rest, n*f.values, depth-1)
	}
	return skipBytes(rest, n+f.more)
}

// format is what follows a head: a length of that many bytes, and then as many values, or
// bytes and some more.
type format struct {
	length       int
	values, more uint64
}

// formats are those of the heads from 0xc0 to 0xdf.
var formats = [32]format{
	{}, {}, {}, {}, // nil, one that is never used, false, true
	{length: 1}, {length: 2}, {length: 4}, // bin
	{length: 1, more: 1}, {length: 2, more: 1}, {length: 4, more: 1}, // ext, with a type
	{more: 4}, {more: 8}, // float
	{more: 1}, {more: 2}, {more: 4}, {more: 8}, {more: 1}, {more: 2}, {more: 4}, {more: 8}, // uint, int
	{more: 2}, {more: 3}, {more: 5}, {more: 9}, {more: 17}, // ext of a fixed size, with a type
	{length: 1}, {length: 2}, {length: 4}, // str
	{length: 2, values: 1}, {length: 4, values: 1}, // array
	{length: 2, values: 2}, {length: 4, values: 2}, // map
}

func lengthOf(b []byte) uint64 {
	switch len(b) {
	case 0:
		return 0
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	default:
		return uint64(binary.BigEndian.Uint32(b))
	}
}

func skipBytes(data []byte, n uint64) (rest []byte, ok bool) {
	if n > uint64(len(data)) {
		return nil, false
	}
	return data[n:], true
}

func skipValues(data []byte, n uint64, depth int) (rest []byte, ok bool) {
	if n > uint64(len(data)) { // Each takes a byte at least.
		return nil, false
	}
	for range n {
		if data, ok = skipValue(data, depth); !ok {
			return nil, false
		}
	}
	return data, true
}
