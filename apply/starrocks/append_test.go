package starrocks_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

func events(t *testing.T) *cdc.Schema {
	t.Helper()
	return sinktest.Schema(t, "events", nil, sinktest.Column("id", cdc.TypeInt8, "bigint"), sinktest.Column("note", cdc.TypeText, "text"))
}

// changesOf prints the changes that an append table has, in the order of their positions.
func changesOf(t *testing.T, server *starrockstest.Server, schema *cdc.Schema) string {
	t.Helper()
	changes := (reader{server}).Changes(t, schema)
	slices.SortFunc(changes, func(a, b sinktest.Change) int { return a.Position.Compare(b.Position) })
	parts := make([]string, len(changes))
	for i, c := range changes {
		parts[i] = fmt.Sprintf("%d:%s", c.Op, strings.Join(c.Values, ","))
	}
	return strings.Join(parts, " ")
}

// forgetful remembers no label of a load that has ended.
var forgetful = starrockstest.Options{LabelKeepMax: 1, LabelCleanInterval: -1}

func TestEveryFaultLeavesEveryChangeOnce(t *testing.T) {
	t.Parallel()
	faults := map[string][]starrockstest.Fault{
		"none":                  {},
		"fail":                  {{Kind: starrockstest.FaultFail, Message: "call frontend service failed", Count: 2}},
		"http error":            {{Kind: starrockstest.FaultHTTPError}, {Kind: starrockstest.FaultHTTPError, Code: 429}},
		"http error after":      {{Kind: starrockstest.FaultHTTPErrorAfterCommit}},
		"drop before body":      {{Kind: starrockstest.FaultDropBeforeBody, Count: 2}},
		"drop mid body":         {{Kind: starrockstest.FaultDropMidBody}},
		"lost response":         {{Kind: starrockstest.FaultLostResponse}},
		"lost response, twice":  {{Kind: starrockstest.FaultLostResponse, Count: 2}},
		"fail committed":        {{Kind: starrockstest.FaultFailCommitted, Message: "[E1008]Reached timeout"}},
		"publish timeout":       {{Kind: starrockstest.FaultPublishTimeout, Delay: millis(50)}},
		"hold":                  {{Kind: starrockstest.FaultHold, Delay: millis(50)}},
		"hold before commit":    {{Kind: starrockstest.FaultHoldBeforeCommit, Delay: millis(50)}},
		"label running":         {{Kind: starrockstest.FaultLabelRunning, Delay: millis(50)}},
		"version limit":         {{Kind: starrockstest.FaultVersionLimit, Count: 3}},
		"truncate":              {{Kind: starrockstest.FaultTruncate}},
		"evict label":           {{Kind: starrockstest.FaultEvictLabel}},
		"evict label, lost":     {{Kind: starrockstest.FaultEvictLost}},
		"commit late":           {{Kind: starrockstest.FaultCommitLate, Delay: millis(30)}},
		"commit very late":      {{Kind: starrockstest.FaultCommitLate, Delay: millis(400)}},
		"begin late":            {{Kind: starrockstest.FaultBeginLate, Delay: millis(30)}},
		"begin very late":       {{Kind: starrockstest.FaultBeginLate, Delay: millis(400)}},
		"begin at the same":     {{Kind: starrockstest.FaultBeginLate, Delay: millis(1)}},
		"leader change":         {{Kind: starrockstest.FaultLeaderChange, Count: 2}},
		"back end dies":         {{Kind: starrockstest.FaultBEDies, Delay: millis(100)}},
		"front end down":        {{Kind: starrockstest.FaultFEDown, Delay: millis(200)}},
		"lost, state in doubt":  {{Kind: starrockstest.FaultLostResponse}, {Kind: starrockstest.FaultState, Count: 3}},
		"lost, state never":     {{Kind: starrockstest.FaultLostResponse}, {Kind: starrockstest.FaultState, Count: 30}},
		"cut, then cut, then 5": {{Kind: starrockstest.FaultDropMidBody}, {Kind: starrockstest.FaultTruncate}, {Kind: starrockstest.FaultHTTPError}},
		"sql dropped":           {{Kind: starrockstest.FaultMySQLDrop, SQL: "FROM `shop`.`events`", Count: 2}},
	}
	for _, version := range []string{"3.3.8", "3.5.0"} {
		for _, options := range []starrockstest.Options{{}, forgetful} {
			options.Version = version
			for name, script := range faults {
				if options.LabelKeepMax != 0 && (version == "3.3.8" || strings.HasPrefix(name, "begin")) {
					continue // A request that is stuck for longer than its label is kept is beyond help.
				}
				t.Run(fmt.Sprintf("%s/%d/%s", version, options.LabelKeepMax, name), func(t *testing.T) {
					t.Parallel()
					appendThrough(t, options, script)
				})
			}
		}
	}
}

// appendThrough appends a batch of three loads while each of them meets the faults.
func appendThrough(t *testing.T, options starrockstest.Options, script []starrockstest.Fault) {
	t.Helper()
	sink, server := setup(t, options, nil)
	schema := events(t)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	b := sinktest.NewBatch(schema, "fault")
	if _, err := untilApplied(t.Context(), sink, b.Of(sinktest.Insert("0", "zero"))); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 150) // A load has less than two of them.
	batch := b.Of(sinktest.Insert("1", long), sinktest.Insert("1", "same"), sinktest.Insert("1", "same"), sinktest.Update("2", long), sinktest.Delete("3", long))
	for load := range 3 {
		for _, f := range script {
			if f.Kind != starrockstest.FaultState && f.Kind != starrockstest.FaultMySQLDrop {
				f.Label = fmt.Sprintf("fault-2_a_%d$", load)
			}
			if err := server.Script(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := untilApplied(t.Context(), sink, batch); err != nil {
		t.Fatal(err)
	}
	server.ClearFaults()
	server.Release()
	// A crash after the last commit: another process applies the batch again.
	again := connect(t, server, nil)
	if err := again.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	if _, err := untilApplied(t.Context(), again, batch); err != nil {
		t.Fatal(err)
	}
	await(t, server, 0)
	if got, want := changesOf(t, server, schema), fmt.Sprintf("0:0,zero 0:1,%s 0:1,same 0:1,same 1:2,%s 2:3,%s", long, long, long); got != want {
		t.Errorf("got  %s\nwant %s", strings.ReplaceAll(got, long, "x"), strings.ReplaceAll(want, long, "x"))
	}
}

// await waits until the back end works on n loads, also of clients that have gone.
func await(t *testing.T, server *starrockstest.Server, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := server.AwaitLoads(ctx, n); err != nil {
		t.Fatal(err)
	}
}

func preparedEvents(t *testing.T, change func(*starrocks.Config)) (*starrocks.Sink, *starrockstest.Server, *sinktest.Batch) {
	t.Helper()
	sink, server := setup(t, starrockstest.Options{}, change)
	schema := events(t)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	return sink, server, sinktest.NewBatch(schema, "batch")
}

// process connects another process that has prepared the schema.
func process(t *testing.T, server *starrockstest.Server, schema *cdc.Schema, change func(*starrocks.Config)) *starrocks.Sink {
	t.Helper()
	sink := connect(t, server, change)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	return sink
}

func TestLoadThatAnotherProcessLeftOpenIsNotAppendedTwice(t *testing.T) {
	t.Parallel()
	// StarRocks itself would not give the load up before the test does.
	slow := func(c *starrocks.Config) { c.LoadTimeout = time.Minute }
	sink, server, b := preparedEvents(t, slow)
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultHoldBeforeCommit})
	batch := b.Of(sinktest.Insert("1", "a"), sinktest.Insert("2", "b"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := sink.Apply(ctx, batch)
		done <- err
	}()
	await(t, server, 1)
	cancel()
	if err := <-done; err == nil {
		t.Fatal("the load that is held has succeeded")
	}
	if _, err := untilApplied(t.Context(), process(t, server, b.Schema, slow), batch); err != nil {
		t.Fatal(err)
	}
	server.Release()
	await(t, server, 0)
	if got := changesOf(t, server, b.Schema); got != "0:1,a 0:2,b" {
		t.Errorf("changes are %s", got)
	}
}

func TestChangesThatAreCommittedButNotVisibleAreNotAppendedTwice(t *testing.T) {
	t.Parallel()
	sink, server, b := preparedEvents(t, nil)
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultPublishTimeout}) // Until Release.
	batch := b.Of(sinktest.Insert("1", "a"), sinktest.Insert("2", "b"))
	if _, err := sink.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	// Neither the label nor the process knows of the load.
	for _, guarded := range []bool{false, true} {
		other := *batch
		other.ID, other.Guarded = fmt.Sprintf("other-%t", guarded), guarded
		result, err := untilApplied(t.Context(), process(t, server, b.Schema, nil), &other)
		if err != nil {
			t.Fatal(err)
		}
		if guarded && result.Left != 2 {
			t.Errorf("%d rows were left, want 2", result.Left)
		}
	}
	server.Release()
	if got := changesOf(t, server, b.Schema); got != "0:1,a 0:2,b" {
		t.Errorf("changes are %s", got)
	}
}

func TestWrongRowCountersOfAnAppendTableLeadToWhatIsMissing(t *testing.T) {
	t.Parallel()
	sink, server, b := preparedEvents(t, nil)
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFilteredRow}, starrockstest.Fault{Kind: starrockstest.FaultLostResponse})
	batch := b.Of(sinktest.Insert("1", "a"), sinktest.Insert("2", "b"))
	_, err := sink.Apply(t.Context(), batch)
	wantError(t, err, true, "of 2 rows sent", "1 loaded")
	if !errors.Is(err, apply.ErrIncomplete) {
		t.Errorf("%v is not ErrIncomplete", err)
	}
	// The label says that the load is committed; the table says what is missing.
	_, err = process(t, server, b.Schema, nil).Apply(t.Context(), batch)
	if !errors.Is(err, apply.ErrIncomplete) {
		t.Errorf("after a restart: %v is not ErrIncomplete", err)
	}
	again := *batch
	again.ID += "-r1"
	if _, err := untilApplied(t.Context(), sink, &again); err != nil {
		t.Fatal(err)
	}
	if got := changesOf(t, server, b.Schema); got != "0:1,a 0:2,b" {
		t.Errorf("changes are %s", got)
	}
}

func TestLabelOfAnAppendTableIsNotBelievedWithoutCounters(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"3.3.8", "3.5.0"} {
		sink, server := setup(t, starrockstest.Options{Version: version}, nil)
		schema := events(t)
		if err := sink.Prepare(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		b := sinktest.NewBatch(schema, "batch")
		first := b.Of(sinktest.Insert("0", "zero"))
		if _, err := sink.Apply(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		other := process(t, server, schema, nil)
		if _, err := other.Apply(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		batch := b.Of(sinktest.Insert("1", "a"), sinktest.Insert("2", "b"))
		script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFilteredLost})
		if _, err := sink.Apply(t.Context(), batch); !errors.Is(err, apply.ErrIncomplete) {
			t.Errorf("%s: %v is not ErrIncomplete", version, err)
		}
		// To the other one the batch is new, and StarRocks says that its label exists.
		if _, err := other.Apply(t.Context(), batch); !errors.Is(err, apply.ErrIncomplete) {
			t.Errorf("%s: from another process, %v is not ErrIncomplete", version, err)
		}
	}
}

func TestOrdinaryAppendsAreNotLookedUp(t *testing.T) {
	t.Parallel()
	sink, server, b := preparedEvents(t, nil)
	if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "a"))); err != nil {
		t.Fatal(err)
	}
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultMySQL, Count: -1, Message: "no queries"})
	for range 3 {
		if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("2", "b"))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAppendTableIsSortedByPosition(t *testing.T) {
	t.Parallel()
	want := "CREATE TABLE IF NOT EXISTS `db`.`events` (`dbmazz_cdc_version` BIGINT NOT NULL COMMENT 'commit LSN of the change', " +
		"`dbmazz_cdc_ordinal` BIGINT NOT NULL COMMENT 'number of the change in its transaction', `id` BIGINT NULL COMMENT 'bigint', " +
		"`note` VARCHAR(1048576) NULL COMMENT 'text', `dbmazz_op_type` TINYINT NULL COMMENT '0 insert, 1 update, 2 delete', " +
		"`dbmazz_is_deleted` BOOLEAN NULL COMMENT 'true if the row is deleted in the source', `dbmazz_synced_at` DATETIME NULL COMMENT 'when the batch was planned, UTC') " +
		"ENGINE=OLAP DUPLICATE KEY(`dbmazz_cdc_version`, `dbmazz_cdc_ordinal`) COMMENT 'public.events' " +
		"DISTRIBUTED BY HASH(`dbmazz_cdc_version`, `dbmazz_cdc_ordinal`) PROPERTIES(\"replication_num\" = \"2\")"
	if got := starrocks.CreateTable(events(t), 2); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestTablesOfTheWrongModelAreRefused(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, nil)
	create(t, server, "id BIGINT NOT NULL, name STRING, note STRING", "PRIMARY KEY(id)")
	keyless := items(t)
	keyless = sinktest.Schema(t, "items", nil, keyless.Columns...)
	wantError(t, sink.Prepare(t.Context(), keyless), true, "PRIMARY KEY table", "the source has no key", "add a primary key")

	exec(t, server, "CREATE TABLE shop.events (id BIGINT, note STRING NOT NULL) DUPLICATE KEY(id) DISTRIBUTED BY HASH(id) PROPERTIES(\"replication_num\"=\"1\")")
	wantError(t, sink.Prepare(t.Context(), events(t)), true, `column "note" is NOT NULL there and not in the source`, "MODIFY COLUMN `note`")
	keyed := sinktest.Schema(t, "events", []string{"id"}, events(t).Columns...)
	wantError(t, sink.Prepare(t.Context(), keyed), true, "not a PRIMARY KEY table", "DUP_KEYS")
}

func TestExistingAppendTableGetsWhatItLacks(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{}, nil)
	exec(t, server, "CREATE TABLE shop.events (ID BIGINT, mine INT NOT NULL DEFAULT \"7\") DUPLICATE KEY(ID) DISTRIBUTED BY HASH(ID) PROPERTIES(\"replication_num\"=\"1\")")
	exec(t, server, "INSERT INTO shop.events VALUES (99, 1)")
	schema := events(t)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	b := sinktest.NewBatch(schema, "x")
	batch := b.Of(sinktest.Insert("1", "a"), sinktest.Delete("1", "a"))
	for range 2 {
		if _, err := sink.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	data, err := server.Query("SELECT ID, mine, note, dbmazz_op_type, dbmazz_cdc_ordinal FROM shop.events ORDER BY ID, dbmazz_op_type")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(data.Rows); got != "[[{1 false} {7 false} {a false} {0 false} {1 false}] [{1 false} {7 false} {a false} {2 false} {1 false}] [{99 false} {1 false} { true} { true} { true}]]" {
		t.Errorf("rows are %s", got)
	}
	if err := sink.Truncate(t.Context(), b.Truncate()); err != nil {
		t.Fatal(err)
	}
	if data, err = server.Rows("shop", "events"); err != nil || len(data.Rows) != 0 {
		t.Errorf("after the truncate there are %v, %v", data.Rows, err)
	}
}

func TestChangeThatStarRocksFiltersIsNamedByItsPosition(t *testing.T) {
	t.Parallel()
	sink, server, b := preparedEvents(t, nil)
	exec(t, server, "DROP TABLE shop.events")
	exec(t, server, "CREATE TABLE shop.events (dbmazz_cdc_version BIGINT, dbmazz_cdc_ordinal BIGINT, id BIGINT, note VARCHAR(5), dbmazz_op_type TINYINT, "+
		"dbmazz_is_deleted BOOLEAN, dbmazz_synced_at DATETIME) DUPLICATE KEY(dbmazz_cdc_version, dbmazz_cdc_ordinal) DISTRIBUTED BY HASH(id) PROPERTIES(\"replication_num\"=\"1\")")
	batch := b.Of(sinktest.Insert("1", "ok"), sinktest.Insert("2", "top-secret"))
	_, err := sink.Apply(t.Context(), batch)
	row, ok := errors.AsType[*apply.RowError](err)
	if !ok || row.Row != 2 || row.Column != "note" || !strings.Contains(row.Key, fmt.Sprintf("dbmazz_cdc_version=%d", uint64(batch.Rows[1].Position.Commit))) {
		t.Fatalf("got %v (%+v)", err, row)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("error shows data of the row: %v", err)
	}
}
