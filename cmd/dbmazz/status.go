package main

import (
	"context"
	"math"
	"runtime/debug"
	"time"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/capture"
)

// askTimeout bounds each question that the status asks outside the process.
const askTimeout = 500 * time.Millisecond

// Status combines what both stages and the bus say.
func (p *pipeline) Status(ctx context.Context) api.Status {
	p.mu.Lock()
	s, starting := p.stages, p.starting
	out := api.Status{
		State: p.state, Stage: api.StageInit, StageDetail: starting,
		SourceType: p.env.SourceType, SinkType: p.env.SinkType,
		SlotName: p.env.SlotName, PublicationName: p.env.PublicationName,
		FlushBytes: uint64(p.env.FlushBytes), StartedAt: p.started, PausedSince: p.desired.PausedSince, //nolint:gosec // Positive.
	}
	p.mu.Unlock()
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		out.MemoryLimit = uint64(limit) //nolint:gosec // Positive.
	}
	out.Settings = p.settings(s)
	if s == nil {
		out.Capture.State, out.Apply.State = api.WorkStarting, api.WorkStarting
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, a := s.capture.Status(), s.apply.Status()
	s.positions(ctx, &out, c, a)
	out.Capture, out.Apply = captureWork(s, c), applyWork(a)
	out.Stage, out.StageDetail = stage(out, c, a)
	if out.State == api.StateDraining {
		out.Apply.State = draining(out.Apply.State)
	}
	out.Counters = api.Counters{
		RowsCaptured: c.Rows + c.Truncates, TransactionsCaptured: c.Transactions, BytesCaptured: c.Bytes,
		RowsApplied: a.Changes, BytesApplied: a.Bytes, BatchesApplied: a.Batches, LoadsRetried: a.Retries, LoadsFailed: a.Failures,
	}
	return out
}

// positions fills in how far both stages are, and the queue between them.
func (s *stages) positions(ctx context.Context, out *api.Status, c capture.Status, a apply.Status) {
	head, err := s.capture.WALHead(ctx)
	if err != nil {
		head = c.ServerEnd // What the server said last is the best that is known.
	}
	out.ServerLSN, out.ReceivedLSN, out.ConfirmedLSN = uint64(max(head, c.Received)), uint64(c.Received), uint64(c.Confirmed)
	if !c.Published.IsZero() {
		out.CapturedPosition = c.Published.String()
	}
	if !a.Checkpoint.Position.IsZero() {
		out.AppliedPosition = a.Checkpoint.Position.String()
	}
	out.LagP50, out.LagP99 = a.P50, a.P99
	if !a.OldestCommit.IsZero() {
		out.Lag = max(0, time.Since(a.OldestCommit))
	}
	if info, err := s.bus.Info(ctx); err == nil {
		out.Queue = queue(info, s.applied())
	}
	if out.Queue.PendingMessages > 0 && !a.OldestCommit.IsZero() {
		out.Queue.OldestAge = max(0, time.Since(a.OldestCommit))
	}
	if stored := s.stream.stored(); stored > a.Checkpoint.Total {
		out.Queue.PendingRows = stored - a.Checkpoint.Total
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

func captureWork(s *stages, c capture.Status) api.Work {
	w := api.Work{
		Detail: c.Detail, Error: c.LastError, LastActivity: c.LastActivity, Restarts: uint64(max(c.Restarts, 0)), //nolint:gosec // Not negative.
	}
	switch c.State {
	case capture.StateStreaming:
		w.State = api.WorkRunning
		if waiting := s.stream.waiting(); waiting != "" {
			w.Detail = waiting
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

func applyWork(a apply.Status) api.Work {
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

func draining(s api.WorkState) api.WorkState {
	if s == api.WorkRunning {
		return api.WorkDraining
	}
	return s
}

// stage says in the words of the contract what the pipeline is at.
func stage(s api.Status, c capture.Status, a apply.Status) (api.Stage, string) {
	switch {
	case s.State == api.StateStopped:
		return api.StageCDC, "Stopped"
	case c.Setup && c.LastError != "":
		return api.StageSetup, api.DetailSetupFailed
	case c.State == capture.StateSetup:
		return api.StageSetup, api.DetailSetup
	case c.State == capture.StateConnecting:
		return api.StageSetup, api.DetailStartingReplication
	case c.State == capture.StateWaiting || c.State == capture.StateIdle:
		return api.StageSetup, api.DetailConnectingSource
	case !a.Ready:
		return api.StageSetup, api.DetailConnectingSink
	}
	return api.StageCDC, api.DetailReplicating
}
