package starrockstest

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

type txnState uint8

const (
	statePrepare txnState = iota + 1
	stateCommitted
	stateVisible
	stateAborted
)

func (s txnState) String() string {
	switch s {
	case statePrepare:
		return "PREPARE"
	case stateCommitted:
		return "COMMITTED"
	case stateVisible:
		return "VISIBLE"
	case stateAborted:
		return "ABORTED"
	default:
		return "UNKNOWN"
	}
}

func (s txnState) final() bool { return s == stateVisible || s == stateAborted }

// txn is one load's transaction and the memory of its label.
type txn struct {
	id       int64
	label    string
	tableID  uint64
	state    txnState
	reason   string
	begun    time.Time
	deadline time.Time
	finished time.Time
	// visibleAt is when a committed transaction becomes visible; zero waits for a release.
	visibleAt time.Time
	// commitSeq orders the commits, which is not the order of the transactions' numbers.
	commitSeq int64
	// forgotten transactions were open when another front end became leader.
	forgotten bool
	publish   *publication
}

// publication is a committed load that readers do not see yet.
type publication struct {
	ops     []rowOp
	byKey   map[string]rowOp
	counted int64
}

func (t *txn) abort(now time.Time, reason string) {
	t.state, t.reason, t.finished = stateAborted, reason, now
}

// labelExists answers a begin on a label that is in use.
type labelExistsError struct {
	label    string
	finished bool
}

func (e *labelExistsError) Error() string {
	return "Label [" + e.label + "] has already been used."
}

func (s *store) lookupDatabase(name string) (*database, error) {
	db, ok := s.dbs[name]
	if !ok {
		return nil, refuse("unknown database, database=%s", name)
	}
	return db, nil
}

// begin opens a transaction. An aborted label may be used again, any other is refused.
func (s *store) begin(dbName, tableName, label string, timeout time.Duration) (*txn, *table, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.advance(); err != nil {
		return nil, nil, err
	}
	db, err := s.lookupDatabase(dbName)
	if err != nil {
		return nil, nil, err
	}
	t, ok := db.tables[tableName]
	if !ok {
		return nil, nil, refuse("unknown table \"%s.%s\"", dbName, tableName)
	}
	if old := db.labels[label]; old != nil && old.state != stateAborted {
		return nil, nil, &labelExistsError{label: label, finished: old.state != statePrepare}
	}
	if limit := s.configInt("max_running_txn_num_per_db"); db.running() >= limit {
		return nil, nil, refuse("current running txns on db %d is %d, larger than limit %d", db.id, db.running(), limit)
	}
	now := s.now()
	x := &txn{id: s.nextTxn, label: label, tableID: t.id, state: statePrepare, begun: now, deadline: now.Add(timeout)}
	s.nextTxn++
	db.remember(x)
	return x, t, nil
}

func (db *database) remember(x *txn) {
	db.txns = append(db.txns, x)
	db.labels[x.label] = x
	if !x.state.final() {
		db.open = append(db.open, x)
	}
}

// running counts the transactions that are not final, and forgets those that have become so.
func (db *database) running() int {
	db.open = slices.DeleteFunc(db.open, func(x *txn) bool { return x.state.final() })
	return len(db.open)
}

// labelState is what get_load_state answers.
func (s *store) labelState(dbName, label string) (state, reason string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.advance(); err != nil {
		return "", "", err
	}
	db, err := s.lookupDatabase(dbName)
	if err != nil {
		return "", "", err
	}
	t := db.labels[label]
	if t == nil {
		return "UNKNOWN", "", nil
	}
	return t.state.String(), t.reason, nil
}

// cancel aborts a transaction that has not committed.
func (s *store) cancel(dbName, label string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.advance(); err != nil {
		return err
	}
	db, err := s.lookupDatabase(dbName)
	if err != nil {
		return err
	}
	t := db.labels[label]
	if t == nil || t.state != statePrepare {
		return refuse("transaction not found, label=%s", label)
	}
	return s.abortLocked(db, t, "user cancel")
}

// abort ends a transaction that failed. Committed ones stay committed.
func (s *store) abort(dbName string, t *txn, reason string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	db := s.dbs[dbName]
	if db == nil || t.state != statePrepare {
		return nil
	}
	return s.abortLocked(db, t, reason)
}

func (s *store) abortLocked(db *database, t *txn, reason string) error {
	t.abort(s.now(), reason)
	return s.persistAbort(db, t)
}

// evictLabel forgets one label at once, for the fault of that name.
func (s *store) evictLabel(dbName, label string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	db := s.dbs[dbName]
	if db == nil {
		return
	}
	old := db.labels[label]
	delete(db.labels, label)
	for i, t := range db.txns {
		if t == old {
			db.txns = append(db.txns[:i:i], db.txns[i+1:]...)
			return
		}
	}
}

// publishDue makes committed loads visible, per table in commit order. Callers hold the mutex.
func (s *store) publishDue(db *database, now time.Time) {
	committed := db.committed()
	waiting := make(map[uint64]bool)
	for _, x := range committed {
		if x.visibleAt.IsZero() || now.Before(x.visibleAt) {
			waiting[x.tableID] = true
		}
		if !waiting[x.tableID] {
			_, t := s.findTable(db.name, x.tableID)
			s.makeVisible(t, x, now)
		}
	}
}

// committed are the transactions that readers do not see yet, in commit order.
func (db *database) committed() []*txn {
	var out []*txn
	for _, x := range db.open {
		if x.state == stateCommitted {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b *txn) int { return cmp.Compare(a.commitSeq, b.commitSeq) })
	return out
}

// makeVisible publishes a load; t is nil where the table has been dropped since.
func (s *store) makeVisible(t *table, x *txn, now time.Time) {
	if t == nil {
		x.publish = nil
		x.state, x.finished = stateVisible, now
		return
	}
	if p := x.publish; p != nil {
		t.apply(p.ops)
		t.counted += p.counted
	}
	x.publish = nil
	x.state, x.finished = stateVisible, now
	t.versions++
}

// release makes every committed load visible.
func (s *store) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, db := range s.dbs {
		for _, x := range db.committed() {
			x.visibleAt = now
		}
		s.publishDue(db, now)
	}
}

// changeLeader forgets the transactions that have not committed, which are in no front end's log.
func (s *store) changeLeader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, db := range s.dbs {
		for _, x := range db.open {
			if x.state != statePrepare {
				continue
			}
			x.state, x.forgotten, x.finished = stateAborted, true, s.now()
			if db.labels[x.label] == x {
				delete(db.labels, x.label)
			}
			if i := slices.Index(db.txns, x); i >= 0 {
				db.txns = slices.Delete(db.txns, i, i+1)
			}
		}
	}
}

func txnFailure(t *txn) error {
	if t.forgotten {
		return refuse("transaction not found")
	}
	return refuse("transaction [%s] is already aborted. abort reason: %s", strconv.FormatInt(t.id, 10), t.reason)
}
