package starrockstest

import (
	"sort"
	"strconv"
	"sync"
	"time"
)

// store holds databases, labels and settings. One mutex guards all of it; bodies are parsed outside of it.
type store struct {
	opts Options
	ver  version

	mu          sync.Mutex
	dbs         map[string]*database
	nextTable   uint64
	nextTxn     int64
	nextJob     int64
	commits     int64
	config      map[string]string
	lastClean   time.Time
	log         *wal
	replaying   bool
	clock       time.Time // set while a statement is replayed
	loads       []LoadInfo
	writers     writers
	errorLogs   map[string]string
	errorOrder  []string
	backendAddr string
	frontAddr   string
	queryAddr   string
}

type database struct {
	id     int64
	name   string
	tables map[string]*table
	labels map[string]*txn
	txns   []*txn
	// open is the part of txns that is not final yet, in the same order.
	open []*txn
}

const (
	loadsKept     = 1000
	errorLogsKept = 200
)

func newStore(opts Options, v version) *store {
	return &store{
		opts: opts, ver: v,
		dbs:       make(map[string]*database),
		nextTable: 10000, nextTxn: 1, nextJob: 20000,
		config:    defaultConfig(opts, v),
		errorLogs: make(map[string]string), writers: make(writers),
		lastClean: opts.Now(),
	}
}

// defaultConfig holds the front end settings that the stand-in obeys.
func defaultConfig(opts Options, v version) map[string]string {
	fast := v.fastSchemaEvolution() && !opts.DisableFastSchemaEvolution
	return map[string]string{
		"label_keep_max_num":           strconv.Itoa(opts.LabelKeepMaxNum),
		"label_keep_max_second":        strconv.Itoa(int(opts.LabelKeepMax / time.Second)),
		"max_running_txn_num_per_db":   "1000",
		"default_replication_num":      "3",
		"enable_fast_schema_evolution": strconv.FormatBool(fast),
		"alter_table_timeout_second":   "86400",
	}
}

func (s *store) now() time.Time {
	if !s.clock.IsZero() {
		return s.clock
	}
	return s.opts.Now()
}

func (s *store) configInt(name string) int {
	n, _ := strconv.Atoi(s.config[name]) // Checked when set.
	return n
}

// advance lets time take effect: timeouts, publishing, schema changes, label eviction. Callers hold the mutex.
func (s *store) advance() error {
	now := s.now()
	for _, db := range s.dbs {
		if err := s.advanceTxns(db, now); err != nil {
			return err
		}
		for _, t := range db.tables {
			if err := s.advanceJob(db, t, now); err != nil {
				return err
			}
		}
	}
	if now.Sub(s.lastClean) >= s.opts.LabelCleanInterval {
		s.evictLabels(now)
	}
	return nil
}

func (s *store) advanceTxns(db *database, now time.Time) error {
	for _, x := range db.open {
		if x.state == statePrepare && now.After(x.deadline) {
			if err := s.abortLocked(db, x, "timeout by txn manager"); err != nil {
				return err
			}
		}
	}
	s.publishDue(db, now)
	return nil
}

// evictLabels forgets finished transactions that are too old or too many, the oldest first.
func (s *store) evictLabels(now time.Time) {
	s.lastClean = now
	keep := s.configInt("label_keep_max_num")
	maxAge := time.Duration(s.configInt("label_keep_max_second")) * time.Second
	for _, db := range s.dbs {
		excess := len(db.txns) - keep
		var kept []*txn
		for _, t := range db.txns {
			if t.state.final() && (excess > 0 || now.Sub(t.finished) > maxAge) {
				excess--
				if db.labels[t.label] == t {
					delete(db.labels, t.label)
				}
				continue
			}
			kept = append(kept, t)
		}
		db.txns = kept
	}
}

func (s *store) tableNames(db *database) []string {
	names := make([]string, 0, len(db.tables))
	for n := range db.tables {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func (s *store) databaseNames() []string {
	names := make([]string, 0, len(s.dbs))
	for n := range s.dbs {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func (s *store) noteLoad(l LoadInfo) {
	s.loads = append(s.loads, l)
	if len(s.loads) > loadsKept {
		s.loads = append([]LoadInfo(nil), s.loads[len(s.loads)-loadsKept:]...)
	}
}

func (s *store) keepErrorLog(name, text string) {
	s.errorLogs[name] = text
	s.errorOrder = append(s.errorOrder, name)
	if len(s.errorOrder) > errorLogsKept {
		delete(s.errorLogs, s.errorOrder[0])
		s.errorOrder = s.errorOrder[1:]
	}
}
