package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/internal/config"
)

// pipeline is both stages as one, for the API, whichever of them run in this process. It
// exists before the stages do, so that the API can tell what the process is waiting for.
type pipeline struct {
	env     config.Config // as the environment says
	parts   config.Parts
	log     *slog.Logger
	started time.Time
	stop    context.CancelFunc // ends the process

	mu       sync.Mutex
	state    api.State // draining, if this process sees it through, and stopped
	starting string    // what the start is at, empty once the stages run
	problem  string    // what keeps the start from going on
	stages   *stages

	changes sync.Mutex // one control call at a time
}

// stages are what runs once the queue is open.
type stages struct {
	bus      *bus.Bus
	progress *progress
	letters  *bus.DeadLetters
	control  *control
	company  *company
	capture  *captureStage // nil if this process has no such part
	apply    *applyStage   // nil if this process has no such part
}

var _ api.Pipeline = (*pipeline)(nil)

func newPipeline(c config.Config, parts config.Parts, log *slog.Logger, stop context.CancelFunc) *pipeline {
	return &pipeline{env: c, parts: parts, log: log, started: time.Now(), stop: stop, starting: api.DetailInitializing}
}

// at shows what the start is at, and what keeps it from going on.
func (p *pipeline) at(detail string, problem error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.starting, p.problem = detail, ""
	if problem != nil {
		p.problem = problem.Error()
	}
}

// wire makes the parts of this process.
func (p *pipeline) wire(ctx context.Context, b *bus.Bus) (*stages, error) {
	s := &stages{bus: b, progress: newProgress(), letters: b.DeadLetters(), control: newControl(b), company: newCompany()}
	for _, err := s.control.load(ctx); err != nil; _, err = s.control.load(ctx) {
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		}
		p.at("Connecting to the queue", err) // It was there a moment ago.
		pause(ctx, time.Second)
	}
	if p.parts&config.Capture != 0 {
		s.capture = &captureStage{
			role: p.role(b, roleCapture), env: p.env, log: p.log, bus: b, control: s.control, progress: s.progress,
			drain: p.Drain,
		}
	}
	if p.parts&config.Apply != 0 {
		s.apply = &applyStage{
			role: p.role(b, roleApply), env: p.env, log: p.log, bus: b, control: s.control,
		}
	}
	p.connect(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stages, p.starting, p.problem = s, "", ""
	return s, nil
}

// connect tells the roles what they must know of the work and of the other processes.
func (p *pipeline) connect(s *stages) {
	if s.capture != nil {
		r := s.capture.role
		r.patience, r.health = p.env.HandoverAfter, s.capture.health
		r.free = func() bool { return s.company.free(roleCapture) }
		if r.lease != nil {
			r.refuse = func() error { return s.company.sameTables(p.env.Tables.String()) }
		}
	}
	if s.apply != nil {
		r := s.apply.role
		r.patience, r.health = p.env.HandoverAfter, s.apply.health
		r.free = func() bool { return s.company.free(roleApply) }
	}
}

// follow makes what another process has changed hold here too.
func (p *pipeline) follow(ctx context.Context, s *stages) error {
	return s.control.follow(ctx, func(ctx context.Context) {
		if s.capture != nil {
			s.capture.enforce()
		}
		if s.apply != nil {
			s.apply.enforce(ctx)
		}
	})
}

func (p *pipeline) setState(state api.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
}

// stateNow returns the state that the API shows; the lock is held.
func (p *pipeline) stateNow() api.State {
	switch {
	case p.state != api.StateRunning || p.stages == nil:
		return p.state
	case p.stages.company.draining():
		return api.StateDraining
	case p.stages.control.get().Paused:
		return api.StatePaused
	}
	return p.state
}

// change begins a control call: the state must be one of from. Another process may have
// changed it a moment ago.
func (p *pipeline) change(ctx context.Context, wanted api.State, from ...api.State) (*stages, error) {
	p.mu.Lock()
	s := p.stages
	p.mu.Unlock()
	if s != nil {
		if _, err := s.control.load(ctx); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	state, allowed := p.stateNow(), false
	for _, s := range from {
		allowed = allowed || s == state
	}
	if !allowed {
		return nil, &api.StateError{State: state, Wanted: wanted}
	}
	if p.stages == nil {
		return nil, errors.New("the queue is not open yet: try again in a moment")
	}
	return p.stages, nil
}

// Pause stops applying; capture goes on into the queue. It holds over a restart.
func (p *pipeline) Pause(ctx context.Context) error {
	p.changes.Lock()
	defer p.changes.Unlock()
	s, err := p.change(ctx, api.StatePaused, api.StateRunning)
	if err != nil {
		return err
	}
	err = p.ask(ctx, s, roleApply, request{Verb: verbPause})
	return p.without(ctx, s, err, paused(time.Now()), "it will start paused")
}

// Resume goes on applying.
func (p *pipeline) Resume(ctx context.Context) error {
	p.changes.Lock()
	defer p.changes.Unlock()
	s, err := p.change(ctx, api.StateRunning, api.StatePaused)
	if err != nil {
		return err
	}
	err = p.ask(ctx, s, roleApply, request{Verb: verbResume})
	return p.without(ctx, s, err, resumed, "it will not start paused")
}

// without stores what is asked for when no apply process is there to do it.
func (p *pipeline) without(ctx context.Context, s *stages, err error, edit func(*desired), then string) error {
	if !errors.Is(err, bus.ErrNobody) {
		return err
	}
	if editErr := s.control.edit(ctx, edit); editErr != nil {
		return errors.Join(err, editErr)
	}
	return fmt.Errorf("no apply process is running; %s: %w", then, err)
}

// Drain begins to publish, apply and confirm all that is committed; then the processes end.
func (p *pipeline) Drain(ctx context.Context) error {
	p.changes.Lock()
	defer p.changes.Unlock()
	s, err := p.change(ctx, api.StateDraining, api.StateRunning, api.StatePaused)
	if err != nil {
		return err
	}
	return p.ask(ctx, s, roleCapture, request{Verb: verbDrain})
}

// beginDrain is Drain in the process that captures.
func (p *pipeline) beginDrain(ctx context.Context, s *stages) error {
	if err := s.control.edit(ctx, resumed); err != nil {
		return err
	}
	p.setState(api.StateDraining) // The others see it on the board.
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
		pause(ctx, time.Second) // Tries that fail at once do not spin.
	}
	p.log.InfoContext(ctx, "drained: all that was committed is applied and confirmed")
	if err := s.stopOthers(ctx); err != nil {
		p.log.WarnContext(ctx, "a process was not told to stop", "err", err)
	}
	p.setState(api.StateStopped)
	p.leave(ctx, s)
}

// leaveWait bounds how long the process with the queue waits for the others to leave.
const leaveWait = 5 * time.Second

// leave ends the process. The one that has the queue goes last, so that the others can
// say goodbye.
func (p *pipeline) leave(ctx context.Context, s *stages) {
	defer p.stop()
	if p.env.BusURL != "" || s.capture == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveWait)
	defer cancel()
	for s.company.present() && ctx.Err() == nil {
		pause(ctx, 50*time.Millisecond)
	}
}

// drainTry bounds one try of the drain, so that a stuck one shows in the log.
const drainTry = time.Minute

func (p *pipeline) drained(ctx context.Context, s *stages) error {
	ctx, cancel := context.WithTimeout(ctx, drainTry)
	defer cancel()
	work, _ := s.capture.now()
	if work == nil {
		return errStarting
	}
	if err := work.HaltSnapshot(ctx); err != nil {
		return fmt.Errorf("end the copying of existing rows, which the next start goes on with: %w", err)
	}
	if err := work.Drain(ctx); err != nil {
		return fmt.Errorf("capture what is committed: %w", err)
	}
	tail, err := s.bus.Tail(ctx)
	if err != nil {
		return err
	}
	if err := p.ask(ctx, s, roleApply, request{Verb: verbApplyUpTo, Tail: tail}); err != nil {
		return err
	}
	if err := work.Confirmed(ctx, tail.End); err != nil {
		return fmt.Errorf("confirm what is applied: %w", err)
	}
	return nil
}

// Stop begins to end all processes of the pipeline; queue, slot and checkpoint stay.
func (p *pipeline) Stop(ctx context.Context) error {
	p.changes.Lock()
	defer p.changes.Unlock()
	p.mu.Lock()
	state, s := p.state, p.stages
	p.mu.Unlock()
	if state == api.StateStopped {
		return &api.StateError{State: state, Wanted: api.StateStopped}
	}
	var err error
	if s != nil {
		err = s.stopOthers(ctx)
	}
	p.setState(api.StateStopped)
	if s == nil {
		p.stop()
		return nil
	}
	go p.leave(context.WithoutCancel(ctx), s)
	if err != nil {
		return fmt.Errorf("this process stops, but another could not be told to: %w", err)
	}
	return nil
}

// StartSnapshot begins to copy existing rows.
func (p *pipeline) StartSnapshot(ctx context.Context, tables []string) error {
	return p.snapshot(ctx, request{Verb: verbSnapshot, Reload: api.Reload{Tables: tables}})
}

// PauseSnapshot holds the copy.
func (p *pipeline) PauseSnapshot(ctx context.Context) error {
	return p.snapshot(ctx, request{Verb: verbHoldCopy})
}

// ResumeSnapshot goes on with the copy.
func (p *pipeline) ResumeSnapshot(ctx context.Context) error {
	return p.snapshot(ctx, request{Verb: verbGoOnCopy})
}

func (p *pipeline) snapshot(ctx context.Context, r request) error {
	p.changes.Lock()
	defer p.changes.Unlock()
	s, err := p.change(ctx, api.StateRunning, api.StateRunning, api.StatePaused)
	if err != nil {
		return err
	}
	return p.ask(ctx, s, roleCapture, r)
}

// Reload changes settings, durably, and returns those now in force.
func (p *pipeline) Reload(ctx context.Context, r api.Reload) (api.Settings, error) {
	p.changes.Lock()
	defer p.changes.Unlock()
	s, err := p.change(ctx, api.StateRunning, api.StateRunning, api.StatePaused)
	if err != nil {
		return api.Settings{}, err
	}
	if len(r.Tables) > 0 {
		if err := p.ask(ctx, s, roleCapture, request{Verb: verbTables, Reload: api.Reload{Tables: r.Tables}}); err != nil {
			return api.Settings{}, err
		}
	}
	if r.Snapshot() {
		change := api.Reload{SnapshotWorkers: r.SnapshotWorkers, SnapshotChunkRows: r.SnapshotChunkRows, SnapshotRate: r.SnapshotRate}
		if err := p.ask(ctx, s, roleCapture, request{Verb: verbCopying, Reload: change}); err != nil {
			return api.Settings{}, err
		}
	}
	if r.FlushSize > 0 || r.FlushInterval > 0 {
		change := api.Reload{FlushSize: r.FlushSize, FlushInterval: r.FlushInterval}
		if err := p.ask(ctx, s, roleApply, request{Verb: verbReload, Reload: change}); err != nil {
			return api.Settings{}, err
		}
	}
	return p.settings(p.picture(ctx, s), r), nil
}

// settings returns what is in force, with what was just changed: another process may not
// have told yet.
func (p *pipeline) settings(v view, r api.Reload) api.Settings {
	out := api.Settings{FlushSize: uint64(p.env.FlushSize), FlushInterval: p.env.FlushInterval, Tables: p.env.Tables.List()} //nolint:gosec // Positive.
	if v.apply.known {
		out.FlushSize, out.FlushInterval = uint64(v.apply.Settings.FlushRows), v.apply.Settings.FlushInterval //nolint:gosec // Positive.
	}
	if v.capture.known {
		out.Tables = v.capture.Tables
	}
	p.copySettings(&out, v, r)
	if r.FlushSize > 0 {
		out.FlushSize = r.FlushSize
	}
	if r.FlushInterval > 0 {
		out.FlushInterval = r.FlushInterval
	}
	if len(r.Tables) > 0 {
		if selected, err := config.ParseSelection(r.Tables...); err == nil {
			out.Tables = selected.List()
		}
	}
	return out
}

// copySettings adds those of the copy of existing rows.
func (p *pipeline) copySettings(out *api.Settings, v view, r api.Reload) {
	now := v.capture.Status.Snapshot.Settings
	if now.Workers == 0 { // No capture has told.
		now.Workers, now.ChunkRows, now.Rate = p.env.SnapshotWorkers, p.env.SnapshotChunkRows, p.env.SnapshotRate
	}
	out.SnapshotWorkers, out.SnapshotChunkRows, out.SnapshotRate = uint32(now.Workers), uint64(now.ChunkRows), uint64(now.Rate) //nolint:gosec // Not negative.
	if r.SnapshotWorkers > 0 {
		out.SnapshotWorkers = r.SnapshotWorkers
	}
	if r.SnapshotChunkRows > 0 {
		out.SnapshotChunkRows = r.SnapshotChunkRows
	}
	if r.SnapshotRate != nil {
		out.SnapshotRate = *r.SnapshotRate
	}
}
