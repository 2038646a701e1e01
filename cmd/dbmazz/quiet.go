package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/dbmazz/dbmazz/bus/roster"
)

const (
	// holdFor is how long live apply waits for a replay that asked it to; quietFor is
	// how much of that the replay uses, from before it asked. The rest is for a call of
	// the sink that is under way when the time is over.
	holdFor  = 90 * time.Second
	quietFor = 30 * time.Second
	// lookFor is how long a tool looks for the processes of the pipeline. They tell of
	// themselves at once when asked, from what is stored.
	lookFor = 1500 * time.Millisecond
)

// quiet makes live apply wait, wherever it runs. Where none runs it keeps one from
// beginning: by the lease, or because this process has the folder of the queue locked.
func (t *tool) quiet(ctx context.Context) (quiet context.Context, release func(), err error) {
	began := time.Now()
	instance, err := t.applying(ctx)
	switch {
	case err != nil:
		return nil, nil, err
	case instance != "":
		if err := call(ctx, t.bus, instance, request{Verb: verbHold, From: t.config.Instance, For: holdFor}); err != nil {
			return nil, nil, err
		}
		quiet, cancel := context.WithDeadline(context.WithoutCancel(ctx), began.Add(quietFor))
		check := func() error {
			if time.Since(began) > quietFor {
				return context.DeadlineExceeded
			}
			return nil
		}
		release := func() {
			cancel()
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_ = call(bounded, t.bus, instance, request{Verb: verbRelease, From: t.config.Instance}) // Its time runs out anyway.
		}
		return checkedContext{quiet, check}, release, nil
	}
	lease := roster.New(roster.Config{Store: t.bus.Leases(), Key: leaseKey(roleApply), Member: t.config.Instance, Logger: t.log})
	term, err := lease.Acquire(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("keep apply from starting meanwhile: %w", err)
	}
	quiet, cancel := term.Context(context.WithoutCancel(ctx))
	return checkedContext{quiet, term.Check}, func() {
		cancel()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = term.Release(bounded) // Its time runs out anyway.
	}, nil
}

// checkedContext is over as soon as a check says so. A timer says it only when its
// goroutine has run, which after the process was stopped may be too late.
type checkedContext struct {
	context.Context //nolint:containedctx // It is one itself.
	check           func() error
}

// Err asks the check first.
func (c checkedContext) Err() error {
	if err := c.check(); err != nil {
		return err
	}
	return c.Context.Err()
}

// applying returns the process that applies, empty if none does.
func (t *tool) applying(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookFor)
	defer cancel()
	news, err := t.bus.WatchBoard(ctx)
	if err != nil {
		return "", fmt.Errorf("look for the process that applies: %w", err)
	}
	found := ""
	for a := range news {
		name, ok := strings.CutPrefix(a.Name, memberPrefix)
		var m member
		if !ok || a.Gone || json.Unmarshal(a.Value, &m) != nil || !m.works(roleApply) {
			continue
		}
		// One that has died may still be on the board: ask.
		ask, cancel := context.WithTimeout(ctx, time.Second)
		err := call(ask, t.bus, name, request{Verb: verbPing})
		cancel()
		if err == nil {
			found = name
			break
		}
	}
	return found, nil
}
