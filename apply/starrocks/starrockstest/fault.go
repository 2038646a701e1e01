package starrockstest

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"
)

// FaultKind names what goes wrong.
type FaultKind string

// The faults of a load. Unless said otherwise they act on the back end.
const (
	// FaultFail answers Status "Fail" with Message before a transaction begins.
	FaultFail FaultKind = "fail"
	// FaultHTTPError answers the HTTP status Code (default 503) before a transaction begins.
	FaultHTTPError FaultKind = "http_error"
	// FaultHTTPErrorAfterCommit commits, then answers the HTTP status Code (default 502).
	FaultHTTPErrorAfterCommit FaultKind = "http_error_after_commit"
	// FaultDropBeforeBody closes the connection before a transaction begins.
	FaultDropBeforeBody FaultKind = "drop_before_body"
	// FaultDropMidBody closes the connection after half of the body; the transaction stays PREPARE.
	FaultDropMidBody FaultKind = "drop_mid_body"
	// FaultLostResponse commits, then closes the connection without an answer.
	FaultLostResponse FaultKind = "lost_response"
	// FaultFailCommitted commits and answers Status "Fail".
	FaultFailCommitted FaultKind = "fail_committed"
	// FaultPublishTimeout commits and answers "Publish Timeout"; the rows become visible after Delay, or with zero
	// at Release.
	FaultPublishTimeout FaultKind = "publish_timeout"
	// FaultHold commits and holds the answer for Delay, or with zero until Release.
	FaultHold FaultKind = "hold"
	// FaultHoldBeforeCommit reads the body and holds the commit for Delay, or with zero until Release.
	FaultHoldBeforeCommit FaultKind = "hold_before_commit"
	// FaultSlow waits for Delay before anything else.
	FaultSlow FaultKind = "slow"
	// FaultLabelRunning answers "Label Already Exists" with RUNNING; the label's state reads PREPARE meanwhile.
	FaultLabelRunning FaultKind = "label_running"
	// FaultVersionLimit fails the load with "too many versions".
	FaultVersionLimit FaultKind = "version_limit"
	// FaultFilteredRow drops the last row of the load and answers Success with NumberFilteredRows 1.
	FaultFilteredRow FaultKind = "filtered_row"
	// FaultFilteredLost drops the last row of the load, commits, and closes the connection without an answer.
	FaultFilteredLost FaultKind = "filtered_lost"
	// FaultTruncate commits and cuts the answer in the middle.
	FaultTruncate FaultKind = "truncate"
	// FaultEvictLabel commits, forgets the label and answers Success.
	FaultEvictLabel FaultKind = "evict_label"
	// FaultEvictLost commits, forgets the label and closes the connection without an answer.
	FaultEvictLost FaultKind = "evict_lost"
	// FaultCommitLate reads the body, closes the connection, and commits after Delay, or with zero at Release.
	FaultCommitLate FaultKind = "commit_late"
	// FaultBeginLate reads the body and closes the connection before a transaction begins; it begins, and commits,
	// after Delay, or with zero at Release: a request that was stuck on its way.
	FaultBeginLate FaultKind = "begin_late"
	// FaultLeaderChange reads the body, then another front end becomes leader, which does not know the transactions
	// that are in PREPARE: their labels read UNKNOWN and their commits fail.
	FaultLeaderChange FaultKind = "leader_change"
	// FaultBEDies commits, then closes the back end's listener with all connections, for Delay, or with zero until Up.
	FaultBEDies FaultKind = "be_dies"

	// FaultRedirect makes the front end redirect to Location, a host:port.
	FaultRedirect FaultKind = "redirect"
	// FaultRedirectLoop makes the front end redirect to itself.
	FaultRedirectLoop FaultKind = "redirect_loop"
	// FaultFEHTTPError makes the front end answer the HTTP status Code (default 503).
	FaultFEHTTPError FaultKind = "fe_http_error"
	// FaultFE401 makes the front end refuse the credentials.
	FaultFE401 FaultKind = "fe_401"
	// FaultFEDown closes the front end's HTTP listener for Delay, or with zero until Up.
	FaultFEDown FaultKind = "fe_down"

	// FaultState answers get_load_state with the HTTP status Code (default 503), or with Delay set only later.
	FaultState FaultKind = "state"
	// FaultMySQL fails a statement that SQL matches with the error Code (default 1064) and Message.
	FaultMySQL FaultKind = "mysql"
	// FaultMySQLDrop closes the connection of a statement that SQL matches.
	FaultMySQLDrop FaultKind = "mysql_drop"
	// FaultMySQLLost runs a statement that SQL matches and then closes the connection without an answer.
	FaultMySQLLost FaultKind = "mysql_lost"
)

var faultStages = map[FaultKind]faultStage{
	FaultRedirect: stageFE, FaultRedirectLoop: stageFE, FaultFEHTTPError: stageFE, FaultFE401: stageFE, FaultFEDown: stageFE,
	FaultState: stageState, FaultMySQL: stageMySQL, FaultMySQLDrop: stageMySQL, FaultMySQLLost: stageMySQL,
	FaultFail: stageBE, FaultHTTPError: stageBE, FaultHTTPErrorAfterCommit: stageBE, FaultDropBeforeBody: stageBE,
	FaultDropMidBody: stageBE, FaultLostResponse: stageBE, FaultFailCommitted: stageBE, FaultPublishTimeout: stageBE,
	FaultHold: stageBE, FaultHoldBeforeCommit: stageBE, FaultSlow: stageBE, FaultLabelRunning: stageBE,
	FaultVersionLimit: stageBE, FaultFilteredRow: stageBE, FaultFilteredLost: stageBE, FaultTruncate: stageBE, FaultEvictLabel: stageBE, FaultEvictLost: stageBE,
	FaultCommitLate: stageBE, FaultBeginLate: stageBE, FaultLeaderChange: stageBE, FaultBEDies: stageBE,
}

// FaultKinds returns all kinds of faults, in the order of their names.
func FaultKinds() []FaultKind { return slices.Sorted(maps.Keys(faultStages)) }

type faultStage uint8

const (
	stageFE faultStage = iota + 1
	stageBE
	stageState
	stageMySQL
)

// Fault is one scripted failure. Faults are tried in the order they were scripted; the first that matches an
// operation acts on it and is used up once its Count is.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// Table is a regular expression over "database.table"; empty matches every table.
	Table string `json:"table,omitempty"`
	// Label is a regular expression over the label; empty matches every label.
	Label string `json:"label,omitempty"`
	// SQL is a regular expression over the statement, for the MySQL faults; empty matches every statement.
	SQL string `json:"sql,omitempty"`
	// Count is how many operations the fault acts on; negative means without end. Defaults to 1.
	Count int `json:"count,omitempty"`
	// Delay is a duration such as "200ms"; see the kinds.
	Delay Duration `json:"delay,omitempty"`
	// Message is the text of the answer where the kind has one.
	Message string `json:"message,omitempty"`
	// Code is an HTTP status or a MySQL error number; see the kinds.
	Code int `json:"code,omitempty"`
	// Location is the host:port of a redirect.
	Location string `json:"location,omitempty"`
}

// Duration is a time.Duration that reads and writes the form "1.5s" in JSON.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("parse delay: %w", err)
	}
	*d = Duration(v)
	return nil
}

type scriptedFault struct {
	Fault
	stage             faultStage
	table, label, sql *regexp.Regexp
}

// faultScript is the queue of scripted faults and the gate that Release opens.
type faultScript struct {
	mu     sync.Mutex
	queue  []*scriptedFault
	gate   chan struct{}
	forced map[string]time.Time // labels that read as PREPARE, by "db label"
}

func newFaultScript() *faultScript {
	return &faultScript{gate: make(chan struct{}), forced: make(map[string]time.Time)}
}

func compileFault(f Fault) (*scriptedFault, error) {
	stage, ok := faultStages[f.Kind]
	if !ok {
		return nil, fmt.Errorf("script fault: unknown kind %q", f.Kind)
	}
	if f.Count == 0 {
		f.Count = 1
	}
	s := &scriptedFault{Fault: f, stage: stage}
	var errs [3]error
	s.table, errs[0] = regexp.Compile(f.Table)
	s.label, errs[1] = regexp.Compile(f.Label)
	s.sql, errs[2] = regexp.Compile(f.SQL)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("script fault %s: %w", f.Kind, err)
	}
	return s, nil
}

func (s *faultScript) add(faults []Fault) error {
	var compiled []*scriptedFault
	for _, f := range faults {
		c, err := compileFault(f)
		if err != nil {
			return err
		}
		compiled = append(compiled, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, compiled...)
	return nil
}

func (s *faultScript) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = nil
	s.forced = make(map[string]time.Time)
}

func (s *faultScript) list() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Fault, 0, len(s.queue))
	for _, f := range s.queue {
		out = append(out, f.Fault)
	}
	return out
}

// opened is the gate that the next release closes.
func (s *faultScript) opened() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gate
}

// take finds the first fault for an operation and uses it up by one.
func (s *faultScript) take(stage faultStage, table, label, sql string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.queue {
		if f.stage != stage || !f.table.MatchString(table) || !f.label.MatchString(label) || !f.sql.MatchString(sql) {
			continue
		}
		found := f.Fault
		if f.Count > 0 {
			f.Count--
		}
		if f.Count == 0 {
			s.queue = append(s.queue[:i:i], s.queue[i+1:]...)
		}
		return &found
	}
	return nil
}

// is is safe on nil, which stands for no fault.
func (f *Fault) is(kinds ...FaultKind) bool {
	return f != nil && slices.Contains(kinds, f.Kind)
}

func (f *Fault) code(absent int) int {
	if f.Code != 0 {
		return f.Code
	}
	return absent
}

func (f *Fault) message(absent string) string {
	if f.Message != "" {
		return f.Message
	}
	return absent
}

func (s *faultScript) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
	s.gate = make(chan struct{})
	s.forced = make(map[string]time.Time)
}

// force makes a label read as PREPARE until then; the zero time lasts until a release.
func (s *faultScript) force(db, label string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forced[db+" "+label] = until
}

func (s *faultScript) isForced(db, label string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	until, ok := s.forced[db+" "+label]
	return ok && (until.IsZero() || now.Before(until))
}
