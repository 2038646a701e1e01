package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

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

// loadDesired reads what was asked for before the restart.
func loadDesired(ctx context.Context, b bucket) (d desired, revision uint64, err error) {
	value, revision, err := b.LoadState(ctx)
	if err != nil || len(value) == 0 {
		return d, revision, err
	}
	if err := json.Unmarshal(value, &d); err != nil {
		return d, revision, fmt.Errorf("decode the control state: %w", err)
	}
	return d, revision, nil
}

// apply changes the configuration as desired.
func (d *desired) apply(c *config.Config) error {
	c.FlushSize = effective(d.FlushSize, c.FlushSize)
	c.FlushInterval = effective(d.FlushInterval, c.FlushInterval)
	env := tableList(c.Tables)
	tables := effective(d.Tables, env)
	if tables == env {
		return nil
	}
	list, err := config.ParseTables(tables)
	if err != nil {
		return fmt.Errorf("read the list of tables that was set over the API: %w", err)
	}
	c.Tables = list
	return nil
}

// tableList prints tables as TABLES takes them.
func tableList(tables []config.Table) string {
	return strings.Join(tableNames(tables), ",")
}

func tableNames(tables []config.Table) []string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.String()
	}
	return names
}
