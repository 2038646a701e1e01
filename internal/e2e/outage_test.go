package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// outageEnv lengthens the outage of the sink, such as 90s.
const outageEnv = "DBMAZZ_E2E_OUTAGE"

// TestSinkOutageUnderLoadReconnectsNothing: the outage is longer than three times
// wal_sender_timeout, after which PostgreSQL drops who does not answer.
func TestSinkOutageUnderLoadReconnectsNothing(t *testing.T) {
	t.Parallel()
	outage := 20 * time.Second
	if text := os.Getenv(outageEnv); text != "" {
		var err error
		if outage, err = time.ParseDuration(text); err != nil {
			t.Fatalf("read %s: %v", outageEnv, err)
		}
	}
	db := pgtest.Database(t)
	senderTimeout(db, max(6*time.Second, outage/3))
	r := setupOn(t, db, starrockstest.Options{}, loadDDL, loadTables...)
	s := r.start()
	l := r.load(random(t), 5*time.Millisecond)
	l.more(50)
	pid, confirmed := r.walsender(), lsn(0)
	if pid == 0 {
		t.Fatal("no walsender streams")
	}
	r.sink.Down()
	before := s.look()
	stays(t, outage, "the walsender stays", func() (bool, string) {
		confirmed = max(confirmed, r.confirmed())
		now := r.walsender()
		return now == pid, fmt.Sprintf("it was %d and is %d", pid, now)
	})
	during := s.look()
	if was, is := before.GetQueue().GetLastSequence(), during.GetQueue().GetLastSequence(); is <= was {
		t.Errorf("the queue ends at %d after the outage, at %d before, want it to grow", is, was)
	}
	if n := during.GetPendingEvents(); n < 100 {
		t.Errorf("GetStatus shows %d pending events, want those of the outage", n)
	}
	if q := during.GetQueue(); q.GetPendingMessages() == 0 || q.GetPendingBytes() == 0 || q.GetOldestAgeMs() < uint64(outage.Milliseconds()/2) {
		t.Errorf("GetStatus shows the queue %v, want what is pending and for how long", q)
	}
	if answer := s.check(); answer.GetErrorDetail() == "" {
		t.Errorf("Check says nothing about the outage: %v", answer)
	}
	r.confirmedIsApplied(l)
	r.sinkUp()
	l.more(20)
	l.stop()
	r.same(s, loadTables...)
	if now := r.walsender(); now != pid {
		t.Errorf("the walsender was %d and is %d", pid, now)
	}
	eventually(t, "the queue is empty again", func() (bool, string) {
		now := s.look()
		return now.GetPendingEvents() == 0 && now.GetQueue().GetPendingMessages() == 0, now.GetQueue().String()
	})
}

// sinkFaults are what can go wrong with one load. After each, the rows must be equal.
var sinkFaults = map[string][]starrockstest.Fault{
	"answer lost":                 {{Kind: starrockstest.FaultLostResponse, Count: 3}},
	"committed but called failed": {{Kind: starrockstest.FaultFailCommitted, Count: 3}},
	"publish timeout":             {{Kind: starrockstest.FaultPublishTimeout, Count: 3, Delay: starrockstest.Duration(300 * time.Millisecond)}},
	"label is running":            {{Kind: starrockstest.FaultLabelRunning, Delay: starrockstest.Duration(500 * time.Millisecond)}},
	"answer cut off":              {{Kind: starrockstest.FaultTruncate, Count: 3}},
	"too many versions":           {{Kind: starrockstest.FaultVersionLimit, Count: 2}},
	"HTTP 503":                    {{Kind: starrockstest.FaultHTTPError, Count: 2}},
	"HTTP 502 after the commit":   {{Kind: starrockstest.FaultHTTPErrorAfterCommit, Count: 3}},
	"connection cut in the body":  {{Kind: starrockstest.FaultDropMidBody}},
	"connection cut before it":    {{Kind: starrockstest.FaultDropBeforeBody}},
	"commit after the connection": {{Kind: starrockstest.FaultCommitLate, Delay: starrockstest.Duration(700 * time.Millisecond)}},
	"label forgotten":             {{Kind: starrockstest.FaultEvictLabel, Count: 3}},
	"label forgotten, and lost":   {{Kind: starrockstest.FaultEvictLost, Count: 3}},
	"front end away":              {{Kind: starrockstest.FaultFEDown, Delay: starrockstest.Duration(time.Second)}},
	"front end answers 500":       {{Kind: starrockstest.FaultFEHTTPError, Code: 500, Count: 3}},
	"credentials refused a while": {{Kind: starrockstest.FaultFE401, Count: 3}},
	"redirected in a loop":        {{Kind: starrockstest.FaultRedirectLoop, Count: 2}},
	"state unknown after a loss":  {{Kind: starrockstest.FaultLostResponse}, {Kind: starrockstest.FaultState, Count: 3}},
	"failed, then lost":           {{Kind: starrockstest.FaultFail, Message: "memory limit exceeded"}, {Kind: starrockstest.FaultLostResponse}},
}

// TestFaultsOfTheSinkLoseAndDoubleNothing runs each fault against inserts, updates that
// leave a large value out, moved rows and deletes.
func TestFaultsOfTheSinkLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	for name, faults := range sinkFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t, "CREATE TABLE doc (id int PRIMARY KEY, v text, body text); ALTER TABLE doc ALTER COLUMN body SET STORAGE EXTERNAL", "doc")
			s := r.start()
			r.db.Exec("INSERT INTO doc SELECT i, 'v', repeat('b', 4000) FROM generate_series(1, 30) i")
			r.same(s, "doc")
			for _, fault := range faults {
				fault.Table = "doc"
				r.script(fault)
			}
			r.db.Exec("UPDATE doc SET v = 'w' WHERE id <= 10; UPDATE doc SET id = id + 100 WHERE id BETWEEN 5 AND 12; DELETE FROM doc WHERE id > 25; INSERT INTO doc VALUES (5, 'new', NULL)")
			r.settle(s)
			r.db.Exec("UPDATE doc SET v = 'x' WHERE id = 1; DELETE FROM doc WHERE id = 105; UPDATE doc SET id = 200 WHERE id = 110")
			r.settle(s)
			r.becomeEqual("doc") // A load whose publishing takes longer counts as committed.
			if left := r.sink.Faults(); len(left) == len(faults) && left[0].Count == max(faults[0].Count, 1) {
				t.Errorf("the fault did not strike: %v", left)
			}
			eventually(t, "dbmazz serves again", func() (bool, string) {
				answer := s.check()
				return answer.GetErrorDetail() == "", answer.String()
			})
		})
	}
}

// TestFilteredRowNeverCountsAsApplied: the sink commits one row less, and says so or
// nothing at all. That must not be taken for done: not by the next try, and not after a
// restart.
func TestFilteredRowNeverCountsAsApplied(t *testing.T) {
	t.Parallel()
	for kind, says := range map[starrockstest.FaultKind]string{
		starrockstest.FaultFilteredRow:  "1 filtered",
		starrockstest.FaultFilteredLost: "the table does not have 1 of its rows",
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text)", "item")
			s := r.start()
			r.script(starrockstest.Fault{Kind: kind, Table: "item", Count: -1})
			r.db.Exec("INSERT INTO item SELECT i, 'v' FROM generate_series(1, 10) i")
			bad := r.mark()
			s.complains("item", says)
			r.never(bad, 3*time.Second)
			s.kill()
			s = r.up()
			s.complains("item", says)
			r.never(bad, 2*time.Second)
			r.sink.ClearFaults()
			r.same(s, "item")
		})
	}
}

func TestRowThatTheSinkCannotTakeStopsWithItsKey(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text)", "item")
	err := r.sink.Exec(`CREATE TABLE mart.item (id INT NOT NULL, v VARCHAR(5) NULL) PRIMARY KEY(id) DISTRIBUTED BY HASH(id) PROPERTIES("replication_num" = "1")`)
	if err != nil {
		t.Fatal(err)
	}
	s := r.start()
	r.db.Exec("INSERT INTO item VALUES (1, 'short'), (42, 'hidden-value')")
	bad := r.mark()
	s.complains("public.item", "id=42", "column v", "VARCHAR(5)", "MODIFY COLUMN")
	r.never(bad, 3*time.Second)
	r.secrets = append(r.secrets, "hidden-value")

	// What the message says to do is enough.
	if err := r.sink.Exec("ALTER TABLE mart.item MODIFY COLUMN v VARCHAR(50) NULL"); err != nil {
		t.Fatal(err)
	}
	r.same(s, "item")
}

// TestRedirectToAnUnknownHostIsRefused: the credentials would go along.
func TestRedirectToAnUnknownHostIsRefused(t *testing.T) {
	t.Parallel()
	stranger := starrockstest.Start(t, starrockstest.Options{FEHTTP: "127.0.0.3:0", BEHTTP: "127.0.0.3:0", Password: sinkPassword})
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item")
	s := r.start()
	r.script(starrockstest.Fault{Kind: starrockstest.FaultRedirect, Location: stranger.BEHTTP(), Count: -1})
	r.db.Exec("INSERT INTO item VALUES (1)")
	bad := r.mark()
	s.complains(stranger.BEHTTP(), "SINK_BE_HOSTS")
	r.never(bad, 3*time.Second)
	if n := len(stranger.Loads()); n > 0 {
		t.Errorf("the unknown host got %d loads", n)
	}
	r.sink.ClearFaults()
	r.same(s, "item")
}

// TestSinkThatIsPartlyAwayCatchesUp: each part goes by itself.
func TestSinkThatIsPartlyAwayCatchesUp(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...)
	s := r.start()
	l := r.load(random(t), 3*time.Millisecond)
	for _, part := range []starrockstest.Part{starrockstest.PartBE, starrockstest.PartMySQL, starrockstest.PartFE} {
		l.more(30)
		r.sink.Down(part)
		l.more(30)
		if err := r.sink.Up(part); err != nil {
			t.Fatal(err)
		}
	}
	l.stop()
	r.same(s, loadTables...)
	if strings.Contains(s.out.String(), "capture session ended") {
		t.Error("the source was connected to again because of the sink")
	}
}
