package pgoutput_test

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/capture/pgoutput"
)

// golden reads a recording: one message per line in hexadecimal.
func golden(t testing.TB, path string) [][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var messages [][]byte
	for lines := bufio.NewScanner(f); lines.Scan(); {
		data, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, data)
	}
	return messages
}

func recordings(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	return paths
}

// show prints a message without what differs between servers: LSNs, times, ids.
func show(m *pgoutput.Message) string {
	text := m.Kind.String()
	switch m.Kind {
	case pgoutput.KindBegin, pgoutput.KindCommit, pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete:
	case pgoutput.KindRelation:
		text += fmt.Sprintf(" %s.%s %c", m.Namespace, m.Name, m.ReplicaIdentity)
		for columns := m.Columns; ; {
			c, ok := columns.Next()
			if !ok {
				break
			}
			text += fmt.Sprintf(" %s:%t:%d", c.Name, c.Identity, c.Mod)
		}
	case pgoutput.KindTruncate:
		text += fmt.Sprintf(" flags %d tables %d", m.Flags, m.Relations.Len())
	case pgoutput.KindType:
		text += fmt.Sprintf(" %s.%s", m.Namespace, m.Name)
	case pgoutput.KindMessage:
		text += fmt.Sprintf(" %d %s=%s", m.Flags, m.Name, m.Content)
	case pgoutput.KindOrigin:
		text += " " + string(m.Name)
	case pgoutput.KindStreamStart:
		text += fmt.Sprintf(" first %t", m.First)
	case pgoutput.KindStreamStop, pgoutput.KindStreamCommit:
	case pgoutput.KindStreamAbort:
		text += fmt.Sprintf(" of all %t", m.SubXID == m.XID)
	}
	if m.OldKind != pgoutput.OldNone {
		text += fmt.Sprintf(" %c%s", m.OldKind, showTuple(m.Old))
	}
	if m.New.Len() > 0 {
		text += " N" + showTuple(m.New)
	}
	return text
}

func showTuple(t pgoutput.Tuple) string {
	var values []string
	for {
		kind, value, ok := t.Next()
		if !ok {
			return "(" + strings.Join(values, ",") + ")"
		}
		switch {
		case kind != pgoutput.Text:
			values = append(values, string(rune(kind)))
		case len(value) > 40:
			values = append(values, fmt.Sprintf("%d bytes", len(value)))
		default:
			values = append(values, "'"+string(value)+"'")
		}
	}
}

func TestRecordingsOfRealServersDecode(t *testing.T) {
	t.Parallel()
	for _, path := range recordings(t) {
		var got strings.Builder
		var m pgoutput.Message
		for _, data := range golden(t, path) {
			if err := pgoutput.Decode(data, &m); err != nil {
				t.Fatalf("%s: %x: %v", path, data, err)
			}
			fmt.Fprintln(&got, show(&m))
		}
		var major int
		if _, err := fmt.Sscanf(filepath.Base(path), "postgres-%d.hex", &major); err != nil {
			t.Fatal(err)
		}
		compare(t, major, got.String())
	}
}

// compare compares with what every server sends. Version 13 has no Message.
func compare(t *testing.T, major int, got string) {
	t.Helper()
	data, err := os.ReadFile("testdata/expected.txt")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for line := range strings.Lines(string(data)) {
		if major > 13 || !strings.HasPrefix(line, "Message") {
			want.WriteString(line)
		}
	}
	if diff := cmp.Diff(want.String(), got); diff != "" {
		t.Errorf("PostgreSQL %d (-want +got):\n%s", major, diff)
	}
}

func TestTruncatedAndPaddedMessagesAreErrorsThatSayWhere(t *testing.T) {
	t.Parallel()
	var m pgoutput.Message
	for _, path := range recordings(t) {
		for _, data := range golden(t, path) {
			for n := range min(len(data), 2000) {
				err := pgoutput.Decode(data[:n:n], &m)
				if !errors.Is(err, pgoutput.ErrMalformed) {
					t.Fatalf("%x cut to %d bytes: %v", data, n, err)
				}
				if kind := pgoutput.Kind(data[0]).String(); n > 0 && (!strings.Contains(err.Error(), kind) || !strings.Contains(err.Error(), "offset")) {
					t.Fatalf("error does not name message and offset: %v", err)
				}
			}
			if err := pgoutput.Decode(append(slices.Clip(data), 0), &m); !errors.Is(err, pgoutput.ErrMalformed) {
				t.Fatalf("%x and one byte more: %v", data, err)
			}
		}
	}
}

func TestMalformedMessagesAreErrors(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]string{
		"empty":               "",
		"unknown type":        "Zabc",
		"short stream start":  "S\x00\x00\x00\x01",
		"long stream abort":   "A\x00\x00\x00\x01\x00\x00\x00\x02\x00",
		"binary column":       "I\x00\x00\x00\x01N\x00\x01b\x00\x00\x00\x01x",
		"unknown column":      "I\x00\x00\x00\x01N\x00\x01x",
		"insert without N":    "I\x00\x00\x00\x01K\x00\x00",
		"update with X":       "U\x00\x00\x00\x01X\x00\x00",
		"update without new":  "U\x00\x00\x00\x01K\x00\x00K\x00\x00",
		"delete with N":       "D\x00\x00\x00\x01N\x00\x00",
		"negative length":     "I\x00\x00\x00\x01N\x00\x01t\xff\xff\xff\xffx",
		"columns that lack":   "I\x00\x00\x00\x01N\xff\xffn",
		"relations that lack": "T\xff\xff\xff\xff\x00\x00\x00\x00\x01",
		"endless name":        "Y\x00\x00\x00\x01abc",
		"commit with flags":   "C\x01" + strings.Repeat("\x00", 24),
	} {
		var m pgoutput.Message
		if err := pgoutput.Decode([]byte(data), &m); !errors.Is(err, pgoutput.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodingARowAllocatesNothing(t *testing.T) {
	var rows [][]byte
	for _, data := range golden(t, recordings(t)[0]) {
		if strings.IndexByte("BCIUD", data[0]) >= 0 {
			rows = append(rows, data)
		}
	}
	var m pgoutput.Message
	allocs := testing.AllocsPerRun(100, func() {
		for _, data := range rows {
			if err := pgoutput.Decode(data, &m); err != nil {
				t.Fatal(err)
			}
			for tuple := m.New; ; {
				if _, _, ok := tuple.Next(); !ok {
					break
				}
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzDecode(f *testing.F) {
	for _, path := range recordings(f) {
		for _, data := range golden(f, path) {
			if len(data) < 4096 {
				f.Add(data, false)
			}
		}
	}
	f.Add([]byte("S\x00\x00\x00\x01\x01"), false)
	f.Add([]byte("A\x00\x00\x00\x01\x00\x00\x00\x02"), false)
	f.Add([]byte("I\x00\x00\x00\x09\x00\x00\x00\x01N\x00\x01n"), true)
	f.Fuzz(func(t *testing.T, data []byte, streamed bool) {
		decode := pgoutput.Decode
		if streamed {
			decode = pgoutput.DecodeStreamed
		}
		var m pgoutput.Message
		if err := decode(data, &m); err != nil {
			if !errors.Is(err, pgoutput.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		sameBytes(t, data, &m, streamed)
	})
}
