package cdc

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a byte position in PostgreSQL's write-ahead log.
type LSN uint64

// ParseLSN reads the form that PostgreSQL prints, such as 16/B374D848.
func ParseLSN(text string) (LSN, error) {
	high, low, ok := strings.Cut(text, "/")
	if !ok {
		return 0, fmt.Errorf("parse LSN %q: want two hexadecimal numbers with a slash between", text)
	}
	h, errHigh := strconv.ParseUint(high, 16, 32)
	l, errLow := strconv.ParseUint(low, 16, 32)
	if err := errors.Join(errHigh, errLow); err != nil {
		return 0, fmt.Errorf("parse LSN %q: %w", text, err)
	}
	return LSN(h<<32 | l), nil
}

// String prints the LSN as PostgreSQL does.
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) //nolint:gosec // The two halves are meant.
}

// MarshalText makes JSON and logs show the LSN as PostgreSQL does.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (l *LSN) UnmarshalText(text []byte) error {
	parsed, err := ParseLSN(string(text))
	if err != nil {
		return err
	}
	*l = parsed
	return nil
}

// Position orders all changes of one slot. Two changes never share a position, and
// PostgreSQL sends the same change at the same position however often it is asked.
type Position struct {
	// Commit is the LSN of the commit record of the transaction.
	Commit LSN
	// Ordinal counts the changes of the transaction, from 1. Zero means
	// "before the first change", which is how an interval that starts at a
	// bare LSN is written.
	Ordinal uint64
}

// Compare returns -1, 0 or +1 as p is before, at or after q.
func (p Position) Compare(q Position) int {
	if c := cmp.Compare(p.Commit, q.Commit); c != 0 {
		return c
	}
	return cmp.Compare(p.Ordinal, q.Ordinal)
}

// After reports whether p is later than q.
func (p Position) After(q Position) bool { return p.Compare(q) > 0 }

// IsZero reports whether p is before every change.
func (p Position) IsZero() bool { return p == Position{} }

// String prints the position as LSN, dot, ordinal: 16/B374D848.3.
func (p Position) String() string {
	return p.Commit.String() + "." + strconv.FormatUint(p.Ordinal, 10)
}

// ParsePosition is the inverse of String.
func ParsePosition(text string) (Position, error) {
	lsnText, ordinalText, ok := strings.Cut(text, ".")
	if !ok {
		return Position{}, fmt.Errorf("parse position %q: want LSN, dot, ordinal", text)
	}
	lsn, err := ParseLSN(lsnText)
	if err != nil {
		return Position{}, fmt.Errorf("parse position %q: %w", text, err)
	}
	ordinal, err := strconv.ParseUint(ordinalText, 10, 64)
	if err != nil {
		return Position{}, fmt.Errorf("parse position %q: %w", text, err)
	}
	return Position{Commit: lsn, Ordinal: ordinal}, nil
}

// MarshalText makes JSON and logs show the position in its text form.
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Position) UnmarshalText(text []byte) error {
	parsed, err := ParsePosition(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}
