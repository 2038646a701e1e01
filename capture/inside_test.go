package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

func TestIdentityComparesServerStreamAndSink(t *testing.T) {
	t.Parallel()
	lsn := func(n cdc.LSN) *cdc.LSN { return &n }
	type given struct {
		id  *identity
		sys system
		p   place
	}
	for name, test := range map[string]struct {
		change func(*given)
		want   string // part of the refusal, "" for none
	}{
		"all as it was":          {func(*given) {}, ""},
		"first start":            {func(g *given) { g.id, g.p.tail, g.p.applied = nil, cdc.Tail{Empty: true}, 0 }, ""},
		"first start, no slot":   {func(g *given) { g.id, g.p.tail, g.p.applied, g.p.slot = nil, cdc.Tail{Empty: true}, 0, nil }, ""},
		"slot behind":            {func(g *given) { g.p.slot.Confirmed = lsn(50) }, ""},
		"slot ahead of both":     {func(g *given) { g.p.slot.Confirmed = lsn(301) }, "moved or created again"},
		"idle advance":           {func(g *given) { g.p.slot.Confirmed, g.id.Confirmed, g.id.Settled = lsn(400), 400, 300 }, ""},
		"idle, sink set back":    {func(g *given) { g.p.slot.Confirmed, g.id.Confirmed, g.id.Settled = lsn(400), 400, 301 }, "sink was set back"},
		"idle, moved further":    {func(g *given) { g.p.slot.Confirmed, g.id.Confirmed, g.id.Settled = lsn(401), 400, 300 }, "moved or created again"},
		"stream lost, applied":   {func(g *given) { g.p.tail, g.p.applied, g.p.slot.Confirmed = cdc.Tail{Empty: true}, 300, lsn(300) }, ""},
		"stream behind the slot": {func(g *given) { g.p.tail.End, g.p.applied, g.p.slot.Confirmed = 150, 100, lsn(200) }, "moved or created again"},
		"record lost, sink has less": {func(g *given) {
			g.id, g.p.tail, g.p.applied, g.p.slot.Confirmed = nil, cdc.Tail{Empty: true}, 100, lsn(200)
		}, "record of the server"},
		"record lost, sink has all": {func(g *given) {
			g.id, g.p.tail, g.p.applied, g.p.slot.Confirmed = nil, cdc.Tail{Empty: true}, 300, lsn(200)
		}, "record of the server"},
		"all lost but the slot":      {func(g *given) { g.id, g.p.tail, g.p.applied = nil, cdc.Tail{Empty: true}, 0 }, ""},
		"another epoch":              {func(g *given) { g.p.epoch = "f" }, "the stream is another one"},
		"another epoch, empty":       {func(g *given) { g.p.epoch, g.p.tail = "f", cdc.Tail{Empty: true} }, ""},
		"checkpoint lost":            {func(g *given) { g.p.applied = 0 }, "checkpoint is missing"},
		"checkpoint lost when idle":  {func(g *given) { g.p.applied, g.p.slot.Confirmed, g.id.Settled = 0, lsn(100), 90 }, "checkpoint is missing"},
		"nothing applied yet":        {func(g *given) { g.p.applied, g.p.slot.Confirmed = 0, lsn(100) }, ""},
		"promoted inside the last":   {func(g *given) { g.sys.timeline, g.sys.forked, g.p.tail.Last.Commit = 2, 305, 305 }, "promoted"},
		"promoted before the commit": {func(g *given) { g.sys.timeline, g.sys.forked, g.p.tail.Last.Commit = 2, 306, 305 }, ""},
		"backup inside the last":     {func(g *given) { g.sys.head, g.p.tail.Last.Commit = 305, 305 }, "older backup"},
		"promoted before":            {func(g *given) { g.sys.timeline, g.sys.forked = 2, 299 }, "promoted"},
		"promoted after":             {func(g *given) { g.sys.timeline, g.sys.forked = 2, 300 }, ""},
		"promoted, fork unknown":     {func(g *given) { g.sys.timeline = 2 }, "promoted"},
		"lost slot":                  {func(g *given) { g.p.slot.WALStatus = "lost" }, "cannot be read"},
		"server behind":              {func(g *given) { g.sys.head = 299 }, "older backup"},
	} {
		g := given{
			id:  &identity{Epoch: "e", SystemID: "1", Timeline: 1, Database: "d", DatabaseOID: 5, Slot: "s", Confirmed: 100, Settled: 0},
			sys: system{id: "1", timeline: 1, head: 1000},
			p:   place{name: "s", epoch: "e", slot: &slot{Name: "s", Confirmed: lsn(200)}, tail: cdc.Tail{Sequence: 9, Last: cdc.Position{Commit: 290, Ordinal: 1}, End: 300}, applied: 250},
		}
		test.change(&g)
		err := checkSystem(g.id, &server{database: "d", databaseOID: 5}, &g.sys, &g.p)
		if err == nil {
			err = checkSlot(g.id, &g.p)
		}
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestFrameAfterALostEndSaysWhereItBegins(t *testing.T) {
	t.Parallel()
	last := cdc.Position{Commit: 290, Ordinal: 3}
	for _, test := range []struct {
		name                   string
		tailEnd, applied, slot cdc.LSN
		empty                  bool
		want                   cdc.Position
		wantEnd                cdc.LSN
	}{
		{"whole stream", 300, 250, 250, false, last, 300},
		{"whole stream, idle slot", 300, 300, 400, false, last, 300},
		{"lost end that the slot repeats", 300, 350, 300, false, last, 300},
		{"lost end that the slot repeats in part", 280, 350, 290, false, last, 280},
		{"lost end that the slot has passed", 300, 350, 350, false, cdc.Position{Commit: 349}, 350},
		{"empty stream", 0, 350, 340, true, cdc.Position{Commit: 339}, 340},
	} {
		p := place{slot: &slot{Confirmed: &test.slot}, tail: cdc.Tail{Last: last, End: test.tailEnd, Empty: test.empty}, applied: test.applied}
		if got, end := p.from(); got != test.want || end != test.wantEnd {
			t.Errorf("%s: %s, %s", test.name, got, end)
		}
	}
}

func TestWitnessWantsTheTransactionAtTheEndOfTheStream(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		slot    cdc.LSN
		commits []cdc.LSN
		ok      bool
	}{
		{"repeated", 200, []cdc.LSN{210, 290, 310}, true},
		{"not repeated yet", 200, []cdc.LSN{210, 220}, true},
		{"passed over", 200, []cdc.LSN{210, 310}, false},
		{"passed over at once", 290, []cdc.LSN{291}, false},
		{"confirmed", 291, []cdc.LSN{310}, true},
	} {
		w := newWitness(&place{slot: &slot{Confirmed: &test.slot}, tail: cdc.Tail{Last: cdc.Position{Commit: 290, Ordinal: 2}, End: 300}})
		var err error
		for _, commit := range test.commits {
			err = errors.Join(err, w.begin(commit))
		}
		if _, refused := errors.AsType[*IdentityError](err); refused == test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestErrorThatStaysTheSameIsLoggedOnceAndThenRarely(t *testing.T) {
	t.Parallel()
	var c complaint
	now := time.Now()
	for i, step := range []struct {
		text  string
		after time.Duration
		want  bool
	}{
		{"slot is in use by 4711", 0, true},
		{"slot is in use by 4712", time.Second, false},
		{"connection refused", time.Second, true},
		{"slot is in use by 4712", time.Second, true},
		{"slot is in use by 4712", repeatAfter - time.Second, false},
		{"slot is in use by 4712", 2 * time.Second, true},
		{"slot is in use by 4712", 2 * time.Second, false},
	} {
		now = now.Add(step.after)
		if got := c.due(step.text, now); got != step.want {
			t.Errorf("step %d: %t", i, got)
		}
	}
}

func TestApplicationNameFitsAndBeginsWithTheStream(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ slot, instance, want string }{
		{"s", "", "dbmazz/01234567/s"},
		{"s", "host-1 (42)", "dbmazz/01234567/s/host-1 (42)"},
		{"s", "höst", "dbmazz/01234567/s/h?st"},
		{strings.Repeat("s", 63), "i", "dbmazz/01234567/" + strings.Repeat("s", 47)},
	} {
		if got := applicationName("0123456789", test.slot, test.instance); got != test.want || !strings.HasPrefix(got, holderPrefix("0123456789")) {
			t.Errorf("slot %q, instance %q: %q", test.slot, test.instance, got)
		}
	}
}

func TestForkIsReadFromTheTimelineHistory(t *testing.T) {
	t.Parallel()
	history := "1\t0/3000000\tno recovery target specified\n\n2\t0/5000060\tx\n"
	for timeline, want := range map[int32]cdc.LSN{1: 0x3000000, 2: 0x5000060, 3: 0} {
		if got, err := forkOf(timeline, history); err != nil || got != want {
			t.Errorf("timeline %d: %s, %v", timeline, got, err)
		}
	}
}

// However often the tables change, a transaction that the stream holds in part is
// filtered as it was.
func TestFilterOfATransactionNeverChanges(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var id identity
		sets := [][]Table{{{"s", "a"}}, {{"s", "a"}, {"s", "b"}}, {{"s", "c"}}}
		counted := map[cdc.LSN]*filter{}
		var now, done cdc.LSN
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			tables := rapid.SampledFrom(sets).Draw(t, "tables")
			id.setFilter(tables, now+1, done)
			for range rapid.IntRange(0, 3).Draw(t, "transactions") {
				now += cdc.LSN(rapid.IntRange(1, 5).Draw(t, "wal"))
				counted[now] = id.filterAt(now)
				if !counted[now].has(tables[0]) {
					t.Fatalf("at %s: %v, want %v", now, counted[now].Tables, tables)
				}
			}
			done = cdc.LSN(rapid.Uint64Range(uint64(done), uint64(now)).Draw(t, "confirmed"))
			for commit, was := range counted {
				if got := id.filterAt(commit); commit >= done && !equalTables(got.Tables, was.Tables) {
					t.Fatalf("at %s: %v, was %v", commit, got.Tables, was.Tables)
				}
			}
		}
	})
}

func equalTables(a, b []Table) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// TestSocketReturnsEveryMessageWhole cuts a stream of messages of all sizes anywhere.
func TestSocketReturnsEveryMessageWhole(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(3000, 40000)), 1, 12).Draw(t, "sizes")
		var wire []byte
		for i, size := range sizes {
			wire = append(wire, 'd')
			wire = binary.BigEndian.AppendUint32(wire, uint32(4+size))
			wire = append(wire, bytes.Repeat([]byte{byte(i)}, size)...)
		}
		conn := &pieces{data: wire, size: rapid.SampledFrom([]int{61, 1000, 4096, 9001}).Draw(t, "piece")}
		s := newSocket(conn, minReadBytes)
		s.pace.quick = -1 << 40 // no naps
		for i, size := range sizes {
			for {
				kind, payload, ok, err := s.next()
				if err != nil {
					t.Fatal(err)
				}
				if ok {
					if kind != 'd' || !bytes.Equal(payload, bytes.Repeat([]byte{byte(i)}, size)) {
						t.Fatalf("message %d of %d bytes came as %d bytes", i, size, len(payload))
					}
					break
				}
				if err := s.fill(context.Background(), 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(s.buf) > 4*40000 {
			t.Fatalf("buffer of %d bytes", len(s.buf))
		}
	})
}

// pieces is a connection that gives its data in pieces.
type pieces struct {
	net.Conn
	data []byte
	size int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(p.size, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) SetReadDeadline(time.Time) error { return nil }

func TestSocketRefusesImpossibleLengths(t *testing.T) {
	t.Parallel()
	for _, head := range []string{"d\x00\x00\x00\x03", "d\xff\xff\xff\xff"} {
		s := newSocket(&pieces{data: []byte(head), size: 9}, minReadBytes)
		if err := s.fill(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := s.next(); err == nil {
			t.Errorf("%x is taken", head)
		}
	}
}

// testSession returns a session that can decode changes of one table of three columns.
func testSession() *session {
	c := &Capture{tables: []Table{{"public", "t"}}}
	rec := &record{id: &identity{Filters: []filter{{Tables: c.tables}}}}
	s := &session{
		c: c, record: rec, out: cdc.NewWriter("e", cdc.Position{}, 0), tables: map[uint32]*table{}, confirm: newConfirm(0, 0),
		sock: newSocket(nil, minReadBytes),
	}
	schema := &cdc.Schema{OID: 1, Namespace: "public", Table: "t", Columns: make([]cdc.Column, 3), Key: []int{0}}
	s.tables[1] = &table{
		name: c.tables[0], relation: relation{oid: 1, table: c.tables[0], identity: 'd'}, schema: schema, isKey: []bool{true, false, false},
	}
	s.out.Reset(make([]byte, 1<<20))
	return s
}

func beginMessage(commit uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'B'}, commit)
	return append(b, make([]byte, 12)...)
}

func commitMessage(commit, end uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'C', 0}, commit)
	b = binary.BigEndian.AppendUint64(b, end)
	return append(b, make([]byte, 8)...)
}

func tuple(values ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		if v == "~" || v == "=" {
			b = append(b, map[string]byte{"~": 'n', "=": 'u'}[v])
			continue
		}
		b = binary.BigEndian.AppendUint32(append(b, 't'), uint32(len(v)))
		b = append(b, v...)
	}
	return b
}

func rowMessage(kind string, tuples ...[]byte) []byte {
	b := []byte{kind[0], 0, 0, 0, 1}
	for i, t := range tuples {
		b = append(append(b, kind[1+i]), t...)
	}
	return b
}

func TestAChangeAllocatesNothing(t *testing.T) {
	s := testSession()
	buf := make([]byte, 1<<20)
	messages := [][]byte{
		rowMessage("IN", tuple("1", "abc", "~")),
		rowMessage("UN", tuple("1", "abc", "=")),
		rowMessage("UKN", tuple("1", "~", "~"), tuple("2", "abc", "=")),
		rowMessage("UON", tuple("1", "a", "b"), tuple("1", "abc", "=")),
		rowMessage("DK", tuple("1", "~", "~")),
		rowMessage("DO", tuple("1", "a", "~")),
	}
	ctx := context.Background()
	commit := uint64(1000)
	begin, end := beginMessage(0), commitMessage(0, 0)
	step := func(data []byte) {
		if err := s.decode(ctx, data); err != nil {
			t.Fatal(err)
		}
	}
	allocs := testing.AllocsPerRun(100, func() {
		s.out.Reset(buf)
		commit += 100
		binary.BigEndian.PutUint64(begin[1:], commit)
		binary.BigEndian.PutUint64(end[2:], commit)
		binary.BigEndian.PutUint64(end[10:], commit+50)
		step(begin)
		for range 20 {
			for _, m := range messages {
				step(m)
			}
		}
		step(end)
	})
	if allocs != 0 {
		t.Errorf("%v allocations per transaction of 120 changes", allocs)
	}
}

func TestChangesThatCannotBeTrustedStop(t *testing.T) {
	t.Parallel()
	unknown := rowMessage("IN", tuple("1"))
	unknown[4] = 9
	for name, test := range map[string]struct {
		messages [][]byte
		want     string
	}{
		"row outside of a transaction": {[][]byte{rowMessage("IN", tuple("1", "a", "b"))}, "outside of a transaction"},
		"unknown table":                {[][]byte{beginMessage(9), unknown}, "has not described the table with oid 9"},
		"truncate of an unknown table": {[][]byte{beginMessage(9), {'T', 0, 0, 0, 1, 0, 0, 0, 0, 9}}, "has not described"},
		"row of another width":         {[][]byte{beginMessage(9), rowMessage("IN", tuple("1"))}, "1 columns"},
		"update without a key":         {[][]byte{beginMessage(9), rowMessage("UN", tuple("=", "a", "b"))}, "key column"},
		"delete without a key":         {[][]byte{beginMessage(9), rowMessage("DK", tuple("~", "a", "b"))}, "key column"},
		"begin in a transaction":       {[][]byte{beginMessage(9), beginMessage(10)}, "decode begin"},
		"transactions out of order":    {[][]byte{beginMessage(9), commitMessage(9, 12), beginMessage(9)}, "decode begin"},
		"commit of another":            {[][]byte{beginMessage(9), commitMessage(8, 12)}, "decode commit"},
		"malformed":                    {[][]byte{{'I', 0}}, "malformed"},
	} {
		s := testSession()
		var err error
		for _, m := range test.messages {
			err = errors.Join(err, s.decode(context.Background(), m))
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		if !s.out.Empty() {
			t.Errorf("%s: something was written", name)
		}
	}
}
