package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// ToolsCacheEnv names the variable that moves the folder of built tools.
const ToolsCacheEnv = "DBMAZZ_TOOLS_CACHE"

// tool is a Go program that is built once and kept in the cache.
type tool struct {
	pkg     string // The main package; its last element but a version suffix names the binary.
	version string
	hint    string // What to expect of a slow build.
}

var (
	golangciLint = tool{
		pkg: "github.com/golangci/golangci-lint/v2/cmd/golangci-lint", version: "v2.15.0",
		hint: "takes one to five minutes, once",
	}
	grpcurl   = tool{pkg: "github.com/fullstorydev/grpcurl/cmd/grpcurl", version: "v1.9.4"}
	benchstat = tool{pkg: "golang.org/x/perf/cmd/benchstat", version: "v0.0.0-20260908200009-22c9c6c9d4da"}
)

const natsServerModule = "github.com/nats-io/nats-server/v2"

var versionSuffix = regexp.MustCompile(`^v[0-9]+$`)

func (t tool) name() string {
	if base := path.Base(t.pkg); !versionSuffix.MatchString(base) {
		return base
	}
	return path.Base(path.Dir(t.pkg))
}

// ensure builds the tool unless the cache holds it, and returns its path.
// The Go version is part of the place: a linter built by an older Go cannot read newer code.
func (t tool) ensure(ctx context.Context) (string, error) {
	cache, err := toolsCache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, t.name()+"@"+t.version+"-"+runtime.Version())
	binary := filepath.Join(dir, t.name())
	err = locked(dir, func() error {
		if _, err := os.Stat(binary); err == nil {
			return nil
		}
		what := "build " + t.name() + " " + t.version
		if t.hint != "" {
			what += " (" + t.hint + ")"
		}
		cmd := command(ctx, "go", "install", t.pkg+"@"+t.version)
		cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
		cmd.Dir = dir
		return quietly(ctx, what, cmd)
	})
	return binary, err
}

func toolsCache() (string, error) {
	if dir := os.Getenv(ToolsCacheEnv); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder (set %s): %w", ToolsCacheEnv, err)
	}
	return filepath.Join(dir, "dbmazz", "tools"), nil
}

func (t tool) print(ctx context.Context) error {
	binary, err := t.ensure(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Println(binary)
	return err
}

type lintToolCommand struct{}

// Run builds the linter.
func (lintToolCommand) Run(ctx context.Context) error { return golangciLint.print(ctx) }

type lintCommand struct {
	Args []string `arg:"" passthrough:"" help:"Arguments of golangci-lint."`
}

// Run builds the linter if need be and runs it.
func (c lintCommand) Run(ctx context.Context) error {
	binary, err := golangciLint.ensure(ctx)
	if err != nil {
		return err
	}
	say("golangci-lint %s", strings.Join(c.Args, " "))
	return openly(command(ctx, binary, c.Args...))
}

type grpcurlCommand struct{}

// Run builds grpcurl.
func (grpcurlCommand) Run(ctx context.Context) error { return grpcurl.print(ctx) }

type natsServerCommand struct{}

// Run builds the server that is embedded too, for tests that need it as a process of its own.
func (natsServerCommand) Run(ctx context.Context) error {
	out, err := command(ctx, "go", "list", "-m", "-f", "{{.Version}}", natsServerModule).Output()
	if err != nil {
		return fmt.Errorf("read the version of nats-server from go.mod: %w", err)
	}
	return tool{pkg: natsServerModule, version: strings.TrimSpace(string(out))}.print(ctx)
}
