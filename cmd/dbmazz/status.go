package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/config"
)

// askTimeout bounds each question that the status asks outside the process.
const askTimeout = 500 * time.Millisecond

// seen is what is known of a stage and where it comes from.
type seen struct {
	known    bool   // some process works at the stage, or did
	here     bool   // this process does
	waits    bool   // this process would, if no other did
	trouble  string // what keeps it from that
	instance string
	contact
}

func (s *seen) silent() bool { return !s.here && s.contact.silent() }

// view is both stages, in whichever process they run.
type view struct {
	capture struct {
		seen
		captureView
	}
	apply struct {
		seen
		applyView
	}
	processes []api.Process
}

// picture collects what this process and the others say.
func (p *pipeline) picture(ctx context.Context, s *stages) view {
	var v view
	add := func(m member, from seen) {
		silent := from.silent()
		process := api.Process{
			Instance: m.Instance, Host: m.Host, PID: m.PID, Version: m.Version, Started: m.Started, Heard: from.heard, Silent: silent,
		}
		if m.Capture != nil {
			process.Capture = standing(m.Capture.Active)
			if m.works(roleCapture) && (!v.capture.known || (v.capture.silent() && !silent)) {
				v.capture.seen, v.capture.captureView = from, *m.Capture
			}
		}
		if m.Apply != nil {
			process.Apply = standing(m.Apply.Active)
			if m.works(roleApply) && (!v.apply.known || (v.apply.silent() && !silent)) {
				v.apply.seen, v.apply.applyView = from, *m.Apply
			}
		}
		if !from.gone {
			v.processes = append(v.processes, process)
		}
	}
	self := p.self(ctx, s)
	add(self, seen{known: true, here: true, instance: self.Instance, contact: contact{heard: time.Now()}})
	for _, n := range s.company.list() {
		add(n.member, seen{known: true, instance: n.Instance, contact: n.contact})
	}
	if self.Capture != nil && !self.Capture.Active {
		v.capture.waits, v.capture.trouble = true, s.capture.role.trouble()
	}
	if self.Apply != nil && !self.Apply.Active {
		v.apply.waits, v.apply.trouble = true, s.apply.role.trouble()
	}
	return v
}

func standing(active bool) string {
	if active {
		return "active"
	}
	return "standby"
}

// Status combines what both stages and the queue say.
func (p *pipeline) Status(ctx context.Context) api.Status {
	p.mu.Lock()
	s := p.stages
	out := api.Status{
		State: p.stateNow(), Stage: api.StageInit, StageDetail: p.starting, ErrorDetail: p.problem,
		SourceType: p.env.SourceType, SinkType: p.env.SinkType,
		SlotName: p.env.SlotName, PublicationName: p.env.PublicationName,
		FlushBytes: uint64(p.env.FlushBytes), MemoryLimit: uint64(p.env.MemoryLimit), StartedAt: p.started, //nolint:gosec // Not negative.
	}
	p.mu.Unlock()
	if s == nil {
		out.Settings = p.settings(view{}, api.Reload{})
		out.Capture.State, out.Apply.State = api.WorkStarting, api.WorkStarting
		host, _ := os.Hostname() // For people only.
		out.Processes = []api.Process{{Instance: p.env.Instance, Host: host, PID: os.Getpid(), Version: version(), Started: p.started, Heard: time.Now()}}
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	v := p.picture(ctx, s)
	c, a := &v.capture.Status, &v.apply.Status
	out.PausedSince = s.control.get().PausedSince
	out.Settings, out.Processes = p.settings(v, api.Reload{}), v.processes
	s.positions(ctx, &out, &v)
	out.Snapshot = copying(c.Snapshot)
	out.Capture = v.capture.place(roleCapture, captureWork(v.capture.Waiting, c))
	out.Apply = v.apply.place(roleApply, applyWork(a))
	out.Stage, out.StageDetail = stage(out, &v)
	if out.State == api.StateDraining && out.Apply.State == api.WorkRunning {
		out.Apply.State = api.WorkDraining
	}
	out.Counters = api.Counters{
		RowsCaptured: c.Rows + c.Truncates, TransactionsCaptured: c.Transactions, BytesCaptured: c.Bytes,
		RowsApplied: a.Changes, BytesApplied: a.Bytes, BatchesApplied: a.Batches, LoadsRetried: a.Retries, LoadsFailed: a.Failures, ValuesNulled: a.Nulled,
	}
	return out
}

// place adds where the work is done, and says so when nothing is heard from there.
func (s *seen) place(name string, w api.Work) api.Work {
	switch {
	case s.known && !s.silent():
		w.Instance, w.Heard = s.instance, s.heard
		return w
	case s.waits && s.trouble != "":
		return api.Work{
			State: api.WorkRetrying, Detail: "waiting for the lease of the stage", Error: s.trouble, Instance: s.instance, Heard: s.heard,
		}
	case s.waits:
		return api.Work{State: api.WorkStandby, Detail: "waiting for the lease of the process that did the work", Instance: s.instance, Heard: s.heard}
	case !s.known:
		return api.Work{
			State: api.WorkSilent, Detail: "no " + name + " process is there",
			Error: fmt.Sprintf("no %s process is connected to the queue: start dbmazz %s", name, name),
		}
	}
	age := time.Since(s.heard).Round(time.Second)
	w.Instance, w.Heard, w.State = s.instance, s.heard, api.WorkSilent
	w.Detail = fmt.Sprintf("not heard of for %s; what is shown is from then", age)
	w.Error = fmt.Sprintf("process %s, which does the work, has not been heard of for %s: look whether it runs and reaches the queue", s.instance, age)
	if s.gone {
		w.Detail = fmt.Sprintf("ended %s ago; what is shown is from then", age)
		w.Error = fmt.Sprintf("process %s has ended and no other does the work: start dbmazz %s", s.instance, name)
	}
	return w
}

// positions fills in how far both stages are, and the queue between them.
func (s *stages) positions(ctx context.Context, out *api.Status, v *view) {
	c, a := &v.capture.Status, &v.apply.Status
	checkpoint, _ := s.progress.Checkpoint()
	out.ServerLSN, out.ReceivedLSN, out.ConfirmedLSN = uint64(max(v.capture.Head, c.Received)), uint64(c.Received), uint64(c.Confirmed)
	if !c.Published.IsZero() {
		out.CapturedPosition = c.Published.String()
	}
	if !checkpoint.Position.IsZero() {
		out.AppliedPosition = checkpoint.Position.String()
	}
	out.LagP50, out.LagP99 = a.P50, a.P99
	if !a.OldestCommit.IsZero() {
		out.Lag = max(0, time.Since(a.OldestCommit))
	}
	if info, err := s.bus.Info(ctx); err == nil {
		out.Queue = queue(info, s.progress.sequence(s.bus.Epoch()))
	}
	if out.Queue.PendingMessages > 0 && !a.OldestCommit.IsZero() {
		out.Queue.OldestAge = max(0, time.Since(a.OldestCommit))
	}
	if v.capture.Total > checkpoint.Total {
		out.Queue.PendingRows = v.capture.Total - checkpoint.Total
	}
	if n, err := s.letters.Count(ctx); err == nil {
		out.DeadLetters = n
	}
}

func queue(i bus.Info, applied uint64) api.Queue {
	q := api.Queue{
		Messages: i.Messages, Bytes: i.Bytes, BytesMax: uint64(max(i.MaxBytes, 0)), //nolint:gosec // Not negative.
		FirstSequence: i.FirstSequence, LastSequence: i.LastSequence, AckedSequence: applied,
	}
	if i.LastSequence > applied {
		q.PendingMessages = min(i.LastSequence-applied, i.Messages)
	}
	if i.Messages > 0 {
		q.PendingBytes = i.Bytes / i.Messages * q.PendingMessages
	}
	return q
}

func captureWork(waiting string, c *capture.Status) api.Work {
	w := api.Work{
		Detail: c.Detail, Error: c.LastError, LastActivity: c.LastActivity, Restarts: uint64(max(c.Restarts, 0)), //nolint:gosec // Not negative.
	}
	switch c.State {
	case capture.StateStreaming:
		w.State = api.WorkRunning
		switch {
		case waiting != "":
			w.Detail = waiting
		case c.Warning != "":
			w.Detail = c.Warning
		case c.TablesWarning != "":
			w.Detail = c.TablesWarning
		case len(c.LeftOut) == 1:
			w.Detail = fmt.Sprintf("left out: %s: %s", c.LeftOut[0].Name, c.LeftOut[0].Reason)
		case len(c.LeftOut) > 1:
			w.Detail = fmt.Sprintf("left out: %s: %s; and %d more, see the log", c.LeftOut[0].Name, c.LeftOut[0].Reason, len(c.LeftOut)-1)
		case c.Streaming.Problem != "":
			w.Detail = fmt.Sprintf("large transactions are received after their commit until %s: %s",
				c.Streaming.Until.UTC().Format(time.RFC3339), c.Streaming.Problem)
		}
	case capture.StateWaiting:
		w.State = api.WorkRetrying
		if c.Refused {
			w.State = api.WorkFailed
		}
	case capture.StateSetup, capture.StateConnecting, capture.StateIdle:
		w.State = api.WorkStarting
	}
	return w
}

func applyWork(a *apply.Status) api.Work {
	w := api.Work{
		Detail: a.Detail, Error: a.Err, LastActivity: a.LastBatch, Since: a.Since, Restarts: uint64(max(a.Restarts, 0)), //nolint:gosec // Not negative.
	}
	switch a.State {
	case apply.Starting, apply.Connecting:
		w.State = api.WorkStarting
	case apply.Applying:
		w.State = api.WorkRunning
	case apply.Paused:
		w.State = api.WorkPaused
	case apply.Failing:
		w.State = api.WorkRetrying
	case apply.Stopped:
		w.State = api.WorkStopped
	}
	return w
}

// stage says in the words of the contract what the pipeline is at.
func stage(s api.Status, v *view) (api.Stage, string) {
	c, a := &v.capture.Status, &v.apply.Status
	switch {
	case s.State == api.StateStopped:
		return api.StageCDC, "Stopped"
	case !v.capture.known:
		return api.StageSetup, api.DetailConnectingSource
	case c.Setup && c.LastError != "":
		return api.StageSetup, api.DetailSetupFailed
	case c.State == capture.StateSetup:
		return api.StageSetup, api.DetailSetup
	case c.State == capture.StateConnecting:
		return api.StageSetup, api.DetailStartingReplication
	case c.State == capture.StateWaiting || c.State == capture.StateIdle:
		return api.StageSetup, api.DetailConnectingSource
	case !v.apply.known || !a.Ready:
		return api.StageSetup, api.DetailConnectingSink
	}
	switch {
	case !s.Snapshot.Active:
		return api.StageCDC, api.DetailReplicating
	case s.Snapshot.Paused:
		return api.StageSnapshot, api.DetailCopyPaused
	case s.Snapshot.Detail != "":
		return api.StageSnapshot, api.DetailCopying + "; waiting: " + s.Snapshot.Detail
	}
	return api.StageSnapshot, api.DetailCopying
}

// copying shows the copying of existing rows.
func copying(s capture.SnapshotStatus) api.Snapshot {
	out := api.Snapshot{Active: s.Active, Paused: s.Paused, Detail: s.Detail}
	for i := range s.Tables {
		t := &s.Tables[i]
		out.Tables = append(out.Tables, api.TableSnapshot{
			Table: config.Table{Schema: t.Table.Schema, Name: t.Table.Name}.String(), State: string(t.State), ChunksTotal: t.ChunksEstimated, ChunksDone: t.ChunksDone,
			Rows: t.RowsDone, RowsEstimated: t.RowsEstimated, Bytes: t.BytesDone, RowsPerSecond: t.RowsPerSecond,
			Waiting: t.Waiting, Error: t.Error, Started: t.Started, Finished: t.Finished,
		})
	}
	return out
}
