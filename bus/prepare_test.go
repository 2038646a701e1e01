package bus_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

const testBucket = "KV_dbmazz_test"

// TestCreationThatWasCutOffIsFinished dies behind each step.
func TestCreationThatWasCutOffIsFinished(t *testing.T) {
	t.Parallel()
	for n := range len(bus.Steps) + 1 {
		cfg := bus.Config{Pipeline: "test", URL: externalServer(t)}
		b, err := bus.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := bus.Make(t.Context(), b, n); err != nil {
			t.Fatal(err)
		}
		existing := cfg
		existing.Existing = true
		_, err = bustest.TryOpen(t, existing)
		if want := n < len(bus.Steps); errors.Is(err, bus.ErrNoStream) != want {
			t.Errorf("after %d steps, open of what exists: %v", n, err)
		}
		first := bustest.Open(t, cfg)
		publish(t, first, 2, 10)
		if again := bustest.Open(t, existing); again.Epoch() != first.Epoch() {
			t.Errorf("after %d steps: epochs %s and %s", n, first.Epoch(), again.Epoch())
		}
	}
}

func TestProcessesThatStartAtOnceAgree(t *testing.T) {
	t.Parallel()
	s := bustest.StartCluster(t, 3, bustest.ServerConfig{})
	for _, replicas := range []int{1, 3} {
		cfg := bus.Config{Pipeline: map[int]string{1: "one", 3: "three"}[replicas], URL: bustest.URLs(s), Replicas: replicas}
		var wg sync.WaitGroup
		epochs := make([]string, 6)
		for i := range epochs {
			wg.Go(func() {
				b, err := bustest.TryOpen(t, cfg)
				if err != nil {
					t.Error(err)
					return
				}
				epochs[i] = b.Epoch()
			})
		}
		wg.Wait()
		for _, e := range epochs {
			if e != epochs[0] || e == "" {
				t.Errorf("epochs are %v", epochs)
				break
			}
		}
	}
}

func TestExistingNeverCreatesOrChanges(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	url := externalServer(t)
	js := jetStream(t, url)
	if _, err := bustest.TryOpen(t, bus.Config{URL: url, Existing: true}); !errors.Is(err, bus.ErrNoStream) {
		t.Fatalf("got %v", err)
	}
	if info, err := js.AccountInfo(ctx); err != nil || info.Streams != 0 {
		t.Errorf("%d streams were made, %v", info.Streams, err)
	}
	b := bustest.Open(t, bus.Config{URL: url, MaxBytes: 77 << 20})
	publish(t, b, 2, 10)
	other := bustest.Open(t, bus.Config{URL: url, MaxBytes: 5 << 20, Existing: true})
	if info, err := other.Info(ctx); err != nil || info.MaxBytes != 77<<20 {
		t.Errorf("limit is %d, %v", info.MaxBytes, err)
	}
	readAll(t, other, 0, 2)
}

// ruin is something that happened to the streams of a NATS installation.
type ruin struct {
	name string
	do   func(ctx context.Context, js jetstream.JetStream) error
	// want is part of the error; empty if the bus goes on.
	want string
	// fresh tells that nothing was published before.
	fresh bool
}

func ruins() []ruin {
	remove := func(names ...string) func(context.Context, jetstream.JetStream) error {
		return func(ctx context.Context, js jetstream.JetStream) error {
			var errs []error
			for _, name := range names {
				errs = append(errs, js.DeleteStream(ctx, name))
			}
			return errors.Join(errs...)
		}
	}
	emptied := func(name string) func(context.Context, jetstream.JetStream) error {
		return func(ctx context.Context, js jetstream.JetStream) error {
			s, err := js.Stream(ctx, name)
			if err != nil {
				return err
			}
			return errors.Join(js.DeleteStream(ctx, name), recreate(ctx, js, s.CachedInfo().Config))
		}
	}
	return []ruin{
		{name: "stream deleted", do: remove(testStream), want: "is not there"},
		{name: "bucket deleted", do: remove(testBucket), want: "how far the sink has got"},
		{name: "bucket deleted before anything was published", do: remove(testBucket), fresh: true},
		{name: "both deleted", do: remove(testStream, testBucket)},
		{name: "bucket emptied", do: emptied(testBucket), want: "lost its content"},
		{name: "bucket emptied before anything was published", do: emptied(testBucket), fresh: true},
		// Like a lost tail: apply's position and the slot decide.
		{name: "stream emptied", do: emptied(testStream)},
		{name: "stream of another epoch", want: "is of epoch other", do: func(ctx context.Context, js jetstream.JetStream) error {
			s, err := js.Stream(ctx, testStream)
			if err != nil {
				return err
			}
			cfg := s.CachedInfo().Config
			cfg.Metadata = map[string]string{"dbmazz_pipeline": "test", "dbmazz_epoch": "other", "dbmazz_format": cfg.Metadata["dbmazz_format"]}
			return errors.Join(js.DeleteStream(ctx, testStream), recreate(ctx, js, cfg))
		}},
		{name: "bucket of another", want: "metadata", do: func(ctx context.Context, js jetstream.JetStream) error {
			if err := js.DeleteStream(ctx, testBucket); err != nil {
				return err
			}
			_, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "dbmazz_test"})
			return err
		}},
	}
}

func recreate(ctx context.Context, js jetstream.JetStream, cfg jetstream.StreamConfig) error {
	_, err := js.CreateStream(ctx, cfg)
	return err
}

// TestRuinedStreamsOfNATSAreNoticed ruins what an earlier process has made.
func TestRuinedStreamsOfNATSAreNoticed(t *testing.T) {
	t.Parallel()
	for _, c := range ruins() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := bounded(t)
			url := externalServer(t)
			b, err := bustest.TryOpen(t, bus.Config{URL: url})
			if err != nil {
				t.Fatal(err)
			}
			if !c.fresh {
				publish(t, b, 3, 10)
			}
			if _, err := b.Put(ctx, "apply", []byte("checkpoint")); err != nil {
				t.Fatal(err)
			}
			epoch := b.Epoch()
			bustest.Close(t, b)
			if err := c.do(ctx, jetStream(t, url)); err != nil {
				t.Fatal(err)
			}
			names := streamNames(ctx, t, url)
			for _, existing := range []bool{true, false} {
				b, err = bustest.TryOpen(t, bus.Config{URL: url, Existing: existing})
				if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Fatalf("existing %t: %v", existing, err)
				}
			}
			if c.want != "" {
				if after := streamNames(ctx, t, url); after != names {
					t.Errorf("a refusal left %s of %s", after, names)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if same := b.Epoch() == epoch; same != (c.name != "both deleted") {
				t.Errorf("epoch %s after %s", b.Epoch(), epoch)
			}
			publish(t, b, 3, 10)
			readAll(t, b, 0, 3)
		})
	}
}

func streamNames(ctx context.Context, t *testing.T, url string) string {
	t.Helper()
	names := jetStream(t, url).StreamNames(ctx)
	var all []string
	for name := range names.Name() {
		all = append(all, name)
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// TestReplacedStreamEndsTheSessions replaces stream and bucket while they are in use.
func TestReplacedStreamEndsTheSessions(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	url := externalServer(t)
	old := bustest.Open(t, bus.Config{URL: url})
	if _, err := old.Put(ctx, "apply", []byte("checkpoint")); err != nil {
		t.Fatal(err)
	}
	p, err := old.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := old.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	source := bustest.NewSource(old.Epoch(), cdc.Tail{})
	send := func() error {
		data, h := source.Frame(1, 100)
		return errors.Join(p.Publish(ctx, data, h, nil), p.Flush(ctx))
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	js := jetStream(t, url)
	if err := errors.Join(js.DeleteStream(ctx, testStream), js.DeleteStream(ctx, testBucket)); err != nil {
		t.Fatal(err)
	}
	fresh := bustest.Open(t, bus.Config{URL: url})
	publish(t, fresh, 5, 100)

	var lost *bus.StreamLostError
	for err = send(); err == nil; err = send() {
	}
	if !errors.As(err, &lost) {
		t.Errorf("publisher: %v", err)
	}
	for err = nil; err == nil; _, err = c.Next(ctx) {
	}
	if !errors.As(err, &lost) {
		t.Errorf("consumer: %v", err)
	}
	if _, err := old.Tail(ctx); !errors.As(err, &lost) {
		t.Errorf("tail: %v", err)
	}
	if _, _, err := old.Get(ctx, "apply"); !errors.As(err, &lost) {
		t.Errorf("state: %v", err)
	}
	if _, err := old.Publisher(ctx); !errors.As(err, &lost) {
		t.Errorf("next publisher: %v", err)
	}
	if _, err := old.Consumer(ctx, 0); !errors.As(err, &lost) {
		t.Errorf("next consumer: %v", err)
	}
	readAll(t, fresh, 0, 5)
}
