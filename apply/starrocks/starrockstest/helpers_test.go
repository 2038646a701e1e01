package starrockstest_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

const (
	testUser     = "root"
	testPassword = "s:ecret"
)

// answer is a Stream Load answer with the raw body for checks of its shape.
type answer struct {
	TxnID     int64  `json:"TxnId"`
	Label     string `json:"Label"`
	Status    string `json:"Status"`
	Existing  string `json:"ExistingJobStatus"`
	Message   string `json:"Message"`
	Total     int64  `json:"NumberTotalRows"`
	Loaded    int64  `json:"NumberLoadedRows"`
	Filtered  int64  `json:"NumberFilteredRows"`
	LoadBytes int64  `json:"LoadBytes"`
	ErrorURL  string `json:"ErrorURL"`
	raw       string
}

func start(t testing.TB, opts starrockstest.Options) *starrockstest.Server {
	t.Helper()
	if opts.Password == "" {
		opts.Password = testPassword
	}
	return starrockstest.Start(t, opts)
}

func exec(t testing.TB, s *starrockstest.Server, statements ...string) {
	t.Helper()
	for _, stmt := range statements {
		if err := s.Exec(stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
}

// startTable runs a server with database d and one table t of the given columns.
func startTable(t testing.TB, opts starrockstest.Options, columns string) *starrockstest.Server {
	t.Helper()
	s := start(t, opts)
	exec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t ("+columns+`) PRIMARY KEY(id) DISTRIBUTED BY HASH(id) PROPERTIES("replication_num"="1")`)
	return s
}

func request(t testing.TB, method, url string, body io.Reader, header map[string]string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth(testUser, testPassword)
	for k, v := range header {
		r.Header.Set(k, v)
	}
	return r
}

// client follows no redirects and waits for 100-continue.
func client() *http.Client {
	return &http.Client{
		Timeout:       20 * time.Second,
		Transport:     &http.Transport{ExpectContinueTimeout: 10 * time.Second, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// headers makes a header map from "name: value" lines; JSON and strict mode unless they say otherwise.
func headers(lines ...string) map[string]string {
	h := map[string]string{"format": "json", "strict_mode": "true", "Expect": "100-continue"}
	for _, l := range lines {
		k, v, _ := strings.Cut(l, ":")
		if v = strings.TrimLeft(v, " "); v == "" {
			delete(h, k)
		} else {
			h[k] = v
		}
	}
	return h
}

// tryLoad loads through the front end and hands back transport errors.
func tryLoad(t testing.TB, s *starrockstest.Server, table, body string, h map[string]string) (answer, error) {
	t.Helper()
	url := "http://" + s.FEHTTP() + "/api/d/" + table + "/_stream_load"
	c := client()
	for range 3 {
		r := request(t, http.MethodPut, url, strings.NewReader(body), h)
		resp, err := c.Do(r)
		if err != nil {
			return answer{}, err
		}
		if resp.StatusCode == http.StatusTemporaryRedirect {
			url = resp.Header.Get("Location")
			_ = resp.Body.Close()
			continue
		}
		raw, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return answer{}, err
		}
		a := answer{raw: string(raw)}
		if err := json.Unmarshal(raw, &a); err != nil {
			return a, err
		}
		return a, nil
	}
	t.Fatal("too many redirects")
	return answer{}, nil
}

func load(t testing.TB, s *starrockstest.Server, body string, lines ...string) answer {
	t.Helper()
	a, err := tryLoad(t, s, "t", body, headers(lines...))
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return a
}

// mustLoad fails the test unless every row was loaded.
func mustLoad(t testing.TB, s *starrockstest.Server, body string, lines ...string) answer {
	t.Helper()
	a := load(t, s, body, lines...)
	if a.Status != "Success" || a.Filtered != 0 {
		t.Fatalf("load: %s", a.raw)
	}
	return a
}

// dump renders a table as lines of "a|b|NULL".
func dump(t testing.TB, s *starrockstest.Server, table string) []string {
	t.Helper()
	data, err := s.Rows("d", table)
	if err != nil {
		t.Fatal(err)
	}
	return lines(data)
}

func lines(data starrockstest.TableData) []string {
	out := []string{}
	for _, row := range data.Rows {
		var cells []string
		for _, c := range row {
			if c.Null {
				cells = append(cells, "NULL")
			} else {
				cells = append(cells, c.Text)
			}
		}
		out = append(out, strings.Join(cells, "|"))
	}
	return out
}

func query(t testing.TB, s *starrockstest.Server, stmt string) []string {
	t.Helper()
	data, err := s.Query(stmt)
	if err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
	return lines(data)
}

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := client().Do(request(t, http.MethodGet, url, nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

func openDB(t testing.TB, s *starrockstest.Server, interpolate bool) *sql.DB {
	t.Helper()
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr = testUser, testPassword, "tcp", s.MySQL()
	cfg.InterpolateParams, cfg.ParseTime = interpolate, true
	cfg.Logger = &mysql.NopLogger{}
	conn, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(conn)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func answerOf(t testing.TB, raw []byte) answer {
	t.Helper()
	a := answer{raw: string(raw)}
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatalf("decode %s: %v", raw, err)
	}
	return a
}
