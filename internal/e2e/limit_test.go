package e2e_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// The variables that make the limits what a release is tested with.
const (
	rowsEnv   = "DBMAZZ_E2E_ROWS"   // of one transaction: 10000000
	tablesEnv = "DBMAZZ_E2E_TABLES" // of one pipeline: 1000
)

var peak = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// rssPeak is the most memory that the process has had resident, in bytes.
func (s *service) rssPeak() int64 {
	s.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Skipf("the kernel does not tell how much memory a process has had: %v", err) // skip: only Linux has the file.
	}
	found := peak.FindSubmatch(data)
	if found == nil {
		s.t.Fatalf("no peak in %s", data)
	}
	kilobytes, err := strconv.ParseInt(string(found[1]), 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return kilobytes << 10
}

// TestLargeTransactionStaysWithinTheMemoryLimit in both processes, and arrives whole.
func TestLargeTransactionStaysWithinTheMemoryLimit(t *testing.T) {
	t.Parallel()
	rows := number(t, rowsEnv, 200_000)
	db := pgtest.Database(t)
	senderTimeout(db, 6*time.Second)
	r := setupOn(t, db, starrockstest.Options{NoStore: true}, "CREATE TABLE item (id bigint PRIMARY KEY, v text, n int, at timestamptz)", "item")
	const limit = 256 << 20
	a := r.set("MEMORY_LIMIT", "256MiB").onSocket()
	capture, apply := a.both()
	pid := r.walsender()
	began := time.Now()
	r.db.Exec(fmt.Sprintf("INSERT INTO item SELECT i, 'value number ' || i, i %% 1000, now() FROM generate_series(1, %d) i", rows))
	committed := time.Since(began)
	r.mark()
	eventuallyWithin(t, 10*time.Minute, "all rows are applied", func() (bool, string) {
		now := apply.sample()
		return now.GetRowsAppliedTotal() == uint64(rows)+1, now.String()
	})
	t.Logf("%d rows committed after %s, applied after %s; peak of capture %d MiB, of apply %d MiB", rows,
		committed.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), capture.rssPeak()>>20, apply.rssPeak()>>20)
	for _, s := range []*service{capture, apply} {
		if peak := s.rssPeak(); peak > limit {
			t.Errorf("%s had %d MiB, the limit is %d MiB", s.cmd.Args[1], peak>>20, limit>>20)
		}
		if now := s.look().GetMemoryLimitBytes(); now != limit {
			t.Errorf("the status shows a limit of %d", now)
		}
	}
	if now := r.walsender(); now != pid {
		t.Errorf("the walsender was %d and is %d", pid, now)
	}
	data, err := r.sink.Query("SELECT COUNT(*) FROM mart.item")
	if err != nil || data.Rows[0][0].Text != strconv.Itoa(rows) {
		t.Errorf("the sink has got %v rows, %v", data.Rows, err)
	}
}

// TestACopyStaysWithinTheMemoryLimit although the embedded server keeps what was just written
// in memory, which at full speed is more than that.
func TestACopyStaysWithinTheMemoryLimit(t *testing.T) {
	t.Parallel()
	const rows, limit = 1_000_000, 192 << 20
	db := pgtest.Database(t)
	r := setupOn(t, db, starrockstest.Options{NoStore: true},
		"CREATE TABLE item (id bigint PRIMARY KEY, a text, b text, c text, d text, at timestamptz)", "item")
	// Text that cannot be packed well.
	r.db.Exec(fmt.Sprintf(`INSERT INTO item SELECT i, md5(i::text), md5((i + 1)::text || 'b'), md5((i * 3)::text || 'c'), md5((i * 7)::text || 'd'), now()
FROM generate_series(1, %d) i`, rows))
	r.set("MEMORY_LIMIT", "192MiB").set("SNAPSHOT", "initial")
	began := time.Now()
	s := r.up() // Not start: a busy machine takes longer for the copy than that has patience.
	s.serving()
	eventuallyWithin(t, 5*time.Minute, "all rows are applied", func() (bool, string) {
		now := s.sample()
		return now.GetRowsAppliedTotal() >= rows, now.String()
	})
	t.Logf("%d rows are applied after %s; peak %d MiB", rows, time.Since(began).Round(time.Millisecond), s.rssPeak()>>20)
	if peak := s.rssPeak(); peak > limit {
		t.Errorf("%d MiB, the limit is %d MiB", peak>>20, limit>>20)
	}
	data, err := r.sink.Query("SELECT COUNT(*) FROM mart.item")
	if err != nil || data.Rows[0][0].Text != strconv.Itoa(rows) {
		t.Errorf("the sink has got %v rows, %v", data.Rows, err)
	}
}

// wideDDL is a table whose rows have several values of the largest size that the sink
// takes.
const wideDDL = "CREATE TABLE wide (id int PRIMARY KEY, a text, b text, c text, d text, e text);"

func wideRow(id int) string {
	value := fmt.Sprintf("repeat(md5('%d'), 32700)", id) // A little more than a million bytes.
	return fmt.Sprintf("INSERT INTO wide VALUES (%d, %[2]s, %[2]s, %[2]s, %[2]s, %[2]s)", id, value)
}

// TestServerWithSmallPayloadsCarriesLargeRows: a server of its own with the usual limit
// of 1 MB for a message.
func TestServerWithSmallPayloadsCarriesLargeRows(t *testing.T) {
	t.Parallel()
	server := bustest.StartServer(t, bustest.ServerConfig{})
	r := setup(t, wideDDL+itemDDL, "wide", "item")
	a := r.onCluster([]*bustest.Server{server})
	a.captureEnv["BUS_REPLICAS"], a.applyEnv["BUS_REPLICAS"] = "1", "1"
	_, apply := a.both()
	for id := range 4 {
		r.db.Exec(wideRow(id) + fmt.Sprintf("; INSERT INTO item SELECT i, 'v' FROM generate_series(%d, %d) i", id*1000, id*1000+999))
	}
	r.same(apply, "wide", "item")
}

// TestValueOf64MBPassesOrIsNamed: the sink's columns end at 1 MB, so the row is refused or
// set aside, whole, and what is around it arrives.
func TestValueOf64MBPassesOrIsNamed(t *testing.T) {
	t.Parallel()
	r := setup(t, itemDDL, "item").set("SINK_REFUSED_ROWS", "dead-letter").set("MEMORY_LIMIT", "512MiB")
	a := r.onSocket()
	capture, apply := a.both()
	const size = 64 << 20
	r.db.Exec(fmt.Sprintf("INSERT INTO item VALUES (1, 'before'), (2, repeat('x', %d)), (3, 'behind')", size))
	r.settle(apply)
	letters := a.letters()
	if len(letters) != 1 || letters[0].Key != "id=2" {
		t.Fatalf("letters %+v, want that of the row with id 2", letters)
	}
	shown := a.does("dlq", "show", letters[0].ID)
	if n := strings.Count(shown, "x"); n < size {
		t.Errorf("the letter has %d bytes of the value, want all %d", n, size)
	}
	r.db.Exec("UPDATE item SET v = 'short' WHERE id = 2")
	r.same(apply, "item")
	t.Logf("peak of capture %d MiB, of apply %d MiB", capture.rssPeak()>>20, apply.rssPeak()>>20)
}

func TestManyTablesInOnePipeline(t *testing.T) {
	t.Parallel()
	n := number(t, tablesEnv, 100)
	var ddl strings.Builder
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("t%d", i))
		fmt.Fprintf(&ddl, "CREATE TABLE t%d (id int PRIMARY KEY, v text);", i)
	}
	r := setup(t, ddl.String(), names...)
	began := time.Now()
	s := r.start()
	t.Logf("%d tables are ready after %s", n, time.Since(began).Round(time.Millisecond))
	for round := range 3 {
		var sql strings.Builder
		for _, name := range names {
			fmt.Fprintf(&sql, "INSERT INTO %s VALUES (%d, 'v');", name, round)
		}
		r.db.Exec(sql.String())
	}
	began = time.Now()
	r.settle(s)
	t.Logf("%d rows are applied after %s; peak %d MiB", 3*n, time.Since(began).Round(time.Millisecond), s.rssPeak()>>20)
	r.equal(names[0], names[n/2], names[n-1])
	for _, name := range names {
		if rows := r.count(name, "id >= 0"); rows != 3 {
			t.Fatalf("table %s has %d rows in the sink", name, rows)
		}
	}
}

// TestFullStreamHoldsCaptureBackAndLosesNothing: the sink is away until the stream is at
// BUS_MAX_BYTES.
func TestFullStreamHoldsCaptureBackAndLosesNothing(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE item (id int PRIMARY KEY, v text)", "item")
	a := r.set("BUS_MAX_BYTES", "2MiB").set("BUS_RETENTION", "0").onSocket()
	capture, apply := a.both()
	pid := r.walsender()
	r.sink.Down()
	for i := range 10 {
		r.db.Exec(fmt.Sprintf("INSERT INTO item SELECT i, "+noise(20)+" FROM generate_series(%d, %d) i", i*1000, i*1000+999))
	}
	eventually(t, "the status says what capture waits for", func() (bool, string) {
		now := apply.stage("capture")
		return strings.Contains(now.GetDetail(), "stream full, waiting for apply"), now.String()
	})
	stays(t, 7*time.Second, "the connection stays and the stream within its limit", func() (bool, string) {
		queue := capture.look().GetQueue()
		return r.walsender() == pid && queue.GetBytes() <= 2<<20, queue.String()
	})
	r.sinkUp()
	r.same(apply, "item")
	if now := r.walsender(); now != pid {
		t.Errorf("the walsender was %d and is %d", pid, now)
	}
}

// slowEnv sets for how many seconds TestSlowSinkIsCaughtUpWith has the slow sink. With
// more than a few the stream meets its limit, and the log of the server grows.
const slowEnv = "DBMAZZ_E2E_SLOW_SECONDS"

// TestSlowSinkIsCaughtUpWith after a while in which it takes less than the source makes.
func TestSlowSinkIsCaughtUpWith(t *testing.T) {
	t.Parallel()
	r := setup(t, loadDDL, loadTables...)
	seconds, delay, pause := number(t, slowEnv, 0), 700*time.Millisecond, time.Millisecond
	if seconds > 0 {
		r.set("BUS_MAX_BYTES", "64MiB").set("BUS_RETENTION", "0")
		delay, pause = time.Minute, 20*time.Millisecond
	}
	capture, apply := r.onSocket().both()
	pid := r.walsender()
	r.script(starrockstest.Fault{Kind: starrockstest.FaultSlow, Count: -1, Delay: starrockstest.Duration(delay)})
	l := r.load(random(t), pause)
	l.more(300)
	look := time.NewTicker(20 * time.Second)
	defer look.Stop()
	for began := time.Now(); time.Since(began) < time.Duration(seconds)*time.Second; <-look.C {
		queue, sample := capture.look().GetQueue(), apply.sample()
		if now := r.walsender(); now != pid || queue.GetBytes() > 64<<20 {
			t.Fatalf("the walsender was %d and is %d; the queue: %s", pid, now, queue)
		}
		t.Logf("%s: %d transactions, %d confirmed; lag %d ms, %d rows, %d MiB of log; peaks %d and %d MiB; capture: %s",
			time.Since(began).Round(time.Second), l.count(), r.confirmedIsApplied(l), sample.GetReplicationLagMs(), sample.GetLagEvents(),
			sample.GetLagBytes()>>20, capture.rssPeak()>>20, apply.rssPeak()>>20, apply.stage("capture").GetDetail())
	}
	sample := apply.sample()
	t.Logf("%d transactions; lag %d ms, %d rows", l.count(), sample.GetReplicationLagMs(), sample.GetLagEvents())
	r.confirmedIsApplied(l)
	r.sink.ClearFaults()
	l.more(50)
	l.stop()
	began, goal := time.Now(), r.mark()
	eventuallyWithin(t, time.Minute+time.Duration(seconds)*time.Second, "everything committed is confirmed", func() (bool, string) {
		return r.confirmed() >= goal, apply.check().String()
	})
	r.same(apply, loadTables...)
	t.Logf("caught up %d transactions after %s; peaks %d and %d MiB", l.count(), time.Since(began).Round(time.Millisecond), capture.rssPeak()>>20, apply.rssPeak()>>20)
	if now := r.walsender(); now != pid {
		t.Errorf("the walsender was %d and is %d", pid, now)
	}
}
