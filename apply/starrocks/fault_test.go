package starrocks_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

func items(t *testing.T) *cdc.Schema {
	t.Helper()
	return sinktest.Schema(
		t, "items", []string{"id"}, sinktest.Column("id", cdc.TypeInt8, "bigint"),
		sinktest.Column("name", cdc.TypeText, "text"), sinktest.Column("note", cdc.TypeText, "text"),
	)
}

// untilApplied calls Apply as its caller does: again after every error that is not
// permanent.
func untilApplied(ctx context.Context, sink *starrocks.Sink, batch *apply.TableBatch) (apply.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		result, err := sink.Apply(ctx, batch)
		var row *apply.RowError
		if err == nil || starrocks.IsPermanent(err) || errors.As(err, &row) || ctx.Err() != nil {
			return result, err
		}
	}
}

func millis(n int) starrockstest.Duration {
	return starrockstest.Duration(time.Duration(n) * time.Millisecond)
}

func TestEveryFaultEndsWithExactlyTheRowsOfTheBatch(t *testing.T) {
	t.Parallel()
	faults := map[string][]starrockstest.Fault{
		"none":                  {},
		"fail":                  {{Kind: starrockstest.FaultFail, Message: "call frontend service failed", Count: 2}},
		"fail not leader":       {{Kind: starrockstest.FaultFail, Message: "current fe is not master"}},
		"fail running txns":     {{Kind: starrockstest.FaultFail, Message: "current running txns on db 1 is 1000, larger than limit 1000", Count: 3}},
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
		"slow":                  {{Kind: starrockstest.FaultSlow, Delay: millis(50)}},
		"label running":         {{Kind: starrockstest.FaultLabelRunning, Delay: millis(50)}},
		"version limit":         {{Kind: starrockstest.FaultVersionLimit, Count: 3}},
		"truncate":              {{Kind: starrockstest.FaultTruncate}},
		"evict label":           {{Kind: starrockstest.FaultEvictLabel}},
		"evict label, lost":     {{Kind: starrockstest.FaultEvictLost}},
		"commit late":           {{Kind: starrockstest.FaultCommitLate, Delay: millis(30)}},
		"commit very late":      {{Kind: starrockstest.FaultCommitLate, Delay: millis(400)}},
		"begin late":            {{Kind: starrockstest.FaultBeginLate, Delay: millis(30)}},
		"leader change":         {{Kind: starrockstest.FaultLeaderChange, Count: 2}},
		"back end dies":         {{Kind: starrockstest.FaultBEDies, Delay: millis(100)}},
		"front end error":       {{Kind: starrockstest.FaultFEHTTPError, Count: 2}},
		"front end down":        {{Kind: starrockstest.FaultFEDown, Delay: millis(200)}},
		"lost, state in doubt":  {{Kind: starrockstest.FaultLostResponse}, {Kind: starrockstest.FaultState, Count: 3}},
		"lost, state never":     {{Kind: starrockstest.FaultLostResponse}, {Kind: starrockstest.FaultState, Count: 30}},
		"cut, then cut, then 5": {{Kind: starrockstest.FaultDropMidBody}, {Kind: starrockstest.FaultTruncate}, {Kind: starrockstest.FaultHTTPError}},
		"sql dropped":           {{Kind: starrockstest.FaultMySQLDrop, SQL: "FROM `shop`.`items`"}},
	}
	for version, modes := range map[string][]starrocks.DeleteMode{
		"3.1.5": {starrocks.DeleteHard}, "3.3.8": {starrocks.DeleteSoft, starrocks.DeleteHard}, "3.5.0": {starrocks.DeleteSoft},
	} {
		for _, mode := range modes {
			for name, script := range faults {
				for _, options := range []starrockstest.Options{{}, forgetful} {
					if options.LabelKeepMax != 0 && (version != "3.3.8" || mode != starrocks.DeleteSoft || name == "begin late") {
						continue // A request that is stuck for longer than its label is kept is beyond help.
					}
					options.Version = version
					t.Run(fmt.Sprintf("%s/%s/%d/%s", version, mode, options.LabelKeepMax, name), func(t *testing.T) {
						t.Parallel()
						applyThrough(t, options, mode, script)
					})
				}
			}
		}
	}
}

// applyThrough applies a batch with every kind of row while each of its loads in turn
// meets the faults.
func applyThrough(t *testing.T, options starrockstest.Options, mode starrocks.DeleteMode, script []starrockstest.Fault) {
	t.Helper()
	sink, server := setup(t, options, func(c *starrocks.Config) { c.DeleteMode = mode })
	schema := items(t)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	b := sinktest.NewBatch(schema, "fault")
	if _, err := sink.Apply(t.Context(), b.Of(
		sinktest.Insert("1", "a", "n1"), sinktest.Insert("2", "b", "n2"), sinktest.Insert("3", "c", "n3"), sinktest.Insert("4", "d", "n4"),
	)); err != nil {
		t.Fatal(err)
	}
	batch := b.Of(
		sinktest.Update("1", "a2", "n12"), sinktest.Update("2", "b2", sinktest.Unchanged), sinktest.DeleteKey("3", nil, nil),
		sinktest.DeleteKey("4", nil, nil), sinktest.Moved(sinktest.Tuple("4", nil, nil), "5", "d2", sinktest.Unchanged),
		sinktest.Insert("6", "f", nil),
	)
	for load := range 3 {
		for _, f := range script {
			if f.Kind != starrockstest.FaultState && f.Kind != starrockstest.FaultMySQLDrop {
				f.Label = fmt.Sprintf("fault-2_.*_%d$", load)
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
	again := connect(t, server, func(c *starrocks.Config) { c.DeleteMode = mode })
	if err := again.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	if _, err := untilApplied(t.Context(), again, batch); err != nil {
		t.Fatal(err)
	}
	want := "1,a2,n12 2,b2,n2 5,d2,n4 6,f,\x00NULL"
	var got []string
	for _, row := range (reader{server}).Rows(t, schema) {
		got = append(got, strings.Join(row, ","))
	}
	if strings.Join(got, " ") != want {
		t.Errorf("got rows %q, want %q", strings.Join(got, " "), want)
	}
}

// rowOf returns the number of the row that an error names, 0 for none.
func rowOf(err error) int {
	if row, ok := errors.AsType[*apply.RowError](err); ok {
		return row.Row
	}
	return 0
}

func prepared(t *testing.T, change func(*starrocks.Config)) (*starrocks.Sink, *starrockstest.Server, *sinktest.Batch) {
	t.Helper()
	sink, server := setup(t, starrockstest.Options{}, change)
	schema := items(t)
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	return sink, server, sinktest.NewBatch(schema, "batch")
}

func script(t *testing.T, server *starrockstest.Server, faults ...starrockstest.Fault) {
	t.Helper()
	if err := server.Script(faults...); err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, isPermanent bool, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("got no error")
	}
	if starrocks.IsPermanent(err) != isPermanent {
		t.Errorf("permanent is %t, want %t: %v", !isPermanent, isPermanent, err)
	}
	for _, part := range append(parts, "") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	if strings.Contains(err.Error(), password) {
		t.Errorf("error shows the password: %v", err)
	}
}

func TestWrongRowCountersStopTheBatch(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFilteredRow})
	_, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "a", nil), sinktest.Insert("2", "b", nil)))
	wantError(t, err, true, "of 2 rows sent", "1 loaded", "1 filtered")
}

func TestWrongCredentialsAreNamedByTheirVariables(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFE401})
	_, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "a", nil)))
	wantError(t, err, true, "SINK_USER", "SINK_PASSWORD")

	wrong := connect(t, server, func(c *starrocks.Config) { c.Password = "wrong-" + password })
	wantError(t, wrong.Check(t.Context()), true, "StarRocks connection failed to '"+server.MySQL()+"'", "SINK_PASSWORD")
}

func TestRedirectToAnUnknownHostIsNotFollowed(t *testing.T) {
	t.Parallel()
	thief := starrockstest.Start(t, starrockstest.Options{BEHTTP: "127.0.0.3:0", Password: password})
	exec(t, thief, "CREATE DATABASE shop")
	sink, server, b := prepared(t, nil)
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultRedirect, Location: thief.BEHTTP()})
	batch := b.Of(sinktest.Insert("1", "a", nil))
	_, err := sink.Apply(t.Context(), batch)
	wantError(t, err, true, thief.BEHTTP(), "SINK_BE_HOSTS")
	if n := len(thief.Loads()); n != 0 {
		t.Errorf("the unknown host got %d loads", n)
	}

	trusting := connect(t, server, func(c *starrocks.Config) { c.TrustedHosts = []string{"127.0.0.3"} })
	if err := trusting.Prepare(t.Context(), b.Schema); err != nil {
		t.Fatal(err)
	}
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultRedirect, Location: thief.BEHTTP()})
	if _, err := trusting.Apply(t.Context(), batch); err == nil || len(thief.Loads()) == 0 {
		t.Errorf("the trusted host got no load, error %v", err)
	}
}

func TestRedirectLoopEnds(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultRedirectLoop, Count: -1})
	_, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "a", nil)))
	wantError(t, err, false, "more than 3")
}

func TestSinkThatStaysDownIsAnErrorThatMayBeRetried(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	batch := b.Of(sinktest.Insert("1", "a", nil))
	server.Down()
	_, err := sink.Apply(t.Context(), batch)
	wantError(t, err, false, "its outcome is open")
	wantError(t, sink.Check(t.Context()), false, "StarRocks connection failed to")
	if err := server.Up(); err != nil {
		t.Fatal(err)
	}
	if _, err := untilApplied(t.Context(), sink, batch); err != nil {
		t.Fatal(err)
	}
}

func TestRowThatStarRocksFiltersIsNamedWithoutItsData(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	exec(t, server, "DROP TABLE shop.items")
	exec(t, server, "CREATE TABLE shop.items (id BIGINT NOT NULL, name VARCHAR(5), note VARCHAR(99), dbmazz_op_type TINYINT, "+
		"dbmazz_is_deleted BOOLEAN, dbmazz_synced_at DATETIME, dbmazz_cdc_version BIGINT) PRIMARY KEY(id) DISTRIBUTED BY HASH(id) PROPERTIES(\"replication_num\"=\"1\")")
	_, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "ok", "x"), sinktest.Insert("77", "top-secret", "other secret")))
	var row *apply.RowError
	if !errors.As(err, &row) {
		t.Fatalf("got error %v, want a *apply.RowError", err)
	}
	if row.Column != "name" || row.Key != "id=77" || row.Table != "public.items" || row.Row != 2 {
		t.Errorf("got table %q, column %q, key %q, row %d", row.Table, row.Column, row.Key, row.Row)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("error shows data of the row: %v", err)
	}
}

func TestMissingTableStops(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	exec(t, server, "DROP TABLE shop.items")
	_, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "ok", "x")))
	wantError(t, err, true, "unknown table")
}

func TestLabelOfAnotherShapeIsNotTakenForOurs(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, func(c *starrocks.Config) { c.MaxBodyBytes = 150 })
	batch := b.Of(sinktest.Insert("1", "a", nil), sinktest.Insert("2", "b", nil), sinktest.Insert("3", "c", nil))
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFail, Label: "_1$", Count: -1, Message: "Service is shutting down"})
	if _, err := sink.Apply(t.Context(), batch); err == nil {
		t.Fatal("the second load succeeds")
	}
	server.ClearFaults()
	// The first load is committed; under another size it would have held all rows.
	other := connect(t, server, nil)
	if err := other.Prepare(t.Context(), b.Schema); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if n := len((reader{server}).Rows(t, b.Schema)); n != 3 {
		t.Errorf("got %d rows, want 3", n)
	}
}

func TestTruncateAndMovedRowsSeeRowsThatWerePublishedLate(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	late := starrockstest.Fault{Kind: starrockstest.FaultPublishTimeout, Delay: millis(40)}
	script(t, server, late)
	if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "a", "n1"))); err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Apply(t.Context(), b.Of(sinktest.Moved(sinktest.Tuple("1", nil, nil), "2", "a", sinktest.Unchanged), sinktest.DeleteKey("1", nil, nil))); err != nil {
		t.Fatal(err)
	}
	script(t, server, late)
	if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("3", "c", nil))); err != nil {
		t.Fatal(err)
	}
	if err := sink.Truncate(t.Context(), b.Truncate()); err != nil {
		t.Fatal(err)
	}
	if rows := (reader{server}).Rows(t, b.Schema); len(rows) != 0 {
		t.Errorf("after truncate there are %d rows", len(rows))
	}
}

// A row that got its key by an update that left values out, and was deleted in the same batch, leaves no trace where deletes
// remove rows. A batch that is applied again after its labels were forgotten must not look for one.
func TestRowThatMovedAndWasDeletedIsAppliedAgainAfterItsLabelIsForgotten(t *testing.T) {
	t.Parallel()
	for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
		for _, others := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", mode, others), func(t *testing.T) {
				t.Parallel()
				sink, server := setup(t, starrockstest.Options{}, func(c *starrocks.Config) { c.DeleteMode = mode })
				schema := items(t)
				if err := sink.Prepare(t.Context(), schema); err != nil {
					t.Fatal(err)
				}
				b := sinktest.NewBatch(schema, "gone")
				if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("4", "d", "n4"), sinktest.Insert("7", "g", "n7"))); err != nil {
					t.Fatal(err)
				}
				moved := sinktest.Moved(sinktest.Tuple("4", nil, nil), "5", "d2", sinktest.Unchanged)
				moved.Op = apply.OpDelete
				rows := []apply.Row{sinktest.DeleteKey("4", nil, nil), moved}
				want := "7,g,n7"
				if others {
					rows = append(rows, sinktest.DeleteKey("7", nil, nil), sinktest.Moved(sinktest.Tuple("7", nil, nil), "8", "g2", sinktest.Unchanged))
					want = "8,g2,n7"
				}
				batch := b.Of(rows...)
				for range 2 {
					if _, err := sink.Apply(t.Context(), batch); err != nil {
						t.Fatal(err)
					}
					if got := rowsOf(t, server, schema); got != want {
						t.Errorf("rows are %s, want %s", got, want)
					}
					server.EvictLabel("shop", labelOf(t, server, "gone-2"))
				}
			})
		}
	}
}
