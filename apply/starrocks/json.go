package starrocks

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

const (
	// jsonDepthMax is below the nesting that the JSON reader of StarRocks stops at.
	jsonDepthMax = 500
	// jsonKeysScanned is up to how many keys of an object are compared one by one.
	jsonKeysScanned = 16
)

var (
	refuseJSONNull   = &refusal{"StarRocks would turn the JSON value null into SQL NULL", textHint}
	refuseJSONNumber = &refusal{"the document has a number that neither a 64-bit integer nor a double holds exactly", textHint}
	refuseJSONKeys   = &refusal{"the document has an object with the same key twice, of which StarRocks would keep one", textHint}
	refuseJSONDepth  = &refusal{"the document is nested deeper than 500", textHint}
	refuseJSONEscape = &refusal{`the document has an escape such as \ud800 that is no character`, textHint}
	refuseJSONSize   = &refusal{"the document is longer than 16 MiB, which is StarRocks's limit", "shorten the document"}
)

// appendJSON appends a document as it is after checking that StarRocks will store
// exactly its value.
func (c *column) appendJSON(dst, v []byte, scratch *jsonScratch) ([]byte, *refusal) {
	if len(v) > jsonBytesMax {
		return dst, refuseJSONSize
	}
	s := jsonScanner{text: v, unique: c.source.Type == cdc.TypeJSON && !c.stored, stored: c.stored}
	if s.unique {
		if scratch.from == nil {
			scratch.from = make([]int, jsonDepthMax)
		}
		s.keys, s.keysFrom = scratch.keys[:0], scratch.from
	}
	r := s.document()
	if s.unique {
		scratch.keys = s.keys[:0]
	}
	if r != nil {
		return dst, r
	}
	return append(dst, v...), nil
}

// jsonScanner checks one document. It has no recursion and, unless keys must be
// compared, no allocation.
type jsonScanner struct {
	text []byte
	at   int
	// unique asks for a refusal of an object with two equal keys.
	unique bool
	// stored tells that the text comes from StarRocks, whose numbers are what it
	// can hold by definition.
	stored bool

	depth   int
	objects [jsonDepthMax]bool // whether each open bracket is a brace
	// If unique: the keys of all open objects, where those of each begin, and
	// those of large ones by depth.
	keys     []span
	keysFrom []int
	many     map[int]map[string]struct{}
}

// jsonScratch is memory that the scanner uses again for the next document.
type jsonScratch struct {
	keys []span
	from []int
}

type span struct{ start, end int }

func (s *jsonScanner) document() *refusal {
	s.blanks()
	if bytes.HasPrefix(s.text[s.at:], []byte("null")) && len(bytes.TrimSpace(s.text[s.at:])) == len("null") {
		return refuseJSONNull
	}
	for {
		opened, r := s.value()
		if r != nil {
			return r
		}
		if opened {
			continue
		}
		done, r := s.after()
		if r != nil {
			return r
		}
		if done {
			break
		}
	}
	if s.at != len(s.text) {
		return refuseSyntax
	}
	return nil
}

// value reads a scalar or an empty container, or opens one that has members; in an
// object it stands at the member's value then.
func (s *jsonScanner) value() (opened bool, r *refusal) {
	s.blanks()
	switch c := s.peek(); {
	case c == '{' || c == '[':
		return s.open(c == '{')
	case c == '"':
		return false, s.str()
	case c == '-' || (c >= '0' && c <= '9'):
		return false, s.number()
	case c == 't':
		return false, s.word("true")
	case c == 'f':
		return false, s.word("false")
	case c == 'n':
		return false, s.word("null")
	}
	return false, refuseSyntax
}

func (s *jsonScanner) open(object bool) (opened bool, r *refusal) {
	if s.depth == jsonDepthMax {
		return false, refuseJSONDepth
	}
	s.at++
	s.blanks()
	closing := byte(']')
	if object {
		closing = '}'
	}
	if s.peek() == closing {
		s.at++
		return false, nil
	}
	s.objects[s.depth] = object
	s.depth++
	if !object {
		return true, nil
	}
	if s.unique {
		s.keysFrom[s.depth-1] = len(s.keys)
	}
	return true, s.key()
}

// after reads what follows a value: commas and closing brackets, up to the next value
// or the end.
func (s *jsonScanner) after() (done bool, r *refusal) {
	for {
		s.blanks()
		if s.depth == 0 {
			return true, nil
		}
		object := s.objects[s.depth-1]
		switch c := s.peek(); {
		case c == ',':
			s.at++
			if object {
				return false, s.key()
			}
			return false, nil
		case (c == '}' && object) || (c == ']' && !object):
			if object && s.unique {
				s.forget()
			}
			s.at++
			s.depth--
		default:
			return false, refuseSyntax
		}
	}
}

func (s *jsonScanner) key() *refusal {
	s.blanks()
	start := s.at
	if s.peek() != '"' {
		return refuseSyntax
	}
	if r := s.str(); r != nil {
		return r
	}
	if s.unique {
		if r := s.remember(span{start, s.at}); r != nil {
			return r
		}
	}
	s.blanks()
	if s.peek() != ':' {
		return refuseSyntax
	}
	s.at++
	return nil
}

// remember refuses a key that the innermost open object has already. Up to
// jsonKeysScanned keys are compared one by one, more through a map.
func (s *jsonScanner) remember(key span) *refusal {
	from := s.keysFrom[s.depth-1]
	before := s.keys[from:]
	s.keys = append(s.keys, key)
	if len(before) <= jsonKeysScanned {
		for _, other := range before {
			if s.sameKey(other, key) {
				return refuseJSONKeys
			}
		}
		return nil
	}
	many := s.many[s.depth]
	if many == nil {
		many = make(map[string]struct{})
		for _, other := range before {
			many[s.unquoted(other)] = struct{}{}
		}
		if s.many == nil {
			s.many = make(map[int]map[string]struct{})
		}
		s.many[s.depth] = many
	}
	text := s.unquoted(key)
	if _, ok := many[text]; ok {
		return refuseJSONKeys
	}
	many[text] = struct{}{}
	return nil
}

// forget closes the innermost object.
func (s *jsonScanner) forget() {
	s.keys = s.keys[:s.keysFrom[s.depth-1]]
	delete(s.many, s.depth)
}

func (s *jsonScanner) sameKey(a, b span) bool {
	x, y := s.text[a.start:a.end], s.text[b.start:b.end]
	if bytes.IndexByte(x, '\\') < 0 && bytes.IndexByte(y, '\\') < 0 {
		return bytes.Equal(x, y)
	}
	return s.unquoted(a) == s.unquoted(b)
}

func (s *jsonScanner) unquoted(key span) string {
	var text string
	if json.Unmarshal(s.text[key.start:key.end], &text) != nil {
		return string(s.text[key.start:key.end])
	}
	return text
}

func (s *jsonScanner) blanks() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// peek returns the next byte, or zero, which is in no document, at the end.
func (s *jsonScanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

func (s *jsonScanner) word(word string) *refusal {
	if !bytes.HasPrefix(s.text[s.at:], []byte(word)) {
		return refuseSyntax
	}
	s.at += len(word)
	return nil
}

func (s *jsonScanner) str() *refusal {
	for i := s.at + 1; i < len(s.text); {
		switch c := s.text[i]; {
		case c == '"':
			s.at = i + 1
			return nil
		case c == '\\':
			size, r := escape(s.text[i:])
			if r != nil {
				return r
			}
			i += size
		case c < ' ':
			return refuseSyntax
		case c < utf8.RuneSelf:
			i++
		default:
			r, size := utf8.DecodeRune(s.text[i:])
			if r == utf8.RuneError && size == 1 {
				return refuseUTF8
			}
			i += size
		}
	}
	return refuseSyntax
}

// escape returns the length of the escape that v starts with; a surrogate pair is one.
func escape(v []byte) (int, *refusal) {
	if len(v) < 2 {
		return 0, refuseSyntax
	}
	if v[1] != 'u' {
		if bytes.IndexByte([]byte(`"\/bfnrt`), v[1]) < 0 {
			return 0, refuseSyntax
		}
		return 2, nil
	}
	const size = len(`\u0000`)
	unit, ok := codeUnit(v)
	switch {
	case !ok:
		return 0, refuseSyntax
	case unit >= 0xdc00 && unit < 0xe000:
		return 0, refuseJSONEscape
	case unit >= 0xd800 && unit < 0xdc00:
		low, ok := codeUnit(v[size:])
		if !ok || low < 0xdc00 || low >= 0xe000 {
			return 0, refuseJSONEscape
		}
		return 2 * size, nil
	}
	return size, nil
}

// codeUnit reads \uXXXX.
func codeUnit(v []byte) (unit int, ok bool) {
	if len(v) < 6 || v[0] != '\\' || v[1] != 'u' {
		return 0, false
	}
	for _, c := range v[2:6] {
		switch {
		case c >= '0' && c <= '9':
			unit = unit<<4 | int(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			unit = unit<<4 | int(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return unit, true
}

func (s *jsonScanner) number() *refusal {
	end, integer := scanNumber(s.text, s.at)
	if end < 0 {
		return refuseSyntax
	}
	text := s.text[s.at:end]
	s.at = end
	if s.stored {
		return nil
	}
	if (integer && fitsInt64(text)) || (!integer && exactDouble(text)) {
		return nil
	}
	return refuseJSONNumber
}

func fitsInt64(integer []byte) bool {
	const digitsAlways = 18
	if len(integer) <= digitsAlways {
		return true
	}
	_, err := strconv.ParseInt(unsafe.String(unsafe.SliceData(integer), len(integer)), 10, 64)
	return err == nil
}

// scanNumber returns the end of the JSON number at v[at:], or -1, and whether it has
// neither fraction nor exponent.
func scanNumber(v []byte, at int) (end int, integer bool) {
	digits := func() bool {
		from := at
		for at < len(v) && v[at] >= '0' && v[at] <= '9' {
			at++
		}
		return at > from
	}
	if at < len(v) && v[at] == '-' {
		at++
	}
	if at < len(v) && v[at] == '0' {
		at++
	} else if !digits() {
		return -1, false
	}
	integer = true
	if at < len(v) && v[at] == '.' {
		integer = false
		at++
		if !digits() {
			return -1, false
		}
	}
	if at < len(v) && (v[at] == 'e' || v[at] == 'E') {
		integer = false
		at++
		if at < len(v) && (v[at] == '+' || v[at] == '-') {
			at++
		}
		if !digits() {
			return -1, false
		}
	}
	return at, integer
}

// exactDouble tells whether the double next to a number, printed in the shortest way
// that identifies it, is that number again: 0.1 is, 0.10000000000000000001 is not.
func exactDouble(text []byte) bool {
	double, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(text), len(text)), 64)
	if err != nil {
		return false
	}
	var buffer [32]byte
	var digits, shortestDigits [significantMax]byte
	n, exponent, ok := significand(text, &digits)
	m, shortestExponent, _ := significand(strconv.AppendFloat(buffer[:0], double, 'e', -1, 64), &shortestDigits)
	return ok && bytes.Equal(digits[:n], shortestDigits[:m]) && (n == 0 || exponent == shortestExponent)
}

// significantMax is more than the digits that identify a double, which are 17.
const significantMax = 20

// significand writes the digits of a JSON number without the zeros around them. The
// number is 0.DIGITS times ten to the exponent. It is not ok if there are too many.
func significand(number []byte, digits *[significantMax]byte) (n, exponent int, ok bool) {
	mantissa := number
	if i := bytes.IndexAny(number, "eE"); i >= 0 {
		mantissa = number[:i]
		text := bytes.TrimPrefix(number[i+1:], []byte("+"))
		var err error
		if exponent, err = strconv.Atoi(unsafe.String(unsafe.SliceData(text), len(text))); err != nil {
			return 0, 0, false
		}
	}
	point := false
	zeros := 0 // since the last digit that is not zero
	for _, c := range mantissa {
		switch {
		case c == '-':
			continue
		case c == '.':
			point = true
			continue
		case c == '0' && n == 0:
			if point {
				exponent--
			}
			continue
		case c == '0':
			zeros++
		default:
			if n+zeros+1 > significantMax {
				return 0, 0, false
			}
			for ; zeros > 0; zeros-- {
				digits[n] = '0'
				n++
			}
			digits[n] = c
			n++
		}
		if !point {
			exponent++
		}
	}
	return n, exponent, true
}
