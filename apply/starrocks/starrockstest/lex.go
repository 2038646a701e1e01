package starrockstest

import (
	"strings"
)

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokIdent
	tokQuoted
	tokString
	tokNumber
	tokSymbol
	tokParam
)

type token struct {
	kind tokenKind
	text string
	// pos is the byte offset in the statement, for error messages.
	pos int
}

// is compares keywords without regard to case, and symbols. Quoted names are never keywords.
func (t token) is(word string) bool {
	return (t.kind == tokIdent || t.kind == tokSymbol) && strings.EqualFold(t.text, word)
}

// lexSQL cuts a statement into tokens; the last one is tokEnd.
func lexSQL(sql string) ([]token, error) {
	var toks []token
	for i := 0; ; {
		i = skipBlank(sql, i)
		if i >= len(sql) {
			return append(toks, token{kind: tokEnd, pos: len(sql)}), nil
		}
		t, next, err := lexToken(sql, i)
		if err != nil {
			return nil, err
		}
		t.pos = i
		toks = append(toks, t)
		i = next
	}
}

// skipBlank passes white space and comments.
func skipBlank(sql string, i int) int {
	for i < len(sql) {
		rest := sql[i:]
		switch {
		case strings.IndexByte(" \t\r\n\f\v", rest[0]) >= 0:
			i++
		case strings.HasPrefix(rest, "-- "), strings.HasPrefix(rest, "--\n"), strings.HasPrefix(rest, "--\t"), rest == "--", rest[0] == '#':
			n := strings.IndexByte(rest, '\n')
			if n < 0 {
				return len(sql)
			}
			i += n + 1
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				return len(sql)
			}
			i += n + 4
		default:
			return i
		}
	}
	return i
}

func lexToken(sql string, i int) (t token, next int, err error) {
	c := sql[i]
	switch {
	case c == '`':
		return lexQuoted(sql, i)
	case c == '\'' || c == '"':
		return lexString(sql, i)
	case c == '?':
		return token{kind: tokParam, text: "?"}, i + 1, nil
	case isDigit(c), c == '.' && i+1 < len(sql) && isDigit(sql[i+1]):
		next = numberEnd(sql, i)
		if next < len(sql) && isIdentByte(sql[next]) && c != '.' {
			for next < len(sql) && isIdentByte(sql[next]) {
				next++
			}
			return token{kind: tokIdent, text: sql[i:next]}, next, nil
		}
		return token{kind: tokNumber, text: sql[i:next]}, next, nil
	case isIdentByte(c):
		for next = i; next < len(sql) && isIdentByte(sql[next]); {
			next++
		}
		return token{kind: tokIdent, text: sql[i:next]}, next, nil
	}
	for _, s := range []string{"<=>", "@@", "<=", ">=", "<>", "!=", "||", "&&"} {
		if strings.HasPrefix(sql[i:], s) {
			return token{kind: tokSymbol, text: s}, i + len(s), nil
		}
	}
	if strings.IndexByte("()+-*/%,.;=<>!@:[]{}|&", c) < 0 {
		return t, 0, syntaxError(sql, i, "unexpected character '%c'", c)
	}
	return token{kind: tokSymbol, text: string(c)}, i + 1, nil
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isIdentByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || isDigit(c) || (c|0x20 >= 'a' && c|0x20 <= 'z')
}

func numberEnd(sql string, i int) int {
	for i < len(sql) && isDigit(sql[i]) {
		i++
	}
	if i < len(sql) && sql[i] == '.' {
		i++
		for i < len(sql) && isDigit(sql[i]) {
			i++
		}
	}
	if i < len(sql) && (sql[i] == 'e' || sql[i] == 'E') {
		j := i + 1
		if j < len(sql) && (sql[j] == '+' || sql[j] == '-') {
			j++
		}
		if j < len(sql) && isDigit(sql[j]) {
			for j < len(sql) && isDigit(sql[j]) {
				j++
			}
			i = j
		}
	}
	return i
}

func lexQuoted(sql string, i int) (t token, next int, err error) {
	var b strings.Builder
	for j := i + 1; j < len(sql); j++ {
		if sql[j] != '`' {
			b.WriteByte(sql[j])
			continue
		}
		if j+1 < len(sql) && sql[j+1] == '`' {
			b.WriteByte('`')
			j++
			continue
		}
		return token{kind: tokQuoted, text: b.String()}, j + 1, nil
	}
	return t, 0, syntaxError(sql, i, "unterminated quoted name")
}

func lexString(sql string, i int) (t token, next int, err error) {
	quote := sql[i]
	var b strings.Builder
	for j := i + 1; j < len(sql); j++ {
		switch c := sql[j]; {
		case c == '\\' && j+1 < len(sql):
			j++
			writeEscape(&b, sql[j])
		case c == quote && j+1 < len(sql) && sql[j+1] == quote:
			b.WriteByte(quote)
			j++
		case c == quote:
			return token{kind: tokString, text: b.String()}, j + 1, nil
		default:
			b.WriteByte(c)
		}
	}
	return t, 0, syntaxError(sql, i, "unterminated string")
}

func writeEscape(b *strings.Builder, c byte) {
	switch c {
	case 'n':
		b.WriteByte('\n')
	case 't':
		b.WriteByte('\t')
	case 'r':
		b.WriteByte('\r')
	case 'b':
		b.WriteByte('\b')
	case '0':
		b.WriteByte(0)
	case 'Z':
		b.WriteByte(26)
	case '%', '_':
		b.WriteByte('\\')
		b.WriteByte(c)
	default:
		b.WriteByte(c)
	}
}
