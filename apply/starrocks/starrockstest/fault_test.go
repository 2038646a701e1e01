package starrockstest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

func script(t testing.TB, s *starrockstest.Server, faults ...starrockstest.Fault) {
	t.Helper()
	if err := s.Script(faults...); err != nil {
		t.Fatal(err)
	}
}

func TestFaultsOfOneLoad(t *testing.T) {
	t.Parallel()
	tests := []struct {
		kind   starrockstest.FaultKind
		fault  starrockstest.Fault
		status string // of the answer; "error" for a transport error
		state  string
		rows   int
	}{
		{kind: starrockstest.FaultFail, status: "Fail", state: "UNKNOWN"},
		{kind: starrockstest.FaultHTTPError, status: "error", state: "UNKNOWN"},
		{kind: starrockstest.FaultHTTPErrorAfterCommit, status: "error", state: "VISIBLE", rows: 2},
		{kind: starrockstest.FaultDropBeforeBody, status: "error", state: "UNKNOWN"},
		{kind: starrockstest.FaultDropMidBody, status: "error", state: "PREPARE"},
		{kind: starrockstest.FaultLostResponse, status: "error", state: "VISIBLE", rows: 2},
		{kind: starrockstest.FaultFailCommitted, status: "Fail", state: "VISIBLE", rows: 2},
		{kind: starrockstest.FaultPublishTimeout, status: "Publish Timeout", state: "COMMITTED"},
		{kind: starrockstest.FaultSlow, fault: starrockstest.Fault{Delay: starrockstest.Duration(time.Millisecond)}, status: "Success", state: "VISIBLE", rows: 2},
		{kind: starrockstest.FaultHold, fault: starrockstest.Fault{Delay: starrockstest.Duration(time.Millisecond)}, status: "Success", state: "VISIBLE", rows: 2},
		{kind: starrockstest.FaultLabelRunning, status: "Label Already Exists", state: "PREPARE"},
		{kind: starrockstest.FaultVersionLimit, status: "Fail", state: "UNKNOWN"},
		{kind: starrockstest.FaultFilteredRow, status: "Success", state: "VISIBLE", rows: 1},
		{kind: starrockstest.FaultFilteredLost, status: "error", state: "VISIBLE", rows: 1},
		{kind: starrockstest.FaultTruncate, status: "error", state: "VISIBLE", rows: 2},
		{kind: starrockstest.FaultEvictLabel, status: "Success", state: "UNKNOWN", rows: 2},
		{kind: starrockstest.FaultEvictLost, status: "error", state: "UNKNOWN", rows: 2},
		{kind: starrockstest.FaultBeginLate, status: "error", state: "UNKNOWN"},
		{kind: starrockstest.FaultLeaderChange, status: "Fail", state: "UNKNOWN"},
		{kind: starrockstest.FaultBEDies, status: "error", state: "VISIBLE", rows: 2},
		{kind: starrockstest.FaultRedirectLoop, status: "error", state: "UNKNOWN"},
		{kind: starrockstest.FaultFEHTTPError, status: "error", state: "UNKNOWN"},
		{kind: starrockstest.FaultFE401, status: "error", state: "UNKNOWN"},
	}
	for _, tt := range tests {
		t.Run(string(tt.kind), func(t *testing.T) {
			t.Parallel()
			s := startTable(t, starrockstest.Options{}, twoColumns)
			tt.fault.Kind, tt.fault.Table, tt.fault.Label = tt.kind, `^d\.t$`, "^x$"
			script(t, s, tt.fault)
			mustLoad(t, s, `{"id":9}`, "label: other")
			exec(t, s, "TRUNCATE TABLE d.t")
			a, err := faultyLoad(t, s)
			got := a.Status
			if err != nil {
				got = "error"
			}
			if got != tt.status {
				t.Errorf("status %s, %v, %s", got, err, a.raw)
			}
			if st := state(t, s, "x"); st != tt.state {
				t.Errorf("state %s, want %s", st, tt.state)
			}
			if rows := dump(t, s, "t"); len(rows) != tt.rows {
				t.Errorf("rows %v, want %d", rows, tt.rows)
			}
			if len(s.Faults()) != 0 {
				t.Errorf("the fault is still scripted: %v", s.Faults())
			}
		})
	}
}

// faultyLoad is one attempt at a load of two rows; statuses other than 200 and 307 are errors.
func faultyLoad(t *testing.T, s *starrockstest.Server) (answer, error) {
	t.Helper()
	resp, err := client().Do(request(t, http.MethodPut, "http://"+s.FEHTTP()+"/api/d/t/_stream_load", strings.NewReader(""), headers("label: x")))
	if err != nil {
		return answer{}, err
	}
	_ = resp.Body.Close()
	target := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusTemporaryRedirect || strings.Contains(target, s.FEHTTP()) {
		return answer{}, errors.New(resp.Status)
	}
	resp, err = client().Do(request(t, http.MethodPut, target, strings.NewReader(`{"id":1,"v":"a"} {"id":2,"v":"b"}`), headers("label: x")))
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return answer{}, errors.Join(err, errors.New(resp.Status))
	}
	return answerOf(t, raw), nil
}

func TestFaultsStrikeInOrderAndByCount(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	script(
		t, s,
		starrockstest.Fault{Kind: starrockstest.FaultFail, Message: "first", Count: 2},
		starrockstest.Fault{Kind: starrockstest.FaultFail, Message: "second"},
	)
	var got []string
	for range 4 {
		got = append(got, load(t, s, `{"id":1}`).Message)
	}
	if diff := cmp.Diff([]string{"first", "first", "second", "OK"}, got); diff != "" {
		t.Error(diff)
	}
	if err := s.Script(starrockstest.Fault{Kind: "nonsense"}); err == nil {
		t.Error("an unknown kind was taken")
	}
	if err := s.Script(starrockstest.Fault{Kind: starrockstest.FaultFail, Label: "("}); err == nil {
		t.Error("a bad expression was taken")
	}
}

func TestHeldAnswersWaitForRelease(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	script(t, s, starrockstest.Fault{Kind: starrockstest.FaultHold})
	got := make(chan answer, 1)
	go func() {
		a, err := tryLoad(t, s, "t", `{"id":1}`, headers("label: x"))
		if err != nil {
			a.Status = err.Error()
		}
		got <- a
	}()
	waitFor(t, func() bool { return len(dump(t, s, "t")) == 1 })
	select {
	case a := <-got:
		t.Fatalf("answered while held: %s", a.raw)
	default:
	}
	s.Release()
	if a := <-got; a.Status != "Success" {
		t.Errorf("got %+v", a)
	}
}

func TestPublishTimeoutBecomesVisibleInCommitOrder(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id INT NOT NULL, a INT, b INT")
	script(t, s, starrockstest.Fault{Kind: starrockstest.FaultPublishTimeout})
	if a := load(t, s, `{"id":1,"a":1,"b":1}`, "label: x"); a.Status != "Publish Timeout" || a.Loaded != 1 {
		t.Fatalf("got %s", a.raw)
	}
	if a := load(t, s, `{"id":1,"a":2}`, "label: y", "partial_update: true", "columns: id,a"); a.Status != "Publish Timeout" {
		t.Errorf("a later load overtook: %s", a.raw)
	}
	if a := load(t, s, `{"id":1}`, "label: x"); a.Existing != "FINISHED" {
		t.Errorf("got %s", a.raw)
	}
	if rows := dump(t, s, "t"); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
	s.Release()
	if diff := cmp.Diff([]string{"1|2|1"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	if got := state(t, s, "y"); got != "VISIBLE" {
		t.Errorf("state %s", got)
	}
}

func TestCommitComesAfterTheClientGaveUp(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	script(t, s, starrockstest.Fault{Kind: starrockstest.FaultCommitLate})
	if a, err := tryLoad(t, s, "t", `{"id":1}`, headers("label: x")); err == nil {
		t.Fatalf("got %s", a.raw)
	}
	if got := state(t, s, "x"); got != "PREPARE" {
		t.Errorf("state %s", got)
	}
	s.Release()
	waitFor(t, func() bool { return state(t, s, "x") == "VISIBLE" })
	if rows := dump(t, s, "t"); len(rows) != 1 {
		t.Errorf("rows %v", rows)
	}
}

func TestRedirectGoesWhereTheFaultSays(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	script(t, s, starrockstest.Fault{Kind: starrockstest.FaultRedirect, Location: "evil.example:8040"})
	resp, err := client().Do(request(t, http.MethodPut, "http://"+s.FEHTTP()+"/api/d/t/_stream_load", strings.NewReader("{}"), headers()))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("Location"); got != "http://evil.example:8040/api/d/t/_stream_load" {
		t.Errorf("Location %s", got)
	}
}

func TestDownAndUpKeepPortsAndData(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	mustLoad(t, s, `{"id":1}`)
	db := openDB(t, s, false)
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := []string{s.FEHTTP(), s.BEHTTP(), s.MySQL()}
	s.Down()
	if _, err := tryLoad(t, s, "t", `{"id":2}`, headers()); err == nil {
		t.Error("a load went through")
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if err := db.PingContext(ctx); err == nil {
		t.Error("a ping went through")
	}
	if err := s.Up(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, []string{s.FEHTTP(), s.BEHTTP(), s.MySQL()}); diff != "" {
		t.Error(diff)
	}
	mustLoad(t, s, `{"id":2}`)
	if err := db.PingContext(t.Context()); err != nil {
		t.Error(err)
	}
	if rows := dump(t, s, "t"); len(rows) != 2 {
		t.Errorf("rows %v", rows)
	}
}

func TestFrontEndGoesDownForAWhile(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	script(t, s, starrockstest.Fault{Kind: starrockstest.FaultFEDown, Delay: starrockstest.Duration(20 * time.Millisecond)})
	if _, err := tryLoad(t, s, "t", `{"id":1}`, headers()); err == nil {
		t.Error("a load went through")
	}
	waitFor(t, func() bool {
		_, err := tryLoad(t, s, "t", `{"id":1}`, headers())
		return err == nil
	})
}

func TestMySQLFaults(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	db := openDB(t, s, false)
	script(
		t, s,
		starrockstest.Fault{Kind: starrockstest.FaultMySQL, SQL: "^ALTER", Code: 1105, Message: "no luck"},
		starrockstest.Fault{Kind: starrockstest.FaultMySQLDrop, SQL: "^DELETE"},
	)
	if _, err := db.ExecContext(t.Context(), "SELECT 1"); err != nil {
		t.Error(err)
	}
	_, err := db.ExecContext(t.Context(), "ALTER TABLE d.t ADD COLUMN x INT")
	var me *mysql.MySQLError
	if !errors.As(err, &me) || me.Number != 1105 || me.Message != "no luck" {
		t.Errorf("got %v", err)
	}
	if _, err := db.ExecContext(t.Context(), "DELETE FROM d.t WHERE id=1"); err == nil || errors.As(err, &me) && me.Number != 1105 {
		t.Errorf("got %v", err)
	}
	exec(t, s, "ALTER TABLE d.t ADD COLUMN x INT")
}

func TestLabelStateFaults(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	script(t, s, starrockstest.Fault{Kind: starrockstest.FaultState, Label: "x", Code: 500})
	if status, _ := get(t, "http://"+s.FEHTTP()+"/api/d/get_load_state?label=x"); status != 500 {
		t.Errorf("status %d", status)
	}
	if got := state(t, s, "x"); got != "UNKNOWN" {
		t.Errorf("state %s", got)
	}
}

func TestAdminListener(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	base := "http://" + s.Admin()
	post := func(path, body string) (int, string) {
		resp, err := client().Do(request(t, http.MethodPost, base+path, strings.NewReader(body), nil))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, text := post("/faults", `[{"kind":"fail","message":"m","count":-1},{"kind":"hold","delay":"1.5s"}]`); status != 200 || !strings.Contains(text, `"delay": "1.5s"`) {
		t.Errorf("got %d %s", status, text)
	}
	if status, text := post("/faults", `{"kind":"nonsense"}`); status != 400 || !strings.Contains(text, "unknown kind") {
		t.Errorf("got %d %s", status, text)
	}
	if a := load(t, s, `{"id":1}`, "label: x"); a.Message != "m" {
		t.Errorf("got %s", a.raw)
	}
	resp, err := client().Do(request(t, http.MethodDelete, base+"/faults", nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	mustLoad(t, s, `{"id":1}`, "label: x")
	for path, want := range map[string]string{"/faults": "[]", "/tables": `"versions": 1`, "/loads": `"label": "x"`, "/stats": `"Fail": 1`} {
		if status, text := get(t, base+path); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if status, _ := post("/evict-labels?db=d&label=x", ""); status != 200 || state(t, s, "x") != "UNKNOWN" {
		t.Errorf("evict: %d, state %s", status, state(t, s, "x"))
	}
	if status, _ := post("/down?part=fe", ""); status != 200 {
		t.Errorf("down: %d", status)
	}
	if _, err := tryLoad(t, s, "t", `{"id":2}`, headers()); err == nil {
		t.Error("a load went through")
	}
	if status, _ := post("/up", ""); status != 200 {
		t.Errorf("up: %d", status)
	}
	mustLoad(t, s, `{"id":2}`)
}

func TestRequestThatIsStuckBeginsLate(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	script(t, s, starrockstest.Fault{Kind: starrockstest.FaultBeginLate, Label: "^x$"}, starrockstest.Fault{Kind: starrockstest.FaultBeginLate, Label: "^x$"})
	for range 2 {
		if _, err := faultyLoad(t, s); err == nil {
			t.Error("the client got an answer")
		}
	}
	if err := s.AwaitLoads(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	s.Release()
	if err := s.AwaitLoads(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	// Both had the same label, so one of them was refused.
	var statuses []string
	for _, l := range s.Loads() {
		statuses = append(statuses, l.Status)
	}
	slices.Sort(statuses)
	if diff := cmp.Diff([]string{"Label Already Exists", "Success"}, statuses); diff != "" {
		t.Error(diff)
	}
	if st := state(t, s, "x"); st != "VISIBLE" {
		t.Errorf("state %s", st)
	}
}
