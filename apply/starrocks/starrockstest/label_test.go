package starrockstest_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func state(t testing.TB, s *starrockstest.Server, label string) string {
	t.Helper()
	_, text := get(t, "http://"+s.FEHTTP()+"/api/d/get_load_state?label="+label)
	_, rest, found := strings.Cut(text, `"state":"`)
	if !found {
		t.Fatalf("no state in %s", text)
	}
	got, _, _ := strings.Cut(rest, `"`)
	return got
}

func cancel(t testing.TB, s *starrockstest.Server, label string) string {
	t.Helper()
	resp, err := client().Do(request(t, http.MethodPost, "http://"+s.FEHTTP()+"/api/d/t/_cancel?label="+label, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	line, _ := bufio.NewReader(resp.Body).ReadString('}')
	return line
}

func TestLabelLoadsOnce(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	if got := state(t, s, "x"); got != "UNKNOWN" {
		t.Errorf("state %s", got)
	}
	mustLoad(t, s, `{"id":1,"v":"a"}`, "label: x")
	a := load(t, s, `{"id":1,"v":"b"}`, "label: x")
	if a.Status != "Label Already Exists" || a.Existing != "FINISHED" || a.TxnID != -1 || a.Message != "Label [x] has already been used." {
		t.Errorf("got %s", a.raw)
	}
	if diff := cmp.Diff([]string{"1|a"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	if got := state(t, s, "x"); got != "VISIBLE" {
		t.Errorf("state %s", got)
	}
}

func TestLabelOfAbortedLoadMayBeUsedAgain(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	if a := load(t, s, `{"id":"x"}`, "label: x"); a.Status != "Fail" {
		t.Fatalf("got %s", a.raw)
	}
	if got := state(t, s, "x"); got != "ABORTED" {
		t.Errorf("state %s", got)
	}
	mustLoad(t, s, `{"id":1}`, "label: x")
}

func TestDuplicateLabelBugOfSomeVersions(t *testing.T) {
	t.Parallel()
	for version, buggy := range map[string]bool{"3.3.5": false, "3.3.6": true, "3.3.13": true, "3.3.14": false, "3.4.0": true, "3.4.3": true, "3.4.4": false, "3.5.0": false} {
		s := startTable(t, starrockstest.Options{Version: version}, twoColumns)
		mustLoad(t, s, `{"id":1}`, "label: x")
		a := load(t, s, `{"id":1}`, "label: x")
		if (a.Status == "Fail") != buggy || !strings.Contains(a.Message, "Label [x] has already been used.") {
			t.Errorf("%s: %s", version, a.raw)
		}
	}
}

func TestUnknownDatabaseHasNoState(t *testing.T) {
	t.Parallel()
	s := start(t, starrockstest.Options{})
	_, text := get(t, "http://"+s.FEHTTP()+"/api/none/get_load_state?label=x")
	if text != `{"status":"FAILED","code":"1","msg":"unknown database, database=none","message":"unknown database, database=none"}` {
		t.Errorf("got %s", text)
	}
}

func TestLabelStateShapeByVersion(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"3.1.0":  `{"state":"UNKNOWN","status":"OK","msg":"Success"}`,
		"3.3.15": `{"state":"UNKNOWN","status":"OK","code":"0","msg":"Success","message":"OK"}`,
		"3.4.0":  `{"state":"UNKNOWN","reason":"","status":"OK","code":"0","msg":"Success","message":"OK"}`,
	} {
		s := start(t, starrockstest.Options{Version: version})
		exec(t, s, "CREATE DATABASE d")
		if _, got := get(t, "http://"+s.FEHTTP()+"/api/d/get_load_state?label=x"); got != want {
			t.Errorf("%s: %s", version, got)
		}
	}
}

// beginAndDrop sends the head of a load and half of its body to the back end, then hangs up.
func beginAndDrop(t *testing.T, s *starrockstest.Server, label string, extra string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.BEHTTP())
	if err != nil {
		t.Fatal(err)
	}
	r := request(t, http.MethodPut, "http://"+s.BEHTTP()+"/", nil, nil)
	_, err = fmt.Fprintf(conn, "PUT /api/d/t/_stream_load HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nlabel: %s\r\nformat: json\r\n%sContent-Length: 100\r\n\r\n{\"id\":7",
		r.Header.Get("Authorization"), label, extra)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return state(t, s, label) == "PREPARE" })
	return conn
}

func waitFor(t testing.TB, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not come true")
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the test ended")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestClientThatDropsMidBodyLeavesPrepareUntilCancelled(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	conn := beginAndDrop(t, s, "x", "")
	a := load(t, s, `{"id":1}`, "label: x")
	if a.Status != "Label Already Exists" || a.Existing != "RUNNING" {
		t.Errorf("got %s", a.raw)
	}
	_ = conn.Close()
	if got := state(t, s, "x"); got != "PREPARE" {
		t.Errorf("state %s", got)
	}
	if got := cancel(t, s, "x"); !strings.Contains(got, `"status":"OK"`) {
		t.Errorf("cancel: %s", got)
	}
	if got := state(t, s, "x"); got != "ABORTED" {
		t.Errorf("state %s", got)
	}
	if got := cancel(t, s, "x"); !strings.Contains(got, "transaction not found") {
		t.Errorf("second cancel: %s", got)
	}
	mustLoad(t, s, `{"id":1}`, "label: x")
	if got := cancel(t, s, "x"); !strings.Contains(got, "transaction not found") {
		t.Errorf("cancel after commit: %s", got)
	}
}

func TestPrepareTimesOut(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := startTable(t, starrockstest.Options{Now: c.Now}, twoColumns)
	_ = beginAndDrop(t, s, "x", "timeout: 30\r\n").Close()
	c.advance(30 * time.Second)
	if got := state(t, s, "x"); got != "PREPARE" {
		t.Errorf("state %s", got)
	}
	c.advance(time.Second)
	if got := state(t, s, "x"); got != "ABORTED" {
		t.Errorf("state %s", got)
	}
}

func TestLoadCancelledWhileItsBodyIsReadCannotCommit(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	if err := s.Script(starrockstest.Fault{Kind: starrockstest.FaultHoldBeforeCommit}); err != nil {
		t.Fatal(err)
	}
	got := make(chan answer, 1)
	go func() {
		a, err := tryLoad(t, s, "t", `{"id":1}`, headers("label: x"))
		if err != nil {
			a.Message = err.Error()
		}
		got <- a
	}()
	waitFor(t, func() bool { return state(t, s, "x") == "PREPARE" })
	cancel(t, s, "x")
	s.Release()
	if a := <-got; a.Status != "Fail" || !strings.Contains(a.Message, "already aborted") {
		t.Errorf("got %+v", a)
	}
	if rows := dump(t, s, "t"); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
}

func TestLabelsAreEvictedByCountAndAge(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := startTable(t, starrockstest.Options{Now: c.Now, LabelKeepMaxNum: 2, LabelKeepMax: time.Hour}, twoColumns)
	for _, l := range []string{"a", "b", "c"} {
		mustLoad(t, s, `{"id":1}`, "label: "+l)
	}
	if got := state(t, s, "a"); got != "VISIBLE" {
		t.Errorf("evicted before the interval: %s", got)
	}
	c.advance(30 * time.Second)
	if got := [3]string{state(t, s, "a"), state(t, s, "b"), state(t, s, "c")}; got != [3]string{"UNKNOWN", "VISIBLE", "VISIBLE"} {
		t.Errorf("by count: %v", got)
	}
	mustLoad(t, s, `{"id":1}`, "label: a")
	c.advance(2 * time.Hour)
	if got := [2]string{state(t, s, "a"), state(t, s, "c")}; got != [2]string{"UNKNOWN", "UNKNOWN"} {
		t.Errorf("by age: %v", got)
	}
}

func TestRetentionIsChangedByAdminSet(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	exec(t, s, `ADMIN SET FRONTEND CONFIG ("label_keep_max_num" = "1")`)
	mustLoad(t, s, `{"id":1}`, "label: a")
	mustLoad(t, s, `{"id":1}`, "label: b")
	s.EvictLabels()
	if got := [2]string{state(t, s, "a"), state(t, s, "b")}; got != [2]string{"UNKNOWN", "VISIBLE"} {
		t.Errorf("got %v", got)
	}
	if err := s.Exec(`ADMIN SET FRONTEND CONFIG ("label_keep_max_num" = "many")`); err == nil {
		t.Error("a bad value was taken")
	}
}
