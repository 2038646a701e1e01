package pgoutput_test

import (
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/capture/pgoutput"
)

// BenchmarkDecode walks every column of the changes of a recording.
func BenchmarkDecode(b *testing.B) {
	var rows [][]byte
	size := 0
	for _, data := range golden(b, recordings(b)[0]) {
		if strings.IndexByte("IUD", data[0]) >= 0 {
			rows = append(rows, data)
			size += len(data)
		}
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	var m pgoutput.Message
	for b.Loop() {
		for _, data := range rows {
			if err := pgoutput.Decode(data, &m); err != nil {
				b.Fatal(err)
			}
			for _, t := range []pgoutput.Tuple{m.Old, m.New} {
				for ok := true; ok; {
					_, _, ok = t.Next()
				}
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(rows)), "ns/row")
}
