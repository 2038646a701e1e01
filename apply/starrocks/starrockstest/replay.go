package starrockstest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// statementRecord is a statement that changed something, with the time that its functions and defaults saw.
type statementRecord struct {
	DB   string    `json:"db"`
	Time time.Time `json:"time"`
	SQL  string    `json:"sql"`
}

// persistStatement runs after a statement succeeded and before it is answered. Callers hold the mutex.
func (s *store) persistStatement(db, sql string, at time.Time) error {
	if s.log == nil || s.replaying {
		return nil
	}
	payload, err := json.Marshal(statementRecord{DB: db, Time: at, SQL: sql})
	if err != nil {
		return fmt.Errorf("encode statement record: %w", err)
	}
	return s.log.append(recordStatement, payload)
}

type jobRecord struct {
	DB    string `json:"db"`
	Table uint64 `json:"table"`
	Job   int64  `json:"job"`
}

func (s *store) persistJobDone(db *database, t *table, j *alterJob) error {
	if s.log == nil || s.replaying {
		return nil
	}
	payload, err := json.Marshal(jobRecord{DB: db.name, Table: t.id, Job: j.id})
	if err != nil {
		return fmt.Errorf("encode job record: %w", err)
	}
	return s.log.append(recordJobDone, payload)
}

// openLog replays the log into the store and opens it for more.
func (s *store) openLog(folder string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replaying = true
	defer func() { s.replaying, s.clock = false, time.Time{} }()
	log, err := openWAL(folder, s.replayRecord)
	if err != nil {
		return err
	}
	s.log = log
	// ADMIN SET FRONTEND CONFIG does not outlive a restart.
	s.config = defaultConfig(s.opts, s.ver)
	return nil
}

func (s *store) replayRecord(kind byte, payload []byte) error {
	switch kind {
	case recordStatement:
		return s.replayStatement(payload)
	case recordLoad:
		return s.replayLoad(string(payload))
	case recordAbort:
		var h loadHeader
		if err := json.Unmarshal(payload, &h); err != nil {
			return fmt.Errorf("decode abort record: %w", err)
		}
		s.replayLabel(h)
		return nil
	case recordJobDone:
		var j jobRecord
		if err := json.Unmarshal(payload, &j); err != nil {
			return fmt.Errorf("decode job record: %w", err)
		}
		_, t := s.findTable(j.DB, j.Table)
		if t == nil || t.job == nil || t.job.id != j.Job {
			return nil
		}
		return s.finishJob(t, t.job)
	default:
		return fmt.Errorf("unknown record kind %d", kind)
	}
}

func (s *store) replayStatement(payload []byte) error {
	var r statementRecord
	if err := json.Unmarshal(payload, &r); err != nil {
		return fmt.Errorf("decode statement record: %w", err)
	}
	stmt, err := parseSQL(r.SQL)
	if err != nil {
		return fmt.Errorf("parse logged statement: %w", err)
	}
	s.clock = r.Time
	defer func() { s.clock = time.Time{} }()
	if _, err := s.runLocked(&session{db: r.DB}, stmt); err != nil {
		return fmt.Errorf("repeat logged statement: %w", err)
	}
	return nil
}

func (s *store) replayLoad(payload string) error {
	head, rest, err := readText(payload)
	if err != nil {
		return err
	}
	var h loadHeader
	if err := json.NewDecoder(strings.NewReader(head)).Decode(&h); err != nil {
		return fmt.Errorf("decode load record: %w", err)
	}
	ops, err := readOps(rest)
	if err != nil {
		return err
	}
	_, t := s.findTable(h.DB, h.Table)
	if t == nil {
		return fmt.Errorf("load into unknown table %d of database %s", h.Table, h.DB)
	}
	t.apply(ops)
	t.versions++
	s.replayLabel(h)
	return nil
}

func (s *store) replayLabel(h loadHeader) {
	db := s.dbs[h.DB]
	if db == nil {
		return
	}
	x := &txn{id: h.Txn, label: h.Label, tableID: h.Table, begun: h.Begun, finished: h.Finished, reason: h.Reason, state: stateVisible}
	if h.State == stateAborted.String() {
		x.state = stateAborted
	}
	db.remember(x)
	s.nextTxn = max(s.nextTxn, h.Txn+1)
}
