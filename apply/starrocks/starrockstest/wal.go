package starrockstest

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	recordStatement = 1
	recordLoad      = 2
	recordAbort     = 3
	recordJobDone   = 4

	recordHeaderBytes = 9
	recordBytesMax    = 1 << 31
)

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// wal is the append-only log under Options.Data: length, checksum, kind, payload. Every record is synced before its
// effect is answered. An incomplete record at the end is what a killed process leaves, and is cut off.
type wal struct {
	file *os.File
	buf  []byte
}

func openWAL(folder string, replay func(kind byte, payload []byte) error) (*wal, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	path := filepath.Join(folder, "standin.log")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	good, err := replayLog(file, replay)
	if err == nil {
		err = file.Truncate(good)
	}
	if err == nil {
		_, err = file.Seek(good, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("replay log %s: %w", path, err), file.Close())
	}
	return &wal{file: file}, nil
}

func replayLog(file *os.File, replay func(kind byte, payload []byte) error) (good int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	r := bufio.NewReaderSize(file, 1<<20)
	var header [recordHeaderBytes]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return good, ignoreEnd(err)
		}
		size := int64(binary.LittleEndian.Uint32(header[:4]))
		if good+recordHeaderBytes+size > info.Size() {
			return good, nil
		}
		payload := make([]byte, size)
		if _, err := io.ReadFull(r, payload); err != nil {
			return good, ignoreEnd(err)
		}
		end := good + recordHeaderBytes + size
		if crc32.Checksum(payload, crcTable) != binary.LittleEndian.Uint32(header[4:8]) {
			if end == info.Size() {
				return good, nil
			}
			return good, fmt.Errorf("bad checksum at offset %d", good)
		}
		if err := replay(header[8], payload); err != nil {
			return good, fmt.Errorf("record at offset %d: %w", good, err)
		}
		good = end
	}
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func (w *wal) append(kind byte, payload []byte) error {
	if int64(len(payload)) >= recordBytesMax {
		return fmt.Errorf("append to log: record of %d bytes is too large", len(payload))
	}
	w.buf = binary.LittleEndian.AppendUint32(w.buf[:0], uint32(len(payload)))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, crc32.Checksum(payload, crcTable))
	w.buf = append(append(w.buf, kind), payload...)
	if _, err := w.file.Write(w.buf); err != nil {
		return fmt.Errorf("append to log: %w", err)
	}
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("sync log: %w", err)
	}
	return nil
}

func (w *wal) close() error { return w.file.Close() }

// loadHeader is the fixed part of a load record; the changes follow it.
type loadHeader struct {
	DB       string    `json:"db"`
	Table    uint64    `json:"table"`
	Txn      int64     `json:"txn"`
	Label    string    `json:"label"`
	State    string    `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Begun    time.Time `json:"begun"`
	Finished time.Time `json:"finished"`
}

func (s *store) persistLoad(db *database, t *table, x *txn, ops []rowOp) error {
	if s.log == nil {
		return nil
	}
	head, err := json.Marshal(loadHeader{
		DB: db.name, Table: t.id, Txn: x.id, Label: x.label, State: stateVisible.String(), Begun: x.begun, Finished: s.now(),
	})
	if err != nil {
		return fmt.Errorf("encode load record: %w", err)
	}
	return s.log.append(recordLoad, appendOps(appendText(nil, string(head)), ops))
}

func (s *store) persistAbort(db *database, x *txn) error {
	if s.log == nil {
		return nil
	}
	head, err := json.Marshal(loadHeader{
		DB: db.name, Table: x.tableID, Txn: x.id, Label: x.label, State: x.state.String(), Reason: x.reason,
		Begun: x.begun, Finished: x.finished,
	})
	if err != nil {
		return fmt.Errorf("encode abort record: %w", err)
	}
	return s.log.append(recordAbort, head)
}

func appendText(buf []byte, s string) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(s)))
	return append(buf, s...)
}

func appendOps(buf []byte, ops []rowOp) []byte {
	for _, op := range ops {
		del := byte(0)
		if op.del {
			del = 1
		}
		buf = appendText(append(buf, del), op.key)
		buf = appendText(buf, op.row)
	}
	return buf
}

func readText(b string) (s, rest string, err error) {
	n, used := uvarint(b)
	if used <= 0 || uint64(len(b)-used) < n {
		return "", "", fmt.Errorf("decode load record: bad length")
	}
	return b[used : used+int(n)], b[used+int(n):], nil
}

func readOps(b string) ([]rowOp, error) {
	var ops []rowOp
	for b != "" {
		op := rowOp{del: b[0] == 1}
		var err error
		if op.key, b, err = readText(b[1:]); err != nil {
			return nil, err
		}
		if op.row, b, err = readText(b); err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}
