package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/roster"
	"github.com/dbmazz/dbmazz/internal/config"
)

// listenDefault is where the server inside dbmazz capture listens.
const listenDefault = "127.0.0.1:4222"

// busConfig says where the queue is for a command that runs the given parts: in this
// process for one that captures, at BUS_URL, or in the process that has the folder open.
func busConfig(c config.Config, parts config.Parts, log *slog.Logger) bus.Config {
	out := bus.Config{
		Pipeline: c.SlotName, MaxBytes: c.BusMaxBytes, Retention: c.BusRetention, Logger: log,
		Existing: parts&config.Capture == 0,
	}
	if c.BusURL != "" {
		out.URL, out.Replicas = c.BusURL, c.BusReplicas
		out.Auth = bus.Auth{NKeyFile: c.BusNKeyFile, CredsFile: c.BusCredsFile, User: c.BusUser, Password: c.BusPassword.Reveal()}
		out.TLS = bus.TLSFiles{CAFile: c.BusTLSCAFile, CertFile: c.BusTLSCertFile, KeyFile: c.BusTLSKeyFile}
		return out
	}
	out.DataDir = c.BusDataDir
	if c.MemoryLimit > 0 {
		out.MemoryUse, out.KeepBytes = useOf(c.MemoryLimit), c.MemoryLimit
	}
	if parts&config.Capture == 0 {
		out.Attach = true
		return out
	}
	out.Listen = c.BusListen
	switch {
	case out.Listen == config.BusOff:
		out.Listen = ""
	case out.Listen == "" && parts == config.Capture:
		out.Listen = listenDefault
	}
	if out.Listen != "" {
		out.ListenTLS = bus.TLSFiles{CertFile: c.BusTLSCertFile, KeyFile: c.BusTLSKeyFile}
	}
	return out
}

// openQueue opens the queue. What is only away is waited for, and the status says so; what
// needs an operator ends the process.
func (p *pipeline) openQueue(ctx context.Context) (*bus.Bus, error) {
	detail := api.DetailLoadingCheckpoint
	if p.parts == config.Apply || p.env.BusURL != "" {
		detail = "Connecting to the queue"
	}
	p.at(detail, nil)
	last := ""
	for {
		b, err := bus.New(busConfig(p.env, p.parts, p.log))
		if err != nil {
			return nil, fmt.Errorf("set up the queue: %w", err)
		}
		err = b.Open(ctx)
		if err == nil {
			return b, nil
		}
		err = fmt.Errorf("open the queue: %w", err)
		switch {
		case !p.waitsFor(err):
			return nil, err
		case ctx.Err() != nil:
			return nil, ctx.Err() // It would have been waited for.
		}
		if text := err.Error(); text != last {
			p.log.WarnContext(ctx, "queue is not there yet, trying again", "err", err)
			last = text
		}
		p.at(detail, err)
		pause(ctx, time.Second)
	}
}

// watched watches a key of a queue that was open a moment ago. One that does not answer is
// waited for: only a bus that is closed, or ctx, is the end.
func watched(ctx context.Context, b *bus.Bus, key string) (<-chan bus.Entry, error) {
	for {
		entries, err := b.Watch(ctx, key)
		if err == nil || ctx.Err() != nil || errors.Is(err, bus.ErrClosed) {
			return entries, err
		}
		pause(ctx, time.Second)
	}
}

// waitsFor tells whether the queue may come by itself: another process has it, and that
// process or the way to it is away.
func (p *pipeline) waitsFor(err error) bool {
	if p.env.BusURL == "" && p.parts&config.Capture != 0 {
		return false
	}
	_, lost := errors.AsType[*bus.StreamLostError](err)
	return !lost
}

// ownerPrefix begins the name, in a lease, of a process that has the folder of the queue
// open. The lock on the folder tells that another one with such a name is gone.
const ownerPrefix = "owner/"

// role makes a role of this process. Apply always has a lease, since the queue lets other
// processes in; capture has none where the lock on the folder does the same.
func (p *pipeline) role(b *bus.Bus, name string) *role {
	r := &role{name: name, log: p.log}
	owner := p.env.BusURL == "" && p.parts&config.Capture != 0
	if owner && name == roleCapture {
		return r
	}
	c := roster.Config{Store: b.Leases(), Key: leaseKey(name), Member: p.env.Instance, Logger: p.log}
	if owner {
		c.Member = ownerPrefix + p.env.Instance
		c.Dead = func(member string) bool { return strings.HasPrefix(member, ownerPrefix) }
	}
	r.lease = roster.New(c)
	return r
}

// leaseKey names the lease of a stage.
func leaseKey(role string) string { return "leader." + role }

// leader is the process that this one waits for, empty when there is none.
func (r *role) leader() string {
	if r.lease == nil {
		return ""
	}
	return strings.TrimPrefix(r.lease.Holder().Member, ownerPrefix)
}

// randomText returns random letters and digits.
func randomText(n int) string { return strings.ToLower(rand.Text()[:n]) }
