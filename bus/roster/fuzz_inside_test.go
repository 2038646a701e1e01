package roster

import (
	"testing"
	"time"
)

// FuzzRecord states that whatever is found in the key, it is left alone for at least this
// member's time unless it says that its term was released, and that a record comes back
// as it was written.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"member":"a","term":"T","since":"2024-01-02T03:04:05Z","ttl_ns":6000000000,"write":3}`))
	f.Add([]byte(`{"term":"T","ttl_ns":1,"released":true}`))
	f.Add([]byte(`{"term":"T","ttl_ns":-1}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		const own = 6 * time.Second
		at := instant{wall: time.Unix(1_000_000, 0)}
		var s sighting
		s.see(value, 1, at, own)
		r, err := decode(value)
		if wait := s.wait(at); err == nil && r.Released {
			if wait != 0 {
				t.Fatalf("%q was released and is left alone for %s", value, wait)
			}
		} else if wait < own || wait > ttlMax {
			t.Fatalf("%q is left alone for %s", value, wait)
		}
		if err != nil {
			return
		}
		data, err := r.encode()
		if err != nil {
			return // A time beyond the year 9999, which is never written.
		}
		again, err := decode(data)
		if err != nil || !again.Since.Equal(r.Since) {
			t.Fatalf("%s: %v", data, err)
		}
		again.Since = r.Since
		if again != r {
			t.Fatalf("%+v became %+v", r, again)
		}
	})
}
