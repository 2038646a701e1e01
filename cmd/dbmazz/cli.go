package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/dbmazz/dbmazz/internal/config"
)

// cli is the command line. Everything that can be set is an environment variable; the
// command line only says what to do.
type cli struct {
	Run      runCmd      `cmd:"" default:"1" help:"Run capture, queue, apply and API in one process (the default)."`
	Capture  captureCmd  `cmd:"" help:"Run capture with the queue; dbmazz apply runs elsewhere."`
	Apply    applyCmd    `cmd:"" help:"Run apply, on the queue of a dbmazz capture or of BUS_URL."`
	Replay   replayCmd   `cmd:"" help:"Apply changes that the queue still holds again, to the same tables or to another database."`
	Snapshot snapshotCmd `cmd:"" help:"Copy existing rows of a running pipeline again, or hold the copy."`
	Dlq      dlqCmd      `cmd:"" help:"Look at the rows that the sink could not take, and retry or drop them."`
	Health   healthCmd   `cmd:"" help:"Ask a running dbmazz whether it is serving; exit 0 if so. For container health checks."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

type versionCmd struct{}

// streams are what a command reads and writes.
type streams struct {
	environ []string
	stdout  io.Writer
	stderr  io.Writer
}

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args, environ []string, stdout, stderr *os.File) int {
	var c cli
	exited := -1
	parser, err := kong.New(&c, kong.Name("dbmazz"), kong.UsageOnError(), kong.Writers(stdout, stderr),
		kong.Description("Change data capture from PostgreSQL to StarRocks, through a durable queue."),
		kong.Exit(func(code int) { exited = code }),
		kong.Help(help))
	if err != nil {
		return fatal(stderr, err)
	}
	command, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err != nil {
		fmt.Fprintln(stderr, "dbmazz: "+err.Error()+" (dbmazz --help lists what there is)")
		return exitUsage
	}
	command.BindTo(ctx, (*context.Context)(nil))
	err = command.Run(&streams{environ: environ, stdout: stdout, stderr: stderr})
	var invalid *config.Error
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &invalid):
		fmt.Fprintf(stderr, "dbmazz: %s\n\ndbmazz --help lists every variable.\n", strings.TrimSpace(invalid.Error()))
		return exitUsage
	}
	return fatal(stderr, err)
}

// help prints kong's help and, for the program as a whole, the table of variables.
func help(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	if selected := ctx.Selected(); selected == nil || slices.Contains([]string{"run", "capture", "apply"}, selected.Name) {
		_, err := fmt.Fprintf(ctx.Stdout, "\nEnvironment variables:\n\n%s", config.Help())
		return err
	}
	return nil
}

// Run prints the version.
func (versionCmd) Run(s *streams) error {
	_, err := fmt.Fprintln(s.stdout, "dbmazz "+version())
	return err
}

// linkedVersion is set by the release build.
var linkedVersion string

// version is that of the release, or what Go knows of the build.
func version() string {
	if linkedVersion != "" {
		return linkedVersion
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "(devel) " + s.Value
		}
	}
	return info.Main.Version
}

// load reads the configuration: the environment, and .env in the working folder for
// what the environment does not say.
func load(environ []string, parts config.Parts) (config.Config, []config.Warning, error) {
	dotenv, err := config.ReadDotEnv(".env")
	if err != nil {
		return config.Config{}, nil, err
	}
	return config.Load(config.MergeEnviron(dotenv, environ), parts)
}

// newLogger returns the logger that the configuration asks for.
func newLogger(c config.Config, out io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == config.LogJSON {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}
