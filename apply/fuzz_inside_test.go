package apply

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"regexp"
	"testing"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// share is what the ID of one table's share of a batch is made of.
type share struct {
	pipeline, namespace, table string
	from, to                   cdc.Position
	attempt                    int
}

func (s *share) id() string {
	l := &loader{ledger: &ledger{state: state{Pipeline: s.pipeline}}}
	return l.id(&cdc.Schema{OID: 1, Namespace: s.namespace, Table: s.table}, plan{From: s.from, To: s.to, Attempts: map[uint32]int{1: s.attempt}})
}

// named is as PostgreSQL has it: a name holds no zero byte.
func (s *share) named() bool {
	return !bytes.ContainsRune([]byte(s.pipeline+s.namespace+s.table), 0)
}

// batchIDMax leaves room for what sinks append, see the labels of package starrocks.
const batchIDMax = 128 - len("-i1000000-1000000_") - 16 - len("_1000000")

var batchID = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// FuzzBatchID states that an ID is legal as a label, that the same share has the same one,
// and that shares which differ in anything have different ones.
func FuzzBatchID(f *testing.F) {
	f.Add("life", "public", "t", uint64(1), uint64(2), uint64(3), uint64(4), uint8(0), "t", uint64(1), uint8(1))
	f.Add("life", "a", "b.c", uint64(0x16B374D848), uint64(12), uint64(0x16B374D849), uint64(1), uint8(1), "c", uint64(12), uint8(0))
	f.Fuzz(func(t *testing.T, pipeline, namespace, table string, a, b, c, d uint64, attempt uint8, other string, number uint64, which uint8) {
		// 256 TiB of log, ten thousand million changes in a transaction.
		const lsnMax, ordinalMax = 1<<48 - 1, 1e10 - 1
		position := func(commit, ordinal uint64) cdc.Position {
			return cdc.Position{Commit: cdc.LSN(commit & lsnMax), Ordinal: ordinal % (ordinalMax + 1)}
		}
		one := share{pipeline, namespace, table, position(a, b), position(c, d), int(attempt % 100)}
		two := one
		switch which % 6 {
		case 0:
			two.pipeline = other
		case 1:
			two.namespace = other
		case 2:
			two.table = other
		case 3:
			two.from = position(number, b)
		case 4:
			two.to = position(c, number)
		case 5:
			two.attempt = int(number % 100)
		}
		if !one.named() || !two.named() {
			return
		}
		id := one.id()
		if !batchID.MatchString(id) || len(id) > batchIDMax {
			t.Fatalf("%q has %d bytes, at most %d may be", id, len(id), batchIDMax)
		}
		if (id == two.id()) != (one == two) {
			t.Fatalf("%+v and %+v: %s and %s", one, two, id, two.id())
		}
	})
}

// FuzzState states that apply's state comes back as it was written, and that what is not
// such a state is an error.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"pipeline":"x","checkpoint":{"epoch":"e","position":"0/10.2","end":"0/20","sequence":3},"plan":{"from":"0/1.0","to":"0/2.1","synced_at":"2024-01-02T03:04:05Z","attempts":{"1":2},"aside":{"1":[1,2]},"parts":{"1":{"done":1,"end":2,"refused":0}}}}`))
	f.Add([]byte(`{"replay":{"from":"0/1.0"}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		live, err := ParseLive(data)
		checkpoint, err2 := ParseCheckpoint(data)
		if (err == nil) != (err2 == nil) || checkpoint != live.Checkpoint {
			t.Fatalf("%+v, %v; %+v, %v", live, err, checkpoint, err2)
		}
		if err != nil || len(data) == 0 {
			return
		}
		if live.Checkpoint.Position.After(live.Reached) {
			t.Fatalf("%s: the sink has %s, and %s is applied", data, live.Reached, live.Checkpoint.Position)
		}
		var s state
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		first, err := json.Marshal(&s)
		if err != nil {
			return // A time beyond the year 9999, which is never written.
		}
		var again state
		if err := json.Unmarshal(first, &again); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if second, err := json.Marshal(&again); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%s became %s: %v", first, second, err)
		}
	})
}

// FuzzDeadLetter states that no bytes in place of a letter's frame do more than to be
// refused as corrupt.
func FuzzDeadLetter(f *testing.F) {
	schema := &cdc.Schema{OID: 1, Namespace: "public", Table: "t", Key: []int{0}, Columns: []cdc.Column{{Name: "id", Type: cdc.TypeInt8}}}
	if err := schema.Seal(); err != nil {
		f.Fatal(err)
	}
	frame, err := frameOf(schema, cdc.Position{Commit: 16, Ordinal: 2}, 0, func(w *cdc.Writer) {
		w.Insert(schema)
		w.StartTuple(1)
		w.Text([]byte("1"))
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Fuzz(func(t *testing.T, data []byte) {
		// The checksum would hide the decoder from the fuzzer: mend it.
		letter := &DeadLetter{LetterRef: LetterRef{ID: "x"}, Frames: [][]byte{mend(data)}}
		schema, rows, truncate, err := letter.open()
		switch {
		case err != nil:
			if schema != nil || rows != nil {
				t.Fatal("rows of a letter that is refused")
			}
		case schema == nil, truncate == (len(rows) > 0):
			t.Fatalf("%v, %d rows, truncate %t", schema, len(rows), truncate)
		}
	})
}

// mend gives a frame the checksum of its content.
func mend(data []byte) []byte {
	const checksum = 5
	if len(data) < checksum {
		return data
	}
	data = bytes.Clone(data)
	data[0] = 0xce // a MessagePack uint32
	binary.BigEndian.PutUint32(data[1:], crc32.Checksum(data[checksum:], crc32.MakeTable(crc32.Castagnoli)))
	return data
}
