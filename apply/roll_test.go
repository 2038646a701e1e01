package apply_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// listedStream is a stream with lists of tables.
type listedStream struct {
	*memStream
	lists chan []*cdc.Schema
}

func (s listedStream) Tables(context.Context) (<-chan []*cdc.Schema, error) { return s.lists, nil }

// unfit is what a sink says of a schema that somebody has to do something about.
type unfit struct{ error }

func (unfit) Permanent() bool { return true }

// evolving is a sink that tells in which order it is called, and refuses schemas.
type evolving struct {
	*recorder
	mu      sync.Mutex
	calls   []string
	refuses cdc.Fingerprint
}

func (s *evolving) note(call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
}

func (s *evolving) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *evolving) Prepare(_ context.Context, schema *cdc.Schema) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if schema.Fingerprint() == s.refuses {
		return unfit{errors.New("another key")}
	}
	s.calls = append(s.calls, fmt.Sprintf("prepare %d columns", len(schema.Columns)))
	return nil
}

func (s *evolving) Apply(ctx context.Context, b *apply.TableBatch) (apply.Result, error) {
	s.note(fmt.Sprintf("%d rows", len(b.Rows)))
	return s.recorder.Apply(ctx, b)
}

// grown returns the schema with another column.
func grown(t *testing.T, schema *cdc.Schema) *cdc.Schema {
	t.Helper()
	next := *schema
	next.Columns = append(slices.Clone(schema.Columns), cdc.Column{Name: "added", Type: cdc.TypeText, OID: 25, Mod: -1, BaseMod: -1, TypeName: "text"})
	if err := next.Seal(); err != nil {
		t.Fatal(err)
	}
	return &next
}

// listening starts an apply that gets lists, in place of the one of the bench.
func listening(t *testing.T, sink apply.Sink, paused bool) (*bench, chan<- []*cdc.Schema) {
	t.Helper()
	config := apply.Config{MinSpacing: time.Millisecond, BackoffMax: 5 * time.Millisecond}
	b, lists := newBench(t, config, newRecorder()), make(chan []*cdc.Schema)
	b.stop()
	b.Apply = apply.New(config, listedStream{b.stream, lists}, sink)
	b.Start(paused)
	t.Cleanup(started(t, b.Apply))
	return b, lists
}

func send(t *testing.T, lists chan<- []*cdc.Schema, list []*cdc.Schema) {
	t.Helper()
	select {
	case lists <- list:
	case <-time.After(patience):
		t.Fatal("the list is not taken")
	}
}

func TestAListOfTablesWaitsForTheChangesThatWereThereBeforeIt(t *testing.T) {
	t.Parallel()
	sink := &evolving{recorder: newRecorder()}
	b, lists := listening(t, sink, true)
	for i := range 3 {
		b.transaction(t, b.insert(fmt.Sprint(i), "1", "x"))
	}
	list := []*cdc.Schema{grown(t, b.table)}
	send(t, lists, list)
	send(t, lists, list) // The first is dealt with by the time that this one is taken.
	if got := sink.seen(); len(got) != 0 {
		t.Fatalf("the sink is called before what waits is applied: %q", got)
	}
	if !b.Status().Ready {
		t.Error("it is not ready, although all that it waits for is the end of the pause")
	}
	b.Resume()
	want := fmt.Sprintf("prepare %d columns", len(list[0].Columns))
	wait(t, "the list is prepared", func() bool { return slices.Contains(sink.seen(), want) })
	if got := sink.seen(); len(got) < 3 || slices.Index(got, want) != len(got)-1 {
		t.Errorf("the sink is called as %q, want %q at the end", got, want)
	}
}

// A list may be out of date when it comes: what it names was altered again, or the sink has
// got what it needs for the next one.
func TestAListThatTheSinkRefusesGivesWayToALaterOne(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]func(*bench) []*cdc.Schema{
		"taken back": func(*bench) []*cdc.Schema { return nil },
		"corrected":  func(b *bench) []*cdc.Schema { return []*cdc.Schema{b.table} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := &evolving{recorder: newRecorder()}
			b, lists := listening(t, sink, false)
			list := []*cdc.Schema{grown(t, b.table)}
			sink.mu.Lock()
			sink.refuses = list[0].Fingerprint()
			sink.mu.Unlock()
			send(t, lists, list)
			wait(t, "the refusal shows", func() bool { return b.Status().Err != "" })
			b.transaction(t, b.insert("a", "1", "x"))
			if b.Status().Changes != 0 {
				t.Error("changes are applied although the sink refuses the table")
			}
			send(t, lists, later(b))
			b.drain(t)
			if s := b.Status(); s.Changes != 1 || s.Err != "" {
				t.Errorf("%d changes applied, error %q", s.Changes, s.Err)
			}
		})
	}
}
