package capture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// SnapshotStore keeps what is remembered of the copying of existing rows.
type SnapshotStore interface {
	// LoadState returns what SaveState stored last, and its revision; nil and zero
	// when there is nothing.
	LoadState(ctx context.Context) (value []byte, revision uint64, err error)
	// SaveState stores the state durably if revision is still the last one, zero
	// meaning that there is none. A conflict is an error.
	SaveState(ctx context.Context, value []byte, revision uint64) (uint64, error)
}

// CopyState says how far the copying of a table is.
type CopyState string

// The states of the copy of a table.
const (
	CopyNone    CopyState = "none"    // its existing rows are not copied
	CopyWaiting CopyState = "waiting" // for its turn
	CopyRunning CopyState = "copying"
	CopyDone    CopyState = "done"
	CopyFailed  CopyState = "failed" // the last attempt; another one follows
)

// snapshotState is what is remembered.
type snapshotState struct {
	Version int          `json:"version"`
	Paused  bool         `json:"paused,omitempty"`
	Tables  []*tableCopy `json:"tables"`
}

// snapshotVersion is the version of the stored form.
const snapshotVersion = 1

// tableCopy is the copy of one table.
type tableCopy struct {
	Table Table `json:"table"`
	// OID tells the table from one that is made later under its name.
	OID   uint32    `json:"oid,omitempty"`
	State CopyState `json:"state"`
	// Joined tells that the table came into the publication while transactions were
	// running that had changed it before, which are not in the stream.
	Joined bool `json:"joined,omitempty"`
	// Marks are the ends of chunks, in order: the last one that the sink has
	// applied, and those after it. The stream can lose those and the slot does not
	// repeat them.
	Marks []copyMark `json:"marks,omitempty"`
	// Singles are keys whose rows must be copied again.
	Singles []*singleKey `json:"singles,omitempty"`
	// Again tells that the table must be copied from the start.
	Again bool `json:"again,omitempty"`
	// Empty tells that the sink has rows of another table, and Emptied where it was
	// told in the stream to remove them.
	Empty    bool         `json:"empty,omitempty"`
	Emptied  cdc.Position `json:"emptied,omitzero"`
	Estimate uint64       `json:"estimate,omitempty"`
	Started  time.Time    `json:"started,omitzero"`
	Finished time.Time    `json:"finished,omitzero"`

	err   string
	tries int
	// waiting is what the copy waits for. from is when this process took it up, with
	// fromRows done.
	waiting  string
	from     time.Time
	fromRows uint64
	// retry is when the copy is tried again after an error.
	retry time.Time
	// held keeps the copy from beginning until the table is published.
	held bool
}

// copyMark is the end of a chunk. The numbers count from the start of the copy.
type copyMark struct {
	Key    storedKey    `json:"key,omitempty"` // the last that was read
	At     cdc.Position `json:"at"`            // of the last row
	Rows   uint64       `json:"rows"`
	Bytes  uint64       `json:"bytes"`
	Chunks uint64       `json:"chunks"`
	Ended  bool         `json:"ended,omitempty"`
}

// singleKey is the key of one row.
type singleKey struct {
	Key storedKey `json:"key"`
	// At is where its row was written, zero if it was not.
	At cdc.Position `json:"at,omitzero"`
}

func (t *tableCopy) last() copyMark {
	if len(t.Marks) == 0 {
		return copyMark{}
	}
	return t.Marks[len(t.Marks)-1]
}

// The bounds of single keys: how many are read at a time, and how many there may be
// before it is better to start over.
const (
	singlesRead = 200
	singlesMax  = 10_000
)

// missing returns keys that must be copied again.
func (t *tableCopy) missing() (keys []*singleKey) {
	for _, k := range t.Singles {
		if k.At.IsZero() && len(keys) < singlesRead {
			keys = append(keys, k)
		}
	}
	return keys
}

// lacks reports whether a key waits for being copied again.
func (t *tableCopy) lacks(key []string) bool { return t.waits(key) >= 0 }

// waits finds a key that waits for being copied again, -1 if it does not.
func (t *tableCopy) waits(key []string) int {
	return slices.IndexFunc(t.Singles, func(k *singleKey) bool { return k.At.IsZero() && slices.Equal(k.Key, key) })
}

// move notes that a row has another key, in a change that leaves values out. The sink
// lacks them if it lacks the row. It reports whether that must be remembered.
//
// A key that waits for being copied already is noted anew: a chunk with it may be under way,
// which leaves the row out because of this change and then counts the key as copied.
func (t *tableCopy) move(was, is []string) bool {
	if t.Again || t.last().Ended && !t.lacks(was) {
		return false
	}
	if i := t.waits(is); i >= 0 {
		t.Singles[i] = &singleKey{Key: is}
		return false // It is remembered.
	}
	if len(t.Singles) >= singlesMax {
		t.Again = true
		return true
	}
	t.Singles = append(t.Singles, &singleKey{Key: is})
	return true
}

// over tells that everything is written.
func (t *tableCopy) over() bool { return t.last().Ended && len(t.missing()) == 0 && !t.Again }

// restart forgets what was copied.
func (t *tableCopy) restart() { t.Marks, t.Singles, t.Again = nil, nil, false }

// identify takes the OID of the table. One that was made under the name of another has
// rows that the stream never had, of transactions that may still run.
func (t *tableCopy) identify(oid uint32) {
	switch {
	case oid == 0:
		return
	case t.OID != 0 && t.OID != oid && t.State != CopyNone:
		t.restart()
		t.State, t.Joined, t.Started, t.Finished = CopyWaiting, true, time.Time{}, time.Time{}
	}
	t.OID = oid
}

// open tells that the sink may lack rows of the table.
func (t *tableCopy) open() bool { return t.State != CopyNone && t.State != CopyDone }

// lose takes back what is neither in the stream nor in the sink; both end before have.
func (t *tableCopy) lose(have cdc.Position) {
	if t.State == CopyNone {
		return
	}
	t.Marks = slices.DeleteFunc(t.Marks, func(m copyMark) bool { return m.At.After(have) })
	for _, k := range t.Singles {
		if k.At.After(have) {
			k.At = cdc.Position{}
		}
	}
	if t.Emptied.After(have) {
		t.Empty, t.Emptied, t.Again = true, cdc.Position{}, true
	}
	if t.Again {
		t.restart()
	}
	if !t.over() {
		t.State, t.Finished = CopyWaiting, time.Time{}
	}
}

// settle drops what need not be known any more once the sink has applied as much.
func (t *tableCopy) settle(applied cdc.Position) {
	for len(t.Marks) > 1 && !t.Marks[1].At.After(applied) {
		t.Marks = slices.Delete(t.Marks, 0, 1)
	}
	t.Singles = slices.DeleteFunc(t.Singles, func(k *singleKey) bool { return !k.At.IsZero() && !k.At.After(applied) })
}

// backlog is how many bytes of rows are in the stream that the sink has not applied.
func (t *tableCopy) backlog(applied cdc.Position) uint64 {
	var from uint64
	for _, m := range t.Marks {
		if m.At.After(applied) {
			break
		}
		from = m.Bytes
	}
	return t.last().Bytes - from
}

// find returns the copy of a table, nil if there is none.
func (s *snapshotState) find(t Table) *tableCopy {
	for _, c := range s.Tables {
		if c.Table == t {
			return c
		}
	}
	return nil
}

// load reads what is remembered; nil if there is nothing.
func (n *snapshots) load(ctx context.Context) error {
	value, revision, err := n.c.cfg.SnapshotStore.LoadState(ctx)
	if err != nil {
		return fmt.Errorf("load the state of the snapshot: %w", err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.revision, n.room.ahead = revision, nil
	if len(value) == 0 {
		n.state = nil
		return nil
	}
	state, err := decodeSnapshotState(value)
	if err != nil {
		return err
	}
	n.state = state
	return nil
}

// decodeSnapshotState reads the stored form. It refuses what this program does not write.
func decodeSnapshotState(value []byte) (*snapshotState, error) {
	state := new(snapshotState)
	if err := json.Unmarshal(value, state); err != nil {
		return nil, fmt.Errorf("decode the state of the snapshot: %w", err)
	}
	if state.Version != snapshotVersion {
		return nil, fmt.Errorf("the state of the snapshot has version %d, this program reads %d: run the version that wrote it, or a newer one", state.Version, snapshotVersion)
	}
	for _, t := range state.Tables {
		if t == nil || slices.Contains(t.Singles, nil) {
			return nil, errors.New("decode the state of the snapshot: it lists a table or a key that is not there; delete it to copy the tables anew")
		}
	}
	return state, nil
}

// update changes what is remembered and stores it durably before it returns. After an
// error what is stored is unknown and it must be loaded again.
func (n *snapshots) update(ctx context.Context, change func(*snapshotState)) error {
	n.saving.Lock()
	defer n.saving.Unlock()
	n.mu.Lock()
	if n.state == nil {
		n.state = &snapshotState{Version: snapshotVersion}
	}
	change(n.state)
	value, err := json.Marshal(n.state)
	revision := n.revision
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("encode the state of the snapshot: %w", err)
	}
	if revision, err = n.c.cfg.SnapshotStore.SaveState(ctx, value, revision); err != nil {
		return fmt.Errorf("save the state of the snapshot: %w", err)
	}
	n.mu.Lock()
	n.revision = revision
	n.mu.Unlock()
	notify(n.wake)
	return nil
}
