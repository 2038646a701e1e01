// Command bench measures what dbmazz costs and how fast it is, on throw-away servers: a real PostgreSQL, dbmazz as the
// real binary in processes of its own, and a sink that parses, counts and checks every row. Machines differ and are
// busy with other things, so what counts are ratios between runs that follow each other.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	full      bool
	parts     string
	workloads string
	rows      int
	pairs     int
	rates     []int
	lasting   time.Duration
	backlog   int
	copied    int
	pipelines int
	tables    int
	dir       string
	json      string
	markdown  string
	check     string
	record    string
	noise     float64
	profile   time.Duration
	delay     time.Duration
	env       []string
	// plain builds dbmazz as other tests do, so that the build cache has most of it.
	plain bool
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if len(args) > 0 && args[0] == bareCommand {
		if err := bare(ctx, args[1:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %v\n", err)
			return 1
		}
		return 0
	}
	o, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 2
	}
	if err := newBench(o).run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

// The sizes of a run that takes about five minutes on an idle machine, and of one that takes about twenty-five. The workloads
// are sized so that on two cores each way of reading takes three seconds at least; what comes before is then a small part.
var (
	quick = options{
		parts: "footprint,throughput,latency,backlog,snapshot,tables,pipelines", workloads: "insert-1,insert-100,update,delete",
		rows: 1_000_000, pairs: 1, lasting: 6 * time.Second, backlog: 500_000, copied: 1_000_000, pipelines: 4, tables: 100,
	}
	// Those parts that are about large numbers of something are left to runs of their own; see the Makefile.
	full = options{
		parts: "footprint,throughput,latency,snapshot", workloads: "insert-1,insert-100,insert-10000,insert-million,update,delete,pgbench,wide,json,hot",
		rows: 1_000_000, pairs: 5, lasting: 15 * time.Second, backlog: 10_000_000, copied: 4_000_000, pipelines: 40, tables: 1000,
	}
)

func parse(args []string) (options, error) {
	var o options
	var rates, env string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.BoolVar(&o.full, "full", false, "the long run: more workloads, five pairs, larger sizes; the parts backlog, tables and pipelines only if -parts names them")
	flags.StringVar(&o.parts, "parts", "", "what to measure (default "+quick.parts+"; with -full "+full.parts+"; for \"all\" all)")
	flags.StringVar(&o.workloads, "workloads", "", "workloads of the throughput part (default "+quick.workloads+"; with -full "+full.workloads+"; for \"all\" all: "+strings.Join(workloadNames(), ",")+")")
	flags.IntVar(&o.rows, "rows", 0, "row changes that a workload's share is of (default 1000000)")
	flags.IntVar(&o.pairs, "pairs", 0, "how often each workload is measured; medians are shown")
	flags.StringVar(&rates, "rates", "1000,10000,50000", "rows per second of the latency part")
	flags.DurationVar(&o.lasting, "lasting", 0, "how long each rate is kept")
	flags.IntVar(&o.backlog, "backlog", 0, "rows of the backlog part")
	flags.IntVar(&o.copied, "copied", 0, "rows of the snapshot part")
	flags.IntVar(&o.pipelines, "pipelines", 0, "processes of the pipelines part")
	flags.IntVar(&o.tables, "tables", 0, "tables of the tables part")
	flags.StringVar(&o.dir, "dir", "", "folder for data and logs, kept afterwards (default a temporary folder)")
	flags.StringVar(&o.json, "json", "", "file that gets the figures")
	flags.StringVar(&o.markdown, "markdown", "", "file that gets the tables")
	flags.StringVar(&o.check, "check", "", "file with recorded figures: fail if a ratio has dropped below them by more than the noise that is stated there")
	flags.StringVar(&o.record, "record", "", "file that gets the figures for later -check")
	flags.Float64Var(&o.noise, "noise", 0.25, "with -record: how far a ratio may drop, as a part of it")
	flags.DurationVar(&o.profile, "profile", 0, "take a processor profile of so long, and one of allocations after it, of every dbmazz, into the folder")
	flags.DurationVar(&o.delay, "delay", 0, "how long the sink takes for a load at least")
	flags.StringVar(&env, "env", "", "more variables for dbmazz, as NAME=VALUE, separated by blanks")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	}
	o.env = strings.Fields(env)
	for text := range strings.SplitSeq(rates, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1_000_000 {
			return o, fmt.Errorf("-rates %q: want numbers from 1 to 1000000, separated by commas", rates)
		}
		o.rates = append(o.rates, n)
	}
	return o, o.complete()
}

// chosen returns a list that was given, or the one that holds otherwise.
func chosen(given, otherwise string, all []string) string {
	switch given {
	case "":
		return otherwise
	case "all":
		return strings.Join(all, ",")
	}
	return given
}

// complete fills in what was not given, and checks the rest.
func (o *options) complete() error {
	sizes := quick
	if o.full {
		sizes = full
	}
	for _, f := range []struct {
		name     string
		value    *int
		fallback int
		least    int
	}{
		{"rows", &o.rows, sizes.rows, 1000},
		{"pairs", &o.pairs, sizes.pairs, 1},
		{"backlog", &o.backlog, sizes.backlog, 1000},
		{"copied", &o.copied, sizes.copied, 1000},
		{"pipelines", &o.pipelines, sizes.pipelines, 1},
		{"tables", &o.tables, sizes.tables, 1},
	} {
		if *f.value == 0 {
			*f.value = f.fallback
		}
		if *f.value < f.least {
			return fmt.Errorf("-%s %d: want at least %d", f.name, *f.value, f.least)
		}
	}
	if o.lasting == 0 {
		o.lasting = sizes.lasting
	}
	if o.lasting < 2*time.Second {
		return fmt.Errorf("-lasting %s: want at least 2s", o.lasting)
	}
	if o.noise <= 0 || o.noise >= 1 {
		return fmt.Errorf("-noise %v: want a part of one, such as 0.25", o.noise)
	}
	o.parts = chosen(o.parts, sizes.parts, allParts())
	o.workloads = chosen(o.workloads, sizes.workloads, workloadNames())
	for name := range strings.SplitSeq(o.workloads, ",") {
		if _, ok := workloadNamed(name); !ok {
			return fmt.Errorf("-workloads: there is no %q; want some of %s", name, strings.Join(workloadNames(), ", "))
		}
	}
	for name := range strings.SplitSeq(o.parts, ",") {
		if !isPart(name) {
			return fmt.Errorf("-parts: there is no %q; want some of %s", name, strings.Join(allParts(), ", "))
		}
	}
	return nil
}
