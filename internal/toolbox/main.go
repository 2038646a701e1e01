// Command toolbox installs what the Makefile's targets need and runs the steps that would not fit on one line of make.
// Every verb may be repeated: it does nothing when its work is done.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type commands struct {
	Gcc            gccCommand            `cmd:"" help:"Make sure of a C compiler, which the race detector needs."`
	Postgres       postgresCommand       `cmd:"" help:"Make sure of PostgreSQL server binaries; prints their folder."`
	PostgresMajors postgresMajorsCommand `cmd:"" help:"Install PostgreSQL binaries of several major versions into the cache."`
	LintTool       lintToolCommand       `cmd:"" help:"Build golangci-lint into the cache; prints its path."`
	Lint           lintCommand           `cmd:"" help:"Run golangci-lint with the arguments given."`
	Grpcurl        grpcurlCommand        `cmd:"" help:"Build grpcurl into the cache; prints its path."`
	NatsServer     natsServerCommand     `cmd:"" help:"Build nats-server, the version of go.mod, into the cache; prints its path."`
	Fuzz           fuzzCommand           `cmd:"" help:"Run every fuzz target for a bounded time."`
	Compare        compareCommand        `cmd:"" help:"Run the benchmarks of single functions here and at another commit, and compare them with benchstat."`
	Verify         verifyCommand         `cmd:"" help:"Generate all code anew and fail if a file changes."`
	Static         staticCommand         `cmd:"" help:"Fail if a binary is not statically linked."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var cli commands
	parser := kong.Parse(&cli, kong.Name("toolbox"), kong.Description("Installs and checks for the Makefile."),
		kong.BindTo(ctx, (*context.Context)(nil)))
	if err := parser.Run(); err != nil {
		fmt.Fprintf(os.Stderr, "toolbox: %v\n", err)
		stop()
		os.Exit(1)
	}
}
