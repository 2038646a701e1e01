package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

type fuzzCommand struct {
	Time    string `default:"10s" help:"How long each target runs, or how often: 30s, 1000000x."`
	Match   string `default:"" help:"Only targets whose package or name matches this regular expression."`
	Workers int    `default:"2" help:"Parallel workers of a target."`
}

// target is one fuzz function.
type target struct{ dir, name string }

// Run runs one target after the other: go test fuzzes only one at a time.
func (c fuzzCommand) Run(ctx context.Context) error {
	targets, err := fuzzTargets(".")
	if err != nil {
		return err
	}
	match, err := regexp.Compile(c.Match)
	if err != nil {
		return fmt.Errorf("read --match: %w", err)
	}
	ran := 0
	for _, t := range targets {
		if !match.MatchString(t.dir + " " + t.name) {
			continue
		}
		say("fuzz %s in ./%s for %s", t.name, t.dir, c.Time)
		cmd := command(ctx, "go", "test", "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+c.Time,
			fmt.Sprintf("-parallel=%d", c.Workers), "./"+t.dir)
		if err := openly(cmd); err != nil {
			return fmt.Errorf("fuzz %s in ./%s (the input is in its testdata folder): %w", t.name, t.dir, err)
		}
		ran++
	}
	say("%d fuzz targets ran for %s each", ran, c.Time)
	return nil
}

var fuzzFunction = regexp.MustCompile(`^func (Fuzz\w+)\(`)

// fuzzTargets reads the test files, because asking go test for its list would compile every package's tests first.
func fuzzTargets(root string) ([]target, error) {
	var targets []target
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
		names, err := fuzzFunctions(path)
		if err != nil {
			return err
		}
		for _, name := range names {
			targets = append(targets, target{dir: filepath.ToSlash(filepath.Dir(path)), name: name})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for fuzz targets: %w", err)
	}
	return targets, nil
}

func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func fuzzFunctions(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // Only read from.
	var names []string
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if match := fuzzFunction.FindStringSubmatch(lines.Text()); match != nil {
			names = append(names, match[1])
		}
	}
	return names, lines.Err()
}
