package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// target is one function of the test files.
type target struct{ dir, name string }

var (
	fuzzFunction      = regexp.MustCompile(`^func (Fuzz\w+)\(`)
	benchmarkFunction = regexp.MustCompile(`^func (Benchmark\w+)\(`)
)

// targets reads the test files, because asking go test for its list would compile every package's tests first.
func targets(root string, function *regexp.Regexp) ([]target, error) {
	var found []target
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || isModule(path)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		names, err := functions(path, function)
		if err != nil {
			return err
		}
		for _, name := range names {
			found = append(found, target{dir: filepath.ToSlash(filepath.Dir(path)), name: name})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for functions of tests: %w", err)
	}
	return found, nil
}

func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func functions(path string, function *regexp.Regexp) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // Only read from.
	var names []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if match := function.FindStringSubmatch(lines.Text()); match != nil {
			names = append(names, match[1])
		}
	}
	return names, lines.Err()
}
