package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
)

// asCommand makes the test binary behave as the command, so that a test can kill it.
const asCommand = "STANDIN_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is the running command and the addresses it printed.
type command struct {
	cmd   *exec.Cmd
	first string
	addr  map[string]string
}

func startCommand(t *testing.T, folder string) *command {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &command{addr: make(map[string]string)}
	c.cmd = exec.CommandContext(t.Context(), exe,
		"--fe-http=127.0.0.1:0", "--be-http=127.0.0.2:0", "--mysql=127.0.0.1:0", "--admin=127.0.0.1:0", "--password=pw", "--data="+folder)
	c.cmd.Env = append(os.Environ(), asCommand+"=1")
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		name, addr, _ := strings.Cut(lines.Text(), " ")
		if c.first == "" {
			c.first = lines.Text()
			continue
		}
		c.addr[name] = addr
		if name == "admin" {
			return c
		}
	}
	t.Fatal("the command did not print its listeners")
	return nil
}

func (c *command) query(t *testing.T, stmts ...string) string {
	t.Helper()
	db, err := sql.Open("mysql", "root:pw@tcp("+c.addr["mysql"]+")/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	var out string
	for _, stmt := range stmts {
		if err := db.QueryRowContext(t.Context(), stmt).Scan(&out); err != nil && err != sql.ErrNoRows {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
	return out
}

func (c *command) load(t *testing.T, label, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+c.addr["be-http"]+"/api/d/t/_stream_load", bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.SetBasicAuth("root", "pw")
	r.Header.Set("format", "json")
	r.Header.Set("label", label)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCommandSurvivesKillAndStopsOnSignal(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	c := startCommand(t, folder)
	if !strings.HasPrefix(c.first, "stand-in, not StarRocks") || len(c.addr) != 4 {
		t.Errorf("printed %q and %v", c.first, c.addr)
	}
	c.query(t, "CREATE DATABASE d", `CREATE TABLE d.t (id INT NOT NULL, v INT) PRIMARY KEY(id) PROPERTIES("replication_num"="1")`)
	if got := c.load(t, "x", `{"id":1}{"id":2}`); !strings.Contains(got, `"Status": "Success"`) {
		t.Fatal(got)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.cmd.Wait()

	c = startCommand(t, folder)
	if got := c.query(t, "SELECT COUNT(*) FROM d.t"); got != "2" {
		t.Errorf("%s rows after the kill", got)
	}
	if got := c.load(t, "x", `{"id":3}`); !strings.Contains(got, `"ExistingJobStatus": "FINISHED"`) {
		t.Error(got)
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("stop on SIGTERM: %v", err)
	}
}

func TestBadFlagsAreOneClearError(t *testing.T) {
	t.Parallel()
	f := flags{FEHTTP: "nonsense", BEHTTP: "127.0.0.1:0", MySQL: "127.0.0.1:0", Admin: "127.0.0.1:0", Version: "three"}
	err := run(t.Context(), f, io.Discard)
	if err == nil || !strings.Contains(err.Error(), `FEHTTP "nonsense"`) || !strings.Contains(err.Error(), `version "three"`) {
		t.Errorf("got %v", err)
	}
}
