package bus

import (
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
)

// assembly puts the parts of frames together and proves that the stream goes on
// where it was: by the sequence, and by the id that each message says it follows.
type assembly struct {
	last   uint64 // the sequence that was added last
	lastID string // and its id, empty at first

	data    []byte // the parts so far
	first   uint64 // the sequence of part 1
	parts   int    // how many are there, 0 if none
	total   int
	session string
}

// add takes the next message. ok tells that a frame is complete; a message that was
// added before is dropped.
func (a *assembly) add(sequence uint64, header nats.Header, data []byte) (m Message, ok bool, err error) {
	if sequence <= a.last {
		return Message{}, false, nil
	}
	if err := a.continues(sequence, header); err != nil {
		return Message{}, false, err
	}
	i, n, err := partOf(header)
	if err != nil {
		return Message{}, false, err
	}
	session := sessionOf(header)
	if a.parts > 0 && i == 1 && session != a.session {
		// The session before ended inside a frame; the next one sent its
		// content again.
		a.parts, a.data = 0, nil
	}
	if i != a.parts+1 || (a.parts > 0 && (n != a.total || session != a.session)) {
		return Message{}, false, &GapError{Expected: sequence, Found: sequence, Reason: fmt.Sprintf("part %d/%d came after part %d/%d", i, n, a.parts, a.total)}
	}
	a.last, a.lastID = sequence, header.Get(headerID)
	if n == 1 {
		return Message{FirstSequence: sequence, Sequence: sequence, Data: data}, true, nil
	}
	if i == 1 {
		a.first, a.total, a.session = sequence, n, session
		a.data = make([]byte, 0, n*len(data))
	}
	a.data = append(a.data, data...)
	a.parts = i
	if i < n {
		return Message{}, false, nil
	}
	m = Message{FirstSequence: a.first, Sequence: sequence, Data: a.data}
	a.parts, a.data = 0, nil
	return m, true, nil
}

// continues checks that nothing is missing before the message.
func (a *assembly) continues(sequence uint64, header nats.Header) error {
	if sequence != a.last+1 {
		// A hole is right only where the writer found one and sent what was
		// in it again.
		after, err := strconv.ParseUint(header.Get(headerAfter), 10, 64)
		if err != nil || after > a.last {
			return &GapError{Expected: a.last + 1, Found: sequence, Reason: "the messages between are not in the stream"}
		}
	}
	if want := header.Get(headerPrevID); a.lastID != "" && want != "" && want != a.lastID {
		return &GapError{Expected: sequence, Found: sequence, Reason: "it follows message " + want + ", not " + a.lastID}
	}
	return nil
}
