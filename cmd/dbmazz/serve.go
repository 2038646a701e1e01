package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/internal/config"
	"github.com/dbmazz/dbmazz/internal/tlsfiles"
)

// The commands that run stages until they are told to stop.
type (
	runCmd     struct{}
	captureCmd struct{}
	applyCmd   struct{}
)

// Run runs everything in one process.
func (runCmd) Run(ctx context.Context, s *streams) error {
	return serve(ctx, s, config.Capture|config.Apply)
}

// Run runs capture, and the queue unless BUS_URL names one.
func (captureCmd) Run(ctx context.Context, s *streams) error { return serve(ctx, s, config.Capture) }

// Run runs apply.
func (applyCmd) Run(ctx context.Context, s *streams) error { return serve(ctx, s, config.Apply) }

// serve runs the parts with the API until it is told to stop.
func serve(ctx context.Context, s *streams, parts config.Parts) error {
	c, warnings, err := load(s.environ, parts)
	if err != nil {
		return err
	}
	if c.Instance == "" {
		c.Instance = newInstance()
	}
	log := newLogger(c, s.stderr)
	slog.SetDefault(log)
	for _, w := range warnings {
		log.WarnContext(ctx, "configuration", "variable", w.Variable, "warning", w.Text)
	}
	limit := limitMemory(c.MemoryLimit)
	c.MemoryLimit, c.FlushBytes = limit, flushBytes(c, limit)
	log.LogAttrs(ctx, slog.LevelInfo, "dbmazz starts", append([]slog.Attr{
		slog.String("version", version()), slog.String("runs", partsText(parts)), slog.String("instance", c.Instance), slog.Int64("memory_limit", limit),
	}, c.Redacted()...)...)
	start := time.Now()
	err = run(ctx, c, parts, log)
	if err == nil {
		log.InfoContext(ctx, "dbmazz has stopped", "uptime", time.Since(start).Round(time.Millisecond))
	}
	return err
}

// partsText says what a process runs.
func partsText(parts config.Parts) string {
	switch parts {
	case config.Capture:
		return roleCapture
	case config.Apply:
		return roleApply
	}
	return roleCapture + " and " + roleApply
}

// newInstance makes a name for the process that no other has.
func newInstance() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "dbmazz"
	}
	host, _, _ = strings.Cut(host, ".")
	host = strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, host)
	return host[:min(len(host), 40)] + "-" + randomText(5)
}

// run starts the API and the rest. The API comes first, so that it can tell what the
// rest is waiting for; the queue goes last, after those who use it.
func run(parent context.Context, c config.Config, parts config.Parts, log *slog.Logger) error {
	ctx, stop := context.WithCancel(parent)
	defer stop()
	p := newPipeline(c, parts, log, stop)
	server, err := api.New(apiConfig(c, log), p)
	if err != nil {
		return fmt.Errorf("set up the API: %w", err)
	}
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	var group errgroup.Group
	group.Go(func() error {
		defer stop() // Without its API the process is of no use.
		return server.Run(serverCtx)
	})
	err = p.work(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // Told to stop before it had started; why is known elsewhere.
	}
	p.setState(api.StateStopped)
	stopServer()
	return errors.Join(err, group.Wait())
}

// work opens the queue and runs the stages until ctx is done.
func (p *pipeline) work(ctx context.Context) error {
	b, err := p.openQueue(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.env.ShutdownTimeout)
		defer cancel()
		if err := b.Close(closing); err != nil {
			p.log.WarnContext(closing, "queue did not close cleanly; nothing that was stored is lost", "err", err)
		}
	}()
	s, err := p.wire(ctx, b)
	if err != nil {
		return err
	}
	return p.runStages(ctx, s)
}

// runStages runs until ctx is done. Apply stops first, so that capture can confirm
// what its last load has committed.
func (p *pipeline) runStages(ctx context.Context, s *stages) error {
	rest, stopRest := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRest()
	loaded := make(chan struct{})
	group, rest := errgroup.WithContext(rest)
	group.Go(func() error { return s.progress.follow(rest, s.bus, loaded) })
	select {
	case <-loaded:
	case <-rest.Done():
		return group.Wait()
	case <-ctx.Done():
		stopRest()
		return group.Wait()
	}
	applying, stopApply := context.WithCancel(ctx)
	defer stopApply()
	context.AfterFunc(rest, stopApply) // A part that fails takes the others along.
	group.Go(func() error { return p.follow(rest, s) })
	group.Go(func() error { return p.company(rest, s) })
	if s.capture != nil {
		group.Go(func() error { return s.capture.role.lead(rest, s.capture.term) })
	}
	var err error
	if s.apply != nil {
		err = s.apply.role.lead(applying, s.apply.term)
	} else {
		<-applying.Done()
	}
	stopRest()
	if waitErr := group.Wait(); ctx.Err() == nil {
		return errors.Join(err, waitErr)
	}
	return err
}

// newSink makes the sink; create lets it make the database as well.
func newSink(c config.Config, create bool, log *slog.Logger) (*starrocks.Sink, error) {
	u, err := url.Parse(c.SinkURL)
	if err != nil {
		return nil, errors.New("SINK_URL is not a URL")
	}
	return starrocks.New(starrocks.Config{
		URL: c.SinkURL, MySQLAddr: net.JoinHostPort(u.Hostname(), strconv.Itoa(c.SinkPort)),
		Database: c.SinkDatabase, User: c.SinkUser, Password: c.SinkPassword.Reveal(),
		DeleteMode: starrocks.DeleteMode(c.SinkDeleteMode), TrustedHosts: c.SinkBEHosts,
		Overrides: overrides(c), LoadTimeout: c.SinkLoadTimeout, CreateTables: true, CreateDatabase: create, TableName: starrocks.TemplateTableName(c.SinkTableName), Instance: c.Instance, Logger: log,
		TLS: tlsfiles.Names{CA: c.SinkTLSCAFile, Cert: c.SinkTLSCertFile, Key: c.SinkTLSKeyFile}, SQLTLS: c.SinkSQLTLS,
	})
}

func overrides(c config.Config) []starrocks.Override {
	list := make([]starrocks.Override, len(c.SinkTypeOverrides))
	for i, o := range c.SinkTypeOverrides {
		list[i] = starrocks.Override{Namespace: o.Table.Schema, Table: o.Table.Name, Column: o.Column, Policy: starrocks.OverridePolicy(o.Policy)}
	}
	return list
}

func apiConfig(c config.Config, log *slog.Logger) api.Config {
	return api.Config{
		Addr: c.GRPCAddr, Token: c.GRPCToken.Reveal(), Insecure: c.GRPCInsecure, MetricsAddr: c.MetricsAddr, FlightRecorder: c.FlightRecorder,
		TLSCertFile: c.GRPCTLSCertFile, TLSKeyFile: c.GRPCTLSKeyFile, TLSClientCAFile: c.GRPCTLSClientCAFile,
		Version: version(), Logger: log,
	}
}
