package bus_test

import (
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

func TestBugProbe(t *testing.T) {
	ctx := bounded(t)
	servers := bustest.StartCluster(t, 3, bustest.ServerConfig{JetStream: "sync_interval: always"})
	b := bustest.Open(t, bus.Config{URL: bustest.URLs(servers), Replicas: 3})
	publish(t, b, 5, 1000)
	leader := bustest.Leader(t, servers, "DBMAZZ_test")
	var away *bustest.Server
	for _, s := range servers {
		if s != leader {
			away = s
		}
	}
	away.Kill(t)
	t.Log("away", away.Name())
	start := time.Now()
	publish(t, b, 600, 100<<10)
	t.Log("300 x 100 KB", time.Since(start))
	for _, s := range servers {
		if s != away {
			s.Terminate(t)
		}
	}
	for _, s := range servers {
		if s != away {
			s.Launch(t)
		}
	}
	bustest.Leader(t, servers, "DBMAZZ_test")
	waitFor(ctx, t, "tail", func() bool {
		_, err := b.Tail(ctx)
		if err != nil {
			t.Log(time.Now().Format(time.StampMilli), b.Status(), err)
			time.Sleep(300 * time.Millisecond)
		}
		return err == nil
	})
	publish(t, b, 1, 100)
	away.Start(t)
	for range 100 {
		time.Sleep(200 * time.Millisecond)
		for _, s := range servers {
			st, ok, err := s.StreamState(ctx, "DBMAZZ_test")
			t.Log(s.Name(), st, ok, err)
		}
		if st, ok, _ := away.StreamState(ctx, "DBMAZZ_test"); ok && st.Last >= 606 {
			break
		}
	}
	publish(t, b, 1, 1000)
	time.Sleep(100 * time.Millisecond)
	for _, s := range servers {
		st, ok, err := s.StreamState(ctx, "DBMAZZ_test")
		t.Log("one", s.Name(), st, ok, err)
	}
	publish(t, b, 50, 1000)
	time.Sleep(time.Second)
	t.Log(away.Output())
	for _, s := range servers {
		st, ok, err := s.StreamState(ctx, "DBMAZZ_test")
		t.Log("end", s.Name(), st, ok, err)
	}
}

func TestBench(t *testing.T) {
	servers := bustest.StartCluster(t, 3, bustest.ServerConfig{JetStream: "sync_interval: always"})
	b := bustest.Open(t, bus.Config{URL: bustest.URLs(servers), Replicas: 3})
	for _, size := range []int{1000, 10000, 100000, 256 << 10, 1000000} {
		start := time.Now()
		publish(t, b, 100, size)
		d := time.Since(start)
		t.Logf("%d: %v per frame, %.1f MB/s", size, d/100, float64(size)*100/1e6/d.Seconds())
	}
}
