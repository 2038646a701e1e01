package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// Capture streams the changes of a set of tables. See the package comment.
type Capture struct {
	cfg      Config
	stream   Stream
	progress Progress
	source   *source
	log      *slog.Logger

	buffers chan []byte
	wake    chan struct{} // to the reporter: something is wanted
	settled chan struct{} // to those in Drain: through has moved

	schemas map[cdc.Fingerprint]*cdc.Schema // used by the session only
	latest  map[uint32]*cdc.Schema          // by table OID, used by the session only
	warned  map[string]bool                 // used by the session only
	// slotMade tells that this process made the slot. Used by the session only.
	slotMade bool

	complaint complaint // used by Run only
	snapshots *snapshots
	// announcements are what the sink is told of the tables.
	announcements announcements
	spooling      spooling // guarded by mu

	// altering is held by who changes the tables or the record of a session.
	altering  sync.Mutex
	following chan struct{} // to follow: look now

	mu      sync.Mutex
	running bool
	tables  []Table // those that count; replaced, never edited
	// selection is what is wanted; leaving are tables that count until the reader has
	// passed an LSN, unfit those that cannot be put into the publication.
	selection Selection
	leaving   map[Table]cdc.LSN
	unfit     map[Table]*refusal
	// tablesVersion counts the changes of tables.
	tablesVersion uint64
	record        *record // of the present session
	status        Status
	flow          flow
	streamed      bool
	wants         wants
	head          walHead
}

// wants is what others want from the reporter.
type wants struct {
	reply bool // a keepalive, to learn where the server is
	idle  bool // an idle advance now instead of at the next interval
	anew  bool // another session, see errPartitions
}

// New returns a capture that has done nothing yet.
func New(cfg Config, stream Stream, progress Progress) (*Capture, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	c := &Capture{
		cfg: cfg, stream: stream, progress: progress, log: cfg.Logger,
		buffers: make(chan []byte, cfg.Window), wake: make(chan struct{}, 1), settled: make(chan struct{}, 1),
		schemas: map[cdc.Fingerprint]*cdc.Schema{}, latest: map[uint32]*cdc.Schema{}, warned: map[string]bool{},
		following: make(chan struct{}, 1), unfit: map[Table]*refusal{}, status: Status{State: StateIdle},
	}
	selection := cfg.selection()
	c.selection = selection.clone()
	if !cfg.Leaves {
		c.tables = c.selection.Tables
	}
	var err error
	c.snapshots, c.announcements.wake = newSnapshots(c), make(chan struct{}, 1)
	c.source, err = newSource(&c.cfg, func() string { return c.stream.Epoch() })
	return c, err
}

// healthy is how long a session must have lasted for the next failure to be answered
// by the shortest wait again.
const healthy = 10 * time.Second

// Run captures until ctx is done and then returns nil. Errors end a session, after which
// it tries again; they show in Status.
func (c *Capture) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.running {
		c.mu.Unlock()
		return errors.New("run capture: it is running already")
	}
	c.running = true
	c.mu.Unlock()
	var beating sync.WaitGroup
	beating.Go(func() { c.beat(ctx) })
	beating.Go(func() { c.follow(ctx) })
	defer func() {
		beating.Wait()
		c.source.close(ctx)
		c.setState(StateIdle, "")
		c.mu.Lock()
		c.running = false
		c.mu.Unlock()
	}()
	for wait := c.cfg.BackoffMin; ; {
		began := time.Now()
		err := c.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > healthy {
			wait, c.complaint = c.cfg.BackoffMin, complaint{}
		}
		c.setError(err)
		// Half of the wait is random, so that two of us do not stay in step.
		pause := wait/2 + rand.N(wait/2+1) //nolint:gosec // Not a secret.
		if c.complaint.due(err.Error(), time.Now()) {
			c.log.WarnContext(ctx, "capture session ended", "err", err, "retry_in", pause)
		}
		c.setState(StateWaiting, fmt.Sprintf("next attempt in %s", pause.Round(time.Millisecond)))
		if !sleep(ctx, pause) {
			return nil
		}
		wait = min(2*wait, c.cfg.BackoffMax)
	}
}

// sleep waits and reports whether it waited to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// session prepares and runs one session. It never returns nil unless ctx is done.
func (c *Capture) session(ctx context.Context) error {
	start, err := c.prepare(ctx)
	if err != nil {
		return err
	}
	return c.run(ctx, start)
}

// Tables returns the tables that are captured; before the first session, those that are
// named.
func (c *Capture) Tables() []Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.tables)
}

// ask wakes the reporter.
func (c *Capture) ask(w wants) {
	c.mu.Lock()
	c.wants.reply = c.wants.reply || w.reply
	c.wants.idle = c.wants.idle || w.idle
	c.wants.anew = c.wants.anew || w.anew
	c.mu.Unlock()
	notify(c.wake)
}

// notify fills a channel of one, without waiting.
func notify(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// buffer returns a buffer for a frame.
func (c *Capture) buffer() []byte {
	select {
	case b := <-c.buffers:
		return b
	default:
		// Room for the last record and for the headers.
		return make([]byte, c.cfg.FrameBytes+c.cfg.FrameBytes/4)
	}
}

// recycle takes a buffer back unless it is odd: grown for a large record, or worn down
// by the frame headers that are cut off its front.
func (c *Capture) recycle(b []byte) {
	if cap(b) > 4*c.cfg.FrameBytes || cap(b) < c.cfg.FrameBytes {
		return
	}
	select {
	case c.buffers <- b:
	default:
	}
}
