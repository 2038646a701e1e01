package starrocks_test

import (
	"strconv"
	"testing"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/sinktest"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

func TestRoomForABodyIsNeitherShortNorWasted(t *testing.T) {
	t.Parallel()
	schema, row := wide(t)
	for _, mode := range []starrocks.DeleteMode{starrocks.DeleteSoft, starrocks.DeleteHard} {
		w := starrocks.NewRowWriter(schema, mode)
		const rows = 100
		batch := &apply.TableBatch{Schema: schema}
		var body []byte
		for range rows {
			batch.Rows = append(batch.Rows, row)
			batch.Bytes += len(row.Tuple)
			var err error
			if body, err = w.Append(append(body, ','), &row); err != nil {
				t.Fatal(err)
			}
		}
		if room := w.BodyBytes(batch); room < len(body) || room > len(body)*5/4 {
			t.Errorf("%s: room for %d bytes, the body has %d", mode, room, len(body))
		}
	}
}

// net/http returns before it has closed the body where an answer comes early, or none.
func TestBodyThatMayStillBeReadIsNotOverwritten(t *testing.T) {
	t.Parallel()
	sink, server, b := prepared(t, nil)
	buffer := make([]byte, 0, 4<<10)
	if kept, err := sink.ApplyIn(t.Context(), buffer, b.Of(sinktest.Insert("1", "a", nil))); !kept || err != nil {
		t.Fatalf("after a clear answer the buffer is kept: %t, error %v", kept, err)
	}
	for _, kind := range []starrockstest.FaultKind{starrockstest.FaultHTTPError, starrockstest.FaultDropBeforeBody, starrockstest.FaultLostResponse} {
		script(t, server, starrockstest.Fault{Kind: kind})
		batch := sinktest.NewBatch(b.Schema, "after-"+string(kind)).Of(sinktest.Insert("2", "b", nil))
		if kept, err := sink.ApplyIn(t.Context(), buffer, batch); kept || err != nil {
			t.Errorf("%s: the buffer is kept: %t, error %v", kind, kept, err)
		}
	}
}

// BenchmarkApply loads a batch of about the size of FLUSH_BYTES; what the stand-in takes counts.
func BenchmarkApply(b *testing.B) {
	sink, _ := setup(b, starrockstest.Options{NoStore: true}, nil)
	schema, row := wide(b)
	if err := sink.Prepare(b.Context(), schema); err != nil {
		b.Fatal(err)
	}
	rows := make([]apply.Row, 50_000)
	for i := range rows {
		rows[i] = row
	}
	batch := sinktest.NewBatch(schema, "bench").Of(rows...)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		batch.ID = "bench-" + strconv.Itoa(n)
		if _, err := sink.Apply(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Rows)), "ns/row")
}
