package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Config says how changes are batched. The zero value of a field means its default.
type Config struct {
	// FlushRows makes a batch due as soon as that many changes wait, unless the
	// last batch began less than MinSpacing ago. It is not a cap: while a load is
	// running, or spacing holds, more changes join, up to FlushBytes. Defaults to
	// 10,000.
	FlushRows int
	// FlushInterval is the longest that a change waits for its batch to begin
	// while the sink is free. Defaults to 5 s.
	FlushInterval time.Duration
	// FlushBytes bounds a batch, in bytes of the stream. A batch begins at once
	// when it is reached, and nothing more is read from the stream. A single
	// frame may exceed it by its own size. Defaults to 16 MiB.
	FlushBytes int
	// MinSpacing is the least time between the beginnings of two batches that are
	// not full. When nothing more is waiting, a batch begins as soon as it is
	// over. It protects the sink from too many small loads. Defaults to 100 ms.
	MinSpacing time.Duration
	// Parallel is how many tables are loaded at a time. Defaults to 4.
	Parallel int
	// Grace is how long a load that runs when Run is told to stop may go on.
	// Defaults to 20 s.
	Grace time.Duration
	// BackoffMax bounds the wait between two tries. Defaults to 15 s.
	BackoffMax time.Duration
	// Fence returns an error as soon as somebody else may apply in this one's place,
	// by the own clock, so that a process that was stopped and goes on later writes
	// nothing. It is asked before every call of the sink, every dead letter and
	// every write of the state; its error ends the session. It must be quick, and
	// may be called from several goroutines. nil means that there is no other.
	Fence func() error
	// Lost is closed when somebody else may apply in this one's place. Calls of the
	// sink that are running are then given up at once, and Run returns. nil means
	// never.
	Lost <-chan struct{}
	// DeadLetters is where rows go that the sink can never take. nil means that
	// such a row stops apply, which tries again until somebody has made it fit.
	DeadLetters DeadLetters
	// RefusedMax is how many rows of one table's batch may go to the dead letters.
	// With more, or if the first 100 go and no other is stored, it is not the rows
	// that are wrong but the table: apply stops as without dead letters.
	// Defaults to 1,000.
	RefusedMax int
	Logger     *slog.Logger
}

func (c Config) withDefaults() Config {
	def(&c.FlushRows, 10_000)
	def(&c.FlushInterval, 5*time.Second)
	def(&c.FlushBytes, 16<<20)
	def(&c.MinSpacing, 100*time.Millisecond)
	def(&c.Parallel, 4)
	def(&c.Grace, 20*time.Second)
	def(&c.BackoffMax, 15*time.Second)
	def(&c.RefusedMax, 1000)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Settings is what can be changed while apply runs. It takes effect with the next
// batch.
type Settings struct {
	FlushRows     int
	FlushInterval time.Duration
}

// Apply is the second stage of a pipeline.
type Apply struct {
	config Config
	stream Stream
	sink   Sink
	log    *complaints
	replay *Replay // nil for live apply

	mu       sync.Mutex
	settings Settings
	paused   bool
	draining bool
	hold     hold
	calls    int // calls of the sink that are running
	status   Status
	// collected and loading are the commit times of the oldest changes that wait
	// and that are being loaded.
	collected, loading time.Time
	latency            latency
	changed            chan struct{} // closed and replaced when anything above changes
}

// New returns an apply stage. It does nothing before Run.
func New(config Config, stream Stream, sink Sink) *Apply {
	config = config.withDefaults()
	return &Apply{
		config: config, stream: stream, sink: sink, log: newComplaints(config.Logger.With("component", "apply")),
		settings: Settings{FlushRows: config.FlushRows, FlushInterval: config.FlushInterval},
		status:   Status{State: Starting, Detail: "Initializing pipeline"},
		changed:  make(chan struct{}),
		hold:     hold{under: true},
	}
}

// Run applies until ctx is done, and then lets a running load finish within the grace
// period. No error of the sink or the stream ends it: the session starts again from
// the checkpoint, and the status says what is wrong. It returns without an error when ctx
// is done or Config.Lost is closed.
func (a *Apply) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	work, cancel := a.graceful(ctx)
	defer cancel()
	go func() {
		select {
		case <-a.config.Lost:
			cancel()
			stop()
		case <-work.Done():
		}
	}()
	backoff := a.newBackoff()
	for ctx.Err() == nil {
		started := time.Now()
		err := a.session(ctx, work)
		if ctx.Err() != nil {
			break
		}
		a.failed("", err)
		a.log.repeat(ctx, slog.LevelError, "apply session ended, it starts again", "", err)
		if time.Since(started) > time.Minute {
			backoff = a.newBackoff()
		}
		a.update(func(s *Status) { s.Restarts++ })
		backoff.wait(ctx)
	}
	a.update(func(s *Status) { s.State, s.Detail = Stopped, "" })
	return nil
}

// graceful returns a context for work that outlives ctx by the grace period.
func (a *Apply) graceful(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(a.config.Grace, cancel)
		context.AfterFunc(work, func() { timer.Stop() })
	})
	return work, func() { stop(); cancel() }
}

// Start says whether apply begins paused. It is called before Run.
func (a *Apply) Start(paused bool) { a.control(func() { a.paused = paused }) }

// Pause stops applying. It returns once no call of the sink is running, or with the
// error of ctx while one still is; nothing new begins in either case.
func (a *Apply) Pause(ctx context.Context) error {
	a.control(func() { a.paused = true })
	return a.until(ctx, func() bool { return a.calls == 0 || !a.paused })
}

// Resume goes on after Pause.
func (a *Apply) Resume() { a.control(func() { a.paused = false }) }

// Set changes the settings; zero fields stay as they are. It returns what is in force.
func (a *Apply) Set(s Settings) Settings {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.FlushRows > 0 {
		a.settings.FlushRows = s.FlushRows
	}
	if s.FlushInterval > 0 {
		a.settings.FlushInterval = s.FlushInterval
	}
	a.signal()
	return a.settings
}

// Drain applies everything up to the tail of the stream without waiting for batches to
// fill, also when paused, and returns when the sink has committed it.
func (a *Apply) Drain(ctx context.Context, tail cdc.Tail) error {
	a.control(func() { a.draining = true })
	defer a.control(func() { a.draining = false })
	err := a.until(ctx, func() bool {
		c := a.status.Checkpoint
		return tail.Empty || (!tail.Last.After(c.Position) && tail.End <= c.End)
	})
	if err != nil {
		return fmt.Errorf("apply what is queued: %w", err)
	}
	return nil
}

func (a *Apply) control(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
	a.signal()
}

// signal wakes everybody who waits for a change. The lock is held.
func (a *Apply) signal() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// until waits for a condition on the fields under the lock.
func (a *Apply) until(ctx context.Context, condition func() bool) error {
	for {
		a.mu.Lock()
		ok, changed := condition(), a.changed
		a.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// attempt calls the sink until it succeeds. It returns an error only when ctx, which
// ends when apply is told to stop, or work, which ends when a running call must be
// given up, is done, when the stream is found corrupt, when the fence is down, or when
// the call cannot be repeated as it was.
// A call that changes rows waits while apply is paused.
func (a *Apply) attempt(ctx, work context.Context, changes bool, what string, call func(context.Context) error) error {
	backoff := a.newBackoff()
	work = context.WithValue(work, waitingKey{}, func(err error) { a.failed(what, err) })
	work = WithFence(work, a.fence)
	for {
		err := a.until(ctx, func() bool { return !changes || !a.paused || a.draining })
		if err != nil {
			return err
		}
		if err := a.fence(); err != nil {
			return err
		}
		a.control(func() { a.calls++ })
		err = call(work)
		a.control(func() { a.calls-- })
		if err == nil {
			a.update(func(s *Status) { s.clear(what) })
			a.log.over(ctx, what)
			return nil
		}
		if errors.Is(err, cdc.ErrCorrupt) || errors.Is(err, ErrIncomplete) || (a.replay != nil && isRefusal(err)) {
			return err
		}
		a.failed(what, err)
		a.log.repeat(ctx, slog.LevelWarn, "sink refused, trying again", what, err)
		backoff.wait(ctx)
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// fence returns an error unless this process may write.
func (a *Apply) fence() error {
	if a.replay != nil {
		if err := a.replay.quiet.err(); err != nil {
			return err
		}
	}
	if a.config.Fence == nil {
		return nil
	}
	if err := a.config.Fence(); err != nil {
		return fmt.Errorf("keep apart from another apply: %w", err)
	}
	return nil
}

// backoff doubles from 200 ms up to its bound, with jitter of a half.
type backoff struct{ next, limit time.Duration }

func (a *Apply) newBackoff() *backoff {
	return &backoff{next: min(200*time.Millisecond, a.config.BackoffMax), limit: a.config.BackoffMax}
}

func (b *backoff) wait(ctx context.Context) {
	pause := b.next/2 + rand.N(b.next/2+1) //nolint:gosec // Jitter.
	b.next = min(2*b.next, b.limit)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
