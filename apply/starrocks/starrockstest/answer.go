package starrockstest

import (
	"net"
	"net/http"
	"strconv"
	"time"
)

// LoadInfo is one Stream Load that was answered.
type LoadInfo struct {
	Time     time.Time `json:"time"`
	TxnID    int64     `json:"txn_id"`
	Label    string    `json:"label"`
	DB       string    `json:"db"`
	Table    string    `json:"table"`
	Status   string    `json:"status"`
	Message  string    `json:"message"`
	Total    int64     `json:"total_rows"`
	Loaded   int64     `json:"loaded_rows"`
	Filtered int64     `json:"filtered_rows"`
	Bytes    int       `json:"bytes"`
	// Agent is the User-Agent of the client.
	Agent string `json:"agent"`
}

// answer sends the outcome, or what a fault makes of it.
func (l *load) answer() {
	l.res.finished = time.Now()
	l.note()
	f := l.fault
	body := prettyJSON(l.res.fields(l.srv.ver))
	switch {
	case f.is(FaultLostResponse, FaultFilteredLost):
		panic(http.ErrAbortHandler)
	case f.is(FaultEvictLost):
		l.srv.store.evictLabel(l.db, l.res.label)
		panic(http.ErrAbortHandler)
	case f.is(FaultCommitLate), f.is(FaultBeginLate):
		return
	case f.is(FaultBEDies):
		l.srv.bounce(PartBE, time.Duration(f.Delay))
		panic(http.ErrAbortHandler)
	case f.is(FaultHTTPErrorAfterCommit):
		http.Error(l.w, f.message("stand-in fault"), f.code(http.StatusBadGateway))
		return
	case f.is(FaultFailCommitted):
		l.res.status, l.res.message = statusFail, f.message("call frontend service failed, [E1008]Reached timeout=60000ms")
		body = prettyJSON(l.res.fields(l.srv.ver))
	case f.is(FaultHold):
		l.srv.hold(time.Duration(f.Delay), l.gate)
	case f.is(FaultEvictLabel):
		l.srv.store.evictLabel(l.db, l.res.label)
	case f.is(FaultTruncate):
		l.truncate(body)
	}
	writeBody(l.w, http.StatusOK, body)
}

// truncate announces the whole answer, sends half of it and closes.
func (l *load) truncate(body []byte) {
	l.w.Header().Set("Content-Type", "application/json")
	l.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = l.w.Write(body[:len(body)/2])
	_ = http.NewResponseController(l.w).Flush()
	panic(http.ErrAbortHandler)
}

// hangUp closes the client's connection while the load goes on.
func (l *load) hangUp() {
	conn, _, err := http.NewResponseController(l.w).Hijack()
	if err != nil {
		return
	}
	_ = conn.Close()
}

func (l *load) note() {
	s := l.srv.store
	info := LoadInfo{
		Time: s.opts.Now(), TxnID: l.res.txnID, Label: l.res.label, DB: l.db, Table: l.table,
		Status: l.res.status, Message: l.res.message, Bytes: l.res.loadBytes, Agent: l.r.UserAgent(),
	}
	if l.res.ended {
		info.Total, info.Loaded, info.Filtered = l.res.rows.total, l.res.rows.loaded(), l.res.rows.filtered
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteLoad(info)
	if l.res.status == statusSuccess || l.res.status == statusPublishTimeout {
		s.writers.add(info.Agent).Loads++
	}
}

func (s *store) visible(t *txn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.state == stateVisible
}

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}
