package capture

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

func streamSession(t *testing.T) *session {
	s := testSession()
	s.streams = streams{spool: testSpool(t.TempDir()), open: map[uint32]*streamed{}}
	t.Cleanup(s.streams.spool.close)
	s.c.cfg.FrameBytes = 1 << 20
	s.c.wake, s.c.settled = make(chan struct{}, 1), make(chan struct{}, 1)
	s.c.latest, s.c.schemas = map[uint32]*cdc.Schema{}, map[cdc.Fingerprint]*cdc.Schema{}
	return s
}

func ids(kind byte, numbers ...uint32) []byte {
	b := []byte{kind}
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

func streamStartMessage(xid uint32, first byte) []byte { return append(ids('S', xid), first) }

func streamCommitMessage(xid uint32, commit uint64) []byte {
	return append(ids('c', xid), commitMessage(commit, commit+5)[1:]...)
}

func inStream(xid uint32, message []byte) []byte {
	return append(ids(message[0], xid), message[1:]...)
}

func TestStreamMessagesThatMakeNoSenseStop(t *testing.T) {
	t.Parallel()
	start, stop := streamStartMessage(7, 1), []byte{'E'}
	for name, test := range map[string]struct {
		messages [][]byte
		want     string
	}{
		"stop without start":          {[][]byte{stop}, "no stream is open"},
		"go on with an unknown one":   {[][]byte{streamStartMessage(7, 0)}, "the start of the transaction 7 was not sent"},
		"commit of an unknown one":    {[][]byte{streamCommitMessage(7, 100)}, "was not sent"},
		"commit of one rolled back":   {[][]byte{start, stop, ids('A', 7, 7), streamCommitMessage(7, 100)}, "was not sent"},
		"commit out of order":         {[][]byte{beginMessage(200), commitMessage(200, 205), start, stop, streamCommitMessage(7, 100)}, "decode begin"},
		"commit inside a stream":      {[][]byte{start, streamCommitMessage(7, 100)}, "inside a stream"},
		"begin inside a stream":       {[][]byte{start, beginMessage(100)}, "inside a stream"},
		"start inside a stream":       {[][]byte{start, streamStartMessage(8, 1)}, "inside a stream"},
		"start inside a transaction":  {[][]byte{beginMessage(100), start}, "inside another"},
		"malformed change":            {[][]byte{start, {'I', 0}, stop, streamCommitMessage(7, 100)}, "malformed"},
		"empty message":               {[][]byte{start, {}}, "malformed"},
		"table that is not described": {[][]byte{start, inStream(7, rowMessage("IN", tuple("1", "a", "b"))), stop, streamCommitMessage(7, 100)}, "has not described"},
	} {
		s := streamSession(t)
		var err error
		for _, m := range test.messages {
			if err = s.decode(context.Background(), m); err != nil {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
		if !s.out.Empty() {
			t.Errorf("%s: something was written", name)
		}
	}
	s := testSession()
	if err := s.decode(context.Background(), start); err == nil || !strings.Contains(err.Error(), "not asked for") {
		t.Errorf("streaming that was not asked for: %v", err)
	}
}

// relationMessage describes the table with oid 5 with so many columns.
func relationMessage(columns int) []byte {
	b := append(ids('R', 5), "public\x00t\x00d"...)
	b = binary.BigEndian.AppendUint16(b, uint16(columns))
	for i := range columns {
		b = append(b, 0, 'a'+byte(i), 0)
		b = append(b, make([]byte, 8)...)
	}
	return b
}

// The server describes a table once outside of streams, and once in each. What holds
// after a commit is what it has sent last, wherever that was.
func TestDescriptionThatCameLastHoldsAfterAStreamIsReplayed(t *testing.T) {
	t.Parallel()
	start, stop := streamStartMessage(7, 1), []byte{'E'}
	for name, test := range map[string]struct {
		messages [][]byte
		want     int
	}{
		"only in the stream":  {[][]byte{start, inStream(7, relationMessage(2)), stop, streamCommitMessage(7, 100)}, 2},
		"newer in the stream": {[][]byte{relationMessage(1), start, inStream(7, relationMessage(2)), stop, streamCommitMessage(7, 100)}, 2},
		"newer outside":       {[][]byte{start, inStream(7, relationMessage(2)), stop, relationMessage(3), streamCommitMessage(7, 100)}, 3},
		"newer in a subtransaction that was rolled back": {[][]byte{
			start, inStream(7, relationMessage(2)), inStream(8, relationMessage(3)), stop, ids('A', 7, 8), streamCommitMessage(7, 100),
		}, 2},
		"in one that was rolled back": {[][]byte{relationMessage(1), start, inStream(7, relationMessage(2)), stop, ids('A', 7, 7)}, 1},
		"newer in another stream": {[][]byte{
			start, inStream(7, relationMessage(2)), stop, streamStartMessage(9, 1), inStream(9, relationMessage(3)), stop,
			streamCommitMessage(9, 100), streamCommitMessage(7, 200),
		}, 3},
		"before the commit":          {[][]byte{relationMessage(1), start, inStream(7, relationMessage(2)), stop}, 1},
		"in one that the stream has": {[][]byte{relationMessage(1), start, inStream(7, relationMessage(2)), stop, streamCommitMessage(7, 40)}, 2},
	} {
		s := streamSession(t)
		s.tail = cdc.Position{Commit: 50}
		for _, m := range test.messages {
			if err := s.decode(context.Background(), m); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := len(s.tables[5].relation.columns); got != test.want {
			t.Errorf("%s: %d columns, want %d", name, got, test.want)
		}
	}
}

// A number is used again after the server went down inside of its transaction.
func TestStreamThatStartsAnewReplacesTheOneBefore(t *testing.T) {
	t.Parallel()
	s := streamSession(t)
	for _, m := range [][]byte{
		streamStartMessage(7, 1), inStream(7, rowMessage("IN", tuple("1", "a", "b"))),
		{'E'},
		ids('A', 7, 8),
		streamStartMessage(7, 1), inStream(7, relationMessage(1)),
		{'E'},
		streamCommitMessage(7, 100),
	} {
		if err := s.decode(context.Background(), m); err != nil {
			t.Fatal(err)
		}
	}
	if s.streams.spool.kept != 0 {
		t.Errorf("%d bytes are kept", s.streams.spool.kept)
	}
}

func TestServerErrorsThatMayComeFromStreaming(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{
		"XX000": true, "40000": true, "58P01": true, "22021": true,
		"57P01": false, "57P03": false, "53200": false, "55006": false, "42704": false,
	} {
		if got := blamesStreaming(code); got != want {
			t.Errorf("%s: %t", code, got)
		}
	}
}

func TestMajorVersionIsReadFromWhatServersSay(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"14.23 (Debian 14.23-1)": 14, "18beta1": 18, "13.23": 13, "17": 17, "": 0, "x": 0} {
		if got := majorVersion(text); got != want {
			t.Errorf("%q: %d", text, got)
		}
	}
}
