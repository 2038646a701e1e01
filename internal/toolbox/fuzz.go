package main

import (
	"context"
	"fmt"
	"regexp"
)

type fuzzCommand struct {
	Time    string `default:"10s" help:"How long each target runs, or how often: 30s, 1000000x."`
	Match   string `default:"" help:"Only targets whose package or name matches this regular expression."`
	Workers int    `default:"2" help:"Parallel workers of a target."`
}

// Run runs one target after the other: go test fuzzes only one at a time.
func (c fuzzCommand) Run(ctx context.Context) error {
	found, err := targets(".", fuzzFunction)
	if err != nil {
		return err
	}
	match, err := regexp.Compile(c.Match)
	if err != nil {
		return fmt.Errorf("read --match: %w", err)
	}
	ran := 0
	for _, t := range found {
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
