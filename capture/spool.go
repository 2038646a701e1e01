package capture

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
)

// spoolBlock is the unit in which the spool is written, read and given back.
const spoolBlock = 256 << 10

// spoolCheckEvery is how many blocks the file grows between two looks at the free space
// of its file system: 16 MiB.
const spoolCheckEvery = 64

// spoolReserve is the part of a file system that the spool leaves free, one in so many:
// a stream that is stored on the same one must never find it full.
const spoolReserve = 20

// spoolDefaults fills in what Config leaves open about the spool.
func (c *Config) spoolDefaults() {
	c.SpoolDir = cmp.Or(c.SpoolDir, os.TempDir())
	c.SpoolMemory = cmp.Or(c.SpoolMemory, 16<<20)
}

func (c *Config) validateSpool() error {
	var errs []error
	if c.SpoolMemory < 2*spoolBlock {
		errs = append(errs, fmt.Errorf("spool memory %d: want at least %d bytes", c.SpoolMemory, 2*spoolBlock))
	}
	if c.SpoolBytes < 0 {
		errs = append(errs, fmt.Errorf("spool bytes %d: want zero for no bound, or more", c.SpoolBytes))
	}
	return errors.Join(errs...)
}

// spoolError tells that the spool could not take or give back what it should.
type spoolError struct {
	dir    string
	wanted int64 // bytes that the file would have had
	err    error
}

// Error names the folder and what to do.
func (e *spoolError) Error() string {
	return fmt.Sprintf("spool large transactions in %q, %d MiB: %v", e.dir, e.wanted>>20, e.err)
}

// Unwrap returns the cause.
func (e *spoolError) Unwrap() error { return e.err }

// spool keeps the messages of transactions that are not committed yet. Each has a log of
// its own; the logs share one file, in blocks, so that any number of transactions costs
// one open file. What does not fill a block stays in memory, as far as the memory goes.
//
// The file has no name once it is open: whatever happens to the process, the system
// gives its space back. It is never synced. After a crash of the machine nobody needs
// it, for the server sends again what was not committed. Every block carries a checksum,
// kept in memory, because a system that is short of space may lose what it has taken.
//
// A spool is used by one goroutine.
type spool struct {
	dir, prefix string
	limit       int64 // bytes of the file, zero for no bound
	create      func() (*os.File, error)
	space       func(dir string) (free, total int64, known bool)

	file *os.File // nil until a block is written
	used []bool   // by block of the file
	low  int      // no block below is free
	held int      // blocks in use
	kept int64    // bytes of all logs

	buffers  [][]byte // idle ones
	made     int      // buffers in use and idle
	most     int      // buffers
	resident map[*spoolLog]struct{}
}

// block is a full block of a log.
type block struct {
	number int
	sum    uint32
}

// spoolLog is a sequence of messages, each after its length. The last block may be in
// memory, in the file, or first in the file and then in memory.
type spoolLog struct {
	size int64
	full []block

	last   block  // meaningful if stored is not zero
	fill   int    // bytes of the last block
	stored int    // of these in the file
	buf    []byte // holds those from stored on; nil if there are none
}

func newSpool(cfg *Config) *spool {
	s := &spool{
		dir: cfg.SpoolDir, prefix: "dbmazz-spool-" + cfg.Slot + "-", limit: cfg.SpoolBytes,
		space: freeSpace, most: cfg.SpoolMemory / spoolBlock, resident: map[*spoolLog]struct{}{},
	}
	s.create = s.createFile
	return s
}

func (s *spool) fail(err error) error {
	return &spoolError{dir: s.dir, wanted: int64(len(s.used)+1) * spoolBlock, err: err}
}

// sweep removes what a process that died between two steps, or on a system where open
// files keep their names, has left.
func (s *spool) sweep() error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return s.fail(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), s.prefix) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return s.fail(err)
		}
	}
	return nil
}

func (s *spool) createFile() (*os.File, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.dir, s.prefix+"*")
	if err != nil {
		return nil, err
	}
	// Where this does not work close removes it, or sweep.
	_ = os.Remove(f.Name())
	return f, nil
}

// close gives everything back.
func (s *spool) close() {
	if s.file == nil {
		return
	}
	_ = s.file.Close() // Its content is of no use to anybody.
	_ = os.Remove(s.file.Name())
	s.file = nil
}

// bytes returns the size of the file's part that is in use.
func (s *spool) bytes() int64 { return int64(s.held) * spoolBlock }

// lengthSize is what precedes a message.
const lengthSize = 4

// append adds a message made of two parts.
func (s *spool) append(l *spoolLog, a, b []byte) error {
	var head [lengthSize]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(a)+len(b))) //nolint:gosec // At most messageMax.
	if err := s.write(l, head[:]); err != nil {
		return err
	}
	if err := s.write(l, a); err != nil {
		return err
	}
	return s.write(l, b)
}

func (s *spool) write(l *spoolLog, p []byte) error {
	for len(p) > 0 {
		if l.buf == nil {
			if err := s.lend(l); err != nil {
				return err
			}
		}
		n := copy(l.buf[l.fill:], p)
		p = p[n:]
		l.fill += n
		l.size += int64(n)
		s.kept += int64(n)
		if l.fill < spoolBlock {
			return nil
		}
		if err := s.flush(l); err != nil {
			return err
		}
		l.full = append(l.full, l.last)
		l.last, l.fill, l.stored = block{}, 0, 0
	}
	return nil
}

// lend gives a log a buffer. If there is none the log with the most in memory is written
// to the file and gives up its own.
func (s *spool) lend(l *spoolLog) error {
	if len(s.buffers) == 0 && s.made >= s.most {
		var victim *spoolLog
		for r := range s.resident {
			if victim == nil || r.fill-r.stored > victim.fill-victim.stored {
				victim = r
			}
		}
		if err := s.flush(victim); err != nil {
			return err
		}
		s.takeBack(victim)
	}
	if n := len(s.buffers); n > 0 {
		l.buf, s.buffers = s.buffers[n-1], s.buffers[:n-1]
	} else {
		l.buf = make([]byte, spoolBlock)
		s.made++
	}
	s.resident[l] = struct{}{}
	return nil
}

// idleBuffers is how many buffers are kept for the next transaction.
const idleBuffers = 4

func (s *spool) takeBack(l *spoolLog) {
	if l.buf == nil {
		return
	}
	delete(s.resident, l)
	if len(s.buffers) < idleBuffers {
		s.buffers = append(s.buffers, l.buf)
	} else {
		s.made--
	}
	l.buf = nil
}

// flush writes what the file does not have of the last block.
func (s *spool) flush(l *spoolLog) error {
	if l.stored == l.fill {
		return nil
	}
	if l.stored == 0 {
		number, err := s.allocate()
		if err != nil {
			return err
		}
		l.last = block{number: number}
	}
	fresh := l.buf[l.stored:l.fill]
	if _, err := s.file.WriteAt(fresh, int64(l.last.number)*spoolBlock+int64(l.stored)); err != nil {
		if l.stored == 0 {
			s.free(l.last.number)
		}
		return s.fail(err)
	}
	l.last.sum = crc32.Update(l.last.sum, castagnoli, fresh)
	l.stored = l.fill
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errSpoolReserve = errors.New("the file system is almost full")

// allocate returns a block of the file, the lowest that is free.
func (s *spool) allocate() (int, error) {
	if s.file == nil {
		f, err := s.create()
		if err != nil {
			return 0, s.fail(err)
		}
		s.file = f
	}
	for ; s.low < len(s.used); s.low++ {
		if !s.used[s.low] {
			s.used[s.low] = true
			s.held++
			return s.low, nil
		}
	}
	n := len(s.used)
	if s.limit > 0 && int64(n+1)*spoolBlock > s.limit {
		return 0, s.fail(fmt.Errorf("it may have %d MiB", s.limit>>20))
	}
	if n%spoolCheckEvery == 0 {
		if free, total, known := s.space(s.dir); known && free < total/spoolReserve+spoolCheckEvery*spoolBlock {
			return 0, s.fail(fmt.Errorf("%w: %d of %d MiB are free, one part in %d stays so", errSpoolReserve, free>>20, total>>20, spoolReserve))
		}
	}
	s.used = append(s.used, true)
	s.held++
	return n, nil
}

func (s *spool) free(number int) {
	s.used[number] = false
	s.low = min(s.low, number)
	s.held--
}

// release forgets a log and gives its space back.
func (s *spool) release(l *spoolLog) error {
	s.takeBack(l)
	s.kept -= l.size
	for _, b := range l.full {
		s.free(b.number)
	}
	if l.stored > 0 {
		s.free(l.last.number)
	}
	*l = spoolLog{}
	n := len(s.used)
	for n > 0 && !s.used[n-1] {
		n--
	}
	if n == len(s.used) {
		return nil
	}
	s.used = s.used[:n]
	if err := s.file.Truncate(int64(n) * spoolBlock); err != nil {
		return s.fail(err)
	}
	return nil
}
