package cdc

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/s2"
)

// Packing names how the records of a frame are packed.
type Packing string

// The packings that there are. PackedSnappy is one block of the Snappy block format,
// https://github.com/google/snappy/blob/main/format_description.txt.
const (
	NotPacked    Packing = ""
	PackedSnappy Packing = "snappy"
)

const (
	// packLeast is the size from which records are packed: a change or two gain nothing.
	packLeast = 256
	// expansion is more than a Snappy block can expand: no element of it makes more than
	// 64 bytes, and none that makes more than 11 takes less than 3.
	expansion = 32
)

var errTooLong = errors.New("it claims to be longer than it can be")

// pack writes records into the room behind out's first headroom bytes, packed if that
// saves an eighth at least. It returns out up to their end, grown if need be.
func pack(out, records []byte) ([]byte, Packing) {
	most := s2.MaxEncodedLen(len(records)) // Negative beyond 4 GiB.
	if need := headroom + max(most, len(records)); cap(out) < need {
		out = make([]byte, need)
	}
	if len(records) >= packLeast && most > 0 {
		packed := s2.EncodeSnappy(out[headroom:cap(out)], records)
		if len(packed) <= len(records)/8*7 {
			return out[:headroom+len(packed)], PackedSnappy
		}
	}
	return append(out[:headroom], records...), NotPacked
}

// unpack is the inverse of pack. What comes out of a packed body is new memory.
func unpack(body []byte, how Packing) ([]byte, error) {
	switch how {
	case NotPacked:
		return body, nil
	case PackedSnappy:
	default:
		return nil, fmt.Errorf("records are packed as %q, which this program does not know: run the version that wrote them, or a newer one", how)
	}
	n, err := s2.DecodedLen(body)
	if err == nil && n > expansion*len(body) {
		err = errTooLong
	}
	var records []byte
	if err == nil {
		records, err = s2.Decode(make([]byte, n), body)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: unpack records: %w", ErrCorrupt, err)
	}
	return records, nil
}
