package starrocks_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"
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

// hasty takes the beginning of a load, answers, and reads on once the buffer is used for
// something else. It returns what it has read.
func hasty(t *testing.T, listener net.Listener, overwritten <-chan struct{}) []byte {
	t.Helper()
	conn, err := listener.Accept()
	if err != nil {
		t.Error(err)
		return nil
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for line := "x"; strings.TrimSpace(line) != "" && err == nil; {
		line, err = in.ReadString('\n')
	}
	body := make([]byte, 1<<20)
	for _, step := range []func() error{
		func() error { _, err := io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n"); return err },
		func() error { _, err := io.ReadFull(in, body); return err },
		func() error {
			_, err := io.WriteString(conn, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
			return err
		},
	} {
		if err := step(); err != nil {
			t.Error(err)
		}
	}
	<-overwritten
	rest, _ := io.ReadAll(in) // The client cuts the connection.
	return append(body, rest...)
}

func TestBodyIsNotReadAfterTheLoadHasReturned(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, server, _ := prepared(t, nil)
	sink := connect(t, server, func(c *starrocks.Config) { c.URL = "http://" + listener.Addr().String() })
	overwritten, arrived := make(chan struct{}), make(chan []byte)
	go func() { arrived <- hasty(t, listener, overwritten) }()
	body := bytes.Repeat([]byte("a"), 64<<20) // More than sockets hold.
	if err := sink.Put(t.Context(), body); err == nil {
		t.Error("an answer that says nothing is no error")
	}
	copy(body, bytes.Repeat([]byte("z"), len(body)))
	close(overwritten)
	if got := <-arrived; bytes.ContainsRune(got, 'z') {
		t.Errorf("of %d bytes that arrived some are of what the buffer was used for next", len(got))
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
