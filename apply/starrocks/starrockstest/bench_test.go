package starrockstest_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// BenchmarkStreamLoadJSON loads batches of rows of about 200 bytes, audit columns included.
func BenchmarkStreamLoadJSON(b *testing.B) {
	for _, noStore := range []bool{true, false} {
		b.Run(fmt.Sprintf("nostore=%v", noStore), func(b *testing.B) {
			s := startTable(b, starrockstest.Options{NoStore: noStore}, `id BIGINT NOT NULL, customer INT, status VARCHAR(20),
				note VARCHAR(1000), total DECIMAL(12,2), created DATETIME, dbmazz_op_type TINYINT, dbmazz_is_deleted BOOLEAN,
				dbmazz_synced_at DATETIME, dbmazz_cdc_version BIGINT`)
			const rows = 20000
			var body strings.Builder
			body.WriteByte('[')
			for i := range rows {
				if i > 0 {
					body.WriteByte(',')
				}
				fmt.Fprintf(&body, `{"id":%d,"customer":%d,"status":"shipped","note":"a note, number %d","total":"%d.25",`+
					`"created":"2024-05-06 07:08:09.123456","dbmazz_op_type":0,"dbmazz_is_deleted":false,`+
					`"dbmazz_synced_at":"2024-05-06 07:08:10","dbmazz_cdc_version":%d}`, i, i%1000, i, i%100000, i)
			}
			body.WriteByte(']')
			c := &http.Client{}
			b.SetBytes(int64(body.Len()))
			b.ReportAllocs()
			for b.Loop() {
				r := request(b, http.MethodPut, "http://"+s.BEHTTP()+"/api/d/t/_stream_load", strings.NewReader(body.String()),
					headers("strip_outer_array: true", "Expect:"))
				resp, err := c.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				text, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || !strings.Contains(string(text), `"NumberLoadedRows": 20000`) {
					b.Fatal(string(text), err)
				}
			}
			b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
