package capture

import (
	"encoding/json"
	"unicode/utf8"
)

// storedKey is a key as it is remembered: a list of texts. JSON would alter one that is
// not UTF-8, as an SQL_ASCII database may have, and copying would go on at another row;
// such a one is stored as {"bytes": base64}.
type storedKey []string

type rawText struct {
	Bytes []byte `json:"bytes"`
}

// MarshalJSON implements json.Marshaler.
func (k storedKey) MarshalJSON() ([]byte, error) {
	list := make([]any, len(k))
	for i, text := range k {
		list[i] = text
		if !utf8.ValidString(text) {
			list[i] = rawText{[]byte(text)}
		}
	}
	return json.Marshal(list)
}

// UnmarshalJSON implements json.Unmarshaler.
func (k *storedKey) UnmarshalJSON(data []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*k = make(storedKey, len(list))
	for i, value := range list {
		if err := json.Unmarshal(value, &(*k)[i]); err == nil {
			continue
		}
		var raw rawText
		if err := json.Unmarshal(value, &raw); err != nil {
			return err
		}
		(*k)[i] = string(raw.Bytes)
	}
	return nil
}
