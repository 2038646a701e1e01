package main

import (
	"encoding/binary"
	"io"
	"testing"
)

// TestBareReaderEndsBehindTheLastTransaction and not before it: the one right before ends
// where the last begins.
func TestBareReaderEndsBehindTheLastTransaction(t *testing.T) {
	t.Parallel()
	const mark = 4711
	r := bareReader{end: mark}
	change := func(kind byte, position uint64) {
		t.Helper()
		payload := append(binary.BigEndian.AppendUint64([]byte{'w'}, position), make([]byte, 16)...)
		if err := r.message('d', append(payload, kind), io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	change('I', mark-50)
	change('C', mark)
	if r.done {
		t.Error("it ends before the last transaction")
	}
	change('I', mark+10)
	change('C', mark+60)
	if !r.done || r.Rows != 2 {
		t.Errorf("behind the last transaction: done %t with %d rows", r.done, r.Rows)
	}
}
