package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/internal/config"
)

// hidden is the password of every test; it must never be seen.
const hidden = "s3cr3t-pa55"

func minimal(more ...string) []string {
	return append([]string{
		"SOURCE_URL=postgres://repl:" + hidden + "@db.example:5432/shop",
		"TABLES=orders",
		"SINK_URL=fe.example",
		"SINK_DATABASE=shop",
	}, more...)
}

func mustLoad(t *testing.T, environ []string) (config.Config, []config.Warning) {
	t.Helper()
	cfg, warnings, err := config.Load(environ, config.Capture|config.Apply)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return cfg, warnings
}

func TestDefaultsAreThoseOfTheContract(t *testing.T) {
	t.Parallel()
	cfg, warnings := mustLoad(t, minimal())
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	got := fmt.Sprint(
		cfg.SourceType, cfg.SlotName, cfg.PublicationName, cfg.Tables, cfg.SinkType, cfg.SinkURL, cfg.SinkPort,
		cfg.SinkUser, cfg.SinkPassword.IsZero(), cfg.SinkDeleteMode, len(cfg.SinkBEHosts), cfg.SinkLoadTimeout,
		cfg.FlushSize, cfg.FlushInterval, cfg.FlushBytes, cfg.MinLoadInterval, cfg.GRPCAddr, cfg.GRPCInsecure,
		cfg.MetricsAddr, cfg.FlightRecorder, cfg.BusDataDir, cfg.BusMaxBytes, cfg.BusRetention, cfg.LogLevel, cfg.LogFormat,
		cfg.ShutdownTimeout, cfg.Snapshot)
	want := fmt.Sprint(
		"postgres", "dbmazz_slot", "dbmazz_pub", "public.orders", "starrocks", "http://fe.example:8030", 9030,
		"root", true, "soft", 0, 2*time.Minute,
		10000, 5*time.Second, 16<<20, 100*time.Millisecond, "127.0.0.1:50051", false,
		"", time.Duration(0), "./dbmazz-data", 10<<30, time.Hour, slog.LevelInfo, "text",
		30*time.Second, "initial")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, want := cfg.SourceURL.Reveal(), "postgres://repl:"+hidden+"@db.example:5432/shop"; got != want {
		t.Errorf("source URL: got %s, want %s", got, want)
	}
}

func TestEveryVariableReachesItsField(t *testing.T) {
	t.Parallel()
	cfg, warnings := mustLoad(t, []string{
		"SOURCE_TYPE=PostgreSQL", "SOURCE_URL=postgres://h/d", "SOURCE_SLOT_NAME=s_1", "SOURCE_PUBLICATION_NAME=My Pub",
		`TABLES=a, s.b ,"We""ird"."Tab,le",`, "SNAPSHOT=false", "SINK_TYPE=starrocks", "SINK_URL=https://fe:18030/",
		"SINK_PORT=19030", "SINK_DATABASE=d", "SINK_USER=u", "SINK_PASSWORD=" + hidden, "SINK_DELETE_MODE=hard",
		"SINK_BE_HOSTS=be1, be2:8040,::1,[::2]:8040", "SINK_LOAD_TIMEOUT_S=7", "FLUSH_SIZE=5", "FLUSH_INTERVAL_MS=6",
		"FLUSH_BYTES=2 MB", "MIN_LOAD_INTERVAL_MS=0", "GRPC_ADDR=0.0.0.0", "GRPC_PORT=6000", "GRPC_TOKEN=tok",
		"GRPC_TLS_CERT_FILE=c", "GRPC_TLS_KEY_FILE=k", "GRPC_TLS_CLIENT_CA_FILE=a", "GRPC_INSECURE=true",
		"METRICS_ADDR=127.0.0.1:9100", "FLIGHT_RECORDER_S=12", "BUS_DATA_DIR=/data", "BUS_MAX_BYTES=1GiB", "BUS_RETENTION=0",
		"LOG_LEVEL=WARN", "LOG_FORMAT=json", "SHUTDOWN_TIMEOUT_S=9",
	})
	if len(warnings) != 0 {
		t.Errorf("warnings: %v", warnings)
	}
	got := fmt.Sprint(
		cfg.SourceType, cfg.SlotName, cfg.PublicationName, cfg.Tables, cfg.SinkURL, cfg.SinkPort, cfg.SinkDatabase,
		cfg.SinkUser, cfg.SinkPassword.Reveal(), cfg.SinkDeleteMode, cfg.SinkBEHosts, cfg.SinkLoadTimeout,
		cfg.FlushSize, cfg.FlushInterval, cfg.FlushBytes, cfg.MinLoadInterval, cfg.GRPCAddr, cfg.GRPCToken.Reveal(),
		cfg.GRPCTLSCertFile, cfg.GRPCTLSKeyFile, cfg.GRPCTLSClientCAFile, cfg.GRPCInsecure, cfg.MetricsAddr, cfg.FlightRecorder,
		cfg.BusDataDir, cfg.BusMaxBytes, cfg.BusRetention, cfg.LogLevel, cfg.LogFormat, cfg.ShutdownTimeout)
	want := fmt.Sprint(
		"postgres", "s_1", "My Pub", `public.a,s.b,"We""ird"."Tab,le"`, "https://fe:18030", 19030, "d",
		"u", hidden, "hard", []string{"be1", "be2:8040", "::1", "[::2]:8040"}, 7*time.Second,
		5, 6*time.Millisecond, 2_000_000, time.Duration(0), "0.0.0.0:6000", "tok",
		"c", "k", "a", true, "127.0.0.1:9100", 12*time.Second,
		"/data", 1<<30, time.Duration(0), slog.LevelWarn, "json", 9*time.Second)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if want := (config.Table{Schema: `We"ird`, Name: "Tab,le"}); cfg.Tables.Tables[2] != want {
		t.Errorf("quoted table: got %#v, want %#v", cfg.Tables.Tables[2], want)
	}
}

// badValues are settings beside the minimal ones, and what is said about them.
var badValues = []struct{ assignment, want string }{
	{"SOURCE_TYPE=mysql", `"mysql" is not supported; want postgres`},
	{"SOURCE_URL=", "it must be set (or SOURCE_URL_FILE or the older DATABASE_URL)"},
	{"SOURCE_URL=mysql://u:" + hidden + "@h/d", "it is not a connection string"},
	{"SOURCE_URL=http://h?a=b", "it is not a connection string"},
	{"SOURCE_URL=postgres://u:12/" + hidden + "@h/d", "percent-encoded"},
	{"SOURCE_URL=postgres://u:12#" + hidden + "@h/d", "percent-encoded"},
	{"SOURCE_URL=postgres://u:12?" + hidden + "@h/d", "percent-encoded"},
	{"SOURCE_URL=postgres://u:" + hidden + "%zz@h/d", "percent-encoded"},
	{"SOURCE_URL=" + hidden, "it is not a connection string"},
	{"SOURCE_URL=postgres://u:" + hidden + "@h/d?sslmode=maybe", "sslmode is not known"},
	{"SOURCE_URL=postgres://u:" + hidden + "@h/d?sslmode=verify-ca&sslrootcert=/no/ca.pem", "/no/ca.pem"},
	{"SOURCE_SLOT_NAME=My-Slot", "want 1 to 63 of a-z, 0-9 and _"},
	{"SOURCE_PUBLICATION_NAME=" + strings.Repeat("p", 64), "want text of 1 to 63 bytes"},
	{"TABLES=", "it must be set"},
	{"TABLES= , ,", "names no table"},
	{"TABLES=a.b.c", "more than two parts"},
	{"TABLES=Orders", `write "Orders" with double quotes for the mixed-case name or orders`},
	{`TABLES="a`, "no closing double quote"},
	{`TABLES="a"b`, "text after the closing double quote"},
	{"TABLES=a b", "needs double quotes"},
	{"TABLES=a.", "a name is empty"},
	{"TABLES=orders,public.orders", "public.orders is listed twice"},
	{"TABLES=" + strings.Repeat("t", 64), "longer than 63 bytes"},
	{"SNAPSHOT=yes", "want initial, never or only"},
	{"DO_SNAPSHOT=maybe", "want initial, never or only"},
	{"SNAPSHOT_WORKERS=0", "want 1 to 64"},
	{"SNAPSHOT_RATE=-1", "want 0 to 100000000"},
	{"SINK_TYPE=snowflake", `"snowflake" is not supported; want starrocks`},
	{"SINK_URL=", "it must be set (or the older STARROCKS_URL)"},
	{"SINK_URL=ftp://fe", `the scheme "ftp" is not supported; want http://host:8030`},
	{"SINK_URL=http://u:" + hidden + "@fe", "put that into SINK_USER and SINK_PASSWORD"},
	{"SINK_URL=http://u:" + hidden + "%zz@fe", "it is not a URL"},
	{"SINK_URL=http://fe/api", "something after the host and port"},
	{"SINK_URL=http://fe:99999", "out of range"},
	{"SINK_URL=http://:8030", "not a host name"},
	{"SINK_PORT=abc", `"abc" is not a whole number; want 1 to 65535`},
	{"SINK_DATABASE=", "it must be set"},
	{"SINK_USER=a\nb", "not one line of text"},
	{"SINK_DELETE_MODE=none", "want soft or hard"},
	{"SINK_BE_HOSTS=be:1:2", "is not host:port; want host or host:port"},
	{"SINK_BE_HOSTS=b e", "not a host name"},
	{"SINK_TLS_CERT_FILE=c", "it needs SINK_TLS_KEY_FILE as well"},
	{"SINK_TLS_KEY_FILE=c", "it needs SINK_TLS_CERT_FILE as well"},
	{"SINK_SQL_TLS=maybe", "neither true nor false"},
	{"HANDOVER_AFTER_S=-1", "want 0 to 3600 seconds"},
	{"SINK_LOAD_TIMEOUT_S=0", "want 1 to 259200 seconds"},
	{"FLUSH_SIZE=abc", `"abc" is not a whole number; want 1 to 10000000`},
	{"FLUSH_SIZE=0", `"0" is out of range; want 1 to 10000000`},
	{"FLUSH_SIZE=10000001", "out of range"},
	{"FLUSH_SIZE=99999999999999999999", "out of range"},
	{"FLUSH_SIZE=1e4", "not a whole number"},
	{"FLUSH_INTERVAL_MS=5s", "want 1 to 3600000 milliseconds"},
	{"FLUSH_INTERVAL_MS=3600001", "out of range"},
	{"FLUSH_BYTES=64M", "unknown suffix; want KiB"},
	{"FLUSH_BYTES=-1", "is not a size"},
	{"FLUSH_BYTES=18446744073709551615TiB", "out of range"},
	{"FLUSH_BYTES=1", "want 1024 to 4294967296 bytes"},
	{"MIN_LOAD_INTERVAL_MS=x", "not a whole number"},
	{"GRPC_ADDR=0.0.0.0:50051", "set GRPC_TOKEN or GRPC_TLS_CLIENT_CA_FILE"},
	{"GRPC_ADDR=:50051", "can be reached from other machines"},
	{"GRPC_ADDR=myhost", "can be reached from other machines"},
	{"GRPC_ADDR=a:b:c", "want host or host:port"},
	{"GRPC_ADDR=127.0.0.1:http", `"http" is not a port`},
	{"GRPC_PORT=0", "want 1 to 65535"},
	{"DBMAZZ_CONTROL_PORT=x", "not a whole number"},
	{"GRPC_TOKEN=" + hidden + " x", "it holds white space"},
	{"GRPC_TLS_CERT_FILE=c", "it needs GRPC_TLS_KEY_FILE as well"},
	{"GRPC_TLS_KEY_FILE=c", "it needs GRPC_TLS_CERT_FILE as well"},
	{"GRPC_TLS_CLIENT_CA_FILE=c", "it needs GRPC_TLS_CERT_FILE and GRPC_TLS_KEY_FILE"},
	{"GRPC_INSECURE=yes", "neither true nor false"},
	{"METRICS_ADDR=0.0.0.0:9100", "can be reached from other machines"},
	{"METRICS_ADDR=127.0.0.1", "has no port; want host:port"},
	{"BUS_MAX_BYTES=10", "out of range"},
	{"BUS_MAX_BYTES=16777217TiB", "out of range"},
	{"BUS_RETENTION=1", "want a number with a unit such as 90m"},
	{"BUS_RETENTION=-1h", "out of range"},
	{"BUS_URL=http://h", `the scheme "http" is not supported; want nats://host:4222`},
	{"BUS_URL=nats://u:" + hidden + "@h", "put that into BUS_USER and BUS_PASSWORD"},
	{"BUS_URL=nats://h/x", "something after the host and port"},
	{"BUS_URL=,", "it names no server"},
	{"BUS_URL=nats://h:0", "out of range"},
	{"BUS_LISTEN=a:b:c", "want host:port or off"},
	{"BUS_REPLICAS=3", "more need BUS_URL of a NATS cluster"},
	{"BUS_REPLICAS=6", "want 1 to 5"},
	{"BUS_USER=u", "BUS_USER and BUS_PASSWORD need each other"},
	{"BUS_TLS_CERT_FILE=c", "it needs BUS_TLS_KEY_FILE as well"},
	{"BUS_TLS_KEY_FILE=c", "it needs BUS_TLS_CERT_FILE as well"},
	{"SINK_REFUSED_ROWS=ignore", "want stop or dead-letter"},
	{"SOURCE_STREAMING=maybe", "neither true nor false"},
	{"SOURCE_HEARTBEAT_S=-1", "want 0 to 3600 seconds"},
	{"INSTANCE=a b", "is not an instance name"},
	{"MEMORY_LIMIT=1MiB", "out of range"},
	{"LOG_LEVEL=trace", "want debug, info, warn or error"},
	{"LOG_FORMAT=xml", "want text or json"},
	{"SHUTDOWN_TIMEOUT_S=0", "want 1 to 3600 seconds"},
	{"GRPC_TOKEN_FILE=/no/such/file", "read the file: open /no/such/file: no such file"},
}

func TestEachBadValueIsNamedWithItsRemedy(t *testing.T) {
	t.Parallel()
	for _, test := range badValues {
		t.Run(test.assignment, func(t *testing.T) {
			t.Parallel()
			_, _, err := config.Load(minimal(test.assignment), config.Capture|config.Apply)
			var all *config.Error
			if !errors.As(err, &all) {
				t.Fatalf("Load: got %v, want an *Error", err)
			}
			if len(all.Problems) != 1 {
				t.Errorf("got %d problems, want 1: %v", len(all.Problems), err)
			}
			name, _, _ := strings.Cut(test.assignment, "=")
			if p := all.Problems[0]; p.Variable != name || !strings.Contains(p.Text, test.want) {
				t.Errorf("got %q, want %s: ...%s...", p, name, test.want)
			}
			if strings.Contains(err.Error(), hidden) {
				t.Errorf("the error shows a secret: %v", err)
			}
			if strings.Count(err.Error(), "\n") != 1 {
				t.Errorf("want one line per problem: %v", err)
			}
		})
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	_, _, err := config.Load([]string{"FLUSH_SIZE=abc", "SINK_PORT=x", "TABLES=A", "GRPC_ADDR=0.0.0.0"}, config.Capture|config.Apply)
	if err == nil {
		t.Fatal("Load: want an error")
	}
	for _, name := range []string{"SOURCE_URL", "SINK_URL", "SINK_DATABASE", "TABLES", "FLUSH_SIZE", "SINK_PORT", "GRPC_ADDR"} {
		if strings.Count(err.Error(), "\n  "+name+": ") != 1 {
			t.Errorf("want one line for %s: %v", name, err)
		}
	}
}

func TestOlderNamesWorkWithAWarningAndNewNamesWin(t *testing.T) {
	t.Parallel()
	cfg, warnings := mustLoad(t, []string{
		"DATABASE_URL=postgres://me@h/d", "SLOT_NAME=s", "PUBLICATION_NAME=p", "TABLES=a", "STARROCKS_URL=h", "STARROCKS_PORT=1",
		"STARROCKS_DB=old", "STARROCKS_USER=u", "STARROCKS_PASS=" + hidden, "RUST_LOG=hyper=info,debug,h2=warn",
		"DBMAZZ_CONTROL_PORT=6000", "DO_SNAPSHOT=false", "SINK_DATABASE=new",
	})
	got := fmt.Sprint(cfg.SourceURL, cfg.SlotName, cfg.PublicationName, cfg.SinkURL, cfg.SinkPort, cfg.SinkDatabase,
		cfg.SinkUser, cfg.SinkPassword.Reveal(), cfg.LogLevel, cfg.GRPCAddr, cfg.Snapshot)
	want := fmt.Sprint("postgres://me@h:5432/d", "s", "p", "http://h:8030", 1, "new",
		"u", hidden, slog.LevelDebug, "127.0.0.1:6000", "never")
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if len(warnings) != 11 {
		t.Errorf("got %d warnings, want one for each older name: %v", len(warnings), warnings)
	}
	for _, warning := range warnings {
		if strings.Contains(warning.String(), hidden) {
			t.Errorf("the warning shows a secret: %s", warning)
		}
		if warning.Variable == "STARROCKS_DB" && warning.Text != "ignored, since SINK_DATABASE is set" {
			t.Errorf("got %s", warning)
		}
	}
}

func TestRustLogWithoutAPlainLevelIsIgnored(t *testing.T) {
	t.Parallel()
	cfg, warnings := mustLoad(t, minimal("RUST_LOG=dbmazz=debug"))
	if cfg.LogLevel != slog.LevelInfo || len(warnings) != 2 {
		t.Errorf("got %v, %v; want info and two warnings", cfg.LogLevel, warnings)
	}
}

func TestSecretsCanComeFromFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", hidden+" \n")
	cfg, _ := mustLoad(t, minimal("SINK_PASSWORD_FILE="+good, "SINK_PASSWORD="))
	if got := cfg.SinkPassword.Reveal(); got != hidden+" " {
		t.Errorf("got %q: want exactly one newline trimmed", got)
	}
	for environ, want := range map[string]string{
		"GRPC_TOKEN_FILE=" + write("empty", "\n"):             "is empty",
		"GRPC_TOKEN_FILE=" + write("lines", hidden+"\nb\n"):   "more than one line",
		"GRPC_TOKEN_FILE=" + dir:                              "is a directory",
		"SINK_PASSWORD_FILE=" + good + "\x00SINK_PASSWORD=pw": "SINK_PASSWORD_FILE is set as well",
	} {
		_, _, err := config.Load(minimal(strings.Split(environ, "\x00")...), config.Capture|config.Apply)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), hidden) {
			t.Errorf("%q: got %v, want %s", environ, err, want)
		}
	}
}

func TestReplicationParameterIsStripped(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"postgres://h/d?replication=database":                   "postgres://h/d",
		"postgres://h/d?a=1&replication=database&sslmode=allow": "postgres://h/d?a=1&sslmode=allow",
		"postgres://h/d?application_name=replication":           "postgres://h/d?application_name=replication",
		"postgresql://u:p%40?w@h/d":                             "",
		"host=h replication=database dbname=d":                  "host=h dbname=d",
		"host=h replication = 'database'":                       "host=h",
		`host=h password='a replication=b\' c' user=u`:          `host=h password='a replication=b\' c' user=u`,
	} {
		cfg, _, err := config.Load(minimal("SOURCE_URL="+given), config.Capture|config.Apply)
		if want == "" {
			if err == nil {
				t.Errorf("%s: want an error", given)
			}
			continue
		}
		if err != nil || cfg.SourceURL.Reveal() != want {
			t.Errorf("%s: got %q, %v, want %q", given, cfg.SourceURL.Reveal(), err, want)
		}
	}
}

func TestAddressesAreCompletedAndExposureIsDeliberate(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"GRPC_ADDR=localhost":                             "localhost:50051",
		"GRPC_ADDR=::1":                                   "[::1]:50051",
		"GRPC_ADDR=[::1]":                                 "[::1]:50051",
		"GRPC_ADDR=[::1]:7":                               "[::1]:7",
		"GRPC_ADDR=127.0.0.1:0":                           "127.0.0.1:0",
		"GRPC_PORT=7":                                     "127.0.0.1:7",
		"GRPC_ADDR=0.0.0.0\x00GRPC_INSECURE=true":         "0.0.0.0:50051",
		"GRPC_ADDR=:7\x00GRPC_TOKEN=t":                    ":7",
		"GRPC_ADDR=host:7\x00GRPC_TOKEN=t\x00GRPC_PORT=8": "host:7",
	} {
		cfg, warnings := mustLoad(t, minimal(strings.Split(given, "\x00")...))
		if cfg.GRPCAddr != want {
			t.Errorf("%q: got %s, want %s", given, cfg.GRPCAddr, want)
		}
		wantWarnings := strings.Count(given, "GRPC_TOKEN") + strings.Count(given, "\x00GRPC_PORT")
		if len(warnings) != wantWarnings {
			t.Errorf("%q: got %v, want %d warnings", given, warnings, wantWarnings)
		}
	}
}

func TestUnknownVariablesNameTheNearestKnownOne(t *testing.T) {
	t.Parallel()
	_, warnings := mustLoad(t, minimal("SINK_PASWORD="+hidden, "FLUSH_SIZES=1", "GRPC_GO_LOG_SEVERITY_LEVEL=info", "HOME=/root"))
	got := fmt.Sprint(warnings)
	want := "[FLUSH_SIZES: not a variable of dbmazz; ignored. Is FLUSH_SIZE meant? " +
		"SINK_PASWORD: not a variable of dbmazz; ignored. Is SINK_PASSWORD meant?]"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNoWayOfPrintingShowsASecret(t *testing.T) {
	t.Parallel()
	cfg, _ := mustLoad(t, minimal("SINK_PASSWORD="+hidden, "GRPC_TOKEN="+hidden))
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		fmt.Fprintf(&b, verb+"\n", cfg)
		fmt.Fprintf(&b, verb+"\n", &cfg)
		fmt.Fprintf(&b, verb+verb+"\n", cfg.SinkPassword, cfg.SourceURL)
	}
	encoded, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.Write(encoded)
	for _, handler := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		logger := slog.New(handler)
		logger.Info("start", "config", cfg, "password", cfg.SinkPassword, "url", cfg.SourceURL)
		logger.LogAttrs(t.Context(), slog.LevelInfo, "start", cfg.Redacted()...)
	}
	text := b.String()
	if strings.Contains(text, hidden) || strings.Contains(text, fmt.Sprintf("%x", hidden)) || strings.Contains(text, fmt.Sprintf("%X", hidden)) {
		t.Errorf("a secret shows:\n%s", text)
	}
	if !strings.Contains(text, "[redacted]") || !strings.Contains(text, "postgres://repl@db.example:5432/shop") {
		t.Errorf("want redaction marks and the source without password:\n%s", text)
	}
}

func TestHelpFitsATerminalAndNamesEveryVariable(t *testing.T) {
	t.Parallel()
	help := config.Help()
	for line := range strings.Lines(help) {
		if n := len(strings.TrimRight(line, "\n")); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, name := range []string{"SOURCE_URL", "TABLES", "GRPC_TOKEN_FILE", "STARROCKS_PASS", "RUST_LOG", "METRICS_ADDR"} {
		if !strings.Contains(help, name) {
			t.Errorf("want %s in the help text", name)
		}
	}
}

func TestCheckReadmeAcceptsOnlyTheTableOfTheCode(t *testing.T) {
	t.Parallel()
	good := "# dbmazz\n\n" + config.Markdown() + "\n\nmore\n"
	if err := config.CheckReadme(good); err != nil {
		t.Errorf("CheckReadme: %v", err)
	}
	for _, bad := range []string{
		"",
		strings.Replace(good, "10000", "10001", 1),
		strings.Replace(good, "<!-- config:end -->", "| x | y | z |\n<!-- config:end -->", 1),
		strings.Replace(good, "<!-- config:start -->", "", 1),
	} {
		if config.CheckReadme(bad) == nil {
			t.Errorf("want an error for %q", bad)
		}
	}
}
