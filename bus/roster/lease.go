package roster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Store is what leadership needs of a compare-and-set store. Its calls should end with
// their context; a term's validity does not depend on it. They may be made concurrently.
type Store interface {
	// Get returns the value of the key and its revision: zero if there never was
	// such a key, the revision of its deletion and no value if it was deleted. It may
	// return what was true a moment ago.
	Get(ctx context.Context, key string) (value []byte, revision uint64, err error)
	// Update sets the key if it has the revision. After an error it may be set or
	// not, at once or later.
	Update(ctx context.Context, key string, value []byte, revision uint64) (next uint64, err error)
	// Watch sends whenever the key may have changed, until ctx is done. Standbys
	// only need it to be quick; one that sends nothing, or too much, does no harm.
	Watch(ctx context.Context, key string) (<-chan struct{}, error)
}

// Config of a [Lease]. All members of a pipeline should have the same times.
type Config struct {
	// Store keeps the key.
	Store Store
	// Key names the role, such as "leader.capture".
	Key string
	// Member names this process to people: its host and id. It need not be unique.
	Member string

	// TTL is how long a standby leaves a key alone that does not change. It bounds
	// how fast a dead leader is replaced, and how long the store may be away before
	// the leader stops. At most one hour. Defaults to 6 seconds.
	TTL time.Duration
	// Renew is the time between two writes of the leader. Two must fit into TTL less
	// Margin; a third of what one leaves of that is the time for one question to
	// the store. Defaults to a quarter of TTL.
	Renew time.Duration
	// Margin is the time that a leader has for what it does after [Term.Check]:
	// its term ends that much before a standby may take over. Defaults to a quarter
	// of TTL.
	Margin time.Duration

	// Dead tells of a member that cannot be at work any more whatever its record
	// says, because it would need something that this member has locked. Its record
	// is taken without waiting. May be nil.
	Dead func(member string) bool

	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Defaults and bounds of [Config].
const (
	DefaultTTL = 6 * time.Second
	ttlMax     = time.Hour
)

func (c Config) withDefaults() Config {
	if c.TTL == 0 {
		c.TTL = DefaultTTL
	}
	if c.Renew == 0 {
		c.Renew = c.TTL / 4
	}
	if c.Margin == 0 {
		c.Margin = c.TTL / 4
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// patience is how long an answer of the store may take. Three questions fit between a
// renewal that is due and the end of the term.
func (c *Config) patience() time.Duration { return (c.TTL - c.Margin - c.Renew) / 3 }

func (c *Config) validate() error {
	var errs []error
	if c.Store == nil || c.Key == "" || c.Member == "" {
		errs = append(errs, errors.New("store, key and member must be set"))
	}
	if c.TTL < 0 || c.TTL > ttlMax || c.Renew < 0 || c.Margin < 0 || 2*c.Renew+c.Margin > c.TTL {
		errs = append(errs, fmt.Errorf("renewal every %s with a margin of %s does not fit twice into the time of %s, of at most %s",
			c.Renew, c.Margin, c.TTL, ttlMax))
	}
	return errors.Join(errs...)
}

// Lease is one member's part in a role. Its methods may be called concurrently.
type Lease struct {
	cfg Config
	log *slog.Logger
	now func() instant

	mu      sync.Mutex
	seen    sighting
	own     string // id of the last term, which may have ended
	term    *Term
	busy    bool  // in Acquire
	waiting bool  // as a standby
	err     error // what kept the last try from deciding anything
}

// New returns a member that does nothing yet.
func New(cfg Config) *Lease {
	cfg = cfg.withDefaults()
	return &Lease{
		cfg: cfg, now: now,
		log: cfg.Logger.With("component", "roster", "key", cfg.Key),
	}
}

// Holder is who leads, for the status.
type Holder struct {
	Member string    // empty if nobody does, or nobody is known to
	Since  time.Time // by the leader's clock
	Self   bool      // it is this member
}

// Holder tells who leads, as this member has seen last. A standby's view is at most a
// few seconds old; that of a member which neither leads nor stands by is not kept up.
func (l *Lease) Holder() Holder {
	l.mu.Lock()
	term, r, own := l.term, l.seen.record, l.own
	l.mu.Unlock()
	switch {
	case term != nil && term.Check() == nil:
		return Holder{Member: l.cfg.Member, Since: term.since, Self: true}
	case r.Term == "" || r.Released || r.Term == own:
		return Holder{}
	}
	return Holder{Member: r.Member, Since: r.Since}
}

// Waiting reports whether the member stands by: it is in Acquire and somebody else
// leads, whom Holder names, or may still think so.
func (l *Lease) Waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting
}

// Acquire waits until this member leads, as a standby if somebody else does. It goes on
// trying while the store is away; the errors are those of ctx and of the configuration,
// and that this member leads already.
func (l *Lease) Acquire(ctx context.Context) (*Term, error) {
	if err := l.cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure leadership of %s: %w", l.cfg.Key, err)
	}
	if err := l.begin(); err != nil {
		return nil, err
	}
	defer l.leave()
	watch, stop := context.WithCancel(ctx)
	defer stop()
	changed, err := l.cfg.Store.Watch(watch, l.cfg.Key)
	if err != nil {
		// The key is read from time to time as well.
		l.log.WarnContext(ctx, "leadership is not watched", "err", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := record{Member: l.cfg.Member, Term: rand.Text(), TTL: l.cfg.TTL}
	for {
		select {
		case <-timer.C:
		case _, ok := <-changed:
			if !ok {
				changed = nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for leadership of %s: %w", l.cfg.Key, context.Cause(ctx))
		}
		term, wait, err := l.try(ctx, &next)
		l.note(err)
		if err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "leadership cannot be decided", "err", err)
		}
		if term != nil {
			return term, nil
		}
		timer.Reset(wait)
	}
}

// Err returns what keeps this member from finding out who leads, nil if nothing does.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *Lease) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// begin makes sure that there is one Acquire at a time, and not beside a term.
func (l *Lease) begin() error {
	l.mu.Lock()
	term := l.term
	busy := l.busy
	l.busy = true
	l.mu.Unlock()
	if busy {
		return fmt.Errorf("acquire leadership of %s: it is being acquired", l.cfg.Key)
	}
	if term != nil && term.Check() == nil {
		l.leave()
		return fmt.Errorf("acquire leadership of %s: this member leads already", l.cfg.Key)
	}
	return nil
}

func (l *Lease) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy, l.waiting = false, false
}

// try reads the key and takes it if it may. Without a term it returns how long to wait
// before the next try.
func (l *Lease) try(ctx context.Context, next *record) (*Term, time.Duration, error) {
	value, revision, err := l.get(ctx)
	if err != nil {
		return nil, l.cfg.Renew, err
	}
	if wait := l.see(value, revision, next.Term); wait > 0 {
		l.standBy(ctx)
		return nil, min(wait, l.cfg.Renew), nil
	}
	began := l.now()
	next.Since = began.wall.UTC().Round(time.Millisecond)
	next.Write++
	data, err := next.encode()
	if err != nil {
		return nil, l.cfg.Renew, err
	}
	written, err := l.update(ctx, data, revision)
	if err != nil {
		// Somebody was faster, or there was no answer: the next look tells. Our
		// own write may then be there; it is taken over like an ended term's.
		return nil, l.cfg.Renew / 4, err
	}
	l.log.InfoContext(ctx, "leading", "member", l.cfg.Member)
	return l.start(ctx, *next, began, written), 0, nil
}

// start makes the term of what was written.
func (l *Lease) start(ctx context.Context, r record, began instant, revision uint64) *Term {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &Term{
		l: l, id: r.Term, since: r.Since, began: began, record: r, revision: revision,
		done: make(chan struct{}), idle: make(chan struct{}), cancel: cancel,
		releasing: make(chan bool, 1),
	}
	t.releasing <- false
	t.guard = time.AfterFunc(t.limit()-l.now().since(began), t.expire)
	l.mu.Lock()
	l.term, l.own = t, t.id
	l.mu.Unlock()
	go t.run(ctx)
	return t
}

// standBy notes and logs that somebody else leads.
func (l *Lease) standBy(ctx context.Context) {
	l.mu.Lock()
	before := l.waiting
	l.waiting = true
	r := l.seen.record
	l.mu.Unlock()
	if !before {
		l.log.InfoContext(ctx, "standing by", "member", l.cfg.Member, "leader", r.Member)
	}
}

// see notes what was read and returns how long the key must be left alone.
func (l *Lease) see(value []byte, revision uint64, id string) time.Duration {
	// The clock is read after the store has answered: the revision is at least as
	// old as that.
	at := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen.see(value, revision, at, l.cfg.TTL)
	if l.cfg.Dead != nil && l.seen.record.Member != "" && l.cfg.Dead(l.seen.record.Member) {
		return 0
	}
	return l.seen.wait(at, l.own, id)
}

func (l *Lease) get(ctx context.Context) ([]byte, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.patience())
	defer cancel()
	value, revision, err := l.cfg.Store.Get(ctx, l.cfg.Key)
	if err != nil {
		return nil, 0, fmt.Errorf("read leadership of %s: %w", l.cfg.Key, err)
	}
	return value, revision, nil
}

func (l *Lease) update(ctx context.Context, value []byte, revision uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.patience())
	defer cancel()
	next, err := l.cfg.Store.Update(ctx, l.cfg.Key, value, revision)
	if err != nil {
		return 0, fmt.Errorf("write leadership of %s: %w", l.cfg.Key, err)
	}
	return next, nil
}
