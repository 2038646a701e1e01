// Command dbmazz replicates PostgreSQL into StarRocks: capture reads the changes of a
// replication slot into a durable stream, apply takes them from there to the sink, and
// a gRPC API shows and steers both as one pipeline. Run without a subcommand it does
// everything in one process.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Main(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	if code != 0 {
		os.Exit(code)
	}
}

// exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// fatal prints the one message that the program ends with.
func fatal(stderr *os.File, err error) int {
	fmt.Fprintln(stderr, "dbmazz: "+err.Error())
	return exitFailed
}
