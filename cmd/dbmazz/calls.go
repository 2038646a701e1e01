package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// What one process of a pipeline asks another to do.
const (
	verbPause     = "pause"      // apply: write nothing more to the sink
	verbResume    = "resume"     // apply: go on
	verbReload    = "reload"     // apply: settings of batches
	verbApplyUpTo = "apply_to"   // apply: everything up to the tail, at once
	verbHold      = "hold"       // apply: begin no batch for a while
	verbPing      = "ping"       // apply: is it there
	verbRelease   = "release"    // apply: go on after a hold
	verbTables    = "tables"     // capture: which tables
	verbSnapshot  = "snapshot"   // capture: copy existing rows
	verbCopying   = "copying"    // capture: settings of the copy
	verbHoldCopy  = "hold_copy"  // capture: hold the copy
	verbGoOnCopy  = "go_on_copy" // capture: go on with the copy
	verbDrain     = "drain"      // capture: see the drain through
	verbStop      = "stop"       // everybody: end
)

// request is a call between processes.
type request struct {
	Verb   string        `json:"verb"`
	Reload api.Reload    `json:"reload,omitzero"`
	Tail   cdc.Tail      `json:"tail,omitzero"`
	For    time.Duration `json:"for,omitempty"`
	From   string        `json:"from,omitempty"`
}

// reply is the answer; Error is empty when the call was carried out.
type reply struct {
	Error string `json:"error,omitempty"`
	// Field is the argument that is wrong.
	Field string `json:"field,omitempty"`
}

func replyTo(err error) []byte {
	var r reply
	if invalid, ok := errors.AsType[*api.InvalidError](err); ok {
		r = reply{Error: invalid.Problem, Field: invalid.Field}
	} else if err != nil {
		r.Error = err.Error()
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil // Strings always encode.
	}
	return data
}

func (r reply) err() error {
	switch {
	case r.Error == "":
		return nil
	case r.Field != "":
		return &api.InvalidError{Field: r.Field, Problem: r.Error}
	}
	return errors.New(r.Error)
}

// callTimeout bounds what a process does for another.
const callTimeout = 2 * time.Minute

// answerCalls serves what other processes ask of this one, until ctx is done.
func (p *pipeline) answerCalls(ctx context.Context, s *stages) error {
	return s.bus.Serve(ctx, memberPrefix+p.env.Instance, func(ctx context.Context, data []byte) []byte {
		var r request
		if err := json.Unmarshal(data, &r); err != nil {
			return replyTo(fmt.Errorf("read the call: %w", err))
		}
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return replyTo(p.answer(ctx, s, r))
	})
}

// answer does what another process, or this one, asks for.
func (p *pipeline) answer(ctx context.Context, s *stages, r request) error {
	switch r.Verb {
	case verbStop:
		p.setState(api.StateStopped)
		go p.leave(context.WithoutCancel(ctx), s)
		return nil
	case verbTables, verbDrain, verbSnapshot, verbCopying, verbHoldCopy, verbGoOnCopy:
		if s.capture == nil || !s.capture.role.leads() {
			return errStarting
		}
		switch r.Verb {
		case verbTables:
			return s.capture.setTables(ctx, r.Reload.Tables)
		case verbDrain:
			return p.beginDrain(ctx, s)
		case verbCopying:
			return s.capture.reload(ctx, r.Reload)
		}
		return s.capture.snapshot(ctx, r)
	}
	if s.apply == nil || !s.apply.role.leads() {
		return errStarting
	}
	switch r.Verb {
	case verbPause:
		return s.apply.pause(ctx)
	case verbResume:
		return s.apply.resume(ctx)
	case verbReload:
		return s.apply.reload(ctx, r.Reload)
	case verbApplyUpTo:
		return s.apply.drain(ctx, r.Tail)
	case verbHold, verbRelease:
		return s.apply.hold(ctx, r.From, r.For)
	case verbPing:
		return nil
	}
	return fmt.Errorf("%q is not a call that this version knows", r.Verb)
}

// ask has a stage do something, in whichever process leads it. The error wraps
// bus.ErrNobody if no process does.
func (p *pipeline) ask(ctx context.Context, s *stages, role string, r request) error {
	if (role == roleCapture && s.capture != nil && s.capture.role.leads()) ||
		(role == roleApply && s.apply != nil && s.apply.role.leads()) {
		return p.answer(ctx, s, r)
	}
	leader, ok := s.company.leader(role)
	if !ok {
		return fmt.Errorf("no %s process is there: %w", role, bus.ErrNobody)
	}
	return call(ctx, s.bus, leader.Instance, r)
}

// call has one process do something.
func call(ctx context.Context, b *bus.Bus, instance string, r request) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the call: %w", err)
	}
	answer, err := b.Call(ctx, memberPrefix+instance, data)
	if err != nil {
		return fmt.Errorf("process %s: %w", instance, err)
	}
	var out reply
	if err := json.Unmarshal(answer, &out); err != nil {
		return fmt.Errorf("read the answer of process %s: %w", instance, err)
	}
	return out.err()
}

// stopOthers tells every other process that is there to end.
func (s *stages) stopOthers(ctx context.Context) error {
	var errs []error
	for _, n := range s.company.list() {
		if n.silent() {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		errs = append(errs, call(ctx, s.bus, n.Instance, request{Verb: verbStop}))
		cancel()
	}
	return errors.Join(errs...)
}
