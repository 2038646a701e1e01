package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/internal/config"
)

// applyStage is apply as far as this process has to do with it.
type applyStage struct {
	role    *role
	env     config.Config
	log     *slog.Logger
	bus     *bus.Bus
	control *control

	mu   sync.Mutex
	work *apply.Apply // nil while another process leads

	enforcing sync.Mutex // keeps the order of what is enforced
}

// term applies while this process leads the stage, with the settings that are stored now.
func (s *applyStage) term(ctx context.Context) error {
	if _, err := s.control.load(ctx); err != nil {
		return err
	}
	if err := claimTarget(ctx, s.bus, targetOf(s.env), s.log); err != nil {
		return err
	}
	sink, err := newSink(s.env, false, s.log)
	if err != nil {
		return fmt.Errorf("set up the sink: %w", err)
	}
	bytes, err := s.batchBytes(ctx)
	if err != nil {
		return err
	}
	c := apply.Config{
		FlushRows: s.env.FlushSize, FlushInterval: s.env.FlushInterval, FlushBytes: bytes,
		MinSpacing: max(s.env.MinLoadInterval, time.Nanosecond), Grace: s.env.ShutdownTimeout * 2 / 3, Fence: s.role.fence, Lost: s.role.lost(), Logger: s.log,
	}
	if s.env.SinkRefusedRows == config.RefusedDeadLetter {
		c.DeadLetters = deadLetters{s.bus.DeadLetters()}
	}
	work := apply.New(c, newApplyStream(s.bus, s.log), sink)
	s.set(work)
	defer s.set(nil)
	s.enforce(ctx)
	return work.Run(ctx)
}

// batchBytes bounds a batch, by the room of the stream too: where a transaction does not fit
// into it as a whole, what is there must be applied before the rest can come.
func (s *applyStage) batchBytes(ctx context.Context) (int, error) {
	info, err := s.bus.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask for the room of the stream: %w", err)
	}
	return int(min(s.env.FlushBytes, info.MaxBytes/4)), nil
}

// enforce makes the desired state hold, as it was last heard of. It does not wait for a
// load that is running.
func (s *applyStage) enforce(ctx context.Context) {
	s.enforcing.Lock()
	defer s.enforcing.Unlock()
	work := s.now()
	if work == nil {
		return
	}
	d := s.control.get()
	work.Start(d.Paused)
	now := time.Now()
	if until := d.held(now); until.IsZero() {
		work.Release()
	} else {
		done, cancel := context.WithCancel(ctx)
		cancel()
		_ = work.Hold(done, until.Sub(now)) // It says only that it did not wait.
	}
	work.Set(apply.Settings{
		FlushRows: effective(d.FlushSize, s.env.FlushSize), FlushInterval: effective(d.FlushInterval, s.env.FlushInterval),
	})
}

func (s *applyStage) set(work *apply.Apply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work = work
}

func (s *applyStage) now() *apply.Apply {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.work
}

// applyView is what the other processes know of an apply.
type applyView struct {
	Active   bool           `json:"active,omitempty"`
	Status   apply.Status   `json:"status,omitzero"`
	Settings apply.Settings `json:"settings,omitzero"`
	// FlushBytes bounds a batch.
	FlushBytes int64 `json:"flush_bytes,omitempty"`
	// Leader is whom this process waits for.
	Leader string `json:"leader,omitempty"`
	// Failed tells that the process has given the stage away lately, since it did
	// not get on.
	Failed bool `json:"failed,omitempty"`
}

// health is how applying goes.
func (s *applyStage) health() health {
	work := s.now()
	if work == nil {
		return health{}
	}
	status := work.Status()
	return health{works: status.State == apply.Applying || status.State == apply.Paused, problem: status.Err}
}

// view shows the stage as this process sees it.
func (s *applyStage) view() *applyView {
	work := s.now()
	if work == nil {
		return &applyView{Leader: s.role.leader(), Failed: s.role.failedLately()}
	}
	return &applyView{Active: true, Status: work.Status(), Settings: work.Settings(), FlushBytes: s.env.FlushBytes}
}

// pause stops applying, durably.
func (s *applyStage) pause(ctx context.Context) error {
	if err := s.control.edit(ctx, paused(time.Now())); err != nil {
		return err
	}
	s.enforce(ctx)
	work := s.now()
	if work == nil {
		return errStarting
	}
	if err := work.Pause(ctx); err != nil {
		return fmt.Errorf("nothing new begins, but a load is still running: %w", err)
	}
	return nil
}

func paused(since time.Time) func(*desired) {
	return func(d *desired) { d.Paused, d.PausedSince = true, since.UTC() }
}

func resumed(d *desired) { d.Paused, d.PausedSince = false, time.Time{} }

// resume goes on applying, durably.
func (s *applyStage) resume(ctx context.Context) error {
	if err := s.control.edit(ctx, resumed); err != nil {
		return err
	}
	s.enforce(ctx)
	return nil
}

// reload changes the settings of batches, durably.
func (s *applyStage) reload(ctx context.Context, r api.Reload) error {
	err := s.control.edit(ctx, func(d *desired) {
		if r.FlushSize > 0 {
			d.FlushSize = &override[int]{int(r.FlushSize), s.env.FlushSize} //nolint:gosec // Bounded by the API.
		}
		if r.FlushInterval > 0 {
			d.FlushInterval = &override[time.Duration]{r.FlushInterval, s.env.FlushInterval}
		}
	})
	if err != nil {
		return err
	}
	s.enforce(ctx)
	return nil
}

// drain applies everything up to the tail.
func (s *applyStage) drain(ctx context.Context, tail cdc.Tail) error {
	work := s.now()
	if work == nil {
		return errStarting
	}
	return work.Drain(ctx, tail)
}

// hold keeps apply from beginning a batch for a time, or ends that if it is zero. It is
// durable: a process that takes over meanwhile waits too.
func (s *applyStage) hold(ctx context.Context, owner string, d time.Duration) error {
	now := time.Now()
	if err := s.control.edit(ctx, func(wish *desired) { wish.hold(owner, now.Add(d), now) }); err != nil {
		return err
	}
	s.enforce(ctx)
	work := s.now()
	switch {
	case work == nil:
		return errStarting
	case d == 0:
		return nil
	}
	return work.Hold(ctx, time.Until(now.Add(d)))
}
