package cdc

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/vmihailenco/msgpack/v5"
)

// Type is the logical type of a column: what PostgreSQL's type means to a sink after
// domains are resolved to their base type. What no sink treats specially is TypeOther
// and travels as the text that PostgreSQL prints. The numbers are part of the stream
// format and are never reused.
type Type uint8

// The logical types.
const (
	TypeOther       Type = 0
	TypeBool        Type = 1
	TypeInt2        Type = 2
	TypeInt4        Type = 3
	TypeInt8        Type = 4
	TypeFloat4      Type = 5
	TypeFloat8      Type = 6
	TypeNumeric     Type = 7
	TypeText        Type = 8  // text, varchar, name, citext, xml
	TypeChar        Type = 9  // character(n), blank padded
	TypeBytea       Type = 10 // \x followed by hexadecimal digits
	TypeJSON        Type = 11
	TypeJSONB       Type = 12
	TypeUUID        Type = 13
	TypeDate        Type = 14
	TypeTime        Type = 15
	TypeTimeTZ      Type = 16
	TypeTimestamp   Type = 17
	TypeTimestampTZ Type = 18 // printed in UTC, so it ends in +00
	TypeInterval    Type = 19
	TypeEnum        Type = 20
	TypeOID         Type = 21
	TypeArray       Type = 22 // Column.Elem says of what
)

// Column describes one column of a table at one moment.
type Column struct {
	Name string `msgpack:"n"`
	// Type is the logical type, Elem that of the elements of a TypeArray.
	Type Type `msgpack:"t"`
	Elem Type `msgpack:"e,omitempty"`
	// OID and Mod are pg_attribute.atttypid and atttypmod as the stream sends
	// them. BaseMod is the modifier that counts: for a domain over numeric(10,2)
	// it is that of numeric(10,2); otherwise it equals Mod. -1 means none.
	OID     uint32 `msgpack:"o"`
	Mod     int32  `msgpack:"m"`
	BaseMod int32  `msgpack:"b"`
	// TypeName is what format_type prints, for people: numeric(10,2).
	TypeName string `msgpack:"y"`
	// NotNull tells whether the column was NOT NULL when it was described.
	NotNull bool `msgpack:"x,omitempty"`
	// Identity tells whether the column is sent in old keys (replica identity).
	Identity bool `msgpack:"i,omitempty"`
	// Missing is the value, as it would travel, of rows that are older than the
	// column and were not written for it (pg_attribute.attmissingval): the constant
	// default that it was added with. Nil means that there is none, or that the
	// catalog does not know it any more.
	Missing *string `msgpack:"d,omitempty"`
}

// NumericPrecision returns precision and scale of a TypeNumeric column; ok is false
// for numeric without a modifier. The scale may be negative (PostgreSQL 15 and later).
// The packing is that of make_numeric_typmod in PostgreSQL's numeric.c.
func (c *Column) NumericPrecision() (precision, scale int, ok bool) {
	const header = 4
	if c.BaseMod < header {
		return 0, 0, false
	}
	mod := c.BaseMod - header
	return int(mod>>16) & 0xffff, int((mod&0x7ff)^1024) - 1024, true
}

// Length returns the n of varchar(n) and character(n) in characters; ok is false when
// there is none.
func (c *Column) Length() (n int, ok bool) {
	const header = 4
	if c.BaseMod < header {
		return 0, false
	}
	return int(c.BaseMod - header), true
}

// Schema describes a table at one moment. Schemas are immutable; a change of the table
// makes another schema with another fingerprint.
type Schema struct {
	OID       uint32 `msgpack:"o"`
	Namespace string `msgpack:"s"`
	Table     string `msgpack:"t"`
	// ReplicaIdentity is pg_class.relreplident: d, n, f or i.
	ReplicaIdentity byte     `msgpack:"r"`
	Columns         []Column `msgpack:"c"`
	// Key lists the indexes into Columns of what identifies a row, in the order
	// of the index: the primary key, or the replica identity index. Empty means
	// that rows have no identity.
	Key []int `msgpack:"k"`

	fingerprint Fingerprint
}

// Name returns schema and table as SQL would print them without quotes, for people.
func (s *Schema) Name() string { return s.Namespace + "." + s.Table }

// Fingerprint identifies the content of a schema.
type Fingerprint uint64

// String prints sixteen hexadecimal digits.
func (f Fingerprint) String() string { return fmt.Sprintf("%016x", uint64(f)) }

// ParseFingerprint is the inverse of String.
func ParseFingerprint(text string) (Fingerprint, error) {
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("parse schema fingerprint %q: %w", text, err)
	}
	return Fingerprint(n), nil
}

// Seal computes the fingerprint after the last change of the schema's fields. It
// must be called once before the schema is used by a [Writer].
func (s *Schema) Seal() error {
	data, err := msgpack.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode schema of %s: %w", s.Name(), err)
	}
	sum := sha256.Sum256(data)
	s.fingerprint = Fingerprint(binary.BigEndian.Uint64(sum[:8]))
	return nil
}

// Fingerprint returns what Seal computed, zero before.
func (s *Schema) Fingerprint() Fingerprint { return s.fingerprint }

// MarshalSchema encodes a schema for a frame header or the schema bucket.
func MarshalSchema(s *Schema) ([]byte, error) {
	data, err := msgpack.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode schema of %s: %w", s.Name(), err)
	}
	return data, nil
}

// UnmarshalSchema decodes and seals a schema, and checks that its key and columns
// are consistent.
func UnmarshalSchema(data []byte) (*Schema, error) {
	s := new(Schema)
	if rest, ok := skipValue(data, wireDepth); !ok || len(rest) > 0 {
		return nil, fmt.Errorf("decode schema: %w", ErrCorrupt)
	}
	if err := msgpack.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("decode schema: %w", err)
	}
	for _, k := range s.Key {
		if k < 0 || k >= len(s.Columns) {
			return nil, fmt.Errorf("decode schema of %s: key column %d of %d", s.Name(), k, len(s.Columns))
		}
	}
	return s, s.Seal()
}
