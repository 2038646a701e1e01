package bustest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dbmazz/dbmazz/internal/freeport"
)

// Server is a nats-server process with JetStream, so that it can be killed, stopped and
// started again. It ends with the test.
type Server struct {
	// URL is for clients, without credentials.
	URL string
	// Folder holds its configuration and its store.
	Folder string

	binary  string
	name    string
	port    int
	monitor int
	connect []nats.Option
	process *exec.Cmd
	output  *bytes.Buffer
}

// ServerConfig says how a server differs from an ordinary one.
type ServerConfig struct {
	// Extra is added to the configuration file: authorization, tls, max_payload.
	Extra string
	// JetStream is added to its jetstream block.
	JetStream string
	// Connect holds what a client needs to get in, for the wait until it is ready.
	Connect []nats.Option
}

// StartServer starts one server and waits until it is ready.
func StartServer(tb testing.TB, cfg ServerConfig) *Server {
	tb.Helper()
	s := newServer(tb, "one", cfg, "")
	s.Start(tb)
	return s
}

// StartCluster starts that many servers which form a cluster, and waits until each is
// ready to keep streams.
func StartCluster(tb testing.TB, size int, cfg ServerConfig) []*Server {
	tb.Helper()
	ports := make([]int, size)
	var routes []string
	for i := range ports {
		ports[i] = freePort(tb)
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
	}
	servers := make([]*Server, size)
	for i := range servers {
		cluster := fmt.Sprintf("cluster { name: test, listen: \"127.0.0.1:%d\", routes: [%s] }\n", ports[i], strings.Join(routes, ", "))
		servers[i] = newServer(tb, "n"+strconv.Itoa(i+1), cfg, cluster)
		servers[i].Launch(tb)
	}
	for _, s := range servers {
		s.awaitReady(tb)
	}
	return servers
}

// URLs returns those of all servers, for bus.Config.
func URLs(servers []*Server) string {
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.URL)
	}
	return strings.Join(urls, ",")
}

func newServer(tb testing.TB, name string, cfg ServerConfig, cluster string) *Server {
	tb.Helper()
	s := &Server{Folder: tb.TempDir(), binary: serverBinary(tb), name: name, port: freePort(tb), monitor: freePort(tb), connect: cfg.Connect}
	s.URL = fmt.Sprintf("nats://127.0.0.1:%d", s.port)
	text := fmt.Sprintf("server_name: %s\nlisten: \"127.0.0.1:%d\"\nhttp: \"127.0.0.1:%d\"\njetstream { store_dir: %q, max_file_store: 8TB\n%s }\n%s%s\n",
		name, s.port, s.monitor, filepath.Join(s.Folder, "store"), cfg.JetStream, cluster, cfg.Extra)
	if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return s
}

func (s *Server) config() string { return filepath.Join(s.Folder, "nats.conf") }

// Name is that of the server in its cluster.
func (s *Server) Name() string { return s.name }

// Start starts the process, again after a kill, and waits until it is ready.
func (s *Server) Start(tb testing.TB) {
	tb.Helper()
	s.Launch(tb)
	s.awaitReady(tb)
}

// Launch starts the process and does not wait until it is ready.
func (s *Server) Launch(tb testing.TB) {
	tb.Helper()
	s.output = new(bytes.Buffer)
	s.process = exec.Command(s.binary, "-c", s.config()) //nolint:gosec // Built here.
	s.process.Stdout, s.process.Stderr = s.output, s.output
	s.process.SysProcAttr = dieWithParent()
	if err := s.process.Start(); err != nil {
		tb.Fatal(err)
	}
	process, output := s.process, s.output
	tb.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if tb.Failed() {
			tb.Logf("output of server %s:\n%s", s.name, lastLines(output.String(), 40))
		}
	})
}

// Output is what the process has written.
func (s *Server) Output() string { return s.output.String() }

func lastLines(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Kill kills the process as a power cut does, but for the file system's cache.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	if err := s.process.Process.Kill(); err != nil {
		tb.Fatal(err)
	}
	_ = s.process.Wait()
}

// Terminate ends the process in an orderly way.
func (s *Server) Terminate(tb testing.TB) {
	tb.Helper()
	s.signal(tb, syscall.SIGTERM)
	_ = s.process.Wait()
}

// Stop halts the process with SIGSTOP: its connections stay, and nothing answers.
func (s *Server) Stop(tb testing.TB) { s.signal(tb, syscall.SIGSTOP) }

// Continue lets a stopped process go on.
func (s *Server) Continue(tb testing.TB) { s.signal(tb, syscall.SIGCONT) }

func (s *Server) signal(tb testing.TB, sig os.Signal) {
	tb.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		tb.Fatal(err)
	}
}

// awaitReady returns when JetStream answers a client of this server.
func (s *Server) awaitReady(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 5*time.Minute)
	defer cancel()
	var err error
	for ctx.Err() == nil {
		if err = s.ready(ctx); err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	tb.Fatalf("server %s is not ready: %v\n%s", s.name, err, s.output)
}

func (s *Server) ready(ctx context.Context) error {
	if err := s.get(ctx, "/healthz", nil); err != nil {
		return err
	}
	nc, err := nats.Connect(s.URL, s.connect...)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err = js.AccountInfo(short)
	return err
}

// StreamState is what this server itself has of a stream, whoever leads it.
type StreamState struct {
	Messages, First, Last uint64
	Leader                string
}

// StreamState asks the server's monitoring. ok is false if it does not have the stream.
func (s *Server) StreamState(ctx context.Context, stream string) (state StreamState, ok bool, err error) {
	var answer struct {
		Accounts []struct {
			Streams []struct {
				Name    string `json:"name"`
				Cluster *struct {
					Leader string `json:"leader"`
				} `json:"cluster"`
				State struct {
					Messages uint64 `json:"messages"`
					First    uint64 `json:"first_seq"`
					Last     uint64 `json:"last_seq"`
				} `json:"state"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	if err := s.get(ctx, "/jsz?accounts=1&streams=1", &answer); err != nil {
		return state, false, err
	}
	for _, a := range answer.Accounts {
		for _, d := range a.Streams {
			if d.Name != stream {
				continue
			}
			state = StreamState{Messages: d.State.Messages, First: d.State.First, Last: d.State.Last}
			if d.Cluster != nil {
				state.Leader = d.Cluster.Leader
			}
			return state, true, nil
		}
	}
	return state, false, nil
}

// get reads the monitoring; a nil answer only asks for its success.
func (s *Server) get(ctx context.Context, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", s.monitor, path), nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// Leader returns the server of the cluster that leads the stream.
func Leader(tb testing.TB, servers []*Server, stream string) *Server {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		for _, s := range servers {
			if state, ok, err := s.StreamState(ctx, stream); err == nil && ok && state.Leader == s.name {
				return s
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	tb.Fatalf("stream %s has no leader", stream)
	return nil
}

func freePort(tb testing.TB) int {
	tb.Helper()
	port, err := freeport.Pick(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return port
}

var buildServer = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	name := filepath.Join(cache, "dbmazz", "bustest", "nats-server-"+server.VERSION)
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return "", err
	}
	// Another test binary may be building it at the same time.
	tmp := name + "." + strconv.Itoa(os.Getpid())
	build := exec.Command("go", "build", "-o", tmp, "github.com/nats-io/nats-server/v2") //nolint:gosec // Fixed words.
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w: %s", err, out)
	}
	return name, os.Rename(tmp, name)
})

// serverBinary builds nats-server, of the version that is embedded, once.
func serverBinary(tb testing.TB) string {
	tb.Helper()
	name, err := buildServer()
	if err != nil {
		tb.Fatal(err)
	}
	return name
}
