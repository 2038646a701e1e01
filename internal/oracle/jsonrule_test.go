package oracle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// judgeJSON says what must become of a document. Keys that come twice matter for json only: jsonb has none.
func judgeJSON(text string, unique bool) verdict {
	if strings.TrimSpace(text) == "null" || len(text) > 16<<20 || loneSurrogate(text) {
		return refused
	}
	document, depth, err := parseJSON(text)
	switch {
	case errors.Is(err, errTwice) && unique:
		return refused
	case err != nil:
		panic("judge a document: " + err.Error())
	case depth > 500:
		return refused
	}
	worst := fits
	if strings.Contains(text, `\u0000`) {
		worst = either // Whether StarRocks takes it is not documented.
	}
	walkNumbers(document, func(n string) { worst = max(worst, judgeNumber(n)) })
	return worst
}

// judgeNumber: a 64-bit integer fits, and a decimal number that a double prints.
func judgeNumber(text string) verdict {
	integer := !strings.ContainsAny(text, ".eE")
	if _, err := strconv.ParseInt(text, 10, 64); err == nil && integer {
		return fits
	}
	double, err := strconv.ParseFloat(text, 64)
	if err != nil || normalNumber(text) != normalNumber(strconv.FormatFloat(double, 'e', -1, 64)) {
		return refused
	}
	if integer {
		return either // Beyond 64 bits, written without an exponent.
	}
	return fits
}

// normalNumber writes a number as sign, digits without zeros around them, and exponent.
func normalNumber(text string) string {
	mantissa, exponentText, _ := strings.Cut(strings.ToLower(text), "e")
	exponent := 0
	if exponentText != "" {
		var err error
		if exponent, err = strconv.Atoi(exponentText); err != nil {
			return "out of range: " + text
		}
	}
	mantissa, negative := strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	exponent += len(digits) - len(fraction)
	digits = strings.TrimRight(digits, "0")
	if digits == "" {
		return "0"
	}
	sign := ""
	if negative {
		sign = "-"
	}
	return sign + digits + "e" + strconv.Itoa(exponent)
}

var errTwice = errors.New("a key comes twice")

// parseJSON reads a document by token, since unmarshalling says nothing about keys that come twice.
func parseJSON(text string) (document any, depth int, err error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if document, depth, err = readJSON(d); err != nil {
		return nil, depth, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, depth, fmt.Errorf("something follows the document: %w", err)
	}
	return document, depth, nil
}

func readJSON(d *json.Decoder) (value any, depth int, err error) {
	token, err := d.Token()
	if err != nil {
		return nil, 0, err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return token, 0, nil
	}
	members, list := map[string]any{}, []any{}
	for d.More() {
		key := ""
		if delim == '{' {
			token, err := d.Token()
			if err != nil {
				return nil, depth, err
			}
			key = token.(string)
		}
		member, inner, err := readJSON(d)
		if err != nil {
			return nil, depth, err
		}
		depth = max(depth, inner)
		if _, twice := members[key]; twice && delim == '{' {
			return nil, depth, fmt.Errorf("%w: %q", errTwice, key)
		}
		members[key] = member
		list = append(list, member)
	}
	if _, err := d.Token(); err != nil {
		return nil, depth, err
	}
	if delim == '{' {
		return members, depth + 1, nil
	}
	return list, depth + 1, nil
}

func walkNumbers(value any, visit func(string)) {
	switch value := value.(type) {
	case json.Number:
		visit(value.String())
	case []any:
		for _, member := range value {
			walkNumbers(member, visit)
		}
	case map[string]any:
		for _, member := range value {
			walkNumbers(member, visit)
		}
	}
}

// sameJSON compares values: blanks, the order of keys and the spelling of numbers and strings do not count.
func sameJSON(a, b string) bool {
	x, _, errX := parseJSON(a)
	y, _, errY := parseJSON(b)
	return errX == nil && errY == nil && sameDocument(x, y)
}

func sameDocument(a, b any) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && normalNumber(a.String()) == normalNumber(b.String())
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !sameDocument(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, member := range a {
			other, ok := b[key]
			if !ok || !sameDocument(member, other) {
				return false
			}
		}
		return true
	}
	return a == b
}

var escapes = regexp.MustCompile(`(?s)\\u[0-9a-fA-F]{4}|\\.`)

// loneSurrogate finds an escape for half of a character.
func loneSurrogate(text string) bool {
	pending := -1 // Where the escape of a first half ends.
	for _, at := range escapes.FindAllStringIndex(text, -1) {
		unit := uint64(0)
		if at[1]-at[0] == len(`\u0000`) {
			unit, _ = strconv.ParseUint(text[at[0]+2:at[1]], 16, 16) // The pattern allows only digits.
		}
		second := unit >= 0xdc00 && unit < 0xe000
		if second != (pending == at[0]) || (pending >= 0 && !second) {
			return true
		}
		pending = -1
		if unit >= 0xd800 && unit < 0xdc00 {
			pending = at[1]
		}
	}
	return pending >= 0
}
