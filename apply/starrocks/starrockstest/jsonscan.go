package starrockstest

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

var errJSONSyntax = errors.New("the JSON document has an improper structure")

const jsonDepthMax = 1024

// scanner walks over JSON text in place. It checks the syntax of everything it passes.
type scanner struct {
	buf string
	pos int
}

func (s *scanner) space() {
	for s.pos < len(s.buf) {
		switch s.buf[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) peek() byte {
	if s.pos < len(s.buf) {
		return s.buf[s.pos]
	}
	return 0
}

// skipString passes a string, the opening quote included, and tells whether it holds escapes.
func (s *scanner) skipString() (escaped bool, err error) {
	i := s.pos + 1
	for i < len(s.buf) {
		switch c := s.buf[i]; {
		case c == '"':
			s.pos = i + 1
			return escaped, nil
		case c == '\\':
			escaped = true
			n, err := escapeLength(s.buf[i:])
			if err != nil {
				return false, err
			}
			i += n
		case c < 0x20:
			return false, errJSONSyntax
		default:
			i++
		}
	}
	return false, errJSONSyntax
}

func escapeLength(s string) (int, error) {
	if len(s) < 2 {
		return 0, errJSONSyntax
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, nil
	case 'u':
		if len(s) < 6 {
			return 0, errJSONSyntax
		}
		if _, err := strconv.ParseUint(s[2:6], 16, 16); err != nil {
			return 0, errJSONSyntax
		}
		return 6, nil
	default:
		return 0, errJSONSyntax
	}
}

func (s *scanner) skipNumber() error {
	start := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if s.skipDigits() == 0 {
		return errJSONSyntax
	}
	if s.peek() == '.' {
		s.pos++
		if s.skipDigits() == 0 {
			return errJSONSyntax
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if s.skipDigits() == 0 {
			return errJSONSyntax
		}
	}
	if s.pos == start {
		return errJSONSyntax
	}
	return nil
}

func (s *scanner) skipDigits() int {
	start := s.pos
	for s.pos < len(s.buf) && s.buf[s.pos] >= '0' && s.buf[s.pos] <= '9' {
		s.pos++
	}
	return s.pos - start
}

func (s *scanner) skipWord(word string) error {
	if !strings.HasPrefix(s.buf[s.pos:], word) {
		return errJSONSyntax
	}
	s.pos += len(word)
	return nil
}

// skipValue passes one value, at most jsonDepthMax levels deep.
func (s *scanner) skipValue(depth int) error {
	if depth > jsonDepthMax {
		return errJSONSyntax
	}
	switch s.peek() {
	case '"':
		_, err := s.skipString()
		return err
	case '{':
		return s.skipContainer('}', true, depth)
	case '[':
		return s.skipContainer(']', false, depth)
	case 't':
		return s.skipWord("true")
	case 'f':
		return s.skipWord("false")
	case 'n':
		return s.skipWord("null")
	default:
		return s.skipNumber()
	}
}

func (s *scanner) skipContainer(end byte, keyed bool, depth int) error {
	s.pos++
	s.space()
	if s.peek() == end {
		s.pos++
		return nil
	}
	for {
		s.space()
		if keyed {
			if s.peek() != '"' {
				return errJSONSyntax
			}
			if _, err := s.skipString(); err != nil {
				return err
			}
			if err := s.colon(); err != nil {
				return err
			}
		}
		if err := s.skipValue(depth + 1); err != nil {
			return err
		}
		s.space()
		switch s.peek() {
		case ',':
			s.pos++
		case end:
			s.pos++
			return nil
		default:
			return errJSONSyntax
		}
	}
}

func (s *scanner) colon() error {
	s.space()
	if s.peek() != ':' {
		return errJSONSyntax
	}
	s.pos++
	s.space()
	return nil
}

// unescape decodes the inside of a JSON string whose syntax is known to be good.
func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if s[i] != '\\' {
			b = append(b, s[i])
			i++
			continue
		}
		if s[i+1] != 'u' {
			b = append(b, unescapeByte(s[i+1]))
			i += 2
			continue
		}
		r := hexRune(s[i+2:])
		i += 6
		if utf16.IsSurrogate(r) && i+6 <= len(s) && s[i] == '\\' && s[i+1] == 'u' {
			if pair := utf16.DecodeRune(r, hexRune(s[i+2:])); pair != utf8.RuneError {
				r = pair
				i += 6
			}
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

func hexRune(s string) rune {
	n, _ := strconv.ParseUint(s[:4], 16, 16) // Checked by skipString.
	return rune(n)
}

func unescapeByte(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	default:
		return c
	}
}
