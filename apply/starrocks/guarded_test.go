package starrocks_test

import (
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

func at(commit cdc.LSN, row apply.Row) apply.Row {
	row.Position = cdc.Position{Commit: commit, Ordinal: 1}
	if row.MovedFrom != nil {
		row.MovedBefore = commit
	}
	return row
}

func rowsOf(t *testing.T, server *starrockstest.Server, schema *cdc.Schema) string {
	t.Helper()
	var rows []string
	for _, row := range (reader{server}).Rows(t, schema) {
		rows = append(rows, strings.ReplaceAll(strings.Join(row, ","), sinktest.Null, "-"))
	}
	return strings.Join(rows, " ")
}

// TestLiveApplyMayOvertakeAGuardedLoad lets live apply commit a later row after the
// guarded load has read and sent everything, and before it commits.
func TestLiveApplyMayOvertakeAGuardedLoad(t *testing.T) {
	t.Parallel()
	moved := sinktest.Moved(sinktest.Tuple("9", nil, nil), "1", "old", sinktest.Unchanged)
	for name, late := range map[string]apply.Row{
		"full":    sinktest.Update("1", "old", "old"),
		"partial": sinktest.Update("1", "old", sinktest.Unchanged),
		"moved":   moved,
		"deleted": sinktest.Delete("1", "old", "old"),
		"by key":  sinktest.DeleteKey("1", nil, nil),
	} {
		for _, evicted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", name, evicted), func(t *testing.T) {
				t.Parallel()
				live, server, b := prepared(t, nil)
				if _, err := live.Apply(t.Context(), b.Of(at(0x1000, sinktest.Insert("1", "first", "n")), at(0x1000, sinktest.Insert("9", "from", "n9")))); err != nil {
					t.Fatal(err)
				}
				replay := process(t, server, b.Schema, nil)
				script(t, server, starrockstest.Fault{Kind: starrockstest.FaultHoldBeforeCommit, Label: "^late"})
				done := make(chan error, 1)
				late := &apply.TableBatch{ID: "late", Schema: b.Schema, Rows: []apply.Row{at(0x2000, late)}, SyncedAt: time.Now(), Guarded: true}
				go func() {
					_, err := untilApplied(t.Context(), replay, late)
					done <- err
				}()
				await(t, server, 1)
				if _, err := live.Apply(t.Context(), b.Of(at(0x3000, sinktest.Update("1", "live", "live")))); err != nil {
					t.Fatal(err)
				}
				server.Release()
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if evicted {
					server.EvictLabel("shop", labelOf(t, server, "late"))
				}
				if _, err := untilApplied(t.Context(), replay, late); err != nil {
					t.Fatal(err)
				}
				if got := rowsOf(t, server, b.Schema); got != "1,live,live 9,from,n9" {
					t.Errorf("rows are %s", got)
				}
			})
		}
	}
}

// labelOf returns the label of the last load that begins with prefix.
func labelOf(t *testing.T, server *starrockstest.Server, prefix string) string {
	t.Helper()
	label := ""
	for _, l := range server.Loads() {
		if strings.HasPrefix(l.Label, prefix) {
			label = l.Label
		}
	}
	if label == "" {
		t.Fatalf("no load has a label that begins with %s", prefix)
	}
	return label
}

func TestLiveApplyMayOvertakeAGuardedTruncate(t *testing.T) {
	t.Parallel()
	live, server, b := prepared(t, nil)
	if _, err := live.Apply(t.Context(), b.Of(at(0x1000, sinktest.Insert("1", "a", nil)), at(0x1000, sinktest.Insert("2", "b", nil)))); err != nil {
		t.Fatal(err)
	}
	replay := process(t, server, b.Schema, nil)
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultHoldBeforeCommit, Label: "^late"})
	done := make(chan error, 1)
	go func() {
		done <- replay.Truncate(t.Context(), &apply.TableTruncate{ID: "late", Schema: b.Schema, Position: cdc.Position{Commit: 0x2000, Ordinal: 1}, SyncedAt: time.Now(), Guarded: true})
	}()
	await(t, server, 1)
	if _, err := live.Apply(t.Context(), b.Of(at(0x3000, sinktest.Update("1", "live", nil)))); err != nil {
		t.Fatal(err)
	}
	server.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := rowsOf(t, server, b.Schema); got != "1,live,-" {
		t.Errorf("rows are %s", got)
	}
}

func TestGuardedTruncateMarksKeysOfEveryType(t *testing.T) {
	t.Parallel()
	columns := []cdc.Column{
		sinktest.Column("b", cdc.TypeBool, "boolean"), sinktest.Column("n", cdc.TypeNumeric, "numeric"), sinktest.Column("t", cdc.TypeTimestampTZ, "timestamp with time zone"),
		sinktest.Column("d", cdc.TypeDate, "date"), sinktest.Column("x", cdc.TypeText, "text"), sinktest.Column("v", cdc.TypeText, "text"),
	}
	schema := sinktest.Schema(t, "odd", []string{"b", "n", "t", "d", "x"}, columns...)
	rows := []apply.Row{
		at(0x1000, sinktest.Insert("t", "1.50", "2024-01-02 03:04:05.123456+00", "2024-01-02", `it's "\ x`, "v")),
		at(0x1000, sinktest.Insert("f", "-7", "2024-01-02 03:04:05+00", "0001-01-01", "", "v")),
	}
	truncate := &apply.TableTruncate{ID: "t", Schema: schema, Position: cdc.Position{Commit: 0x2000, Ordinal: 1}, SyncedAt: time.Now(), Guarded: true}
	for version, works := range map[string]bool{"3.3.15": true, "3.3.4": false} {
		sink, server := setup(t, starrockstest.Options{Version: version}, nil)
		if err := sink.Prepare(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Apply(t.Context(), sinktest.NewBatch(schema, "x").Of(rows...)); err != nil {
			t.Fatal(err)
		}
		err := sink.Truncate(t.Context(), truncate)
		if !works {
			wantError(t, err, true, "microseconds", "3.3.5")
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := server.Rows("shop", "odd")
		if err != nil || len(data.Rows) != 2 {
			t.Errorf("there are %d rows, want the 2 that were there, %v", len(data.Rows), err)
		}
		if got := rowsOf(t, server, schema); got != "" {
			t.Errorf("rows are %s", got)
		}
	}
}

func TestGuardedResultCountsWhatStaysOut(t *testing.T) {
	t.Parallel()
	sink, _, b := prepared(t, nil)
	if _, err := sink.Apply(t.Context(), b.Of(at(0x3000, sinktest.Insert("2", "a", nil)), at(0x1000, sinktest.Insert("3", "a", nil)))); err != nil {
		t.Fatal(err)
	}
	batch := b.Of(
		at(0x2000, sinktest.Update("1", "x", sinktest.Unchanged)), at(0x2000, sinktest.Moved(sinktest.Tuple("3", nil, nil), "2", "x", sinktest.Unchanged)),
		at(0x2000, sinktest.Insert("4", "x", nil)),
	)
	batch.Guarded = true
	result, err := sink.Apply(t.Context(), batch)
	if err != nil || result.Left != 2 {
		t.Errorf("%d rows are left, want 2; %v", result.Left, err)
	}
}

func TestGuardedMovesAreOneLoad(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	if _, err := sink.Apply(t.Context(), b.Of(
		at(0x1000, sinktest.Insert("1", "a", "note a")), at(0x1000, sinktest.Insert("2", "b", "note b")), at(0x1000, sinktest.Insert("3", "c", "note c")),
	)); err != nil {
		t.Fatal(err)
	}
	batch := b.Of(
		at(0x2000, sinktest.Moved(sinktest.Tuple("1", nil, nil), "2", "a", sinktest.Unchanged)),
		at(0x2000, sinktest.Moved(sinktest.Tuple("2", nil, nil), "3", "b", sinktest.Unchanged)),
		at(0x2000, sinktest.DeleteKey("1", nil, nil)), at(0x2000, sinktest.Insert("4", "d", nil)),
	)
	batch.Guarded = true
	// Whatever comes after the first load fails, and the process is killed.
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultFail, Label: "_[1-9]$", Count: -1})
	if _, err := sink.Apply(t.Context(), batch); err == nil {
		t.Fatal("the later loads succeed")
	}
	server.ClearFaults()
	if _, err := process(t, server, b.Schema, nil).Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got := rowsOf(t, server, b.Schema); got != "2,a,note a 3,b,note b 4,d,-" {
		t.Errorf("rows are %s", got)
	}
}

// TestGuardedMoveTakesNothingFromAMark: the row that was deleted in the same transaction
// may be another one that got the key after the move, and a mark may hold no values.
func TestGuardedMoveTakesNothingFromAMark(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	for _, row := range []apply.Row{at(0x1000, sinktest.Insert("1", "a", "n")), at(0x2000, sinktest.DeleteKey("1", nil, nil))} {
		if _, err := sink.Apply(t.Context(), b.Of(row)); err != nil {
			t.Fatal(err)
		}
	}
	batch := b.Of(at(0x2000, sinktest.Moved(sinktest.Tuple("1", nil, nil), "2", "b", sinktest.Unchanged)))
	batch.Guarded = true
	if _, err := sink.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got := rowsOf(t, server, b.Schema); got != "" {
		t.Errorf("rows are %s", got)
	}
}

func TestRowsThatAreCommittedButNotVisibleAreNotMissed(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	script(t, server, starrockstest.Fault{Kind: starrockstest.FaultPublishTimeout}) // Until Release.
	if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert("1", "a", "n"))); err != nil {
		t.Fatal(err)
	}
	other := process(t, server, b.Schema, nil)
	starrocks.Patient(other)
	done := make(chan error, 1)
	go func() {
		_, err := untilApplied(t.Context(), other, b.Of(sinktest.Update("1", "b", sinktest.Unchanged)))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("the row is not visible, but apply says %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	server.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := rowsOf(t, server, b.Schema); got != "1,b,n" {
		t.Errorf("rows are %s", got)
	}
}

func TestMissingRowIsRefusedWithTheWaysOut(t *testing.T) {
	t.Parallel()
	sink, _, b := prepared(t, nil)
	_, err := sink.Apply(t.Context(), b.Of(sinktest.Update("7", "b", sinktest.Unchanged)))
	wantError(t, err, false, "key id=7", "column note", "the row is not in the sink, so its unchanged columns are unknown", "snapshot", "REPLICA IDENTITY FULL", "SINK_REFUSED_ROWS=dead-letter")
	if _, ok := errors.AsType[*apply.RowError](err); !ok {
		t.Errorf("%T is no *apply.RowError", err)
	}
}

func TestRowThatIsMarkedAsDeletedHasItsValues(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	for _, row := range []apply.Row{sinktest.Insert("1", "a", "n"), sinktest.DeleteKey("1", nil, nil), sinktest.Update("1", "b", sinktest.Unchanged)} {
		if _, err := sink.Apply(t.Context(), b.Of(row)); err != nil {
			t.Fatal(err)
		}
	}
	if got := rowsOf(t, server, b.Schema); got != "1,b,n" {
		t.Errorf("rows are %s", got)
	}
}

// TestKeysWhoseMicrosecondsAreNotShownAreFound is about versions before 3.3.5.
func TestKeysWhoseMicrosecondsAreNotShownAreFound(t *testing.T) {
	t.Parallel()
	sink, server := setup(t, starrockstest.Options{Version: "3.3.4"}, nil)
	schema := sinktest.Schema(t, "moments", []string{"at"}, sinktest.Column("at", cdc.TypeTimestamp, "timestamp without time zone"),
		sinktest.Column("v", cdc.TypeText, "text"), sinktest.Column("note", cdc.TypeText, "text"))
	if err := sink.Prepare(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	b := sinktest.NewBatch(schema, "x")
	const moment = "2024-01-02 03:04:05.123456"
	if _, err := sink.Apply(t.Context(), b.Of(sinktest.Insert(moment, "a", "n"))); err != nil {
		t.Fatal(err)
	}
	for _, guarded := range []bool{false, true} {
		batch := b.Of(sinktest.Update(moment, "b", sinktest.Unchanged))
		batch.Guarded = guarded
		if _, err := sink.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if got := rowsOf(t, server, schema); got != moment+",b,n" {
			t.Errorf("rows are %s", got)
		}
	}
	// A row that cannot be told from others is not guessed.
	_, err := sink.Apply(t.Context(), b.Of(sinktest.Moved(sinktest.Tuple(moment, nil, nil), "2025-01-01 00:00:00", "b", sinktest.Unchanged)))
	wantError(t, err, false, "microseconds", "3.3.5")
}

func TestManyPartialRowsAreFoundAndTheMissingOneIsNamed(t *testing.T) {
	t.Parallel()
	for _, key := range [][]string{{"a"}, {"a", "b"}} {
		sink, _ := setup(t, starrockstest.Options{}, nil)
		schema := sinktest.Schema(t, "many", key, sinktest.Column("a", cdc.TypeInt8, "bigint"), sinktest.Column("b", cdc.TypeText, "text"), sinktest.Column("v", cdc.TypeText, "text"))
		if err := sink.Prepare(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		b := sinktest.NewBatch(schema, "x")
		var insert, update []apply.Row
		const missing, rows = 1777, 2500
		for i := range rows {
			id := fmt.Sprint(i)
			if i != missing {
				insert = append(insert, sinktest.Insert(id, "b'"+id, "v"))
			}
			update = append(update, sinktest.Update(id, "b'"+id, sinktest.Unchanged))
		}
		if _, err := sink.Apply(t.Context(), b.Of(insert...)); err != nil {
			t.Fatal(err)
		}
		_, err := sink.Apply(t.Context(), b.Of(update...))
		row, ok := errors.AsType[*apply.RowError](err)
		if !ok || row.Row != missing+1 {
			t.Errorf("got %v, want a *apply.RowError for row %d", err, missing+1)
		}
	}
}

// A statement of a process that was cut off arrives after another one has carried the
// truncate out and gone on.
func TestTruncateThatArrivesLateLeavesWhatCameAfterIt(t *testing.T) {
	t.Parallel()
	for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			sink, server, b := prepared(t, func(c *starrocks.Config) { c.DeleteMode = mode })
			if _, err := sink.Apply(t.Context(), b.Of(at(0x1000, sinktest.Insert("1", "before", nil)))); err != nil {
				t.Fatal(err)
			}
			truncate := &apply.TableTruncate{ID: "once", Schema: b.Schema, Position: cdc.Position{Commit: 0x2000, Ordinal: 1}, SyncedAt: time.Now()}
			if err := sink.Truncate(t.Context(), truncate); err != nil {
				t.Fatal(err)
			}
			if _, err := sink.Apply(t.Context(), b.Of(at(0x3000, sinktest.Insert("2", "after", nil)))); err != nil {
				t.Fatal(err)
			}
			if err := sink.Truncate(t.Context(), truncate); err != nil {
				t.Fatal(err)
			}
			if got := rowsOf(t, server, b.Schema); got != "2,after,-" {
				t.Errorf("rows are %s", got)
			}
		})
	}
}
