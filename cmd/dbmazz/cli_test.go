package main

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/internal/config"
)

// command runs the program and returns its exit code and what it printed.
func command(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Chdir(t.TempDir()) // No .env of the folder counts.
	out, outEnd := capturePipe(t)
	err, errEnd := capturePipe(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	code = Main(ctx, args, environ, outEnd, errEnd)
	outEnd.Close()
	errEnd.Close()
	return code, <-out, <-err
}

func capturePipe(t *testing.T) (<-chan string, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	text := make(chan string, 1)
	go func() {
		data, _ := io.ReadAll(r)
		text <- string(data)
	}()
	return text, w
}

func environment(extra ...string) []string {
	return append([]string{
		"SOURCE_URL=postgres://u:sesame@127.0.0.1:1/db", "TABLES=orders", "SINK_URL=http://127.0.0.1:1", "SINK_DATABASE=shop",
		"SINK_PASSWORD=sesame2",
	}, extra...)
}

func TestAllProblemsOfTheConfigurationAreReportedAtOnce(t *testing.T) {
	code, _, stderr := command(t, []string{"FLUSH_SIZE=abc", "SINK_PORT=0", "SOURCE_URL=postgres://u:sesame@h/db?sslmode=nonsense"})
	if code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"FLUSH_SIZE", `"abc"`, "SINK_PORT", "TABLES", "SINK_URL", "SINK_DATABASE", "dbmazz --help"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q is not in:\n%s", want, stderr)
		}
	}
	if strings.Contains(stderr, "sesame") {
		t.Errorf("a password is in:\n%s", stderr)
	}
}

func TestHelpNamesEveryVariable(t *testing.T) {
	code, stdout, _ := command(t, nil, "--help")
	if code != exitOK || !strings.Contains(stdout, config.Help()) {
		t.Errorf("exit code %d:\n%s", code, stdout)
	}
	if code, _, stderr := command(t, nil, "nonsense"); code != exitUsage || !strings.Contains(stderr, "nonsense") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, stdout, _ := command(t, nil, "version"); code != exitOK || !strings.HasPrefix(stdout, "dbmazz ") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
}

func TestAnAddressInUseEndsTheProcessWithOneClearMessage(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	code, _, stderr := command(t, environment("GRPC_ADDR="+l.Addr().String(), "LOG_LEVEL=error", "BUS_DATA_DIR="+t.TempDir()))
	if code != exitFailed || !strings.Contains(stderr, "address already in use") || strings.Contains(stderr, "context canceled") {
		t.Errorf("exit code %d:\n%s", code, stderr)
	}
}

func TestASettingOfTheAPIHoldsUntilTheVariableChanges(t *testing.T) {
	t.Parallel()
	env, _, err := config.Load(environment("FLUSH_SIZE=100"), config.Capture|config.Apply)
	if err != nil {
		t.Fatal(err)
	}
	d := desired{
		FlushSize:     &override[int]{Value: 7, Over: 100},
		FlushInterval: &override[time.Duration]{Value: time.Second, Over: time.Hour},
		Tables:        &override[string]{Value: "public.orders,public.items", Over: "public.orders"},
	}
	size, interval := effective(d.FlushSize, env.FlushSize), effective(d.FlushInterval, env.FlushInterval)
	tables, err := d.tables(env.Tables)
	if err != nil {
		t.Fatal(err)
	}
	if size != 7 || interval != env.FlushInterval || len(tables.Tables) != 2 {
		t.Errorf("flush size %d, interval %s, tables %v", size, interval, tables)
	}
}

func TestHealthFailsWhereNothingListens(t *testing.T) {
	code, _, stderr := command(t, environment("GRPC_ADDR=127.0.0.1:1"), "health", "--timeout=1s")
	if code != exitFailed || !strings.Contains(stderr, "127.0.0.1:1") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
