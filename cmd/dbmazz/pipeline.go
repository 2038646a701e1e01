package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/config"
)

// pipeline is both stages as one, for the API. It exists before the stages do, so that
// the API can tell what the process is waiting for.
type pipeline struct {
	env     config.Config // as the environment says
	log     *slog.Logger
	started time.Time
	stop    context.CancelFunc // ends the process

	mu       sync.Mutex
	config   config.Config // with what was asked for over the API
	desired  desired
	revision uint64
	state    api.State
	starting string // what the start is at, empty once the stages run
	stages   *stages
	changes  sync.Mutex // one control call at a time
}

// stages are what runs once the bus is open.
type stages struct {
	bus      *bus.Bus
	stream   *captureStream
	progress *progress
	capture  *capture.Capture
	apply    *apply.Apply
	control  bucket
}

var _ api.Pipeline = (*pipeline)(nil)

func newPipeline(c config.Config, log *slog.Logger, stop context.CancelFunc) *pipeline {
	return &pipeline{env: c, config: c, log: log, started: time.Now(), stop: stop, starting: api.DetailInitializing}
}

// at shows what the start is at.
func (p *pipeline) at(detail string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting = detail
}

// running takes the stages in, with the state that was asked for before.
func (p *pipeline) running(s *stages, d desired, revision uint64, c config.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stages, p.desired, p.revision, p.config, p.starting = s, d, revision, c, ""
	if d.Paused && p.state == api.StateRunning {
		p.state = api.StatePaused
	}
}

// change runs one control call: the state must be one of from.
func (p *pipeline) change(wanted api.State, from ...api.State) (*stages, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	allowed := false
	for _, s := range from {
		allowed = allowed || s == p.state
	}
	if !allowed {
		return nil, &api.StateError{State: p.state, Wanted: wanted}
	}
	if p.stages == nil {
		return nil, errors.New("the queue is not open yet: try again in a moment")
	}
	return p.stages, nil
}

func (p *pipeline) setState(s api.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
}

// save stores what is asked for, before it takes effect.
func (p *pipeline) save(ctx context.Context, s *stages, edit func(*desired)) error {
	p.mu.Lock()
	next, revision := p.desired, p.revision
	p.mu.Unlock()
	edit(&next)
	value, err := json.Marshal(&next)
	if err != nil {
		return fmt.Errorf("encode the control state: %w", err)
	}
	if revision, err = s.control.SaveState(ctx, value, revision); err != nil {
		return fmt.Errorf("store the control state: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.desired, p.revision = next, revision
	return nil
}

// Pause stops applying; capture goes on into the queue. It holds over a restart.
func (p *pipeline) Pause(ctx context.Context) error {
	p.changes.Lock()
	defer p.changes.Unlock()
	s, err := p.change(api.StatePaused, api.StateRunning)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	if err := p.save(ctx, s, func(d *desired) { d.Paused, d.PausedSince = true, now }); err != nil {
		return err
	}
	p.setState(api.StatePaused)
	if err := s.apply.Pause(ctx); err != nil {
		return fmt.Errorf("nothing new begins, but a load is still running: %w", err)
	}
	return nil
}

// Resume goes on applying.
func (p *pipeline) Resume(ctx context.Context) error {
	p.changes.Lock()
	defer p.changes.Unlock()
	s, err := p.change(api.StateRunning, api.StatePaused)
	if err != nil {
		return err
	}
	if err := p.save(ctx, s, func(d *desired) { d.Paused, d.PausedSince = false, time.Time{} }); err != nil {
		return err
	}
	p.setState(api.StateRunning)
	s.apply.Resume()
	return nil
}

// Drain begins to publish, apply and confirm all that is committed; then the process ends.
func (p *pipeline) Drain(ctx context.Context) error {
	p.changes.Lock()
	defer p.changes.Unlock()
	s, err := p.change(api.StateDraining, api.StateRunning, api.StatePaused)
	if err != nil {
		return err
	}
	if err := p.save(ctx, s, func(d *desired) { d.Paused, d.PausedSince = false, time.Time{} }); err != nil {
		return err
	}
	p.setState(api.StateDraining)
	go p.drain(context.WithoutCancel(ctx), s)
	return nil
}

// drain goes on until it has succeeded; a source or sink that is away is waited for,
// and a stop ends the process in the meantime.
func (p *pipeline) drain(ctx context.Context, s *stages) {
	for {
		err := p.drained(ctx, s)
		if err == nil {
			break
		}
		p.log.WarnContext(ctx, "draining, not done yet", "err", err)
	}
	p.log.InfoContext(ctx, "drained: all that was committed is applied and confirmed")
	p.setState(api.StateStopped)
	p.stop()
}

// drainTry bounds one try of the drain, so that a stuck one shows in the log.
const drainTry = time.Minute

func (p *pipeline) drained(ctx context.Context, s *stages) error {
	ctx, cancel := context.WithTimeout(ctx, drainTry)
	defer cancel()
	if err := s.capture.Drain(ctx); err != nil {
		return waitOut(ctx, fmt.Errorf("capture what is committed: %w", err))
	}
	tail, err := s.bus.Tail(ctx)
	if err != nil {
		return waitOut(ctx, err)
	}
	if err := s.apply.Drain(ctx, tail); err != nil {
		return waitOut(ctx, err)
	}
	if err := s.capture.Confirmed(ctx, tail.End); err != nil {
		return waitOut(ctx, fmt.Errorf("confirm what is applied: %w", err))
	}
	return nil
}

// waitOut returns the error a second later, so that tries that fail at once do not spin.
func waitOut(ctx context.Context, err error) error {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return err
}

// Stop begins to end the process; queue, slot and checkpoint stay.
func (p *pipeline) Stop(context.Context) error {
	p.changes.Lock()
	defer p.changes.Unlock()
	p.mu.Lock()
	state := p.state
	p.mu.Unlock()
	if state == api.StateStopped {
		return &api.StateError{State: state, Wanted: api.StateStopped}
	}
	p.setState(api.StateStopped)
	p.stop()
	return nil
}

// Reload changes settings, durably, and returns those now in force.
func (p *pipeline) Reload(ctx context.Context, r api.Reload) (api.Settings, error) {
	p.changes.Lock()
	defer p.changes.Unlock()
	s, err := p.change(api.StateRunning, api.StateRunning, api.StatePaused)
	if err != nil {
		return api.Settings{}, err
	}
	if len(r.Tables) > 0 {
		if err := p.reloadTables(ctx, s, r.Tables); err != nil {
			return api.Settings{}, err
		}
	}
	err = p.save(ctx, s, func(d *desired) {
		if r.FlushSize > 0 {
			d.FlushSize = &override[int]{int(r.FlushSize), p.env.FlushSize} //nolint:gosec // Bounded by the API.
		}
		if r.FlushInterval > 0 {
			d.FlushInterval = &override[time.Duration]{r.FlushInterval, p.env.FlushInterval}
		}
	})
	if err != nil {
		return api.Settings{}, err
	}
	s.apply.Set(apply.Settings{FlushRows: int(r.FlushSize), FlushInterval: r.FlushInterval}) //nolint:gosec // Bounded by the API.
	return p.settings(s), nil
}

// reloadTables changes the publication first: a list that the source refuses is not kept.
func (p *pipeline) reloadTables(ctx context.Context, s *stages, names []string) error {
	list, err := config.ParseTables(names...)
	if err != nil {
		return &api.InvalidError{Field: "tables", Problem: err.Error()}
	}
	if err := s.capture.SetTables(ctx, captureTables(list)); err != nil {
		return fmt.Errorf("change the tables: %w", err)
	}
	err = p.save(ctx, s, func(d *desired) { d.Tables = &override[string]{tableList(list), tableList(p.env.Tables)} })
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config.Tables = list
	return nil
}

func (p *pipeline) settings(s *stages) api.Settings {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := api.Settings{FlushSize: uint64(p.config.FlushSize), FlushInterval: p.config.FlushInterval, Tables: tableNames(p.config.Tables)} //nolint:gosec // Positive.
	if s != nil {
		now := s.apply.Settings()
		out.FlushSize, out.FlushInterval = uint64(now.FlushRows), now.FlushInterval //nolint:gosec // Positive.
	}
	return out
}

func captureTables(tables []config.Table) []capture.Table {
	out := make([]capture.Table, len(tables))
	for i, t := range tables {
		out[i] = capture.Table{Schema: t.Schema, Name: t.Name}
	}
	return out
}

// applied returns the sequence up to which everything is in the sink, for the janitor.
func (s *stages) applied() uint64 {
	c, ok := s.progress.Checkpoint()
	if !ok || c.Epoch != s.bus.Epoch() {
		return 0
	}
	return c.Sequence
}
