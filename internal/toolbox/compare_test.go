package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEachSideFindsItsBenchmarks(t *testing.T) {
	t.Parallel()
	root := write(t, map[string]string{
		"a/a_test.go":     "package a\n\nfunc BenchmarkOne(b *testing.B) {}\n\nfunc BenchmarkTwo(b *testing.B) {}\n",
		"b/c/b_test.go":   "package c\n\nfunc BenchmarkThree(b *testing.B) {}\n",
		"b/other_test.go": "package b\n\nfunc TestOne(t *testing.T) {}\n",
	})
	for match, want := range map[string][]string{".": {"./a", "./b/c"}, "Two|Three": {"./a", "./b/c"}, "One": {"./a"}} {
		s := side{tree: root}
		if err := s.find(regexp.MustCompile(match)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, s.packages); diff != "" {
			t.Errorf("%s: %s", match, diff)
		}
	}
	s := side{tree: root}
	if err := s.find(regexp.MustCompile("Four")); err == nil || !strings.Contains(err.Error(), `no benchmark matches "Four"`) {
		t.Errorf("error %v for a name that is not there", err)
	}
}

func TestCompareMeasuresTheCommitAndTheTree(t *testing.T) {
	bench := func(calls string) string {
		return "package a\n\nimport \"testing\"\n\nfunc BenchmarkOne(b *testing.B) { for b.Loop() { " + calls + " } }\n"
	}
	root := write(t, map[string]string{"go.mod": "module example\n\ngo 1.24\n", "a_test.go": bench("")})
	t.Chdir(root)
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "."}, {"-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "--quiet", "-m", "m"}} {
		if out, err := command(t.Context(), "git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v\n%s", args[0], err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "a_test.go"), []byte(bench("b.Helper()")), 0o600); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	stdout := os.Stdout
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = out
	err = compareCommand{Base: "HEAD", Match: "One", Count: 2, Time: "1x"}.Run(t.Context())
	os.Stdout = stdout
	if err != nil {
		t.Fatal(err)
	}
	shown, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before", "after", "vs base", "One"} {
		if !strings.Contains(string(shown), want) {
			t.Errorf("%q is missing in what is shown:\n%s", want, shown)
		}
	}
	trees, err := command(t.Context(), "git", "worktree", "list").Output()
	left, _ := filepath.Glob(filepath.Join(temp, "dbmazz-compare-*"))
	if err != nil || strings.Count(string(trees), "\n") != 1 || len(left) > 0 {
		t.Errorf("left behind: %s %v, %v", trees, left, err)
	}
	if err := (compareCommand{Base: "no-such-commit", Match: ".", Count: 1, Time: "1x"}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-commit") {
		t.Errorf("error %v for a commit that is not there", err)
	}
	if left, _ := filepath.Glob(filepath.Join(temp, "dbmazz-compare-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
