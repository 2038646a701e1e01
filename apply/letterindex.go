package apply

import (
	"slices"
	"strings"
)

// LetterIndex answers [Related] for one letter after another without going through all of
// them each time. The zero value is empty. Its methods must not be called concurrently.
type LetterIndex struct {
	byID   map[string]*LetterRef
	tables map[string]*tableIndex
}

// tableIndex are the letters of one table.
type tableIndex struct {
	byKey, byNeed map[string][]*LetterRef
	truncates     []*LetterRef
	// order has the letters in the order of their IDs, which is that of their
	// positions; what was removed at its begin is cut off.
	order  []*LetterRef
	sorted bool
}

// Add takes in a letter; one that is there already changes nothing.
func (x *LetterIndex) Add(ref LetterRef) {
	if x.byID == nil {
		x.byID, x.tables = map[string]*LetterRef{}, map[string]*tableIndex{}
	}
	if x.byID[ref.ID] != nil {
		return
	}
	r := &ref
	x.byID[ref.ID] = r
	name := ref.Namespace + "\x00" + ref.Table
	t := x.tables[name]
	if t == nil {
		t = &tableIndex{byKey: map[string][]*LetterRef{}, byNeed: map[string][]*LetterRef{}}
		x.tables[name] = t
	}
	for _, key := range r.Keys {
		t.byKey[string(key)] = append(t.byKey[string(key)], r)
	}
	for _, key := range r.Needs {
		t.byNeed[string(key)] = append(t.byNeed[string(key)], r)
	}
	if r.truncate() {
		t.truncates = append(t.truncates, r)
	}
	t.order, t.sorted = append(t.order, r), false
}

// Remove forgets a letter that is deleted.
func (x *LetterIndex) Remove(id string) { delete(x.byID, id) }

// Related is [Related] of all letters that are there.
func (x *LetterIndex) Related(id string) Chain { return Related(x.near(id), id) }

// Refs returns those of the letters with these IDs that are there.
func (x *LetterIndex) Refs(ids []string) []LetterRef {
	var refs []LetterRef
	for _, id := range ids {
		if r := x.byID[id]; r != nil {
			refs = append(refs, *r)
		}
	}
	return refs
}

// near returns the letters that matter for Related: those which share rows with a letter,
// those which lack values of such rows, the truncates of the table, and the oldest of the
// others, which keeps a truncate.
func (x *LetterIndex) near(id string) []LetterRef {
	first := x.byID[id]
	if first == nil {
		return nil
	}
	t := x.tables[first.Namespace+"\x00"+first.Table]
	taken := map[string]bool{}
	var out []LetterRef
	take := func(r *LetterRef) bool {
		if x.byID[r.ID] != r || taken[r.ID] {
			return false
		}
		taken[r.ID], out = true, append(out, *r)
		return true
	}
	take(first)
	for _, r := range t.truncates {
		take(r)
	}
	keys := slices.Clone(first.Keys)
	for seen := map[string]bool{}; len(keys) > 0; {
		key := string(keys[0])
		if keys = keys[1:]; seen[key] {
			continue
		}
		seen[key] = true
		for _, r := range t.byKey[key] {
			if take(r) {
				keys = append(keys, r.Keys...)
			}
		}
	}
	for i := range out {
		for _, key := range out[i].Keys {
			for _, r := range t.byNeed[string(key)] {
				take(r)
			}
		}
	}
	if r := x.oldest(t, taken); r != nil {
		take(r)
	}
	return out
}

// oldest returns the first letter of a table that is not among those given, nil if there
// is none.
func (x *LetterIndex) oldest(t *tableIndex, but map[string]bool) *LetterRef {
	if !t.sorted {
		slices.SortFunc(t.order, func(a, b *LetterRef) int { return strings.Compare(a.ID, b.ID) })
		t.sorted = true
	}
	for len(t.order) > 0 && x.byID[t.order[0].ID] != t.order[0] {
		t.order = t.order[1:]
	}
	for _, r := range t.order {
		if x.byID[r.ID] == r && !but[r.ID] {
			return r
		}
	}
	return nil
}
