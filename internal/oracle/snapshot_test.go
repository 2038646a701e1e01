package oracle_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks"
	"github.com/dbmazz/dbmazz/bus/cdc"
	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/capture/capturetest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// TestCopiedRowsHaveTheBytesOfStreamedRows writes random rows of every type while one capture streams, and then lets
// another one copy them. Both must describe the tables alike and carry the same bytes, so that the sink, which the
// oracle tests with streamed rows, holds the same whichever way a row took.
func TestCopiedRowsHaveTheBytesOfStreamedRows(t *testing.T) {
	forMajors(t, func(t *testing.T, major int, db *pgtest.DB) {
		r := seeded(t, major)
		has := available(t, db)
		kinds, _ := kindsOf(major, has)
		hostile(db)
		o := &oracle{rig: newRig(t, db.URL(), starrocks.DeleteSoft), r: r}
		o.exec(o.writer, ownDDL(major, has))
		var names []capture.Table
		columns := 0
		for _, table := range tableSet(kinds, 25, r) {
			if table.columns[0].existing != "" {
				continue // The same source table as another.
			}
			o.exec(o.writer, table.ddl())
			o.tables, names = append(o.tables, table), append(names, capture.Table{Schema: "public", Name: table.name})
			columns += len(table.columns)
		}
		for _, table := range o.tables {
			table.rows = min(rowsMax, 1+int(number(t, valuesEnv, valuesDefault))/(2*columns))
		}
		streamed := o.captured(names, capture.SnapshotNever, o.insert)
		copied := o.captured(names, capture.SnapshotInitial, func() {})
		found, values := differ(streamed, copied)
		if len(found) > 0 {
			t.Fatalf("%d differences, the first:\n%s", len(found), strings.Join(found[:min(len(found), 20)], "\n"))
		}
		t.Logf("%d values in %d rows of %d tables with %d columns", values, len(streamed), len(o.tables), columns)
	})
}

// carried is a row as the stream has it.
type carried struct {
	schema *cdc.Schema
	tuple  string
}

// captured runs a capture with a slot of its own while write writes, and returns the rows that it stored, by table and key.
func (o *oracle) captured(names []capture.Table, mode capture.SnapshotMode, write func()) map[string]carried {
	o.t.Helper()
	stream := capturetest.New()
	slot := fmt.Sprintf("%s_%s", mode, string(o.query("SELECT current_database()")[0][0]))
	c, err := capture.New(capture.Config{
		SourceURL: o.url, Slot: slot, Publication: publication, Tables: names, Snapshot: mode, SnapshotStore: &capturetest.Store{}, SnapshotChunkRows: 15, SnapshotWorkers: 8,
		Logger: slog.New(slog.NewTextHandler(o.logs, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}, stream, stream)
	o.must(err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(o.t.Context()))
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	defer func() {
		cancel()
		o.must(<-done)
		o.must(stream.Err())
	}()
	o.awaitCapture(c, "streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming })
	write()
	o.awaitCapture(c, "copied", func(s capture.Status) bool { return mode == capture.SnapshotNever || s.Snapshot.Done })
	o.must(c.Drain(ctx))
	records, err := stream.Records()
	o.must(err)
	rows := map[string]carried{}
	for _, rec := range records {
		if !rec.Kind.IsRow() {
			continue
		}
		rows[rec.Table.Name()+" "+wholeKey(rec.Table, rec.New)] = carried{rec.Table, string(rec.New)}
	}
	return rows
}

// wholeKey is the key of a row, in full.
func wholeKey(schema *cdc.Schema, tuple cdc.Tuple) string {
	var key string
	for i := range schema.Columns {
		v, rest, _ := tuple.Next()
		tuple = rest
		if slices.Contains(schema.Key, i) {
			key += fmt.Sprintf("%q ", v.Bytes)
		}
	}
	return key
}

func (o *oracle) awaitCapture(c *capture.Capture, what string, ok func(capture.Status) bool) {
	o.t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(settleWithin); !ok(c.Status()); <-ticker.C {
		if time.Now().After(deadline) {
			o.t.Fatalf("capture is not %s after %v: %s\n%s", what, settleWithin, c.Status().LastError, o.logs)
		}
	}
}

// differ lists what two captures of the same rows have not in common.
func differ(streamed, copied map[string]carried) (found []string, values int) {
	for key, s := range streamed {
		c, ok := copied[key]
		switch {
		case !ok:
			found = append(found, key+": was not copied")
		case s.schema.Fingerprint() != c.schema.Fingerprint():
			found = append(found, fmt.Sprintf("%s: streamed as %+v, copied as %+v", key, s.schema.Columns, c.schema.Columns))
		case s.tuple != c.tuple:
			found = append(found, fmt.Sprintf("%s: streamed as %.600q, copied as %.600q", key, s.tuple, c.tuple))
		}
		values += len(s.schema.Columns)
	}
	for key := range copied {
		if _, ok := streamed[key]; !ok {
			found = append(found, key+": was copied only")
		}
	}
	return found, values
}
