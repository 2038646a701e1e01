package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/internal/config"
)

func writeDotEnv(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadDotEnvUnderstandsTheUsualForms(t *testing.T) {
	t.Parallel()
	got, err := config.ReadDotEnv(writeDotEnv(t, strings.Join([]string{
		"\ufeff# a comment", "", "A=1", "export B = two words # comment", "C='a # $b \\n'", `D="a\n\t\"\$\\\x" # c`,
		"E=", "F=a#b", "G=#c", "H=x=y", "exportI=1", "J=' '\r",
	}, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"A=1", "B=two words", `C=a # $b \n`, "D=a\n\t\"$\\\\x", "E=", "F=a#b", "G=", "H=x=y", "exportI=1", "J= ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReadDotEnvNamesTheLineAndNotTheValue(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"export":              "want NAME=value",
		"1A=" + hidden:        "want NAME=value",
		"A B=" + hidden:       "want NAME=value",
		"A='" + hidden:        "A: the closing quote is missing",
		`A="` + hidden + `\`:  "A: the closing quote is missing",
		"A='" + hidden + "'x": "A: there is text after the closing quote",
	} {
		_, err := config.ReadDotEnv(writeDotEnv(t, "OK=1\n"+line+"\n"))
		if err == nil || !strings.Contains(err.Error(), "line 2: "+want) || strings.Contains(err.Error(), hidden) {
			t.Errorf("%q: got %v, want line 2: %s", line, err, want)
		}
	}
}

func TestReadDotEnvWithoutAFileGivesNothing(t *testing.T) {
	t.Parallel()
	got, err := config.ReadDotEnv(filepath.Join(t.TempDir(), "none"))
	if got != nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := config.ReadDotEnv(t.TempDir()); err == nil {
		t.Error("want an error for a file that cannot be read")
	}
}

func TestTheEnvironmentWinsOverDotEnv(t *testing.T) {
	t.Parallel()
	got := config.MergeEnviron(
		[]string{"SINK_URL=file", "SINK_PASSWORD=file", "FLUSH_SIZE=1", "OTHER=file", "LOG_LEVEL=info"},
		[]string{"STARROCKS_URL=env", "SINK_PASSWORD_FILE=/run/pw", "OTHER=env", "LOG_LEVEL="},
	)
	want := []string{"FLUSH_SIZE=1", "STARROCKS_URL=env", "SINK_PASSWORD_FILE=/run/pw", "OTHER=env", "LOG_LEVEL="}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseTablesReadsBackWhatTableStringWrites(t *testing.T) {
	t.Parallel()
	for _, want := range []config.Table{
		{Schema: "public", Name: "orders"},
		{Schema: `a"b`, Name: "c.d,e"},
		{Schema: "Ünïcode", Name: " "},
		{Schema: "straße", Name: "1x"},
	} {
		got, err := config.ParseTables(want.String())
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%v: got %v, %v", want, got, err)
		}
	}
}

// FuzzLoad checks that no input panics, that a failure is an *Error with one line per
// problem, and that neither errors nor warnings show a password.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"", "TABLES=\"a\".b\x00FLUSH_SIZE=1", "SOURCE_URL=host=h password='x y'", "GRPC_ADDR=[::1", "BUS_MAX_BYTES=1 GiB",
		"SINK_URL=://", "SOURCE_URL=postgres://u:p@h/d?replication", "RUST_LOG=,,=", "SINK_BE_HOSTS=,a,b:1",
	} {
		f.Add(seed, "p/%@:?#"+hidden)
	}
	f.Fuzz(func(t *testing.T, lines, password string) {
		environ := strings.Split(lines, "\x00")
		for _, line := range environ {
			if name, _, _ := strings.Cut(line, "="); strings.HasSuffix(name, "_FILE") {
				return // Files are another test.
			}
		}
		secret := "~" + hidden + password + "~"
		environ = append(minimal(), environ...)
		environ = append(environ, "GRPC_TOKEN="+secret, "SOURCE_URL=postgres://u:"+secret+"@h/d", "SINK_URL=http://u:"+secret+"@h")
		_, warnings, err := config.Load(environ, config.Capture|config.Apply)
		var all *config.Error
		if err != nil && (!errors.As(err, &all) || strings.Count(err.Error(), "\n") != len(all.Problems)) {
			t.Errorf("want an *Error with one line per problem: %v", err)
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		for _, warning := range warnings {
			text += warning.String()
		}
		if strings.Contains(text, hidden) && !strings.Contains(lines, hidden) {
			t.Errorf("a secret shows: %s", text)
		}
	})
}
