package tidy

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile("`([a-z0-9/_]+)\\.((?:Test|Fuzz)\\w+)`")
	trapRow  = regexp.MustCompile(`(?m)^\| ([TSF]\d+)b? \| [^|]+ \| ([^|]+) \|$`)
)

// TestReliabilityNamesTestsThatExist: a trap without its test is a trap again.
func TestReliabilityNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	document, err := os.ReadFile(filepath.Join(root, "docs", "reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	for _, name := range testName.FindAllStringSubmatch(string(document), -1) {
		source, ok := sources[name[1]]
		if !ok {
			source = testsOf(t, filepath.Join(root, filepath.FromSlash(name[1])))
			sources[name[1]] = source
		}
		if !strings.Contains(source, "\nfunc "+name[2]+"(") {
			t.Errorf("docs/reliability.md names %s, which package %s does not have", name[2], name[1])
		}
	}
	rows := map[string]bool{}
	for _, row := range trapRow.FindAllStringSubmatch(string(document), -1) {
		rows[row[1]] = true
		if !testName.MatchString(row[2]) {
			t.Errorf("docs/reliability.md names no test for %s", row[1])
		}
	}
	for letter, last := range map[string]int{"T": 28, "S": 10, "F": 30} {
		for n := range last {
			if trap := letter + strconv.Itoa(n+1); !rows[trap] {
				t.Errorf("docs/reliability.md has no row for %s", trap)
			}
		}
	}
}

// testsOf is the text of all test files of a folder.
func testsOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}
