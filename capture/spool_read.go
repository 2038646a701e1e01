package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

var errSpoolDamaged = errors.New("what was read is not what was written")

// spoolReader reads a log from its start. The log must not change meanwhile.
type spoolReader struct {
	s    *spool
	log  *spoolLog
	at   int    // the block to read next
	in   []byte // of the present block, not consumed
	buf  []byte
	big  []byte // a message that lies in several blocks
	left int64
}

// read returns a reader that uses buf, which has the size of a block.
func (s *spool) read(l *spoolLog, buf []byte) (*spoolReader, error) {
	r := &spoolReader{s: s, log: l, buf: buf, left: l.size}
	if l.stored > 0 {
		// One place to read from.
		return r, s.flush(l)
	}
	return r, nil
}

// next returns the next message; ok is false after the last. It is valid until the next
// call.
func (r *spoolReader) next() (message []byte, ok bool, err error) {
	if r.left == 0 {
		return nil, false, nil
	}
	head, err := r.take(lengthSize)
	if err != nil {
		return nil, false, err
	}
	message, err = r.take(int64(binary.BigEndian.Uint32(head)))
	return message, err == nil, err
}

// take returns the next n bytes.
func (r *spoolReader) take(n int64) ([]byte, error) {
	if n > r.left {
		return nil, r.s.fail(fmt.Errorf("%w: %d bytes wanted, %d are left", errSpoolDamaged, n, r.left))
	}
	r.left -= n
	if len(r.in) == 0 && n > 0 {
		if err := r.load(); err != nil {
			return nil, err
		}
	}
	if n <= int64(len(r.in)) {
		b := r.in[:n:n]
		r.in = r.in[n:]
		return b, nil
	}
	if int64(cap(r.big)) < n || cap(r.big) > 4*spoolBlock {
		r.big = make([]byte, 0, n)
	}
	r.big = append(r.big[:0], r.in...)
	for {
		if err := r.load(); err != nil {
			return nil, err
		}
		part := min(n-int64(len(r.big)), int64(len(r.in)))
		r.big = append(r.big, r.in[:part]...)
		r.in = r.in[part:]
		if int64(len(r.big)) == n {
			return r.big, nil
		}
	}
}

// load reads the next block.
func (r *spoolReader) load() error {
	l := r.log
	b, size := l.last, l.fill
	switch {
	case r.at < len(l.full):
		b, size = l.full[r.at], spoolBlock
	case r.at > len(l.full) || l.fill == 0:
		return r.s.fail(fmt.Errorf("%w: it ends too early", errSpoolDamaged))
	case l.stored == 0:
		r.at++
		r.in = l.buf[:l.fill]
		return nil
	}
	r.at++
	r.in = r.buf[:size]
	if _, err := r.s.file.ReadAt(r.in, int64(b.number)*spoolBlock); err != nil {
		return r.s.fail(err)
	}
	if sum := crc32.Checksum(r.in, castagnoli); sum != b.sum {
		return r.s.fail(fmt.Errorf("%w: checksum %08x instead of %08x", errSpoolDamaged, sum, b.sum))
	}
	return nil
}
