package capture_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// patience is how long a test waits for what should happen at once.
const patience = 2 * time.Minute

// rig is a capture of one database into a stream in memory.
type rig struct {
	t      *testing.T
	db     *pgtest.DB
	cfg    capture.Config
	stream *capturetest.Stream
	c      *capture.Capture
	cancel context.CancelFunc
	done   chan error
}

func newRig(t *testing.T, db *pgtest.DB, tables ...string) *rig {
	t.Helper()
	r := &rig{t: t, db: db, stream: capturetest.New()}
	r.cfg = capture.Config{
		SourceURL: db.URL(), Slot: "slot_" + db.Name(), Publication: "Pub 'of' " + db.Name(),
		BackoffMin: 10 * time.Millisecond, BackoffMax: 200 * time.Millisecond, Streaming: true, SpoolDir: t.TempDir(),
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, name := range tables {
		r.cfg.Tables = append(r.cfg.Tables, table(name))
	}
	t.Cleanup(func() {
		r.stop()
		if err := r.stream.Err(); err != nil {
			t.Errorf("the stream was misused: %v", err)
		}
	})
	return r
}

// table reads schema.name; public is the default.
func table(name string) capture.Table {
	if schema, rest, ok := strings.Cut(name, "."); ok {
		return capture.Table{Schema: schema, Name: rest}
	}
	return capture.Table{Schema: "public", Name: name}
}

// start runs the capture until stop.
func (r *rig) start() {
	r.t.Helper()
	c, err := capture.New(r.cfg, r.stream, r.stream)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	r.c, r.cancel, r.done = c, cancel, make(chan error, 1)
	go func(done chan<- error) { done <- c.Run(ctx) }(r.done)
}

func (r *rig) stop() {
	r.t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("Run answers %v", err)
		}
	case <-time.After(patience):
		r.t.Fatal("Run does not return")
	}
	r.cancel = nil
}

// pause lets time pass: between two looks at what cannot be waited for, or as what is
// tested.
func pause(d time.Duration) { <-time.After(d) }

// startStreaming starts the capture and waits until it streams.
func (r *rig) startStreaming() {
	r.t.Helper()
	r.start()
	r.await("streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming })
}

// await polls the status.
func (r *rig) await(what string, ok func(capture.Status) bool) capture.Status {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		s := r.c.Status()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not %s in time, status %+v", what, s)
		}
		pause(time.Millisecond)
	}
}

// drain waits until everything committed is stored.
func (r *rig) drain() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	if err := r.c.Drain(ctx); err != nil {
		r.t.Fatalf("%v; status %+v", err, r.c.Status())
	}
}

// refused starts the capture and returns the error that keeps it from streaming.
func (r *rig) refused() capture.Status {
	r.t.Helper()
	r.start()
	s := r.await("refused", func(s capture.Status) bool { return s.LastError != "" || s.State == capture.StateStreaming })
	if s.State == capture.StateStreaming {
		r.t.Fatal("it streams")
	}
	return s
}

// want drains and compares the changes of the stream.
func (r *rig) want(changes ...string) {
	r.t.Helper()
	r.drain()
	if diff := cmp.Diff(changes, r.changes()); diff != "" {
		r.t.Fatalf("changes (-want +got):\n%s", diff)
	}
}

func (r *rig) records() []capturetest.Record {
	r.t.Helper()
	records, err := r.stream.Records()
	if err != nil {
		r.t.Fatal(err)
	}
	return records
}

// changes prints the changes of the stream and checks that their positions rise.
func (r *rig) changes() []string {
	r.t.Helper()
	var list []string
	var last cdc.Position
	for _, rec := range r.records() {
		if !rec.Kind.IsRow() && rec.Kind != cdc.KindTruncate {
			continue
		}
		if !rec.Position.After(last) {
			r.t.Fatalf("position %s after %s", rec.Position, last)
		}
		last = rec.Position
		list = append(list, printChange(&rec))
	}
	return list
}

func printChange(r *capturetest.Record) string {
	if r.Kind == cdc.KindTruncate {
		text := "truncate"
		for _, s := range r.Tables {
			text += " " + s.Name()
		}
		return fmt.Sprintf("%s flags %d", text, r.TruncateFlags)
	}
	text := r.Kind.String() + " " + r.Table.Name()
	switch r.OldKind {
	case cdc.OldNone:
	case cdc.OldKey:
		text += " key" + printTuple(r.Old)
	case cdc.OldFull:
		text += " old" + printTuple(r.Old)
	}
	if r.Kind != cdc.KindDelete {
		text += " " + printTuple(r.New)
	}
	return text
}

func printTuple(tuple cdc.Tuple) string {
	var values []string
	for {
		v, rest, ok := tuple.Next()
		if !ok {
			return "(" + strings.Join(values, ",") + ")"
		}
		switch {
		case v.Kind == cdc.Null:
			values = append(values, "~")
		case v.Kind == cdc.Unchanged:
			values = append(values, "=")
		case len(v.Bytes) > 100:
			values = append(values, fmt.Sprintf("%c*%d", v.Bytes[0], len(v.Bytes)))
		default:
			values = append(values, string(v.Bytes))
		}
		tuple = rest
	}
}
