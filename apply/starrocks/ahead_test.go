package starrocks_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// eager encodes each batch before it is applied.
type eager struct {
	*starrocks.Sink
	encoded *atomic.Int64
}

func (e eager) Apply(ctx context.Context, b *apply.TableBatch) (apply.Result, error) {
	if b.Encoded = e.Encode(b); b.Encoded != nil {
		e.encoded.Add(1)
	}
	return e.Sink.Apply(ctx, b)
}

func TestSinkKeepsItsContractWithBatchesThatWereEncodedBefore(t *testing.T) {
	t.Parallel()
	for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
		for suite, run := range map[string]func(*testing.T, sinktest.Open){"all": sinktest.Run, "guarded": sinktest.RunGuarded, "optional": sinktest.RunOptional} {
			t.Run(fmt.Sprintf("%s/%s", mode, suite), func(t *testing.T) {
				t.Parallel()
				var encoded atomic.Int64
				t.Run("suite", func(t *testing.T) {
					run(t, func(t *testing.T) (apply.Sink, sinktest.Reader) {
						sink, server := setup(t, starrockstest.Options{LabelKeepMaxNum: 1, LabelCleanInterval: -1}, func(c *starrocks.Config) { c.DeleteMode = mode })
						return eager{sink, &encoded}, reader{server}
					})
				})
				if encoded.Load() == 0 {
					t.Error("no batch was encoded before")
				}
			})
		}
	}
}

// TestWhatWasEncodedOfSomethingElseIsNotSent: the rows are sent as they are now.
func TestWhatWasEncodedOfSomethingElseIsNotSent(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*testing.T, *starrocks.Sink, *apply.TableBatch){
		"nothing changes": func(*testing.T, *starrocks.Sink, *apply.TableBatch) {},
		"other rows": func(_ *testing.T, _ *starrocks.Sink, b *apply.TableBatch) {
			b.Rows = []apply.Row{sinktest.Insert("7", "other", "row")}
			b.Rows[0].Position.Commit = 0x5000
		},
		"a part of the rows":    func(_ *testing.T, _ *starrocks.Sink, b *apply.TableBatch) { b.Rows = b.Rows[:1] },
		"the rows from another": func(_ *testing.T, _ *starrocks.Sink, b *apply.TableBatch) { b.Rows = b.Rows[1:] },
		"another time":          func(_ *testing.T, _ *starrocks.Sink, b *apply.TableBatch) { b.SyncedAt = b.SyncedAt.Add(time.Hour) },
		"guarded":               func(_ *testing.T, _ *starrocks.Sink, b *apply.TableBatch) { b.Guarded = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink, server, made := prepared(t, nil)
			batch := made.Of(sinktest.Insert("1", "one", "a"), sinktest.Insert("2", "two", "b"))
			batch.Encoded = sink.Encode(batch)
			if batch.Encoded == nil {
				t.Fatal("nothing was encoded")
			}
			change(t, sink, batch)
			if _, err := sink.Apply(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if batch.Encoded != nil {
				t.Error("what was encoded is there for a second call, which may be of another buffer's rows")
			}
			if diff := cmp.Diff(wantRows(batch), stored(t, server, made.Schema)); diff != "" {
				t.Errorf("the sink has other rows (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWhatWasEncodedForAnotherTableIsNotSent: the table was made anew in between, and the
// value that it has no room for is refused before StarRocks sees it.
func TestWhatWasEncodedForAnotherTableIsNotSent(t *testing.T) {
	t.Parallel()
	sink, server, made := prepared(t, nil)
	batch := made.Of(sinktest.Insert("1", "too long", "a"))
	if batch.Encoded = sink.Encode(batch); batch.Encoded == nil {
		t.Fatal("nothing was encoded")
	}
	exec(t, server, "DROP TABLE shop.items")
	exec(t, server, "CREATE TABLE shop.items (id BIGINT NOT NULL, name VARCHAR(5), note VARCHAR(99)) PRIMARY KEY(id) "+
		"DISTRIBUTED BY HASH(id) PROPERTIES(\"replication_num\"=\"1\")")
	if err := sink.Prepare(t.Context(), batch.Schema); err != nil {
		t.Fatal(err)
	}
	_, err := sink.Apply(t.Context(), batch)
	row, ok := errors.AsType[*apply.RowError](err)
	if !ok || strings.Contains(row.Reason, "StarRocks") {
		t.Errorf("got error %v, want the refusal of this side", err)
	}
}

// wantRows returns the rows of a batch of items as stored returns them.
func wantRows(b *apply.TableBatch) (rows []string) {
	for i := range b.Rows {
		text := ""
		for tuple := b.Rows[i].Tuple; len(tuple) > 0; {
			v, rest, _ := tuple.Next()
			text += string(v.Bytes) + " "
			tuple = rest
		}
		rows = append(rows, text+b.SyncedAt.UTC().Format("2006-01-02 15:04:05.000000"))
	}
	return rows
}

func stored(t *testing.T, server *starrockstest.Server, schema *cdc.Schema) (rows []string) {
	t.Helper()
	data, err := server.Rows("shop", starrocks.DefaultTableName(schema))
	if err != nil {
		t.Fatal(err)
	}
	for _, cells := range data.Rows {
		text := ""
		for _, name := range []string{"id", "name", "note"} {
			text += cells[slices.Index(data.Columns, name)].Text + " "
		}
		rows = append(rows, text+cells[slices.Index(data.Columns, "dbmazz_synced_at")].Text)
	}
	slices.Sort(rows)
	return rows
}
