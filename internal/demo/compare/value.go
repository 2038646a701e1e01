package compare

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"time"
)

// kind says how the values of a column are compared.
type kind int

const (
	kindText kind = iota // Byte by byte.
	kindBool
	kindInt
	kindNumeric
	kindFloat4
	kindFloat8
	kindDate
	kindTimestamp
	kindTimestampTZ
	kindJSON
)

var kinds = map[string]kind{
	"bool": kindBool, "int2": kindInt, "int4": kindInt, "int8": kindInt, "numeric": kindNumeric,
	"float4": kindFloat4, "float8": kindFloat8, "date": kindDate, "timestamp": kindTimestamp,
	"timestamptz": kindTimestampTZ, "json": kindJSON, "jsonb": kindJSON,
}

// kindOf names the kind of one of PostgreSQL's types; what is not a base type counts as text.
func kindOf(typeName, typeKind string) kind {
	if typeKind != "b" {
		return kindText
	}
	return kinds[typeName]
}

// equal compares a value of the source, as PostgreSQL prints it, with one of the sink. A nil value is NULL.
// An error means that a value does not look like its kind, which is a difference too.
func equal(k kind, source, sink []byte) (bool, error) {
	if (source == nil) != (sink == nil) {
		return false, nil
	}
	if source == nil {
		return true, nil
	}
	switch k {
	case kindBool:
		return equalBool(source, sink)
	case kindNumeric:
		return equalNumeric(source, sink)
	case kindFloat4:
		return equalFloat(source, sink, 32)
	case kindFloat8:
		return equalFloat(source, sink, 64)
	case kindTimestamp:
		return equalTime(source, sink, "2006-01-02 15:04:05")
	case kindTimestampTZ:
		return equalTime(source, sink, "2006-01-02 15:04:05-07")
	case kindJSON:
		return equalJSON(source, sink)
	case kindText, kindInt, kindDate:
	}
	return bytes.Equal(source, sink), nil
}

func equalBool(source, sink []byte) (bool, error) {
	switch string(source) + "/" + string(sink) {
	case "t/1", "f/0":
		return true, nil
	case "t/0", "f/1":
		return false, nil
	}
	return false, fmt.Errorf("%q and %q are not two booleans", source, sink)
}

func equalNumeric(source, sink []byte) (bool, error) {
	if bytes.Equal(source, sink) {
		return true, nil
	}
	a, okA := new(big.Rat).SetString(string(source))
	b, okB := new(big.Rat).SetString(string(sink))
	if !okA || !okB {
		return false, fmt.Errorf("%q and %q are not two numbers", source, sink)
	}
	return a.Cmp(b) == 0, nil
}

// equalFloat compares bits, so that a lost sign of zero counts.
func equalFloat(source, sink []byte, bits int) (bool, error) {
	a, errA := strconv.ParseFloat(string(source), bits)
	b, errB := strconv.ParseFloat(string(sink), bits)
	if errA != nil || errB != nil {
		return false, fmt.Errorf("%q and %q are not two numbers", source, sink)
	}
	return math.Float64bits(a) == math.Float64bits(b), nil
}

// equalTime compares instants; the sink's times are in UTC. The parser takes a fraction of a second unasked.
func equalTime(source, sink []byte, layout string) (bool, error) {
	a, err := time.Parse(layout, string(source))
	if err != nil {
		return false, fmt.Errorf("read a time of the source: %w", err)
	}
	b, err := time.Parse("2006-01-02 15:04:05", string(sink))
	if err != nil {
		return false, fmt.Errorf("read a time of the sink: %w", err)
	}
	return a.Equal(b), nil
}

// order compares two values of a key column.
func order(k kind, a, b []byte) (int, error) {
	switch k {
	case kindInt:
		x, errX := strconv.ParseInt(string(a), 10, 64)
		y, errY := strconv.ParseInt(string(b), 10, 64)
		if errX != nil || errY != nil {
			return 0, fmt.Errorf("%q and %q are not two integers", a, b)
		}
		switch {
		case x < y:
			return -1, nil
		case x > y:
			return 1, nil
		}
		return 0, nil
	case kindText, kindDate:
		return bytes.Compare(a, b), nil
	default:
		return 0, fmt.Errorf("a key of this type cannot be put in order")
	}
}
