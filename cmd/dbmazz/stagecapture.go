package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/api"
	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/config"
)

// captureStage is capture as far as this process has to do with it.
type captureStage struct {
	role     *role
	env      config.Config
	log      *slog.Logger
	bus      *bus.Bus
	control  *control
	progress *progress
	// drain is called once everything is copied that SNAPSHOT=only asks for.
	drain func(context.Context) error

	mu     sync.Mutex
	work   *capture.Capture // nil while another process leads
	stream *captureStream

	enforcing sync.Mutex // keeps the order of what is enforced
}

// term captures while this process leads the stage: with the list of tables and the
// checkpoint as they are stored now.
func (s *captureStage) term(ctx context.Context) error {
	d, err := s.control.load(ctx)
	if err != nil {
		return err
	}
	tables, err := d.tables(s.env.Tables)
	if err != nil {
		return err
	}
	if err := s.progress.load(ctx, s.bus); err != nil {
		return err
	}
	stream := newCaptureStream(s.bus)
	if _, err := stream.Tail(ctx); err != nil { // Lets the status count what is queued.
		return err
	}
	spool, err := s.spoolDir()
	if err != nil {
		return err
	}
	selection := captureSelection(tables)
	work, err := capture.New(capture.Config{
		SourceURL: s.env.SourceURL.Reveal(), Slot: s.env.SlotName, Publication: s.env.PublicationName,
		Target: targetName(s.env.SinkTableName),
		Tables: selection.Tables, Patterns: selection.Patterns, Except: selection.Except, TablesInterval: s.env.TablesInterval, Leaves: s.env.Partitions == config.PartitionsLeaf, Logger: s.log, Instance: s.env.Instance,
		Streaming: s.env.SourceStreaming, SpoolDir: spool, Heartbeat: s.env.SourceHeartbeat,
		Snapshot: capture.SnapshotMode(s.env.Snapshot), SnapshotWorkers: s.env.SnapshotWorkers,
		SnapshotChunkRows: s.env.SnapshotChunkRows, SnapshotRate: s.env.SnapshotRate,
		SnapshotBacklog: snapshotBacklog(s.env.BusMaxBytes), FrameBytes: frameBytes(s.env.BusMaxBytes),
		SnapshotStore: bucket{s.bus, keyCopy}, Reached: bucket{s.bus, keyApply}.reached,
		Takeover: s.role.lease != nil, Fence: s.role.fence,
	}, stream, s.progress)
	if err != nil {
		return fmt.Errorf("set up capture: %w", err)
	}
	s.set(work, stream)
	defer s.set(nil, nil)
	s.enforce()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.bus.RunJanitor(ctx, func() uint64 { return s.acknowledged(ctx) }) })
	group.Go(func() error { return work.Run(ctx) })
	if s.env.Snapshot == config.SnapshotOnly {
		group.Go(func() error { s.endCopied(ctx, work); return nil })
	}
	return group.Wait()
}

// spoolDir returns the folder for transactions that have not committed.
func (s *captureStage) spoolDir() (string, error) {
	dir := s.env.SpoolDir
	switch {
	case dir != "":
	case s.env.BusURL == "":
		dir = filepath.Join(s.env.BusDataDir, "spool")
	default:
		return os.TempDir(), nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("create SPOOL_DIR: %w", err)
	}
	return dir, nil
}

func (s *captureStage) set(work *capture.Capture, stream *captureStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work, s.stream = work, stream
}

func (s *captureStage) now() (*capture.Capture, *captureStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.work, s.stream
}

// acknowledged returns the sequence up to which the janitor may purge.
func (s *captureStage) acknowledged(ctx context.Context) uint64 {
	checkpoint, ok := s.progress.Checkpoint()
	if !ok || checkpoint.Epoch != s.bus.Epoch() {
		return 0
	}
	held, isHeld := s.bus.Held() //nolint:contextcheck // What it starts lives as long as the bus.
	if !isHeld {
		held = math.MaxUint64
	}
	return purgeable(checkpoint, held, func(sequence uint64) (cdc.Position, error) {
		mark, err := s.bus.MarkAt(ctx, sequence)
		return mark.Last, err
	}, func(position cdc.Position) (uint64, error) { return s.bus.Locate(ctx, position) })
}

// purgeable returns the sequence up to which messages may go: everything is in the sink,
// and no replay has yet to read it. The position of the checkpoint decides: when the end of
// the stream was lost and published again, its sequence may be that of changes which are
// not applied. last returns the position of the last change of the frame that a sequence
// belongs to, locate the sequence behind which all frames are that end at or after a
// position.
func purgeable(
	c cdc.Checkpoint, held uint64, last func(uint64) (cdc.Position, error), locate func(cdc.Position) (uint64, error),
) uint64 {
	if c.Sequence == 0 {
		return 0
	}
	applied := c.Sequence
	if end, err := last(applied); err != nil || end.After(c.Position) {
		located, err := locate(c.Position)
		if err != nil {
			return 0 // Nothing is lost by purging later.
		}
		applied = min(applied, located)
	}
	return min(applied, held)
}

// captureView is what the other processes know of a capture.
type captureView struct {
	Active bool           `json:"active,omitempty"`
	Status capture.Status `json:"status,omitzero"`
	// Head is the end of the server's log, Waiting what the publisher waits for,
	// Total how many changes of the epoch are stored.
	Head    cdc.LSN  `json:"head,omitempty"`
	Waiting string   `json:"waiting,omitempty"`
	Total   uint64   `json:"total,omitempty"`
	Tables  []string `json:"tables,omitempty"`
	// Leader is whom this process waits for.
	Leader string `json:"leader,omitempty"`
	// Configured is TABLES of the process.
	Configured string `json:"configured,omitempty"`
	// Failed tells that the process has given the stage away lately, since it did
	// not get on.
	Failed bool `json:"failed,omitempty"`
	// Refuses tells that the process would not take over.
	Refuses bool `json:"refuses,omitempty"`
}

// health is how capturing goes.
func (s *captureStage) health() health {
	work, _ := s.now()
	if work == nil {
		return health{}
	}
	status := work.Status()
	return health{works: status.State == capture.StateStreaming, problem: status.LastError}
}

// view shows the stage as this process sees it.
func (s *captureStage) view(ctx context.Context) *captureView {
	work, stream := s.now()
	if work == nil {
		return &captureView{Leader: s.role.leader(), Configured: s.env.Tables.String(), Failed: s.role.failedLately(), Refuses: s.role.refuse != nil && s.role.refuse() != nil}
	}
	v := &captureView{Active: true, Configured: s.env.Tables.String(), Status: work.Status(), Waiting: stream.waiting(), Total: stream.stored(), Tables: tableNames(work.Tables())}
	head, err := work.WALHead(ctx)
	if err != nil {
		head = v.Status.ServerEnd // What the server said last is the best that is known.
	}
	v.Head = head
	return v
}

// setTables adds tables first, and keeps the list then: one that the source refuses is not
// kept, and a table that is removed is captured until the list without it is kept.
func (s *captureStage) setTables(ctx context.Context, names []string) error {
	selected, err := config.ParseSelection(names...)
	if err != nil {
		return &api.InvalidError{Field: "tables", Problem: err.Error()}
	}
	work, _ := s.now()
	if work == nil {
		return errStarting
	}
	err = work.SetTables(ctx, captureSelection(selected), func(ctx context.Context) error {
		return s.control.edit(ctx, func(d *desired) { d.Tables = &override[string]{selected.String(), s.env.Tables.String()} })
	})
	if err != nil {
		return fmt.Errorf("change the tables: %w", err)
	}
	return nil
}

// snapshotBacklog is how many bytes of existing rows may wait in a queue of that size. A
// quarter leaves room for changes.
func snapshotBacklog(queueBytes int64) int {
	const most = 256 << 20
	if queueBytes <= 0 {
		return most
	}
	return int(min(most, max(queueBytes/4, 1)))
}

// frameBytes bounds the frames of a queue of that size, which takes none that is more than a
// quarter of it. Zero is as large as they ever are. A frame has a record more than its bound.
func frameBytes(queueBytes int64) int {
	const largest, share = 1 << 20, 16
	if queueBytes/share >= largest {
		return 0
	}
	return int(queueBytes / share)
}

// enforce makes the settings of the copy of existing rows count, as they were last heard
// of.
func (s *captureStage) enforce() {
	s.enforcing.Lock()
	defer s.enforcing.Unlock()
	work, _ := s.now()
	if work == nil {
		return
	}
	d := s.control.get()
	rate := effective(d.SnapshotRate, s.env.SnapshotRate)
	if rate == 0 {
		rate = -1
	}
	work.SetSnapshot(capture.SnapshotSettings{
		Workers: effective(d.SnapshotWorkers, s.env.SnapshotWorkers), ChunkRows: effective(d.SnapshotChunkRows, s.env.SnapshotChunkRows), Rate: rate,
	})
}

// reload changes the settings of the copy of existing rows, durably.
func (s *captureStage) reload(ctx context.Context, r api.Reload) error {
	err := s.control.edit(ctx, func(d *desired) {
		if r.SnapshotWorkers > 0 {
			d.SnapshotWorkers = &override[int]{int(r.SnapshotWorkers), s.env.SnapshotWorkers}
		}
		if r.SnapshotChunkRows > 0 {
			d.SnapshotChunkRows = &override[int]{int(r.SnapshotChunkRows), s.env.SnapshotChunkRows} //nolint:gosec // Bounded by the API.
		}
		if r.SnapshotRate != nil {
			d.SnapshotRate = &override[int]{int(*r.SnapshotRate), s.env.SnapshotRate} //nolint:gosec // Bounded by the API.
		}
	})
	if err != nil {
		return err
	}
	s.enforce()
	return nil
}

// endCopied drains the pipeline once all that there is to copy is in the queue, unless it
// is paused. A process that is killed in between finds everything copied when it starts
// again, and drains.
func (s *captureStage) endCopied(ctx context.Context, work *capture.Capture) {
	for ctx.Err() == nil {
		pause(ctx, 100*time.Millisecond)
		if now := work.Status(); now.State != capture.StateStreaming || !now.Snapshot.Done || s.control.get().Paused {
			continue
		}
		err := s.drain(ctx)
		if err == nil {
			return
		}
		if _, other := errors.AsType[*api.StateError](err); !other {
			s.log.WarnContext(ctx, "everything is copied, and the pipeline cannot be drained yet", "err", err)
		}
		pause(ctx, time.Second)
	}
}

// snapshot does what is asked about the copy of existing rows.
func (s *captureStage) snapshot(ctx context.Context, r request) error {
	work, _ := s.now()
	if work == nil {
		return errStarting
	}
	switch r.Verb {
	case verbHoldCopy:
		return work.PauseSnapshot(ctx)
	case verbGoOnCopy:
		return work.ResumeSnapshot(ctx)
	}
	list, err := config.ParseTables(r.Reload.Tables...)
	if err != nil {
		return &api.InvalidError{Field: "tables", Problem: err.Error()}
	}
	return work.StartSnapshot(ctx, captureTables(list))
}

// errStarting is the answer of a stage that has not begun yet.
var errStarting = errors.New("the stage is starting: try again in a moment")

func captureTables(tables []config.Table) []capture.Table {
	out := make([]capture.Table, len(tables))
	for i, t := range tables {
		out[i] = capture.Table{Schema: t.Schema, Name: t.Name}
	}
	return out
}

func captureSelection(s config.Selection) capture.Selection {
	out := capture.Selection{Tables: captureTables(s.Tables)}
	for _, p := range s.Patterns {
		out.Patterns = append(out.Patterns, p)
	}
	for _, p := range s.Except {
		out.Except = append(out.Except, p)
	}
	return out
}

// tableNames prints tables as TABLES takes them.
func tableNames(tables []capture.Table) []string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = config.Table{Schema: t.Schema, Name: t.Name}.String()
	}
	return names
}

// targetName names tables as the sink does. A capture in a process of its own knows that
// only if SINK_TABLE_NAME is set there too; the sink looks again.
func targetName(template string) func(capture.Table) string {
	name := starrocks.TemplateTableName(template)
	return func(t capture.Table) string { return name(&cdc.Schema{Namespace: t.Schema, Table: t.Name}) }
}
