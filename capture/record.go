package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// identity is what capture remembers across restarts: whose changes the stream holds,
// how far the server was told to forget, and which tables were counted when.
type identity struct {
	Version     int    `json:"version"`
	SystemID    string `json:"system_id"`
	Timeline    int32  `json:"timeline"`
	Database    string `json:"database"`
	DatabaseOID uint32 `json:"database_oid"`
	Slot        string `json:"slot"`
	Publication string `json:"publication"`
	Epoch       string `json:"epoch"`
	// Confirmed is the highest LSN that may have been confirmed without the sink
	// having applied changes up to there, because there were none; Settled the end
	// of the last transaction with changes before it.
	Confirmed cdc.LSN `json:"confirmed"`
	Settled   cdc.LSN `json:"settled"`
	// Published lists the tables that were seen in the publication. One that is
	// missing there later was taken out by somebody else.
	Published []Table `json:"published"`
	// Former are tables that were published once. What the sink has of them is out of
	// date.
	Former []Table `json:"former,omitempty"`
	// Filters tell which tables count in a transaction, by its commit LSN.
	Filters filters `json:"filters"`
	// Shapes tell what the tables looked like, by schema.table.
	Shapes map[string]*shape `json:"shapes,omitempty"`
	// Making is all that is stored from before the slot is created until the rest is
	// known: there was no slot, so one that is found after a crash is of our making and
	// was not used.
	Making bool `json:"making,omitempty"`
}

// identityVersion is the version of the stored form.
const identityVersion = 1

// filter is a set of tables and the commit LSN from which it holds.
type filter struct {
	Since  cdc.LSN `json:"since"`
	Tables []Table `json:"tables"`
}

// storedFilter is the stored form of a filter: the tables, or what is different from the
// filter before it. A thousand tables that come one by one must fit into one message.
type storedFilter struct {
	Since  cdc.LSN `json:"since"`
	Tables []Table `json:"tables,omitempty"`
	Follow bool    `json:"follow,omitempty"`
	Add    []Table `json:"add,omitempty"`
	Remove []Table `json:"remove,omitempty"`
}

// filters are in the order of Since.
type filters []filter

// MarshalJSON writes the differences where they are short.
func (f filters) MarshalJSON() ([]byte, error) {
	stored := make([]storedFilter, len(f))
	for i := range f {
		stored[i] = storedFilter{Since: f[i].Since, Tables: f[i].Tables}
		if i == 0 {
			continue
		}
		add, remove := difference(f[i].Tables, f[i-1].Tables), difference(f[i-1].Tables, f[i].Tables)
		kept := slices.DeleteFunc(slices.Clone(f[i-1].Tables), func(t Table) bool { return slices.Contains(remove, t) })
		if slices.Equal(slices.Concat(kept, add), f[i].Tables) {
			stored[i] = storedFilter{Since: f[i].Since, Follow: true, Add: add, Remove: remove}
		}
	}
	return json.Marshal(stored)
}

// UnmarshalJSON is the inverse.
func (f *filters) UnmarshalJSON(data []byte) error {
	var stored []storedFilter
	if err := json.Unmarshal(data, &stored); err != nil {
		return err
	}
	*f = nil
	var last []Table
	for _, s := range stored {
		if s.Follow {
			last = slices.DeleteFunc(slices.Clone(last), func(t Table) bool { return slices.Contains(s.Remove, t) })
			last = append(last, s.Add...)
		} else {
			last = s.Tables
		}
		*f = append(*f, filter{Since: s.Since, Tables: last})
	}
	return nil
}

// difference returns the elements of a that are not in b.
func difference(a, b []Table) (only []Table) {
	in := make(map[Table]bool, len(b))
	for _, t := range b {
		in[t] = true
	}
	for _, t := range a {
		if !in[t] {
			only = append(only, t)
		}
	}
	return only
}

// has reports whether the filter lets a table through.
func (f *filter) has(t Table) bool { return slices.Contains(f.Tables, t) }

// filterAt returns the filter for a transaction.
func (id *identity) filterAt(commit cdc.LSN) *filter {
	for i := len(id.Filters) - 1; i >= 0; i-- {
		if id.Filters[i].Since <= commit {
			return &id.Filters[i]
		}
	}
	return &filter{}
}

// setFilter makes the tables count in transactions that commit at or after since.
// Filters for transactions before done, which the server never repeats, are dropped.
func (id *identity) setFilter(tables []Table, since, done cdc.LSN) {
	// The list is replaced, never edited: a session holds pointers into it.
	kept := make([]filter, 0, len(id.Filters)+1)
	for i, f := range id.Filters {
		last := i == len(id.Filters)-1
		if f.Since >= since || (!last && id.Filters[i+1].Since <= done) {
			continue
		}
		kept = append(kept, f)
	}
	if n := len(kept); n == 0 || !slices.Equal(kept[n-1].Tables, tables) {
		kept = append(kept, filter{Since: since, Tables: slices.Clone(tables)})
	}
	id.Filters = kept
}

// formerMax bounds how many tables are remembered that were published once.
const formerMax = 10_000

// publish notes which tables are captured from now on.
func (id *identity) publish(tables []Table) {
	id.Former = slices.Concat(id.Former, difference(difference(id.Published, tables), id.Former))
	if over := len(id.Former) - formerMax; over > 0 {
		id.Former = id.Former[over:]
	}
	id.Published = slices.Clone(tables)
}

// again returns the tables that the sink does not have as they are, although they were
// published before: they were made anew, or, if they are matched, somebody took them out
// of the publication.
func (id *identity) again(infos []tableInfo, missing []Table) (again []recopy) {
	if id == nil {
		return nil
	}
	for i := range infos {
		t := &infos[i]
		before := id.shape(t.table.String())
		switch {
		case t.oid == 0 || before == nil || !slices.Contains(id.Published, t.table):
		case before.OID != t.oid:
			again = append(again, recopy{table: t.table, fresh: true, held: true, why: "the table was dropped and created again"})
		case t.matched && slices.Contains(missing, t.table):
			again = append(again, recopy{table: t.table, fresh: true, held: true, why: "the table was not published for a while"})
		}
	}
	return again
}

// record is the stored identity. It may be used by several goroutines.
type record struct {
	stream Stream

	mu       sync.Mutex
	id       *identity // nil when nothing is stored
	revision uint64
}

// loadRecord reads the stored identity.
func loadRecord(ctx context.Context, stream Stream) (*record, error) {
	value, revision, err := stream.LoadState(ctx)
	if err != nil {
		return nil, fmt.Errorf("load capture state: %w", err)
	}
	r := &record{stream: stream, revision: revision}
	if len(value) == 0 {
		return r, nil
	}
	r.id = new(identity)
	if err := json.Unmarshal(value, r.id); err != nil {
		return nil, fmt.Errorf("decode capture state: %w", err)
	}
	if r.id.Version != identityVersion {
		return nil, fmt.Errorf("capture state has version %d, this program reads %d: run the version that wrote it, or a newer one", r.id.Version, identityVersion)
	}
	return r, nil
}

// get returns a copy of the identity, nil if there is none.
func (r *record) get() *identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.id == nil || r.id.Making {
		return nil
	}
	id := *r.id
	return &id
}

// making tells that the slot was about to be created when the record was stored.
func (r *record) making() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.id != nil && r.id.Making
}

// update changes the identity and stores it durably before it returns. After an error
// what is stored is unknown and the record must be loaded again.
func (r *record) update(ctx context.Context, change func(*identity)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := identity{Version: identityVersion}
	if r.id != nil {
		id = *r.id
	}
	change(&id)
	value, err := json.Marshal(&id)
	if err != nil {
		return fmt.Errorf("encode capture state: %w", err)
	}
	revision, err := r.stream.SaveState(ctx, value, r.revision)
	if err != nil {
		return fmt.Errorf("save capture state: %w", err)
	}
	r.id, r.revision = &id, revision
	return nil
}

// filterAt returns the filter for a transaction. It is never changed.
func (r *record) filterAt(commit cdc.LSN) *filter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.id.filterAt(commit)
}
