package compare

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
)

// equalJSON compares two documents by content: the order of keys and the spelling of numbers and strings do not count,
// a key that comes twice does.
func equalJSON(source, sink []byte) (bool, error) {
	if bytes.Equal(source, sink) {
		return true, nil
	}
	a, err := parseJSON(source)
	if err != nil {
		return false, fmt.Errorf("read a document of the source: %w", err)
	}
	b, err := parseJSON(sink)
	if err != nil {
		return false, fmt.Errorf("read a document of the sink: %w", err)
	}
	return sameJSON(a, b), nil
}

func parseJSON(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	value, err := readJSON(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the document")
	}
	return value, nil
}

// readJSON reads by token, because unmarshalling would keep quiet about a key that comes twice.
func readJSON(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			name, _ := key.(string) // The decoder allows nothing else.
			if _, twice := object[name]; twice {
				return nil, fmt.Errorf("key %q comes twice", name)
			}
			if object[name], err = readJSON(d); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := readJSON(d)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = d.Token()
		return list, err
	}
	return token, nil
}

func sameJSON(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, value := range a {
			other, ok := b[key]
			if !ok || !sameJSON(value, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !sameJSON(a[i], b[i]) {
				return false
			}
		}
		return true
	case json.Number:
		b, ok := b.(json.Number)
		return ok && sameNumber(a, b)
	}
	return a == b
}

// sameNumber takes the number next to a decimal fraction that a double prints for equal, as documents in the sink
// hold doubles; integers must be exact.
func sameNumber(a, b json.Number) bool {
	x, okX := new(big.Rat).SetString(a.String())
	y, okY := new(big.Rat).SetString(b.String())
	if !okX || !okY {
		return false
	}
	if x.Cmp(y) == 0 {
		return true
	}
	if x.IsInt() || y.IsInt() {
		return false
	}
	f, errF := strconv.ParseFloat(a.String(), 64)
	g, errG := strconv.ParseFloat(b.String(), 64)
	return errF == nil && errG == nil && f == g
}
