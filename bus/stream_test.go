package bus_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// TestUnfitStreamIsRefused makes streams that would break a promise.
func TestUnfitStreamIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		spoil      func(*jetstream.StreamConfig)
	}{
		{"memory", "memory", func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }},
		{"discard old", "discards old", func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }},
		{"work queue", "retention", func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }},
		{"age", "discards messages after", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }},
		{"subjects", "subjects", func(c *jetstream.StreamConfig) { c.Subjects = []string{"dbmazz.test.>"} }},
		{"epoch", "epoch", func(c *jetstream.StreamConfig) { delete(c.Metadata, "dbmazz_epoch") }},
		{"pipeline", "pipeline", func(c *jetstream.StreamConfig) { c.Metadata["dbmazz_pipeline"] = "other" }},
		{"format", "format version", func(c *jetstream.StreamConfig) { c.Metadata["dbmazz_format"] = "99" }},
		{"purge", "purging", func(c *jetstream.StreamConfig) { c.DenyPurge = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			url := externalServer(t)
			nc, err := nats.Connect(url)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			cfg := jetstream.StreamConfig{
				Name: "DBMAZZ_test", Subjects: []string{"dbmazz.test.cdc"}, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
				Metadata: map[string]string{"dbmazz_pipeline": "test", "dbmazz_epoch": "e", "dbmazz_format": "1"},
			}
			c.spoil(&cfg)
			if _, err := js.CreateStream(ctx, cfg); err != nil {
				t.Fatal(err)
			}
			if _, err := bustest.TryOpen(t, bus.Config{URL: url}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestServerRestartUnderLoadLosesNothing replaces the server under a publisher, a
// consumer, a watch and the state bucket.
func TestServerRestartUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	b := bustest.Open(t, bus.Config{})
	bus.SetPatience(b, time.Second)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w, err := b.Watch(ctx, "key")
	if err != nil {
		t.Fatal(err)
	}
	const total = 1500
	result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), total, 20<<10)
	check := bustest.Checker{Epoch: b.Epoch()}
	var revision uint64
	for n := uint64(100); n <= total; n += 100 {
		m, err := check.Read(ctx, c, n)
		if err != nil {
			t.Fatal(err)
		}
		if n%300 == 0 {
			if err := bus.RestartServer(ctx, b); err != nil {
				t.Fatal(err)
			}
		}
		if revision, err = b.Update(ctx, "key", []byte(m.StoredAt.String()), revision); err != nil {
			t.Fatal(err)
		}
		if n%200 == 0 {
			// An acknowledgement may be lost with the server; it is for people.
			ack, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			_ = c.Ack(ack, m.Sequence)
			cancel()
		}
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if check.Skipped > 0 || check.Frames != total {
		t.Errorf("%d frames, %d changes twice", check.Frames, check.Skipped)
	}
	for e := range w {
		if e.Revision == revision {
			break
		}
	}
	if tail, err := b.Tail(ctx); err != nil || tail != p.Stored() || tail.Sequence != total {
		t.Errorf("tail is %+v, %v; stored %+v", tail, err, p.Stored())
	}
}
