package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

const testStream = "DBMAZZ_test"

// clusterLong runs the tests that wait for several elections, half a minute in all.
const clusterLong = "BUS_CLUSTER_LONG"

func skipUnlessLong(t *testing.T) {
	t.Helper()
	if os.Getenv(clusterLong) == "" {
		// skip: it takes long; CI sets the variable.
		t.Skip("set " + clusterLong + "=1 to run it")
	}
}

// cluster starts three server processes and returns the configuration to use them.
func cluster(t *testing.T) ([]*bustest.Server, bus.Config) {
	t.Helper()
	servers := bustest.StartCluster(t, 3, bustest.ServerConfig{JetStream: "sync_interval: always"})
	return servers, bus.Config{Pipeline: "test", URL: bustest.URLs(servers), Replicas: 3}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	_, cfg := cluster(t)
	for name, test := range conformance {
		if name == "MessagesNameTheirPredecessor" {
			continue // A cluster is not asked to compare ids.
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := cfg
			cfg.Pipeline = strings.ToLower(name)
			test(t, cfg)
		})
	}
	t.Run("SecondWriterIsFenced", func(t *testing.T) {
		t.Parallel()
		cfg := cfg
		cfg.Pipeline = "fenced"
		testSecondWriterIsFenced(t, cfg)
	})
	t.Run("CountersAreExact", func(t *testing.T) {
		t.Parallel()
		cfg := cfg
		cfg.Pipeline = "counters"
		testCountersAreExact(t, cfg)
	})
	t.Run("ReadsGoToTheLeader", func(t *testing.T) {
		t.Parallel()
		testReadsGoToTheLeader(t, cfg)
	})
	t.Run("ReplicasThatAreNotThereAreRefused", func(t *testing.T) {
		cfg := cfg
		cfg.Pipeline, cfg.Replicas = "five", 5
		if _, err := bustest.TryOpen(t, cfg); err == nil || !strings.Contains(err.Error(), "BUS_REPLICAS") {
			t.Errorf("five replicas on three servers: %v", err)
		}
	})
	t.Run("ReplicasAreAddedLater", func(t *testing.T) {
		t.Parallel()
		cfg := cfg
		cfg.Pipeline, cfg.Replicas = "grown", 1
		before := bustest.Open(t, cfg)
		publish(t, before, 3, 1000)
		cfg.Replicas = 3
		after := bustest.Open(t, cfg)
		publish(t, after, 3, 1000)
		if tail, err := before.Tail(bounded(t)); err != nil || tail.Sequence != 6 {
			t.Errorf("the bus that was open before sees %+v, %v", tail, err)
		}
		cfg.Replicas = 0
		if got := replicas(t, bustest.Open(t, cfg), cfg); got != 3 {
			t.Errorf("zero replicas changed 3 to %d", got)
		}
	})
}

func testReadsGoToTheLeader(t *testing.T, cfg bus.Config) {
	t.Helper()
	cfg.Pipeline = "leader"
	bustest.Open(t, cfg)
	js := jetStream(t, cfg.URL)
	for _, name := range []string{"DBMAZZ_leader", "KV_dbmazz_leader"} {
		// What a person or an older program has set is put right.
		stream, err := js.Stream(bounded(t), name)
		if err != nil {
			t.Fatal(err)
		}
		spoilt := stream.CachedInfo().Config
		spoilt.AllowDirect = true
		if _, err := js.UpdateStream(bounded(t), spoilt); err != nil {
			t.Fatal(err)
		}
		bustest.Open(t, cfg)
		if stream, err = js.Stream(bounded(t), name); err != nil || stream.CachedInfo().Config.AllowDirect {
			t.Errorf("%s may be read from any replica, %v", name, err)
		}
	}
}

func replicas(t *testing.T, _ *bus.Bus, cfg bus.Config) int {
	t.Helper()
	stream, err := jetStream(t, cfg.URL).Stream(bounded(t), "DBMAZZ_"+cfg.Pipeline)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Config.Replicas
}

// jetStream connects without a bus.
func jetStream(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestReplicasOnASingleServerAreRefused(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t, bustest.ServerConfig{})
	_, err := bustest.TryOpen(t, bus.Config{URL: s.URL, Replicas: 3})
	if err == nil || !strings.Contains(err.Error(), "BUS_REPLICAS=1") {
		t.Errorf("got %v", err)
	}
}

// testCountersAreExact lets several processes add to one key: a stale read or a lost
// update would show. Each reads at once what another has just written.
func testCountersAreExact(t *testing.T, cfg bus.Config) {
	t.Helper()
	ctx := bounded(t)
	var buses []*bus.Bus
	for url := range strings.SplitSeq(cfg.URL, ",") {
		one := cfg
		one.URL = url
		buses = append(buses, bustest.Open(t, one))
	}
	for n := range 60 {
		revision, err := buses[n%3].Put(ctx, "fresh", []byte(strconv.Itoa(n)))
		if err != nil {
			t.Fatal(err)
		}
		value, got, err := buses[(n+1)%3].Get(ctx, "fresh")
		if err != nil || got != revision || string(value) != strconv.Itoa(n) {
			t.Fatalf("read %q at %d, %v; just written: %d at %d", value, got, err, n, revision)
		}
	}
	const each = 20
	var wg sync.WaitGroup
	for _, b := range buses {
		wg.Go(func() {
			for range each {
				if err := increment(ctx, b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	value, _, err := buses[0].Get(ctx, "counter")
	if err != nil || string(value) != strconv.Itoa(each*len(buses)) {
		t.Errorf("counter is %q, %v", value, err)
	}
}

func increment(ctx context.Context, b *bus.Bus) error {
	for {
		value, revision, err := b.Get(ctx, "counter")
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return err
		}
		n, _ := strconv.Atoi(string(value))
		_, err = b.Update(ctx, "counter", []byte(strconv.Itoa(n+1)), revision)
		if !errors.Is(err, bus.ErrConflict) {
			return err
		}
	}
}

// TestClusterSurvivesTheLossOfTheLeader kills, and another time stops, the server that
// leads the stream, under a publisher and a consumer.
func TestClusterSurvivesTheLossOfTheLeader(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		lose, back func(*bustest.Server, testing.TB)
	}{
		{"killed", (*bustest.Server).Kill, (*bustest.Server).Start},
		{"stopped", (*bustest.Server).Stop, (*bustest.Server).Continue},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.name != "killed" {
				skipUnlessLong(t)
			}
			ctx := bounded(t)
			servers, cfg := cluster(t)
			b := bustest.Open(t, cfg)
			p, err := b.Publisher(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			consumer, err := b.Consumer(ctx, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer consumer.Close()
			const total = 600
			result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), total, 20<<10)
			check := bustest.Checker{Epoch: b.Epoch()}
			var lost *bustest.Server
			var stall time.Duration
			var revision uint64
			for n := uint64(1); n <= total; n++ {
				begun := time.Now()
				m, err := check.Read(ctx, consumer, n)
				if err != nil {
					t.Fatal(err)
				}
				if n%50 == 0 {
					if revision, err = b.Update(ctx, "apply", []byte(strconv.FormatUint(m.Sequence, 10)), revision); err != nil {
						t.Fatal(err)
					}
				}
				stall = max(stall, time.Since(begun))
				switch n {
				case 100:
					lost = bustest.Leader(t, servers, testStream)
					c.lose(lost, t)
				case 500:
					c.back(lost, t)
				}
			}
			if err := <-result; err != nil {
				t.Fatal(err)
			}
			t.Logf("longest stall %s", stall)
			if stall > 40*time.Second {
				t.Errorf("it stalled for %s", stall)
			}
			if check.Skipped > 0 || check.Frames != total || p.Stored().Sequence != total {
				t.Errorf("%d frames, %d changes twice, %d messages", check.Frames, check.Skipped, p.Stored().Sequence)
			}
			sameEverywhere(ctx, t, servers, total)
		})
	}
}

// sameEverywhere waits until every server has the whole stream.
func sameEverywhere(ctx context.Context, t *testing.T, servers []*bustest.Server, last uint64) {
	t.Helper()
	for _, s := range servers {
		waitFor(ctx, t, "all of the stream on server "+s.Name(), func() bool {
			state, ok, err := s.StreamState(ctx, testStream)
			return err == nil && ok && state.Last == last && state.Messages == last
		})
	}
}

// TestReplicaThatWasAwayIsWholeAgain brings back a server after the others have
// forgotten how the stream got where it is, so that its content is copied. The others
// then go: what it has must be everything.
func TestReplicaThatWasAwayIsWholeAgain(t *testing.T) {
	t.Parallel()
	skipUnlessLong(t)
	ctx := bounded(t)
	servers, cfg := cluster(t)
	b := bustest.Open(t, cfg)
	publish(t, b, 5, 1000)
	leader := bustest.Leader(t, servers, testStream)
	var away *bustest.Server
	var others []*bustest.Server
	for _, s := range servers {
		if away == nil && s != leader {
			away = s
			continue
		}
		others = append(others, s)
	}
	away.Kill(t)
	publish(t, b, 300, 100<<10)
	for _, s := range others {
		s.Terminate(t)
	}
	for _, s := range others {
		s.Launch(t)
	}
	waitFor(ctx, t, "the stream to be there again", func() bool {
		_, err := b.Tail(ctx)
		return err == nil
	})
	away.Start(t)
	publish(t, b, 20, 1000)
	sameEverywhere(ctx, t, servers, 325)
	leader = bustest.Leader(t, servers, testStream)
	if leader == away {
		leader = others[0]
	}
	leader.Kill(t)
	waitFor(ctx, t, "a new leader", func() bool {
		_, err := b.Tail(ctx)
		return err == nil
	})
	publish(t, b, 20, 1000)
	readAll(t, b, 0, 345)
}

// TestOneMessageAtATimeInACluster: with two, another writer's second could find the
// sequence that our first has made true.
func TestOneMessageAtATimeInACluster(t *testing.T) {
	t.Parallel()
	if !bus.Room(true, 0) || bus.Room(true, 1) || !bus.Room(false, 1) {
		t.Error("the window is wrong")
	}
}

// TestHugeFrameCrossesASmallLimit sends frames far above the server's limit.
func TestHugeFrameCrossesASmallLimit(t *testing.T) {
	t.Parallel()
	s := bustest.StartServer(t, bustest.ServerConfig{Extra: "max_payload: 1MB"})
	b := bustest.Open(t, bus.Config{URL: s.URL})
	publish(t, b, 1, 100)
	publish(t, b, 1, 64<<20)
	publish(t, b, 1, 100)
	last := readAll(t, b, 0, 3)
	if last.Sequence < 66 {
		t.Errorf("the last message is %d", last.Sequence)
	}
}

// TestExternalServerComesBack kills a server on its own under load and starts it again.
func TestExternalServerComesBack(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	s := bustest.StartServer(t, bustest.ServerConfig{JetStream: "sync_interval: always"})
	b := bustest.Open(t, bus.Config{URL: s.URL, Logger: slog.New(slog.DiscardHandler)})
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
	const total = 900
	result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), total, 20<<10)
	check := bustest.Checker{Epoch: b.Epoch()}
	for n := uint64(300); n <= total; n += 300 {
		if _, err := check.Read(ctx, c, n); err != nil {
			t.Fatal(err)
		}
		if n < total {
			s.Kill(t)
			s.Start(t)
		}
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if check.Skipped > 0 || check.Frames != total {
		t.Error(fmt.Sprint(check.Frames, " frames, ", check.Skipped, " changes twice"))
	}
}
