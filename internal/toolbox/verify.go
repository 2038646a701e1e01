package main

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

type verifyCommand struct{}

// Run compares the files before and after, not with the last commit, so that it works on uncommitted changes too.
func (verifyCommand) Run(ctx context.Context) error {
	before, err := sums(ctx)
	if err != nil {
		return err
	}
	if err := quietly(ctx, "go generate ./...", command(ctx, "go", "generate", "./...")); err != nil {
		return err
	}
	after, err := sums(ctx)
	if err != nil {
		return err
	}
	if changed := changes(before, after); len(changed) > 0 {
		return fmt.Errorf("generated code is out of date; \"make generate\" changed:\n  %s", strings.Join(changed, "\n  "))
	}
	say("generated code is up to date")
	return nil
}

// changes lists the files that differ, came or went.
func changes(before, after map[string][sha256.Size]byte) []string {
	var changed []string
	for path, sum := range after {
		if old, ok := before[path]; !ok || old != sum {
			changed = append(changed, path)
		}
	}
	for path := range before {
		if _, ok := after[path]; !ok {
			changed = append(changed, path)
		}
	}
	slices.Sort(changed)
	return changed
}

// sums has the checksum of every file that git tracks or would track.
func sums(ctx context.Context) (map[string][sha256.Size]byte, error) {
	out, err := command(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return nil, fmt.Errorf("list the files with git: %w", err)
	}
	sums := map[string][sha256.Size]byte{}
	for path := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Deleted but still tracked.
		}
		if err != nil {
			return nil, fmt.Errorf("read a tracked file: %w", err)
		}
		sums[path] = sha256.Sum256(text)
	}
	return sums, nil
}

type staticCommand struct {
	Binary string `arg:"" help:"The binary to look at."`
}

// Run fails for a binary that names an interpreter or libraries: it would not start in an empty container.
func (c staticCommand) Run() error {
	file, err := elf.Open(c.Binary)
	if err != nil {
		return fmt.Errorf("read the binary: %w", err)
	}
	defer func() { _ = file.Close() }() // Only read from.
	for _, program := range file.Progs {
		if program.Type == elf.PT_INTERP {
			return fmt.Errorf("%s is dynamically linked: build it with CGO_ENABLED=0", c.Binary)
		}
	}
	say("%s is statically linked", c.Binary)
	return nil
}
