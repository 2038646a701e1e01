package bus

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/vmihailenco/msgpack/v5"
)

// Headers of a dead letter that the bus sets itself.
const (
	headerLetterID      = "Dbmazz-Letter-Id"      // quoted as a Go string if it is not plain text
	headerLetterSum     = "Dbmazz-Letter-Sha256"  // of all that was put
	headerLetterBytes   = "Dbmazz-Letter-Bytes"   // of the data
	headerLetterExact   = "Dbmazz-Letter-Exact"   // bytes before the data: the header, MessagePack
	headerLetterParts   = "Dbmazz-Letter-Parts"   // messages that come before this one's body
	headerLetterAttempt = "Dbmazz-Letter-Attempt" // that the parts are of
	letterPrefix        = "Dbmazz-Letter-"
)

const (
	letterIDMax     = 1024
	letterHeaderMax = 1 << 20 // bytes of all names and values
	letterNamesMax  = 64
	plainMax        = 4096     // bytes of a value that can be a header as it is
	plainTotalMax   = 32 << 10 // of all of them; the server takes 64 KiB
	shownMax        = 512      // bytes of a value that cannot
)

var letterName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

func (l *Letter) validate() error {
	if len(l.ID) == 0 || len(l.ID) > letterIDMax {
		return fmt.Errorf("its id has %d bytes: use 1 to %d", len(l.ID), letterIDMax)
	}
	total := 0
	for name, value := range l.Header {
		total += len(name) + len(value)
		if !letterName.MatchString(name) || strings.HasPrefix(strings.ToLower(name), "nats-") ||
			strings.HasPrefix(strings.ToLower(name), strings.ToLower(letterPrefix)) {
			return fmt.Errorf("its header %q cannot be used: names are of a-z, A-Z, 0-9 and hyphen, and do not begin with Nats- or %s", name, letterPrefix)
		}
	}
	if total > letterHeaderMax || len(l.Header) > letterNamesMax {
		return fmt.Errorf("its %d headers have %d bytes: at most %d and %d are allowed", len(l.Header), total, letterNamesMax, letterHeaderMax)
	}
	return nil
}

// plain reports whether a value can be a header as it is.
func plain(value string) bool {
	return len(value) <= plainMax && utf8.ValidString(value) && value == strings.TrimSpace(value) &&
		strings.IndexFunc(value, unicode.IsControl) < 0
}

// shown returns what a person sees of a value in a header that is kept elsewhere.
func shown(value string) string {
	cut := value
	if len(cut) > shownMax {
		cut = cut[:shownMax]
	}
	cut = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(cut, "?"))
	if len(value) > shownMax {
		cut += fmt.Sprintf(" ... (%d bytes)", len(value))
	}
	return strings.TrimSpace(cut)
}

// shownID returns an id as the message's header has it, from which idOf gets it back.
func shownID(id string) string {
	if plain(id) && !strings.HasPrefix(id, `"`) {
		return id
	}
	return strconv.QuoteToASCII(id)
}

func idOf(head *jetstream.RawStreamMsg) (string, error) {
	text := head.Header.Get(headerLetterID)
	if !strings.HasPrefix(text, `"`) {
		return text, nil
	}
	id, err := strconv.Unquote(text)
	if err != nil {
		return "", fmt.Errorf("read message %d of dead-letter stream: its id %s: %w", head.Sequence, text, err)
	}
	return id, nil
}

// exactHeader returns the header in a form that keeps every byte; nothing if the headers
// of the message do.
func (l *Letter) exactHeader() ([]byte, error) {
	ok, total := true, 0
	exact := make(map[string][]byte, len(l.Header))
	for name, value := range l.Header {
		exact[name] = []byte(value)
		ok = ok && plain(value)
		total += len(name) + len(value)
	}
	if ok && total <= plainTotalMax {
		return nil, nil
	}
	data, err := msgpack.Marshal(exact)
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	return data, nil
}

// sum identifies the content.
func (l *Letter) sum() string {
	h := sha256.New()
	write := func(text string) {
		h.Write(strconv.AppendInt(nil, int64(len(text)), 10))
		h.Write([]byte(":" + text))
	}
	write(l.ID)
	for _, name := range slices.Sorted(maps.Keys(l.Header)) {
		write(name)
		write(l.Header[name])
	}
	h.Write([]byte(";"))
	h.Write(l.Data)
	return hex.EncodeToString(h.Sum(nil))
}

// messages returns what is to be stored: the head, and before it the parts, if the
// letter does not fit into one message.
func (l *Letter) messages(subject string, payloadMax int) (head *nats.Msg, parts []*nats.Msg, err error) {
	exact, err := l.exactHeader()
	if err != nil {
		return nil, nil, err
	}
	header := nats.Header{}
	room := headerAllowance
	for name, value := range l.Header {
		if header.Set(name, value); exact != nil {
			header.Set(name, shown(value))
		}
		room += len(name) + len(header.Get(name)) + 4
	}
	header.Set(headerLetterID, shownID(l.ID))
	room += len(header.Get(headerLetterID))
	header.Set(headerLetterSum, l.sum())
	header.Set(headerLetterBytes, strconv.Itoa(len(l.Data)))
	header.Set(headerLetterAttempt, strings.ToLower(rand.Text()[:16]))
	if exact != nil {
		header.Set(headerLetterExact, strconv.Itoa(len(exact)))
	}
	head = &nats.Msg{Subject: subject, Header: header}
	body := append(exact, l.Data...)
	if len(body)+room <= payloadMax {
		head.Data = body
		return head, nil, nil
	}
	for part := range slices.Chunk(body, max(1, payloadMax-headerAllowance)) {
		parts = append(parts, &nats.Msg{Header: nats.Header{}, Data: part})
	}
	header.Set(headerLetterParts, strconv.Itoa(len(parts)))
	return head, parts, nil
}

// sameAs returns nil if the message is the head of a letter with the same content.
func (l *Letter) sameAs(head *jetstream.RawStreamMsg) error {
	if head.Header.Get(headerLetterSum) == l.sum() {
		return nil
	}
	return fmt.Errorf("%w: it is message %d of %s", ErrLetterExists, head.Sequence, head.Time.UTC().Format("2006-01-02T15:04:05Z"))
}

// layout is how the body of a letter is stored.
type layout struct {
	attempt string
	parts   int // messages that hold the body, 0 if the head does
	exact   int // bytes of the body that are the header
	bytes   int // of data behind them
}

var errLetterDamaged = errors.New("the letter is damaged or half deleted: delete it, the source still has the row or apply puts it again")

func layoutOf(head *jetstream.RawStreamMsg) (layout, error) {
	number := func(name string) (int, error) {
		text := head.Header.Get(name)
		if text == "" {
			return 0, nil
		}
		n, err := strconv.ParseUint(text, 10, 31)
		return int(n), err //nolint:gosec // 31 bits.
	}
	parts, err1 := number(headerLetterParts)
	exact, err2 := number(headerLetterExact)
	size, err3 := number(headerLetterBytes)
	if err := errors.Join(err1, err2, err3); err != nil {
		return layout{}, fmt.Errorf("read message %d of dead-letter stream: %w: %w", head.Sequence, errLetterDamaged, err)
	}
	return layout{attempt: head.Header.Get(headerLetterAttempt), parts: parts, exact: exact, bytes: size}, nil
}

// letterOf makes a letter of its head and of the beginning of its body, which holds at
// least the header if that is not in the message's own.
func letterOf(head *jetstream.RawStreamMsg, lay layout, body []byte) (Letter, error) {
	id, err := idOf(head)
	if err != nil {
		return Letter{}, err
	}
	l := Letter{ID: id, Sequence: head.Sequence, StoredAt: head.Time, Bytes: lay.bytes, Header: map[string]string{}}
	if lay.exact == 0 || body == nil {
		for name := range head.Header {
			if !strings.HasPrefix(name, letterPrefix) && !strings.HasPrefix(name, "Nats-") {
				l.Header[name] = head.Header.Get(name)
			}
		}
		l.Damaged = lay.exact > 0
		return l, nil
	}
	var exact map[string][]byte
	if len(body) < lay.exact {
		return Letter{}, fmt.Errorf("read message %d of dead-letter stream: %w", head.Sequence, errLetterDamaged)
	}
	if err := msgpack.Unmarshal(body[:lay.exact], &exact); err != nil {
		return Letter{}, fmt.Errorf("read message %d of dead-letter stream: %w: %w", head.Sequence, errLetterDamaged, err)
	}
	for name, value := range exact {
		l.Header[name] = string(value)
	}
	return l, nil
}
