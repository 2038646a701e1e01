package roster

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// record is the value of the key. No two are equal: Term is random, Write counts.
type record struct {
	Member string    `json:"member"`
	Term   string    `json:"term"`
	Since  time.Time `json:"since"` // by the leader's wall clock, for people
	// TTL is the leader's, so that members of different configuration agree.
	TTL      time.Duration `json:"ttl_ns"`
	Write    uint64        `json:"write"`
	Released bool          `json:"released,omitempty"`
}

func (r *record) encode() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode leadership: %w", err)
	}
	return data, nil
}

func decode(value []byte) (record, error) {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return record{}, fmt.Errorf("decode leadership: %w", err)
	}
	if r.Term == "" || r.TTL <= 0 || r.TTL > ttlMax {
		return record{}, errors.New("decode leadership: it names no term, or one of no sensible length")
	}
	return r, nil
}

// sighting is what a member knows of the key, by its own clock.
type sighting struct {
	known    bool
	revision uint64
	record   record  // zero if there is none that can be read
	at       instant // when this revision was seen first
	// ttl is how long it must be seen unchanged before it may be taken.
	ttl time.Duration
}

// see notes what was just read from the store. A revision that differs in either
// direction is a change: a store that was made anew counts from the start.
func (s *sighting) see(value []byte, revision uint64, at instant, ttl time.Duration) {
	if s.known && s.revision == revision {
		return
	}
	// What is gone may have been the record of a leader with a longer term.
	ttl = max(ttl, s.ttl)
	*s = sighting{known: true, revision: revision, at: at, ttl: ttl}
	if r, err := decode(value); err == nil {
		s.record, s.ttl = r, max(ttl, r.TTL)
	}
}

// wait returns how long the key must still be left alone, zero if it may be taken.
// own are the terms of this member that have ended.
func (s *sighting) wait(at instant, own ...string) time.Duration {
	if s.revision == 0 || s.record.Released {
		return 0
	}
	for _, id := range own {
		if id != "" && s.record.Term == id {
			return 0
		}
	}
	return max(0, s.ttl-at.atLeast(s.at))
}
