package api_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dbmazz/dbmazz/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakePipeline is a pipeline whose status the test writes.
type fakePipeline struct {
	mu       sync.Mutex
	status   api.Status
	failure  error
	reloads  []api.Reload
	settings api.Settings
	// snapshots are the calls about the copy.
	snapshots []string
	// hold, when set, keeps Pause from returning until it is closed.
	hold    chan struct{}
	holding chan struct{}
}

func (f *fakePipeline) set(change func(*api.Status)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.status)
}

func (f *fakePipeline) Status(context.Context) api.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *fakePipeline) move(wanted api.State, from ...api.State) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure != nil {
		return f.failure
	}
	if slices.Contains(from, f.status.State) {
		f.status.State = wanted
		return nil
	}
	return &api.StateError{State: f.status.State, Wanted: wanted}
}

func (f *fakePipeline) Pause(context.Context) error {
	if f.hold != nil {
		close(f.holding)
		<-f.hold
	}
	return f.move(api.StatePaused, api.StateRunning)
}

func (f *fakePipeline) Resume(context.Context) error {
	return f.move(api.StateRunning, api.StatePaused)
}

func (f *fakePipeline) Drain(context.Context) error {
	return f.move(api.StateDraining, api.StateRunning, api.StatePaused)
}

func (f *fakePipeline) Stop(context.Context) error {
	return f.move(api.StateStopped, api.StateRunning, api.StatePaused, api.StateDraining)
}

func (f *fakePipeline) snapshot(call string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshots = append(f.snapshots, call)
	return f.failure
}

func (f *fakePipeline) StartSnapshot(_ context.Context, tables []string) error {
	return f.snapshot(strings.Join(append([]string{"start"}, tables...), " "))
}

func (f *fakePipeline) PauseSnapshot(context.Context) error { return f.snapshot("pause") }

func (f *fakePipeline) ResumeSnapshot(context.Context) error { return f.snapshot("resume") }

func (f *fakePipeline) Reload(_ context.Context, change api.Reload) (api.Settings, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reloads = append(f.reloads, change)
	return f.settings, f.failure
}

// replicating is a status in which both stages run.
func replicating() api.Status {
	return api.Status{
		Stage:   api.StageCDC,
		Capture: api.Work{State: api.WorkRunning},
		Apply:   api.Work{State: api.WorkRunning},
	}
}

// logBuffer collects log lines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// running is a started server. stop ends it and returns what Run did.
type running struct {
	*api.Server
	stop func() error
}

// start runs a server on a free loopback port.
func start(t *testing.T, cfg api.Config, pipeline api.Pipeline) *running {
	t.Helper()
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	server, err := api.New(cfg, pipeline)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-server.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("Run: %v", err)
	}
	return &running{Server: server, stop: stop}
}

// dial connects, without encryption unless an option says otherwise.
func dial(t *testing.T, addr net.Addr, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, options...)
	conn, err := grpc.NewClient("passthrough:///"+addr.String(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// soon bounds a call in a test.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
