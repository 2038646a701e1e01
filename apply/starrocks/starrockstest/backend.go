package starrockstest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unsafe"
)

const (
	jsonBatchMaxBytes  = 104857600
	streamLoadMaxMB    = 102400
	streamLoadMaxBytes = streamLoadMaxMB << 20
)

// backEnd is the BE's HTTP side, which takes the bodies.
type backEnd struct {
	srv *Server
}

func (b *backEnd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := restPath(r)
	switch {
	case len(parts) == 4 && parts[0] == "api" && parts[3] == "_stream_load" && r.Method == http.MethodPut:
		b.srv.running.add(1)
		defer b.srv.running.add(-1)
		l := &load{srv: b.srv, w: w, r: r, db: parts[1], table: parts[2]}
		l.serve()
	case len(parts) == 2 && parts[0] == "api" && parts[1] == "_load_error_log":
		b.errorLog(w, r)
	case len(parts) == 2 && parts[0] == "api" && parts[1] == "health":
		writeBody(w, http.StatusOK, prettyJSON([]field{{"status", "OK"}, {"msg", "To Be Added"}}))
	default:
		http.Error(w, "Not Found", http.StatusNotFound)
	}
}

func (b *backEnd) errorLog(w http.ResponseWriter, r *http.Request) {
	s := b.srv.store
	s.mu.Lock()
	text, ok := s.errorLogs[r.URL.Query().Get("file")]
	s.mu.Unlock()
	if !ok {
		http.Error(w, "Not Found", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, text)
}

// load is one Stream Load request on its way through the back end.
type load struct {
	srv       *Server
	w         http.ResponseWriter
	r         *http.Request
	db, table string
	fault     *Fault
	// gate is taken with the fault, so that a release between the two is not missed.
	gate <-chan struct{}
	plan *loadPlan
	txn  *txn
	res  loadResult
}

func (l *load) serve() {
	l.res = loadResult{txnID: -1, label: l.r.Header.Get("label"), begun: time.Now(), status: statusFail}
	if l.res.label == "" {
		l.res.label = newUUID()
	}
	if user, password, ok := l.r.BasicAuth(); !ok {
		l.fail(refuse("no valid Basic authorization"))
		return
	} else if !l.srv.checkPassword(user, password) {
		l.fail(refuse("Access denied for %s@%s", accountName(user), hostOf(l.r.RemoteAddr)))
		return
	}
	l.gate = l.srv.faults.opened()
	l.fault = l.srv.faults.take(stageBE, l.db+"."+l.table, l.res.label, "")
	if l.early() {
		return
	}
	if l.fault.is(FaultBeginLate) {
		l.beginLate()
		return
	}
	if err := l.begin(); err != nil {
		l.fail(err)
		return
	}
	body, ok := l.read()
	if !ok {
		l.hangUp()
		return
	}
	l.finish(body)
}

// beginLate is a load whose client has gone when it begins.
func (l *load) beginLate() {
	body, ok := l.read()
	l.hangUp()
	if !ok {
		return
	}
	l.srv.hold(time.Duration(l.fault.Delay), l.gate)
	if err := l.begin(); err != nil {
		l.fail(err)
		return
	}
	l.finish(body)
}

// early plays the faults that come before a transaction begins.
func (l *load) early() (answered bool) {
	f := l.fault
	switch {
	case f.is(FaultFail):
		l.fail(refuse("%s", f.message("stand-in fault")))
	case f.is(FaultHTTPError):
		http.Error(l.w, f.message("stand-in fault"), f.code(http.StatusServiceUnavailable))
	case f.is(FaultDropBeforeBody):
		l.hangUp() // An abort would wait for the body.
	case f.is(FaultVersionLimit):
		l.fail(refuse("%s", f.message("Failed to load data into tablet 10001, because of too many versions, current/limit: 1000/1000. "+
			"You can reduce the loading job concurrency, or increase loading data batch size.")))
	case f.is(FaultLabelRunning):
		var until time.Time
		if f.Delay > 0 {
			until = l.srv.opts.Now().Add(time.Duration(f.Delay))
		}
		l.srv.faults.force(l.db, l.res.label, until)
		l.fail(&labelExistsError{label: l.res.label})
	case f.is(FaultSlow):
		l.srv.pause(l.r.Context(), time.Duration(f.Delay))
		return false
	default:
		return false
	}
	return true
}

// begin checks the headers, opens the transaction and plans, all before the body is read.
func (l *load) begin() error {
	if !labelPattern.MatchString(l.res.label) {
		return refuse("Incorrect label name '%s'", l.res.label)
	}
	plan, err := parseHeaders(l.r.Header, l.srv.ver)
	if err != nil {
		return err
	}
	l.plan = plan
	if err := l.checkSize(); err != nil {
		return err
	}
	txn, t, err := l.srv.store.begin(l.db, l.table, l.res.label, plan.timeout)
	if err != nil {
		return err
	}
	l.txn, l.res.txnID = txn, txn.id
	start := time.Now()
	l.srv.store.mu.Lock()
	err = plan.bind(t, l.r.Header.Get("columns"), l.r.Header.Get("merge_condition"))
	l.srv.store.mu.Unlock()
	l.res.planTime = time.Since(start)
	return err
}

func (l *load) checkSize() error {
	n := l.r.ContentLength
	if n > streamLoadMaxBytes {
		return refuse("body size %d exceed limit: %d bytes, you can increase streaming_load_max_mb in be.conf", n, int64(streamLoadMaxBytes))
	}
	if !l.plan.csv && !l.plan.ignoreJSONSize && n > jsonBatchMaxBytes {
		return refuse("The size of this batch exceed the max size [%d]  of json type data  data [ %d ]. "+
			"Set ignore_json_size to skip the check, although it may lead huge memory consuming.", jsonBatchMaxBytes, n)
	}
	return nil
}

// read takes the body in. A client that goes away leaves the transaction in PREPARE.
func (l *load) read() (body string, ok bool) {
	start := time.Now()
	var b []byte
	var err error
	switch n := l.r.ContentLength; {
	case l.fault.is(FaultDropMidBody):
		_, _ = io.CopyN(io.Discard, l.r.Body, max(n/2, 1))
		return "", false
	case n >= 0:
		b = make([]byte, n)
		_, err = io.ReadFull(l.r.Body, b)
	default:
		b, err = io.ReadAll(l.r.Body)
	}
	if err != nil {
		return "", false
	}
	l.res.readTime = time.Since(start)
	l.res.loadBytes = len(b)
	// The buffer is not touched again, so the rows may point into it.
	return unsafe.String(unsafe.SliceData(b), len(b)), true
}

// finish parses, commits and answers, with the faults of those steps.
func (l *load) finish(body string) {
	start := time.Now()
	err := l.execute(body)
	l.res.writeTime = time.Since(start)
	if err != nil {
		l.fail(err)
		return
	}
	switch {
	case l.fault.is(FaultHoldBeforeCommit):
		l.srv.hold(time.Duration(l.fault.Delay), l.gate)
	case l.fault.is(FaultCommitLate):
		l.hangUp()
		l.srv.hold(time.Duration(l.fault.Delay), l.gate)
	case l.fault.is(FaultLeaderChange):
		l.srv.store.changeLeader()
	}
	start = time.Now()
	mode := publishMode{later: l.fault.is(FaultPublishTimeout)}
	if mode.later {
		mode.after = time.Duration(l.fault.Delay)
	}
	if err := l.srv.store.commitLoad(l.db, l.txn, l.plan, &l.res.rows, mode); err != nil {
		l.fail(err)
		return
	}
	l.res.commitTime = time.Since(start)
	l.res.status, l.res.message = statusSuccess, "OK"
	if !l.srv.store.visible(l.txn) {
		l.res.status, l.res.message = statusPublishTimeout, "Publish timeout. The data will be visible after a while"
	}
	l.answer()
}

func (l *load) execute(body string) error {
	s := l.srv.store
	s.mu.Lock()
	fill := s.fillValues(l.plan.schema)
	s.mu.Unlock()
	x := newExecutor(l.plan, fill, l.srv.opts.NoStore)
	rows, err := x.run(body)
	if err != nil {
		return err
	}
	l.res.rows = *rows
	if l.fault.is(FaultFilteredRow, FaultFilteredLost) && rows.loaded() > 0 {
		l.res.rows.ops = l.res.rows.ops[:max(len(rows.ops), 1)-1]
		l.res.rows.filtered++
		l.res.ended = true
		return nil
	}
	if len(rows.errors) > 0 {
		l.keepErrors(rows.errors)
	}
	if rows.filtered > 0 && float64(rows.filtered) > l.plan.maxFilterRatio*float64(rows.total) {
		l.res.ended = true
		return refuse("too many filtered rows")
	}
	if rows.loaded() == 0 {
		return refuse("No partitions have data available for loading. If you are sure there may be no data to be loaded, " +
			"you can use `ADMIN SET FRONTEND CONFIG ('empty_load_as_error' = 'false')` to ensure such load jobs can succeed")
	}
	l.res.ended = true
	return nil
}

func (l *load) keepErrors(lines []string) {
	name := fmt.Sprintf("error_log_%016x_%d", newRandom(), l.res.txnID)
	s := l.srv.store
	s.mu.Lock()
	s.keepErrorLog(name, strings.Join(lines, "\n")+"\n")
	s.mu.Unlock()
	l.res.errorURL = "http://" + l.srv.BEHTTP() + "/api/_load_error_log?file=" + name
}

// fail aborts the transaction if there is one and answers.
func (l *load) fail(err error) {
	l.res.status, l.res.message = statusFail, err.Error()
	var exists *labelExistsError
	switch {
	case errors.As(err, &exists):
		l.labelExists(exists)
	case l.txn != nil:
		if aerr := l.srv.store.abort(l.db, l.txn, err.Error()); aerr != nil {
			l.res.message = aerr.Error()
		}
	}
	l.fault = nil
	l.answer()
}

func (l *load) labelExists(e *labelExistsError) {
	if l.srv.ver.duplicateLabelBug() {
		l.res.message = fmt.Sprintf("STREAM_LOAD_TASK{%d}, label{%s}, error_msg{cancel stream task for exception: %s}",
			l.res.begun.UnixMilli(), e.label, e.Error())
		return
	}
	l.res.status, l.res.existing = statusLabelExists, "RUNNING"
	if e.finished {
		l.res.existing = "FINISHED"
	}
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // Never fails.
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func newRandom() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // Never fails.
	var n uint64
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}
