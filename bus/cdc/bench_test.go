package cdc_test

import (
	"bytes"
	"testing"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// BenchmarkFrame writes frames of rows of about 200 bytes, and reads one.
func BenchmarkFrame(b *testing.B) {
	const rows = 1000
	columns := []string{"id", "a", "b", "c", "d", "e", "f", "g"}
	orders := table(b, "orders", columns...)
	value := bytes.Repeat([]byte("v"), 25)
	buf := make([]byte, 1<<20)
	w := cdc.NewWriter("e1", cdc.Position{}, 0)
	write := func() []byte {
		w.Reset(buf)
		w.Begin(w.End()+0x100, 0, 1)
		for range rows {
			w.Insert(orders)
			w.StartTuple(len(columns))
			for range columns {
				w.Text(value)
			}
		}
		w.Commit(w.End() + 0x120)
		return seal(b, w)
	}
	perRow := func(b *testing.B) {
		b.Helper()
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
	}
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			write()
		}
		perRow(b)
	})
	b.Run("read", func(b *testing.B) {
		data := bytes.Clone(write())
		b.ReportAllocs()
		for b.Loop() {
			f, err := cdc.Open(data)
			if err != nil {
				b.Fatal(err)
			}
			r, err := f.Reader([]*cdc.Schema{orders})
			if err != nil {
				b.Fatal(err)
			}
			var rec cdc.Record
			for more := true; more; {
				if more, err = r.Next(&rec); err != nil {
					b.Fatal(err)
				}
			}
		}
		perRow(b)
	})
}
