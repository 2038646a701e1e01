package starrockstest

import (
	"bytes"
	"encoding/json"
	"math"
	"sort"
	"strconv"
	"strings"
)

// convertJSONText parses the text of a JSON value, as CSV fields and casts give it.
func convertJSONText(s string) (value, error) {
	if len(s) > jsonMaxBytes {
		return null, errUnconvertible
	}
	sc := scanner{buf: s}
	sc.space()
	start := sc.pos
	if err := sc.skipValue(0); err != nil {
		return null, errUnconvertible
	}
	token := s[start:sc.pos]
	sc.space()
	if sc.pos != len(s) {
		return null, errUnconvertible
	}
	return convertJSONToken(token)
}

// convertJSONToken stores one valid JSON token. JSON null becomes SQL NULL.
func convertJSONToken(token string) (value, error) {
	if len(token) > jsonMaxBytes {
		return null, errUnconvertible
	}
	if token == "null" {
		return null, nil
	}
	dec := json.NewDecoder(strings.NewReader(token))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return null, errUnconvertible
	}
	var b bytes.Buffer
	if err := writeJSON(&b, v); err != nil {
		return null, errUnconvertible
	}
	return value{kind: kindJSON, text: b.String()}, nil
}

// writeJSON prints the way the JSON type does: sorted keys, one space after ':' and ',', numbers beyond 64 bits as
// doubles. Key order, duplicate keys and trailing zeros of the input are therefore lost.
func writeJSON(b *bytes.Buffer, v any) error {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case json.Number:
		return writeJSONNumber(b, v.String())
	case string:
		return writeJSONString(b, v)
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			if err := writeJSON(b, e); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case map[string]any:
		return writeJSONObject(b, v)
	}
	return nil
}

func writeJSONObject(b *bytes.Buffer, m map[string]any) error {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	b.WriteByte('{')
	for i, k := range keys {
		if i > 0 {
			b.WriteString(", ")
		}
		if err := writeJSONString(b, k); err != nil {
			return err
		}
		b.WriteString(": ")
		if err := writeJSON(b, m[k]); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func writeJSONString(b *bytes.Buffer, s string) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1)
	return nil
}

func writeJSONNumber(b *bytes.Buffer, s string) error {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		b.WriteString(strconv.FormatInt(n, 10))
		return nil
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		b.WriteString(strconv.FormatUint(n, 10))
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return errUnconvertible
	}
	b.WriteString(renderFloat(f, false))
	return nil
}

// convertArrayText parses an array's text form, a JSON array whose elements convert one by one.
func convertArrayText(t colType, s string) (value, error) {
	sc := scanner{buf: s}
	sc.space()
	if sc.pos >= len(s) || s[sc.pos] != '[' {
		return null, errUnconvertible
	}
	start := sc.pos
	if err := sc.skipValue(0); err != nil {
		return null, errUnconvertible
	}
	token := s[start:sc.pos]
	sc.space()
	if sc.pos != len(s) {
		return null, errUnconvertible
	}
	return convertArrayToken(t, token)
}

// convertArrayToken converts a valid JSON array. Elements that do not convert become NULL, in strict mode as well.
func convertArrayToken(t colType, token string) (value, error) {
	if token == "" || token[0] != '[' {
		return null, errUnconvertible
	}
	var b strings.Builder
	b.WriteByte('[')
	sc := scanner{buf: token, pos: 1}
	for n := 0; ; n++ {
		sc.space()
		if token[sc.pos] == ']' {
			break
		}
		if token[sc.pos] == ',' {
			sc.pos++
			sc.space()
		}
		start := sc.pos
		if err := sc.skipValue(0); err != nil {
			return null, errUnconvertible
		}
		if n > 0 {
			b.WriteByte(',')
		}
		v, err := convertToken(*t.elem, token[start:sc.pos])
		if err != nil {
			v = null
		}
		writeArrayElement(&b, *t.elem, v)
	}
	b.WriteByte(']')
	return value{kind: kindArray, text: b.String()}, nil
}

func writeArrayElement(b *strings.Builder, t colType, v value) {
	switch v.kind {
	case kindNull:
		b.WriteString("null")
	case kindString, kindBytes, kindDate, kindDatetime, kindJSON:
		b.WriteByte('"')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v.render(t, true)))
		b.WriteByte('"')
	default:
		b.WriteString(v.render(t, true))
	}
}
