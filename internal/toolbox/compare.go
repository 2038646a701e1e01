package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

type compareCommand struct {
	Base  string `default:"HEAD" help:"What the working tree is compared with: a commit, a branch, a tag."`
	Match string `default:"." help:"Only benchmarks whose name matches this regular expression."`
	Count int    `default:"6" help:"How often each side runs; benchstat wants six at least."`
	Time  string `default:"1s" help:"How long a benchmark runs, or how often: 2s, 100x."`
}

// Run measures both sides in turns, so that what else the machine does falls on both, and has
// benchstat compare them.
func (c compareCommand) Run(ctx context.Context) (err error) {
	binary, err := benchstat.ensure(ctx)
	if err != nil {
		return err
	}
	match, err := regexp.Compile(c.Match)
	if err != nil {
		return fmt.Errorf("read --match: %w", err)
	}
	folder, err := os.MkdirTemp("", "dbmazz-compare-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	before := filepath.Join(folder, "before")
	if err := quietly(ctx, "check out "+c.Base, command(ctx, "git", "worktree", "add", "--detach", before, c.Base)); err != nil {
		return err
	}
	defer func() {
		// Without ctx: an interrupt must not leave it there.
		//nolint:gosec // The folder that was made above.
		remove := exec.Command("git", "worktree", "remove", "--force", before)
		err = errors.Join(err, remove.Run())
	}()
	sides := []side{{name: "before", tree: before}, {name: "after", tree: "."}}
	files := make([]string, len(sides))
	for i := range sides {
		if err := sides[i].find(match); err != nil {
			return err
		}
		files[i] = filepath.Join(folder, sides[i].name+".txt")
	}
	for n := range c.Count {
		for i, s := range sides {
			if err := s.run(ctx, fmt.Sprintf("%s: run %d of %d", s.name, n+1, c.Count), c.Match, c.Time, files[i]); err != nil {
				return err
			}
		}
	}
	return openly(command(ctx, binary, "before="+files[0], "after="+files[1]))
}

// side is one of two trees that are compared.
type side struct {
	name, tree string
	packages   []string // those that have benchmarks which match
}

func (s *side) find(match *regexp.Regexp) error {
	found, err := targets(s.tree, benchmarkFunction)
	if err != nil {
		return err
	}
	for _, t := range found {
		dir, err := filepath.Rel(s.tree, t.dir)
		if err != nil {
			return fmt.Errorf("find the package of %s: %w", t.name, err)
		}
		if pkg := "./" + filepath.ToSlash(dir); match.MatchString(t.name) && !slices.Contains(s.packages, pkg) {
			s.packages = append(s.packages, pkg)
		}
	}
	if len(s.packages) == 0 {
		return fmt.Errorf("no benchmark matches %q in %s", match, s.tree)
	}
	return nil
}

// run adds the results of one run to a file.
func (s *side) run(ctx context.Context, what, match, lasting, file string) error {
	args := append([]string{"test", "-run=^$", "-bench=" + match, "-benchtime=" + lasting, "-benchmem", "-timeout=60m"}, s.packages...)
	var output strings.Builder
	cmd := command(ctx, "go", args...)
	cmd.Dir = s.tree
	if err := quietlyInto(ctx, what, cmd, &output); err != nil {
		return fmt.Errorf("%w\n%s", err, output.String())
	}
	out, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep the results: %w", err)
	}
	_, err = out.WriteString(output.String())
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("keep the results: %w", err)
	}
	return nil
}
