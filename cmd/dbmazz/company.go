package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/api"
)

const (
	// announceEvery is how often a process tells the others what it is at.
	announceEvery = time.Second
	// silentAfter is when a process that has told nothing counts as silent.
	silentAfter = 5 * time.Second
	// forgetAfter is when a process that is silent is not listed any more, unless it
	// is the last that was known to be at work.
	forgetAfter = time.Minute
)

// member is what a process tells the others about itself.
type member struct {
	Instance string       `json:"instance"`
	Host     string       `json:"host"`
	PID      int          `json:"pid"`
	Version  string       `json:"version"`
	Started  time.Time    `json:"started"`
	Capture  *captureView `json:"capture,omitempty"` // nil if the process has no such stage
	Apply    *applyView   `json:"apply,omitempty"`
	// Draining tells that the process sees a drain of the pipeline through.
	Draining bool `json:"draining,omitempty"`
}

// works tells whether the process is at work at a stage.
func (m *member) works(role string) bool {
	switch role {
	case roleCapture:
		return m.Capture != nil && m.Capture.Active
	case roleApply:
		return m.Apply != nil && m.Apply.Active
	}
	return false
}

// contact is when a process was heard of last, by the own clock, and whether it has said
// goodbye.
type contact struct {
	heard time.Time
	gone  bool
}

// silent tells whether the process is taken for gone.
func (c *contact) silent() bool { return c.gone || time.Since(c.heard) > silentAfter }

// neighbour is another process.
type neighbour struct {
	member
	contact
}

// company is what is known of the other processes.
type company struct {
	mu     sync.Mutex
	others map[string]*neighbour
	said   map[string]bool
	// led is the capture that was last heard of at work while this process was there.
	led struct {
		instance, tables string
		times            int
	}
}

func newCompany() *company {
	return &company{others: map[string]*neighbour{}, said: map[string]bool{}}
}

// once tells whether something is said for the first time.
func (c *company) once(what string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.said[what]
	c.said[what] = true
	return first
}

// list returns the others, those that were heard of last first.
func (c *company) list() []neighbour {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]neighbour, 0, len(c.others))
	for _, n := range c.others {
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b neighbour) int {
		if d := b.heard.Compare(a.heard); d != 0 {
			return d
		}
		return strings.Compare(a.Instance, b.Instance)
	})
	return out
}

// present tells whether another process is there.
func (c *company) present() bool {
	return slices.ContainsFunc(c.list(), func(n neighbour) bool { return !n.silent() })
}

// free tells whether a process stands by for a stage that has not failed at it lately.
func (c *company) free(role string) bool {
	return slices.ContainsFunc(c.list(), func(n neighbour) bool {
		switch {
		case n.silent() || n.works(role):
			return false
		case role == roleCapture:
			return n.Capture != nil && !n.Capture.Failed && !n.Capture.Refuses
		default:
			return n.Apply != nil && !n.Apply.Failed
		}
	})
}

// sameTables is an error if this process has stood by for a capture with another TABLES:
// taking over would silently change what is captured. Starting a process says what is
// wanted, standing by does not.
func (c *company) sameTables(tables string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// The first word of a process may be one that it left behind.
	if c.led.times < 2 || c.led.tables == tables {
		return nil
	}
	return fmt.Errorf("%w: TABLES is %s here and %s in process %s, which has captured while this one stood by; give both the same TABLES, or restart this process to capture its own",
		errOtherTables, tables, c.led.tables, c.led.instance)
}

// errOtherTables keeps a standby from capturing other tables than the process before it.
var errOtherTables = errors.New("this capture does not take over")

// draining tells whether a process that is there sees a drain through.
func (c *company) draining() bool {
	return slices.ContainsFunc(c.list(), func(n neighbour) bool { return n.Draining && !n.silent() })
}

// leader returns the process that is known to work at a stage.
func (c *company) leader(role string) (neighbour, bool) {
	all := c.list()
	i := slices.IndexFunc(all, func(n neighbour) bool { return n.works(role) })
	if i < 0 {
		return neighbour{}, false
	}
	return all[i], true
}

// heardOf takes in what a process has told.
func (c *company) heardOf(m member, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.others[m.Instance] = &neighbour{member: m, contact: contact{heard: now}}
	if m.works(roleCapture) {
		if c.led.instance != m.Instance || c.led.tables != m.Capture.Configured {
			c.led.instance, c.led.tables, c.led.times = m.Instance, m.Capture.Configured, 0
		}
		c.led.times++
	}
	for name, n := range c.others {
		if now.Sub(n.heard) > forgetAfter && !n.works(roleCapture) && !n.works(roleApply) {
			delete(c.others, name)
		}
	}
}

// left takes a process off the list that has said goodbye or is silent for long. What it
// was at stays known until another process is at it.
func (c *company) left(instance string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.others[instance]; ok {
		n.gone = true
	}
}

const memberPrefix = "member."

// company tells the others what this process is at and listens to what they are, until
// ctx is done. The pipeline works without it, so what keeps it from that is tried again.
func (p *pipeline) company(ctx context.Context, s *stages) error {
	for last := ""; ctx.Err() == nil; pause(ctx, 5*time.Second) {
		again, cancel := context.WithCancel(ctx)
		err := p.keepCompany(again, s)
		cancel()
		if err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			p.log.WarnContext(ctx, "other processes of the pipeline are neither seen nor told", "err", err)
		}
	}
	return nil
}

func (p *pipeline) keepCompany(ctx context.Context, s *stages) error {
	if err := p.answerCalls(ctx, s); err != nil {
		return err
	}
	news, err := s.bus.WatchBoard(ctx)
	if err != nil {
		return fmt.Errorf("watch the board: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for a := range news {
			name, ok := strings.CutPrefix(a.Name, memberPrefix)
			switch {
			case !ok || (a.Gone && name == p.env.Instance):
			case a.Gone:
				s.company.left(name)
			default:
				var m member
				if err := json.Unmarshal(a.Value, &m); err != nil {
					p.log.WarnContext(ctx, "announcement of another process cannot be read", "instance", name, "err", err)
					continue
				}
				p.heard(ctx, s, m)
			}
		}
		return errBoardEnded
	})
	group.Go(func() error { return p.announce(ctx, s) })
	return group.Wait()
}

// errBoardEnded begins the watch of the board again.
var errBoardEnded = errors.New("the watch of the board has ended")

// heard takes in what a process has told, and warns of what cannot be meant.
func (p *pipeline) heard(ctx context.Context, s *stages, m member) {
	if m.Instance == p.env.Instance {
		if !m.Started.Equal(p.started) && s.company.once("instance "+m.Host) {
			p.log.ErrorContext(ctx, "another process has the same INSTANCE: they cannot be told apart, give each its own", "instance", m.Instance, "host", m.Host, "pid", m.PID)
		}
		return
	}
	s.company.heardOf(m, time.Now())
	if s.capture == nil || m.Capture == nil || m.Capture.Configured == p.env.Tables.String() {
		return
	}
	if s.company.once("tables " + m.Instance + m.Capture.Configured) {
		p.log.WarnContext(ctx, "another capture of the pipeline has a different TABLES: a standby does not take over from one with another list, so give both the same",
			"instance", m.Instance, "its_tables", m.Capture.Configured, "tables", p.env.Tables.String())
	}
}

// announce tells the others what this process is at. Nothing depends on it but what
// people see, so a failure is only logged, once.
func (p *pipeline) announce(ctx context.Context, s *stages) error {
	name := memberPrefix + p.env.Instance
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = s.bus.Withdraw(bounded, name) // Its time runs out anyway.
	}()
	ticker := time.NewTicker(announceEvery)
	defer ticker.Stop()
	failing := false
	for {
		value, err := json.Marshal(p.self(ctx, s))
		if err != nil {
			return fmt.Errorf("encode the announcement: %w", err)
		}
		err = s.bus.Announce(ctx, name, value)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !failing {
			p.log.WarnContext(ctx, "status is not told to the other processes", "err", err)
		}
		failing = err != nil
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// self is what this process tells about itself.
func (p *pipeline) self(ctx context.Context, s *stages) member {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	m := member{Instance: p.env.Instance, Host: host, PID: os.Getpid(), Version: version(), Started: p.started}
	p.mu.Lock()
	m.Draining = p.state == api.StateDraining
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if s.capture != nil {
		m.Capture = s.capture.view(ctx)
	}
	if s.apply != nil {
		m.Apply = s.apply.view()
	}
	return m
}
