// Command demo shows dbmazz at work on throw-away servers: it starts a real PostgreSQL, a stand-in for StarRocks and
// dbmazz, changes some hundred thousand rows, and compares every row of both sides at the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	changes  int
	dir      string
	keep     bool
	seed     uint64
	kills    int
	sinkDown time.Duration
	hard     bool
}

func main() { os.Exit(run()) }

// errInterrupted is why everything ends on Ctrl-C.
var errInterrupted = errors.New("interrupted")

func run() int {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		return 2
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		<-signals
		cancel(errInterrupted)
		signal.Ignore(syscall.SIGHUP) // The terminal may go; what is cleaned up then is cleaned up.
		signal.Reset(os.Interrupt, syscall.SIGTERM)
	}()
	d := newDemo(o, cancel)
	err = d.run(ctx)
	if err != nil && !errors.Is(err, errInterrupted) {
		d.explain(err)
	}
	if tidyErr := d.tidy(); tidyErr != nil {
		d.say("FAILED to clean up: " + tidyErr.Error())
		return 1
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted):
		d.say("Interrupted; everything is stopped.")
		return 130
	}
	return 1
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.IntVar(&o.changes, "changes", 300_000, "row changes to make")
	flags.StringVar(&o.dir, "dir", "", "folder for data and logs, kept afterwards (default a temporary folder)")
	flags.BoolVar(&o.keep, "keep", false, "leave everything running until Ctrl-C")
	flags.Uint64Var(&o.seed, "seed", 0, "seed of the changes (default a random one)")
	flags.IntVar(&o.kills, "kill", 0, "how often dbmazz is killed with SIGKILL under load and started again")
	flags.DurationVar(&o.sinkDown, "sink-down", 0, "how long the sink is down under load, such as 90s")
	flags.BoolVar(&o.hard, "hard", false, "delete rows in the sink instead of marking them as deleted")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	case o.changes < 1000:
		return o, fmt.Errorf("-changes %d is too few to show anything; want 1000 or more", o.changes)
	case o.kills < 0 || o.kills > 100:
		return o, fmt.Errorf("-kill %d: want 0 to 100", o.kills)
	case o.sinkDown < 0 || o.sinkDown > time.Hour:
		return o, fmt.Errorf("-sink-down %s: want 0s to 1h", o.sinkDown)
	case o.kills > 0 && o.sinkDown > 0:
		return o, errors.New("-kill and -sink-down are two scenarios; want one of them")
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano()) % 1_000_000 //nolint:gosec // After 1970.
	}
	return o, nil
}

// lasting is how long the load must go on for the scenario to happen within it; zero is as fast as possible.
func (o options) lasting() time.Duration {
	switch {
	case o.sinkDown > 0:
		return outageAfter + o.sinkDown + outageAfter
	case o.kills > 0:
		return max(20*time.Second, time.Duration(o.kills)*killEvery)
	}
	return 0
}
