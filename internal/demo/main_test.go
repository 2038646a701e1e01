package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-changes", "10"},
		{"-changes", "many"},
		{"-kill", "-1"},
		{"-kill", "2", "-sink-down", "9s"},
		{"-sink-down", "2h"},
		{"-sink-down", "90"},
		{"extra"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
	o, err := parse([]string{"--changes=5000", "--kill=3", "-seed", "7", "-keep"})
	want := options{changes: 5000, kills: 3, seed: 7, keep: true}
	if diff := cmp.Diff(want, o, cmp.AllowUnexported(options{})); err != nil || diff != "" {
		t.Errorf("got error %v and other options than wanted:\n%s", err, diff)
	}
	if o, err := parse(nil); err != nil || o.seed == 0 || o.changes < 300_000 {
		t.Errorf("without arguments: got %+v (%v); want a seed and at least 300,000 changes", o, err)
	}
}

func TestScenariosFitIntoTheLoad(t *testing.T) {
	t.Parallel()
	if d := (options{sinkDown: 90 * time.Second}).lasting(); d < 90*time.Second+2*outageAfter {
		t.Errorf("a load of %s is too short for an outage of 90s", d)
	}
	if d := (options{kills: 10}).lasting(); d < 10*killEvery {
		t.Errorf("a load of %s is too short for 10 kills", d)
	}
	if d := (options{}).lasting(); d != 0 {
		t.Errorf("a load without a scenario is slowed down to %s", d)
	}
}

func TestFolderOfSomebodyElseIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "queue")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDemo(options{dir: dir}, nil)
	if err := d.makeFolder(); err == nil || !strings.Contains(err.Error(), "not the demo's") {
		t.Errorf("got error %v; want a refusal", err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file holds %q (%v) afterwards", text, err)
	}
}

func TestFolderOfAnEarlierDemoIsEmptied(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		if err := newDemo(options{dir: dir}, nil).makeFolder(); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Fatalf("the folder holds %v (%v); want only the marker", entries, err)
		}
		if err := os.WriteFile(filepath.Join(dir, dbmazzLog), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestShellReadsWhatWasQuoted(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"plain", "", `a "b" $c \d`, "it's", "two\nlines", `customers,"Archive"."PriceHistory"`} {
		out, err := exec.Command("sh", "-c", "V="+shellQuote(text)+`; printf %s "$V"`).Output()
		if err != nil || string(out) != text {
			t.Errorf("the shell read %q (%v); want %q", out, err, text)
		}
	}
}

func TestNumbersAreForPeople(t *testing.T) {
	t.Parallel()
	got := []string{
		count(0), count(999), count(1000), count(-1234567), size(0), size(1023), size(1536), size(200 << 20), size(3 << 30),
		seconds(1500 * time.Millisecond), seconds(59 * time.Second), seconds(200 * time.Second), lag(12), lag(1234), bar(0.5, 4), bar(2, 2),
		cut("abcdef", 4), cut("é", 1),
	}
	want := []string{
		"0", "999", "1,000", "-1,234,567", "0 B", "1023 B", "1.5 KiB", "200 MiB", "3.0 GiB",
		"1.5 s", "59 s", "3m20s", "12 ms", "1.2 s", "[##..]", "[##]", "abc…", "é",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEndOfAChildIsToldOnlyWhenUnasked(t *testing.T) {
	t.Parallel()
	sh := command{name: "sh", path: "/bin/sh", env: childEnv(), log: filepath.Join(t.TempDir(), "log")}
	unasked := make(chan error, 1)
	sh.args = []string{"-c", "echo said; exit 3"}
	p, err := start(sh, func(err error) { unasked <- err })
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := <-unasked; !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("got %v; want exit code 3", err)
	}
	if err := p.stop(t.Context(), time.Second); err != nil {
		t.Errorf("stop a child that has ended: %v", err)
	}
	if lines := tail(sh.log, 5); len(lines) != 1 || lines[0] != "said" {
		t.Errorf("the log holds %q", lines)
	}
	sh.args = []string{"-c", "sleep 100 & wait"}
	p, err = start(sh, func(err error) { t.Errorf("told of an end that was asked for: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	p.kill()
}

func TestChildThatDoesNotStopIsKilled(t *testing.T) {
	t.Parallel()
	sh := command{name: "sh", path: "/bin/sh", env: childEnv(), log: filepath.Join(t.TempDir(), "log")}
	sh.args = []string{"-c", "trap '' TERM; echo ready; while :; do sleep 1; done"}
	p, err := start(sh, func(err error) { t.Errorf("told of an end that was asked for: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	err = poll(t.Context(), 10*time.Second, "the child", func(context.Context) (bool, error) { return len(tail(sh.log, 1)) > 0, nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := p.stop(t.Context(), 50*time.Millisecond); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got error %v; want one that says that it was killed", err)
	}
}

func TestPanelStandsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	w := newWatch(&service{}, nil, nil, 1000)
	brief, lines := w.panel()
	if !strings.Contains(brief, "unknown") || !strings.Contains(strings.Join(lines, "\n"), "not reachable") {
		t.Errorf("got %q and %q; want to read that dbmazz is not reachable", brief, lines)
	}
}
