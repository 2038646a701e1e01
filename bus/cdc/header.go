package cdc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/vmihailenco/msgpack/v5"
)

const (
	// FormatVersion is the version of the frame format that this package writes.
	FormatVersion = 2
	// formatOldest is the oldest version that it reads. Version 1 packed nothing.
	formatOldest = 1
)

// checksumSize is a MessagePack uint32: the code and four bytes.
const checksumSize = 5

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt is wrapped by every error about a frame whose bytes cannot be trusted.
var ErrCorrupt = errors.New("corrupt frame")

// Header describes a frame. The frame holds the changes of the interval (Prev, Last]
// and nothing else; the frames of a stream form a chain in which each Prev equals the
// Last before it.
type Header struct {
	Version int `msgpack:"v"`
	// Epoch names the life of the stream that the frame was made for.
	Epoch string `msgpack:"ep"`
	// Prev is the position that the frame follows, Last that of its last change.
	// They are equal if the frame carries only the end of a transaction.
	Prev Position `msgpack:"p"`
	Last Position `msgpack:"l"`
	// End is the end LSN of the last transaction that is complete with this
	// frame. It may be confirmed to PostgreSQL once the frame is applied.
	End LSN `msgpack:"e"`
	// Open tells that the frame ends inside a transaction.
	Open bool `msgpack:"o,omitempty"`
	// Changes counts rows and truncates.
	Changes int `msgpack:"n"`
	// Total counts the changes of this frame and all before it in the epoch. What
	// is queued is the difference of two totals.
	Total uint64 `msgpack:"c"`
	// CommitTime is that of the last transaction, in microseconds since 1970 UTC.
	CommitTime int64 `msgpack:"t"`
	// Packing is how the records, which follow, are packed.
	Packing Packing `msgpack:"z,omitempty"`
	// Schemas are those that the records refer to by index.
	Schemas []SchemaRef `msgpack:"s"`
}

// SchemaRef names a schema that a frame uses. Definition is set in the frame in which
// a capture session uses the schema for the first time.
type SchemaRef struct {
	Fingerprint Fingerprint `msgpack:"f"`
	Definition  []byte      `msgpack:"d,omitempty"`
}

var (
	_ msgpack.CustomEncoder = Position{}
	_ msgpack.CustomDecoder = (*Position)(nil)
)

// EncodeMsgpack writes the position as [commit LSN, ordinal].
func (p Position) EncodeMsgpack(enc *msgpack.Encoder) error {
	if err := enc.EncodeArrayLen(2); err != nil {
		return err
	}
	if err := enc.EncodeUint(uint64(p.Commit)); err != nil {
		return err
	}
	return enc.EncodeUint(p.Ordinal)
}

// DecodeMsgpack is the inverse of EncodeMsgpack.
func (p *Position) DecodeMsgpack(dec *msgpack.Decoder) error {
	n, err := dec.DecodeArrayLen()
	if err != nil {
		return err
	}
	if n != 2 {
		return fmt.Errorf("position of %d numbers", n)
	}
	commit, err := dec.DecodeUint64()
	if err != nil {
		return err
	}
	ordinal, err := dec.DecodeUint64()
	if err != nil {
		return err
	}
	*p = Position{Commit: LSN(commit), Ordinal: ordinal}
	return nil
}

// Frame is an opened frame: its header, and its records still packed.
type Frame struct {
	Header Header
	body   []byte
}

// Open checks the checksum and version of a frame and decodes its header. The frame
// keeps data, which must not change afterwards.
func Open(data []byte) (Frame, error) {
	if len(data) < checksumSize || data[0] != codeUint32 {
		return Frame{}, fmt.Errorf("%w: %d bytes without a checksum", ErrCorrupt, len(data))
	}
	want := binary.BigEndian.Uint32(data[1:checksumSize])
	if got := crc32.Checksum(data[checksumSize:], castagnoli); got != want {
		return Frame{}, fmt.Errorf("%w: checksum %08x instead of %08x", ErrCorrupt, got, want)
	}
	if _, ok := skipValue(data[checksumSize:], wireDepth); !ok {
		return Frame{}, fmt.Errorf("%w: the header is cut short", ErrCorrupt)
	}
	in := bytes.NewReader(data[checksumSize:])
	dec := msgpack.NewDecoder(in)
	var f Frame
	if err := dec.Decode(&f.Header); err != nil {
		return Frame{}, fmt.Errorf("%w: decode header: %w", ErrCorrupt, err)
	}
	if v := f.Header.Version; v < formatOldest || v > FormatVersion {
		return Frame{}, fmt.Errorf("frame has format version %d, this program reads %d to %d: run the version that wrote it, or a newer one", v, formatOldest, FormatVersion)
	}
	if f.Header.Last.Compare(f.Header.Prev) < 0 {
		return Frame{}, fmt.Errorf("%w: ends at %s before its start %s", ErrCorrupt, f.Header.Last, f.Header.Prev)
	}
	// The decoder buffers nothing: bytes.Reader is an io.ByteScanner.
	offset, err := in.Seek(0, io.SeekCurrent)
	if err != nil {
		return Frame{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	f.body = data[checksumSize+int(offset):]
	return f, nil
}
