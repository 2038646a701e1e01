package bus_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// TestAssemblyProvesContinuity feeds messages written as "sequence id follows part",
// each with its sequence as data, and compares the frames.
func TestAssemblyProvesContinuity(t *testing.T) {
	t.Parallel()
	const gap = "gap"
	for _, c := range []struct{ name, messages, want string }{
		{"whole frames", "1 a.1 - -; 2 a.2 a.1 -", "1 2"},
		{"split frame", "1 a.1 - 1/3; 2 a.2 a.1 2/3; 3 a.3 a.2 3/3; 4 a.4 a.3 -", "123 4"},
		{"delivered again", "1 a.1 - -; 2 a.2 a.1 -; 1 a.1 - -; 2 a.2 a.1 -; 3 a.3 a.2 -", "1 2 3"},
		{"delivered again inside a frame", "1 a.1 - 1/2; 1 a.1 - 1/2; 2 a.2 a.1 2/2", "12"},
		{"cut off by another session", "1 a.1 - 1/3; 2 a.2 a.1 2/3; 3 b.3 a.2 -; 4 b.4 b.3 -", "3 4"},
		{"cut off, split again", "1 a.1 - 1/3; 2 b.2 a.1 1/2; 3 b.3 b.2 2/2", "23"},
		{"cut off by the same session", "1 a.1 - 1/3; 2 a.2 a.1 -", gap},
		{"missing sequence", "1 a.1 - -; 3 a.3 a.2 -", "1 " + gap},
		{"first is missing", "2 a.2 a.1 -", gap},
		{"used-up sequences", "1 a.1 - -; 4 b.4 after:1 -; 5 b.5 b.4 -", "1 4 5"},
		{"used-up sequences, partly delivered", "1 a.1 - -; 2 a.2 a.1 -; 5 b.5 after:1 -", "1 2 5"},
		{"used-up sequences, too many", "1 a.1 - -; 5 b.5 after:2 -", "1 " + gap},
		{"other predecessor", "1 a.1 - -; 2 b.2 b.1 -", "1 " + gap},
		{"starts inside a frame", "1 a.1 - 2/3", gap},
		{"part left out", "1 a.1 - 1/3; 2 a.2 a.1 3/3", gap},
		{"parts of two sessions", "1 a.1 - 1/2; 2 b.2 a.1 2/2", gap},
		{"number of parts changes", "1 a.1 - 1/3; 2 a.2 a.1 2/2", gap},
		{"bad part", "1 a.1 - 3/2", "corrupt"},
		{"bad part text", "1 a.1 - x", "corrupt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := assemble(t, c.messages); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func assemble(t *testing.T, messages string) string {
	t.Helper()
	var a bus.Assembly
	var frames []string
	for text := range strings.SplitSeq(messages, "; ") {
		f := strings.Fields(text)
		sequence, err := strconv.ParseUint(f[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		h := nats.Header{"Nats-Msg-Id": {f[1]}}
		if after, ok := strings.CutPrefix(f[2], "after:"); ok {
			h.Set("Dbmazz-After", after)
		} else if f[2] != "-" {
			h.Set("Dbmazz-Previous-Id", f[2])
		}
		if f[3] != "-" {
			h.Set(bus.HeaderPart, f[3])
		}
		m, ok, err := a.Add(sequence, h, f[0])
		var gap *bus.GapError
		switch {
		case errors.As(err, &gap):
			return strings.Join(append(frames, "gap"), " ")
		case errors.Is(err, cdc.ErrCorrupt):
			return strings.Join(append(frames, "corrupt"), " ")
		case err != nil:
			t.Fatal(err)
		case ok:
			if m.Sequence != sequence || m.FirstSequence != sequence-uint64(len(m.Data))+1 {
				t.Errorf("frame %s has sequences %d to %d", m.Data, m.FirstSequence, m.Sequence)
			}
			frames = append(frames, string(m.Data))
		}
	}
	return strings.Join(frames, " ")
}
