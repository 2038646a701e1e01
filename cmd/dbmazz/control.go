package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/internal/config"
)

// desired is what was asked for over the API. It survives a restart. A setting counts
// as long as the environment says what it said when the setting was made: whoever
// changes the variable afterwards means the variable.
type desired struct {
	Paused      bool      `json:"paused,omitempty"`
	PausedSince time.Time `json:"paused_since,omitzero"`

	FlushSize     *override[int]           `json:"flush_size,omitempty"`
	FlushInterval *override[time.Duration] `json:"flush_interval,omitempty"`
	Tables        *override[string]        `json:"tables,omitempty"`

	SnapshotWorkers   *override[int] `json:"snapshot_workers,omitempty"`
	SnapshotChunkRows *override[int] `json:"snapshot_chunk_rows,omitempty"`
	SnapshotRate      *override[int] `json:"snapshot_rate,omitempty"`

	// Holds are the tools that apply waits for, by instance, and until when at most.
	Holds map[string]time.Time `json:"holds,omitempty"`
}

// held returns until when apply waits, zero if it does not.
func (d *desired) held(now time.Time) (until time.Time) {
	for _, end := range d.Holds {
		if end.After(now) && end.After(until) {
			until = end
		}
	}
	return until
}

// hold sets or ends the hold of a tool, and forgets those that are over.
func (d *desired) hold(owner string, until, now time.Time) {
	holds := map[string]time.Time{}
	for name, end := range d.Holds {
		if end.After(now) {
			holds[name] = end
		}
	}
	delete(holds, owner)
	if until.After(now) {
		holds[owner] = until
	}
	d.Holds = holds
}

// override is a setting and what the environment said when it was made.
type override[T comparable] struct {
	Value T `json:"value"`
	Over  T `json:"over"`
}

// effective returns the override, unless the environment has changed since.
func effective[T comparable](o *override[T], env T) T {
	if o != nil && o.Over == env {
		return o.Value
	}
	return env
}

// control is the desired state that all processes of a pipeline share.
type control struct {
	bucket

	mu       sync.Mutex
	desired  desired
	revision uint64
}

func newControl(b *bus.Bus) *control { return &control{bucket: bucket{b, keyControl}} }

// get returns the state as it was last heard of.
func (c *control) get() desired {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.desired
}

// take keeps a value unless a later one is known.
func (c *control) take(value []byte, revision uint64) (desired, error) {
	var d desired
	if len(value) > 0 {
		if err := json.Unmarshal(value, &d); err != nil {
			return d, fmt.Errorf("decode the control state: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if revision >= c.revision {
		c.desired, c.revision = d, revision
	}
	return d, nil
}

// load reads the state as it is stored now.
func (c *control) load(ctx context.Context) (desired, error) {
	value, revision, err := c.LoadState(ctx)
	if err != nil {
		return desired{}, fmt.Errorf("load the control state: %w", err)
	}
	return c.take(value, revision)
}

// edit changes the stored state, again if another process changes it meanwhile.
func (c *control) edit(ctx context.Context, change func(*desired)) error {
	for {
		value, revision, err := c.LoadState(ctx)
		if err != nil {
			return fmt.Errorf("load the control state: %w", err)
		}
		next, err := c.take(value, revision)
		if err != nil {
			return err
		}
		change(&next)
		if value, err = json.Marshal(&next); err != nil {
			return fmt.Errorf("encode the control state: %w", err)
		}
		revision, err = c.SaveState(ctx, value, revision)
		if errors.Is(err, bus.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("store the control state: %w", err)
		}
		_, err = c.take(value, revision)
		return err
	}
}

// follow tells whenever the state has changed, until ctx is done.
func (c *control) follow(ctx context.Context, changed func(context.Context)) error {
	entries, err := watched(ctx, c.bus, c.key)
	if err != nil {
		return fmt.Errorf("watch the control state: %w", err)
	}
	for entry := range entries {
		if _, err := c.take(entry.Value, entry.Revision); err != nil {
			return err
		}
		changed(ctx)
	}
	if ctx.Err() == nil {
		return errors.New("watch the control state: the bus is closed")
	}
	return nil
}

// tables returns the selection that counts where the environment says env.
func (d *desired) tables(env config.Selection) (config.Selection, error) {
	text := env.String()
	wanted := effective(d.Tables, text)
	if wanted == text {
		return env, nil
	}
	selected, err := config.ParseSelection(wanted)
	if err != nil {
		return config.Selection{}, fmt.Errorf("read the list of tables that was set over the API: %w", err)
	}
	return selected, nil
}
