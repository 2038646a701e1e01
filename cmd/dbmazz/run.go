package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/config"
)

// Run runs everything in one process until it is told to stop.
func (runCmd) Run(ctx context.Context, s *streams) error {
	c, warnings, err := load(s.environ)
	if err != nil {
		return err
	}
	log := newLogger(c, s.stderr)
	slog.SetDefault(log)
	for _, w := range warnings {
		log.WarnContext(ctx, "configuration", "variable", w.Variable, "warning", w.Text)
	}
	log.LogAttrs(ctx, slog.LevelInfo, "dbmazz starts", append([]slog.Attr{slog.String("version", version())}, c.Redacted()...)...)
	start := time.Now()
	err = run(ctx, c, log)
	if err == nil {
		log.InfoContext(ctx, "dbmazz has stopped", "uptime", time.Since(start).Round(time.Millisecond))
	}
	return err
}

// run wires the pipeline together. The API comes first, so that it can tell what the
// rest is waiting for; the bus goes last, after those who use it.
func run(parent context.Context, c config.Config, log *slog.Logger) error {
	ctx, stop := context.WithCancel(parent)
	defer stop()
	p := newPipeline(c, log, stop)
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

// work opens the bus and runs the stages until ctx is done.
func (p *pipeline) work(ctx context.Context) error {
	b, err := bus.New(bus.Config{
		Pipeline: p.env.SlotName, DataDir: p.env.BusDataDir, MaxBytes: p.env.BusMaxBytes, Retention: p.env.BusRetention, Logger: p.log,
	})
	if err != nil {
		return fmt.Errorf("set up the queue: %w", err)
	}
	p.at(api.DetailLoadingCheckpoint)
	if err := b.Open(ctx); err != nil {
		return fmt.Errorf("open the queue: %w", err)
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

// wire makes the stages, with what was asked for over the API before.
func (p *pipeline) wire(ctx context.Context, b *bus.Bus) (*stages, error) {
	s := &stages{bus: b, stream: newCaptureStream(b), progress: newProgress(), control: bucket{b, keyControl}}
	if _, err := s.stream.Tail(ctx); err != nil { // Lets the status count what is queued.
		return nil, err
	}
	d, revision, err := loadDesired(ctx, s.control)
	if err != nil {
		return nil, err
	}
	c := p.env
	if err := d.apply(&c); err != nil {
		return nil, err
	}
	s.capture, err = capture.New(capture.Config{
		SourceURL: c.SourceURL.Reveal(), Slot: c.SlotName, Publication: c.PublicationName,
		Tables: captureTables(c.Tables), Logger: p.log,
	}, s.stream, s.progress)
	if err != nil {
		return nil, fmt.Errorf("set up capture: %w", err)
	}
	sink, err := newSink(c, p.log)
	if err != nil {
		return nil, fmt.Errorf("set up the sink: %w", err)
	}
	s.apply = apply.New(apply.Config{
		FlushRows: c.FlushSize, FlushInterval: c.FlushInterval, FlushBytes: int(c.FlushBytes),
		MinSpacing: max(c.MinLoadInterval, time.Nanosecond), Grace: p.env.ShutdownTimeout * 2 / 3, Logger: p.log,
	}, newApplyStream(b, p.log), sink)
	if d.Paused {
		s.apply.Start(true)
	}
	p.running(s, d, revision, c)
	return s, nil
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
	}
	applying, stopApply := context.WithCancel(ctx)
	defer stopApply()
	context.AfterFunc(rest, stopApply) // A part that fails takes the others along.
	group.Go(func() error { return s.bus.RunJanitor(rest, s.applied) })
	group.Go(func() error { return s.capture.Run(rest) })
	err := s.apply.Run(applying)
	stopRest()
	if waitErr := group.Wait(); ctx.Err() == nil {
		return errors.Join(err, waitErr)
	}
	return err
}

func newSink(c config.Config, log *slog.Logger) (*starrocks.Sink, error) {
	u, err := url.Parse(c.SinkURL)
	if err != nil {
		return nil, errors.New("SINK_URL is not a URL")
	}
	return starrocks.New(starrocks.Config{
		URL: c.SinkURL, MySQLAddr: net.JoinHostPort(u.Hostname(), strconv.Itoa(c.SinkPort)),
		Database: c.SinkDatabase, User: c.SinkUser, Password: c.SinkPassword.Reveal(),
		DeleteMode: starrocks.DeleteMode(c.SinkDeleteMode), TrustedHosts: c.SinkBEHosts,
		LoadTimeout: c.SinkLoadTimeout, CreateTables: true, Logger: log,
	})
}

func apiConfig(c config.Config, log *slog.Logger) api.Config {
	return api.Config{
		Addr: c.GRPCAddr, Token: c.GRPCToken.Reveal(), Insecure: c.GRPCInsecure, MetricsAddr: c.MetricsAddr,
		TLSCertFile: c.GRPCTLSCertFile, TLSKeyFile: c.GRPCTLSKeyFile, TLSClientCAFile: c.GRPCTLSClientCAFile,
		Version: version(), Logger: log,
	}
}
