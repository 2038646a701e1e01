package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/internal/demo/shop"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// The log files in the demo's folder.
const (
	dbmazzLog   = "dbmazz.log"
	standinLog  = "standin.log"
	postgresLog = "postgres.log"
)

// demo is one run from the first server to the last line of the report.
type demo struct {
	options
	*console

	cancel    context.CancelCauseFunc
	dir       string
	temporary bool // close removes dir.
	source    *source
	sink      *sink
	service   *service
	load      *shop.Load
	existing  int64 // Changes of the fill.
	watch     *watch
	outside   atomic.Bool // dbmazz was stopped by somebody else.
}

func newDemo(o options, cancel context.CancelCauseFunc) *demo {
	return &demo{options: o, console: newConsole(os.Stdout), cancel: func(err error) { cancel(err) }}
}

func (d *demo) say(lines ...string) { d.print(lines...) }

// run does everything but the cleaning up.
func (d *demo) run(ctx context.Context) error {
	err := d.steps(ctx)
	// What ended the demo says more than the step that it interrupted.
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		return cause
	}
	return err
}

func (d *demo) steps(ctx context.Context) error {
	if err := d.makeFolder(); err != nil {
		return err
	}
	d.say("", "dbmazz demo: "+count(d.changes)+" row changes, PostgreSQL -> dbmazz -> a stand-in for StarRocks",
		fmt.Sprintf("  folder %s   seed %d", d.dir, d.seed), "")
	for _, step := range []func(context.Context) error{d.build, d.startSource, d.fill, d.startSink, d.startService, d.copyExisting} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := d.writeEnv(); err != nil {
		return err
	}
	if err := d.replicate(ctx); err != nil {
		return err
	}
	result, err := d.compareAll(ctx)
	if err != nil {
		return err
	}
	d.report(result)
	if result.Count > 0 {
		return fmt.Errorf("source and sink differ in %s places", count(result.Count))
	}
	if d.keep {
		return d.linger(ctx)
	}
	if d.outside.Load() {
		return nil
	}
	return d.step("stop dbmazz", func() (string, error) {
		return "it ended in order", d.service.stop(ctx)
	})
}

// marker tells a folder of the demo from one of somebody else's.
const marker = ".dbmazz-demo"

// leftovers are what an earlier demo left in its folder.
var leftovers = []string{"bin", "postgres", "standin", "queue", dbmazzLog, standinLog, postgresLog, envFile}

func (d *demo) makeFolder() error {
	if d.options.dir == "" {
		dir, err := os.MkdirTemp("", "dbmazz-demo-")
		if err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		d.dir, d.temporary = dir, true
		return nil
	}
	dir, err := filepath.Abs(d.options.dir)
	if err != nil {
		return fmt.Errorf("find the folder: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look into the folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, marker)); err != nil && len(entries) > 0 {
		return fmt.Errorf("%s holds files that are not the demo's: name an empty folder", dir)
	}
	for _, name := range leftovers {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove what an earlier demo left: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, marker), nil, 0o600); err != nil {
		return fmt.Errorf("mark the folder: %w", err)
	}
	d.dir = dir
	return nil
}

func (d *demo) binary(name string) string { return filepath.Join(d.dir, "bin", name) }

// build compiles the two programs from the tree that the demo belongs to.
func (d *demo) build(ctx context.Context) error {
	return d.step("build dbmazz and the stand-in", func() (string, error) {
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(d.dir, "bin")+string(filepath.Separator),
			"github.com/dbmazz/dbmazz/cmd/dbmazz", "github.com/dbmazz/dbmazz/cmd/starrocks-standin")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if err := os.MkdirAll(filepath.Join(d.dir, "bin"), 0o700); err != nil {
			return "", fmt.Errorf("make a folder for the binaries: %w", err)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build (run the demo inside the repository): %w\n%s", err, out)
		}
		return "", nil
	})
}

func (d *demo) startSource(ctx context.Context) error {
	return d.step("start PostgreSQL", func() (string, error) {
		settings := map[string]string{}
		if d.sinkDown > 0 {
			settings["wal_sender_timeout"] = "30s"
		}
		var err error
		d.source, err = startSource(ctx, d.dir, settings)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("version %d on %s, %d tables", d.source.server.Major(), d.source.address(), len(shop.Tables())), nil
	})
}

// share is how many of the changes are made before dbmazz is there.
func (d *demo) share() int { return d.changes / 20 }

// fill makes a share of the changes before dbmazz is there.
func (d *demo) fill(ctx context.Context) error {
	return d.step("fill the tables", func() (_ string, err error) {
		conn, err := d.source.connect(ctx)
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
		share := d.share()
		d.load = shop.New(shop.Options{Seed: d.seed, Changes: d.changes - share, Lasting: d.lasting()})
		if d.existing, err = d.load.Fill(ctx, conn, share); err != nil {
			return "", err
		}
		return count(d.existing) + " rows before dbmazz is there", nil
	})
}

// copyExisting waits until the rows that there were are in the sink.
func (d *demo) copyExisting(ctx context.Context) error {
	return d.step("copy existing rows", func() (string, error) {
		var now state
		err := poll(ctx, startWithin, "existing rows to be in the sink", func(ctx context.Context) (bool, error) {
			now, _ = d.service.ask(ctx) // Not reachable shows as not done.
			d.now(fmt.Sprintf("%s of about %s rows", count(now.status.GetSnapshotRowsSynced()), count(now.status.GetSnapshotRowsEstimated())))
			return now.serving() && !now.status.GetSnapshotActive() && now.status.GetQueue().GetPendingMessages() == 0, nil
		})
		if err != nil {
			return "", fmt.Errorf("%w; it says: %s", err, now.all())
		}
		return fmt.Sprintf("%s rows of %d tables are in the sink", count(now.status.GetSnapshotRowsSynced()), len(now.status.GetTableProgress())), nil
	})
}

func (d *demo) startSink(ctx context.Context) error {
	return d.step("start the stand-in", func() (string, error) {
		var err error
		d.sink, err = startSink(ctx, d.dir, d.binary("starrocks-standin"), d.sinkDown > 0, d.sinkEnded)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("SQL on %s, FE on %s, BE on %s", d.sink.mysql, d.sink.fe, d.sink.be), nil
	})
}

func (d *demo) startService(ctx context.Context) error {
	return d.step("start dbmazz", func() (string, error) {
		var err error
		if d.service, err = newService(ctx, d); err != nil {
			return "", err
		}
		if err := d.service.start(); err != nil {
			return "", err
		}
		return "serving, gRPC on " + d.service.address, d.awaitServing(ctx)
	})
}

// awaitServing waits until HealthService/Check says SERVING, showing what it says meanwhile.
func (d *demo) awaitServing(ctx context.Context) error {
	said := ""
	err := poll(ctx, startWithin, "dbmazz to serve", func(ctx context.Context) (bool, error) {
		// Not reachable yet is shown as such.
		now, _ := d.service.ask(ctx)
		said = now.all()
		if d.watch == nil {
			d.now(said)
		}
		return now.serving(), nil
	})
	if err != nil {
		return fmt.Errorf("%w; it says: %s", err, said)
	}
	return nil
}

// replicate runs the load and the scenario, and waits until everything is in the sink.
func (d *demo) replicate(ctx context.Context) error {
	conn, err := d.source.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // Only read.
	origin, err := head(ctx, conn)
	if err != nil {
		return err
	}
	d.watch = newWatch(d.service, d.load, conn, d.changes-d.share())
	group, ctx := errgroup.WithContext(ctx)
	written := make(chan struct{})  // Closed when the load has ended.
	finished := make(chan struct{}) // Closed when the scenario has ended.
	group.Go(func() error {
		defer close(written)
		return d.load.Run(ctx, d.source.connect)
	})
	group.Go(func() error {
		defer close(finished)
		return d.scenario(ctx, written)
	})
	group.Go(func() error { return d.follow(ctx, origin, written, finished) })
	if err := group.Wait(); err != nil {
		return err
	}
	d.watch.frozen = time.Now()
	if err := d.verdict(); err != nil {
		return err
	}
	d.say(fmt.Sprintf("  ok  all of %s changes in %s transactions are in the sink  (%s)",
		count(d.load.Written()), count(d.load.Transactions()), seconds(time.Since(d.watch.begun))))
	return nil
}

// stallMax is how long nothing may move once load and scenario have ended.
const stallMax = 60 * time.Second

// follow looks at all sides until the sink has everything that was written.
func (d *demo) follow(ctx context.Context, origin uint64, written, finished <-chan struct{}) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var target, confirmed uint64
	moved := time.Now()
	for {
		done := ended(written) && ended(finished)
		l, err := d.watch.look(ctx, origin, ended(written))
		if err != nil {
			return err
		}
		brief, panel := d.watch.panel()
		d.show(brief, panel...)
		if done && target == 0 {
			target, moved = l.head, time.Now()
		}
		if l.slot.confirmed > confirmed {
			confirmed, moved = l.slot.confirmed, time.Now()
		}
		if target > 0 && confirmed >= target && l.state.status.GetConfirmedLsn() >= target {
			return nil
		}
		if target > 0 && time.Since(moved) > stallMax {
			return fmt.Errorf("the sink does not get the rest: nothing was confirmed for %s at %X of %X; dbmazz says: %s",
				stallMax, confirmed, target, l.state.all())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// sinkEnded is called when the stand-in ends unasked.
func (d *demo) sinkEnded(err error) {
	d.cancel(fmt.Errorf("the stand-in ended by itself: %w", orCleanly(err)))
}

// serviceEnded is called when dbmazz ends unasked. Whoever stopped it over its API or killed it may want to see what
// happens then and start it again, so only an end of its own making ends the demo.
func (d *demo) serviceEnded(err error) {
	var exit *exec.ExitError
	if err == nil || (errors.As(err, &exit) && exit.ExitCode() == -1) {
		d.outside.Store(true)
		d.say("  !!  dbmazz was stopped or killed from outside ("+orCleanly(err).Error()+"). To start it again:",
			"      cd "+d.dir+" && (set -a; . ./"+envFile+"; exec bin/dbmazz)")
		return
	}
	d.cancel(fmt.Errorf("dbmazz ended by itself: %w", err))
}

func orCleanly(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// logWidth bounds the lines of logs that are shown.
const logWidth = 400

// explain prints where to look after a failure, and the failure last.
func (d *demo) explain(err error) {
	for _, name := range []string{dbmazzLog, standinLog, postgresLog} {
		path := filepath.Join(d.dir, name)
		lines := tail(path, 15)
		if d.dir == "" || len(lines) == 0 {
			continue
		}
		d.say("", "the end of "+path+":")
		for _, line := range lines {
			d.say("    " + cut(line, logWidth))
		}
	}
	d.say("", "FAILED: "+err.Error())
	if d.temporary {
		d.say(fmt.Sprintf("The folder is removed now; make demo DIR=path SEED=%d keeps it.", d.seed))
	}
}

// tidy cleans up, and says so when that takes a while.
func (d *demo) tidy() (err error) {
	stop := d.ticking("stop and clean up (Ctrl-C: at once)", time.Now())
	err = d.close()
	stop()
	d.print() // Removes the line.
	return err
}

// closeWithin bounds the cleaning up.
const closeWithin = 90 * time.Second

// close stops and removes everything, in the order of the data; it may be called at any point.
func (d *demo) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	var errs []error
	if d.service != nil {
		errs = append(errs, d.service.stop(ctx))
	}
	if d.sink != nil {
		errs = append(errs, d.sink.close(ctx))
	}
	if d.source != nil {
		errs = append(errs, d.source.server.Close())
	}
	errs = append(errs, pgtest.Shutdown())
	if d.dir != "" {
		// The addresses in it lead nowhere any more.
		errs = append(errs, os.RemoveAll(filepath.Join(d.dir, envFile)))
	}
	if d.temporary {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	return errors.Join(errs...)
}
