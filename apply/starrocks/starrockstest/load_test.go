package starrockstest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

const twoColumns = "id BIGINT NOT NULL, v VARCHAR(10)"

func TestLoadStoresRowsAndAnswersInStarRocksShape(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	a := mustLoad(t, s, `[{"id":2,"v":"b"},{"id":1,"v":"a","other":[1,{"x":null}]}]`, "strip_outer_array: true", "label: l-1")
	if diff := cmp.Diff([]string{"1|a", "2|b"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	var keys []string
	for line := range strings.SplitSeq(a.raw, "\n") {
		if rest, ok := strings.CutPrefix(line, `    "`); ok {
			key, _, _ := strings.Cut(rest, `"`)
			keys = append(keys, key)
		}
	}
	want := []string{
		"TxnId", "Label", "Status", "Message", "NumberTotalRows", "NumberLoadedRows", "NumberFilteredRows",
		"NumberUnselectedRows", "LoadBytes", "LoadTimeMs", "BeginTxnTimeMs", "StreamLoadPlanTimeMs", "ReadDataTimeMs",
		"WriteDataTimeMs", "CommitAndPublishTimeMs",
	}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
	if a.Label != "l-1" || a.Total != 2 || a.Loaded != 2 || a.Message != "OK" {
		t.Errorf("answer: %s", a.raw)
	}
}

func TestFrontEndRedirectsWithoutReadingTheBody(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	body := &countingReader{r: strings.NewReader(`{"id":1}`)}
	r := request(t, http.MethodPut, "http://"+s.FEHTTP()+"/api/d/t/_stream_load?x=1", body, headers())
	resp, err := client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusTemporaryRedirect || resp.ContentLength != 0 || !resp.Close {
		t.Errorf("got %d, length %d, close %v", resp.StatusCode, resp.ContentLength, resp.Close)
	}
	if got, want := resp.Header.Get("Location"), "http://"+s.BEHTTP()+"/api/d/t/_stream_load?x=1"; got != want {
		t.Errorf("Location %s, want %s", got, want)
	}
	if body.n != 0 {
		t.Errorf("the front end drew %d bytes", body.n)
	}
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestFollowingTheRedirectBlindlyLosesTheCredentials(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	c := client()
	c.CheckRedirect = nil
	resp, err := c.Do(request(t, http.MethodPut, "http://"+s.FEHTTP()+"/api/d/t/_stream_load", strings.NewReader(`{"id":1}`), headers()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "no valid Basic authorization") {
		t.Errorf("got %s", b)
	}
	if rows := dump(t, s, "t"); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
}

func TestFrontEndRefusals(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	url := "http://" + s.FEHTTP() + "/api/d/t/_stream_load"
	tests := []struct {
		name   string
		change func(*http.Request)
		status int
		body   string
	}{
		{"no credentials", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "Need auth information."},
		{"wrong password", func(r *http.Request) { r.SetBasicAuth("root", "x") }, 401, "Access denied for root@127.0.0.1"},
		{"cluster suffix", func(r *http.Request) { r.SetBasicAuth("root@c", testPassword) }, 307, ""},
		{"no expect", func(r *http.Request) { r.Header.Del("Expect") }, 200, "There is no 100-continue header"},
		{"not put", func(r *http.Request) { r.Method = http.MethodPost }, 405, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := request(t, http.MethodPut, url, strings.NewReader(`{"id":1}`), headers())
			tt.change(r)
			resp, err := client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status || !strings.Contains(string(b), tt.body) {
				t.Errorf("got %d %s", resp.StatusCode, b)
			}
			if auth := resp.Header.Get("WWW-Authenticate"); (auth == `Basic realm=""`) != (tt.status == 401) {
				t.Errorf("WWW-Authenticate %q", auth)
			}
		})
	}
}

func TestLoadRefusals(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id BIGINT NOT NULL, v VARCHAR(10), n INT NOT NULL DEFAULT \"7\", m INT NOT NULL")
	exec(t, s, `CREATE TABLE d.dup (id INT, v INT) DUPLICATE KEY(id) PROPERTIES("replication_num"="1")`)
	good := `{"id":1,"v":"a","n":1,"m":1}`
	tests := []struct {
		name, body, want string
		lines            []string
	}{
		{"no rows", "", "No partitions have data available for loading", nil},
		{"bad label", good, "Incorrect label name", []string{"label: a b"}},
		{"unknown format", good, "unknown data format, format=orc", []string{"format: orc"}},
		{"array without strip", "[" + good + "]", "strip_outer_array=true", nil},
		{"not json", "x", "illegal json started with", nil},
		{"syntax", good + `{"id":2,`, "Failed to iterate document stream", nil},
		{"invalid utf-8", "{\"id\":1,\"v\":\"\xff\"}", "not valid UTF-8", nil},
		{"missing not null", `{"id":1,"v":"a","n":1}`, "too many filtered rows", nil},
		{"column without default", `{"id":1}`, "Column has no default value. column: m", []string{"columns: id"}},
		{"bad strict mode", good, "Must be bool type", []string{"strict_mode: yes"}},
		{"bad timeout", good, "Invalid timeout format", []string{"timeout: x"}},
		{"timeout range", good, "Timeout should between", []string{"timeout: 0"}},
		{"jsonpaths", good, "unsupported by the stand-in", []string{"jsonpaths: [\"$.id\"]"}},
		{"compression", good, "unsupported by the stand-in", []string{"compression: gzip"}},
		{"two compressions", good, "Only one of http header", []string{"compression: gzip", "Content-Encoding: gzip"}},
		{"expression", good, "unsupported by the stand-in", []string{"columns: id, v=upper(id)"}},
		{"op value", `{"id":1,"v":"a","n":1,"m":1,"__op":2}`, "__op=2", nil},
		{"null op", `{"id":1,"v":"a","n":1,"m":1,"__op":null}`, "too many filtered rows", nil},
		{"partial without columns", good, "key column id not in partial update columns", []string{"partial_update: true"}},
		{"partial without key", good, "key column id not in partial update columns", []string{"partial_update: true", "columns: v"}},
		{"condition unknown", good, "Merge condition column x does not exist", []string{"merge_condition: x"}},
		{"condition key", good, "should not be primary key", []string{"merge_condition: id"}},
		{"condition with delete", `{"id":1,"v":"a","n":1,"m":1,"__op":1}`, "delete with condition column v", []string{"merge_condition: v"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := load(t, s, tt.body, tt.lines...)
			if a.Status != "Fail" || !strings.Contains(a.Message, tt.want) {
				t.Errorf("got %s", a.raw)
			}
		})
	}
	a, err := tryLoad(t, s, "none", good, headers())
	if err != nil || a.Message != `unknown table "d.none"` {
		t.Errorf("got %s, %v", a.raw, err)
	}
	a, err = tryLoad(t, s, "dup", `{"id":1}`, headers("columns: id,__op"))
	if err != nil || !strings.Contains(a.Message, "only supported in primary key table") {
		t.Errorf("got %s, %v", a.raw, err)
	}
}

func TestBackEndChecksThePassword(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	r := request(t, http.MethodPut, "http://"+s.BEHTTP()+"/api/d/t/_stream_load", strings.NewReader(`{"id":1}`), headers())
	r.SetBasicAuth(testUser, "wrong")
	resp, err := client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(b), "Access denied for root@127.0.0.1") || len(dump(t, s, "t")) != 0 {
		t.Errorf("got %s, %v", b, err)
	}
}

// TestManyLoadsAndReadersAtOnce is for the race detector, and checks that no row is lost among them.
func TestManyLoadsAndReadersAtOnce(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	const writers, loads = 4, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range loads {
				body := fmt.Sprintf(`{"id":%d,"v":"a"}{"id":0,"v":"w%d"}`, w*loads+i+1, w)
				a, err := tryLoad(t, s, "t", body, headers(fmt.Sprintf("label: w%d-%d", w, i)))
				if err != nil || a.Status != "Success" {
					t.Errorf("got %s, %v", a.raw, err)
				}
			}
		})
		wg.Go(func() {
			for range loads {
				if _, err := s.Query("SELECT v, COUNT(*), MAX(id) FROM d.t GROUP BY v"); err != nil {
					t.Error(err)
				}
				if err := s.Exec("UPDATE d.t SET v = 'u' WHERE id = 0"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := query(t, s, "SELECT COUNT(*) FROM d.t"); got[0] != "81" {
		t.Errorf("%s rows", got[0])
	}
}

func TestErrorURLNamesTheFilteredRows(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	a := load(t, s, "{\"id\":1,\"v\":\"a\"}\n{\"id\":2,\"v\":\"12345678901\"}")
	if a.Status != "Fail" || a.Total != 2 || a.Loaded != 1 || a.Filtered != 1 {
		t.Fatalf("got %s", a.raw)
	}
	status, text := get(t, a.ErrorURL)
	if want := "Error: Value '12345678901' is out of range. The type of 'v' is VARCHAR(10). Row: {\"id\":2,\"v\":\"12345678901\"}\n"; status != 200 || text != want {
		t.Errorf("got %d %q", status, text)
	}
	if rows := dump(t, s, "t"); len(rows) != 0 {
		t.Errorf("a failed load left %v", rows)
	}
}

func TestMaxFilterRatioLetsBadRowsGo(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	a := load(t, s, `{"id":1} {"id":"x"} {"id":3}`, "max_filter_ratio: 0.4")
	if a.Status != "Success" || a.Filtered != 1 || a.Loaded != 2 || a.ErrorURL == "" {
		t.Fatalf("got %s", a.raw)
	}
	if diff := cmp.Diff([]string{"1|NULL", "3|NULL"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
}

func TestOperationsOfOneKeyApplyInOrder(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	mustLoad(t, s, `{"id":1,"v":"a"}{"id":1,"v":"b"}{"id":2,"v":"x"}{"id":2,"__op":1}{"id":3,"__op":"1"}{"id":3,"v":"y","__op":0}`)
	if diff := cmp.Diff([]string{"1|b", "3|y"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	mustLoad(t, s, `{"id":1}`, "columns: id, __op='delete'")
	mustLoad(t, s, "3\tz\t1\n4\tq\t0\n", "format: csv", "columns: id,v,op,__op=op")
	if diff := cmp.Diff([]string{"4|q"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
}

func TestDeleteRowsMustPassNotNull(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id INT NOT NULL, v INT NOT NULL")
	mustLoad(t, s, `{"id":1,"v":1}`)
	if a := load(t, s, `{"id":1,"__op":1}`); a.Message != "too many filtered rows" {
		t.Errorf("got %s", a.raw)
	}
	mustLoad(t, s, `{"id":1,"v":0,"__op":1}`)
}

func TestPartialUpdateKeepsOtherColumns(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, `id INT NOT NULL, a INT, b VARCHAR(5) NOT NULL DEFAULT "dd", c INT`)
	mustLoad(t, s, `{"id":1,"a":1,"b":"x","c":1}`)
	mustLoad(t, s, `{"id":1,"a":2}{"id":2,"a":3}{"id":1,"a":4}`, "partial_update: true", "columns: id,a")
	if diff := cmp.Diff([]string{"1|4|x|1", "2|3|dd|NULL"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	mustLoad(t, s, `{"id":2,"a":0,"__op":1}`, "partial_update: true", "columns: id,a", "partial_update_mode: column")
	exec(t, s, `CREATE TABLE d.n (id INT NOT NULL, a INT, b INT NOT NULL) PRIMARY KEY(id) PROPERTIES("replication_num"="1")`)
	a, err := tryLoad(t, s, "n", `{"id":1,"a":1}`, headers("partial_update: true", "columns: id,a"))
	if err != nil || a.Message != "Column has no default value. column: b" {
		t.Errorf("got %s, %v", a.raw, err)
	}
}

func TestMergeConditionDropsOlderRows(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id INT NOT NULL, v BIGINT, x INT")
	mustLoad(t, s, `{"id":1,"v":5,"x":1}{"id":1,"v":4,"x":2}`, "merge_condition: v")
	mustLoad(t, s, `{"id":1,"v":3,"x":3}{"id":2,"v":1,"x":4}`, "merge_condition: v")
	if diff := cmp.Diff([]string{"1|5|1", "2|1|4"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	mustLoad(t, s, `{"id":1,"v":5,"x":9}`, "merge_condition: v")
	if diff := cmp.Diff([]string{"1|5|9", "2|1|4"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	// NULL is smaller than any value.
	mustLoad(t, s, `{"id":3,"x":1}{"id":1,"x":7}`, "merge_condition: v")
	mustLoad(t, s, `{"id":3,"v":-9,"x":2}`, "merge_condition: v")
	if diff := cmp.Diff([]string{"1|5|9", "2|1|4", "3|-9|2"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
}

func TestMergeConditionAndPartialUpdateGoTogether(t *testing.T) {
	t.Parallel()
	for version, together := range map[string]bool{"3.1.2": false, "3.1.3": true, "3.5.0": true} {
		s := startTable(t, starrockstest.Options{Version: version}, "id INT NOT NULL, v BIGINT, x INT, y INT")
		mustLoad(t, s, `{"id":1,"v":5,"x":1,"y":1}{"id":2,"v":1,"x":1,"y":1}`)
		a, err := tryLoad(t, s, "t", `{"id":1,"v":4,"x":2}{"id":2,"v":4,"x":2}{"id":3,"v":4,"x":2}`, headers("partial_update: true", "columns: id,v,x", "merge_condition: v"))
		if err != nil || (a.Status == "Success") != together {
			t.Errorf("%s: %s, %v", version, a.raw, err)
		}
		want := []string{"1|5|1|1", "2|1|1|1"}
		if together {
			want = []string{"1|5|1|1", "2|4|2|1", "3|4|2|NULL"}
		}
		if diff := cmp.Diff(want, dump(t, s, "t")); diff != "" {
			t.Errorf("%s: %s", version, diff)
		}
	}
}

func TestDuplicateKeyTablesAppend(t *testing.T) {
	t.Parallel()
	s := start(t, starrockstest.Options{})
	exec(t, s, "CREATE DATABASE d", `CREATE TABLE d.t (id INT, v INT) DUPLICATE KEY(id) PROPERTIES("replication_num"="1")`)
	mustLoad(t, s, `{"id":1,"v":1}{"id":1,"v":1}`)
	mustLoad(t, s, `{"id":1,"v":2}`)
	if diff := cmp.Diff([]string{"1|1", "1|1", "1|2"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
}

func TestEncodedKeyIsLimitedTo128Bytes(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, "id VARCHAR(200) NOT NULL, v INT")
	mustLoad(t, s, `{"id":"`+strings.Repeat("x", 128)+`"}`)
	if a := load(t, s, `{"id":"`+strings.Repeat("x", 129)+`"}`); a.Message != "primary key size exceed the limit." {
		t.Errorf("got %s", a.raw)
	}
	exec(t, s, `CREATE TABLE d.two (a VARCHAR(200) NOT NULL, b INT NOT NULL) PRIMARY KEY(a, b) PROPERTIES("replication_num"="1")`)
	for n, want := range map[int]string{122: "Success", 123: "Fail"} {
		a, err := tryLoad(t, s, "two", `{"a":"`+strings.Repeat("x", n)+`","b":1}`, headers())
		if err != nil || a.Status != want {
			t.Errorf("%d bytes: %s, %v", n, a.raw, err)
		}
	}
}

func TestFirstDuplicateKeyWinsAndNamesMatchByBytes(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, `id INT NOT NULL, v INT NULL DEFAULT "9"`)
	mustLoad(t, s, `{"id":1,"v":1,"v":2}{"id":2,"V":3}{"v":null,"i\u0064":3}`)
	if diff := cmp.Diff([]string{"1|1", "2|NULL", "3|NULL"}, dump(t, s, "t")); diff != "" {
		t.Error(diff)
	}
	mustLoad(t, s, `{"id":4}`, "columns: id")
	if got := query(t, s, "SELECT v FROM d.t WHERE id = 4"); got[0] != "9" {
		t.Errorf("a column left out of columns reads %v", got)
	}
}

func TestBatchLimitOfJSON(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	r := request(t, http.MethodPut, "http://"+s.BEHTTP()+"/api/d/t/_stream_load", io.LimitReader(neverEnding('x'), 104857601), headers())
	r.ContentLength = 104857601
	resp, err := client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(b), "exceed the max size [104857600]") {
		t.Errorf("got %s, %v", b, err)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestNoStoreChecksAndCountsOnly(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{NoStore: true}, twoColumns)
	mustLoad(t, s, `{"id":1,"v":"a"}{"id":2,"v":"b"}`)
	if a := load(t, s, `{"id":"x"}`); a.Status != "Fail" {
		t.Errorf("got %s", a.raw)
	}
	if rows := dump(t, s, "t"); len(rows) != 0 {
		t.Errorf("rows %v", rows)
	}
	if got := s.Stats().Tables[0]; got.Rows != 2 || got.Versions != 1 {
		t.Errorf("stats %+v", got)
	}
}

func TestChunkedBodiesLoad(t *testing.T) {
	t.Parallel()
	s := startTable(t, starrockstest.Options{}, twoColumns)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	body := io.MultiReader(strings.NewReader(`{"id":1}`), strings.NewReader(`{"id":2}`))
	resp, err := client().Do(request(t, http.MethodPut, "http://"+s.BEHTTP()+"/api/d/t/_stream_load", body, headers()).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if rows := dump(t, s, "t"); len(rows) != 2 {
		t.Errorf("rows %v", rows)
	}
}
