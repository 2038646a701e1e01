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
	// Filters tell which tables count in a transaction, by its commit LSN.
	Filters []filter `json:"filters"`
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
