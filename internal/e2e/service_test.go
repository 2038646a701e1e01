package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// patience is how long a test waits for what should happen within a second or two. It
// is long because a slow machine must not fail a test; whoever waits ends as soon as
// the condition holds.
const patience = 2 * time.Minute

// pollEvery is how often a condition is looked at.
const pollEvery = 50 * time.Millisecond

// eventually polls until the condition holds. state says what was seen instead.
func eventually(t testing.TB, what string, condition func() (ok bool, state string)) {
	t.Helper()
	eventuallyWithin(t, patience, what, condition)
}

func eventuallyWithin(t testing.TB, bound time.Duration, what string, condition func() (ok bool, state string)) {
	t.Helper()
	deadline := time.Now().Add(bound)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, state := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s; last seen: %s", what, bound, state)
		}
		<-tick.C
	}
}

// stays polls for a while and fails as soon as the condition does not hold.
func stays(t testing.TB, span time.Duration, what string, condition func() (ok bool, state string)) {
	t.Helper()
	end := time.Now().Add(span)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for time.Now().Before(end) {
		if ok, state := condition(); !ok {
			t.Fatalf("%s: it did not stay so: %s", what, state)
		}
		<-tick.C
	}
}

// journal collects what a process writes.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// logsEnv shows the logs of the processes also where a test succeeds.
const logsEnv = "DBMAZZ_E2E_LOGS"

// service is one dbmazz process.
type service struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  *journal // stdout and stderr
	said *journal // what the API has answered
	done chan struct{}
	err  error // valid once done is closed

	conn    *grpc.ClientConn
	health  pb.HealthServiceClient
	control pb.CdcControlServiceClient
	status  pb.CdcStatusServiceClient
	metrics pb.CdcMetricsServiceClient
}

var apiListens = regexp.MustCompile(`msg="api listens".* addr=(\S+)`)

// launch starts the binary. It does not wait for anything.
func launch(t testing.TB, command []string, dir string, environ []string) *service {
	t.Helper()
	s := &service{t: t, cmd: exec.Command(command[0], command[1:]...), out: &journal{}, said: &journal{}, done: make(chan struct{})} //nolint:gosec // Built here.
	s.cmd.Dir, s.cmd.Env, s.cmd.SysProcAttr = dir, environ, dieWithTests()
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start dbmazz: %v", err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		s.kill()
		if s.conn != nil {
			_ = s.conn.Close() // The other end is gone.
		}
		if t.Failed() || os.Getenv(logsEnv) != "" {
			t.Logf("log of dbmazz %s, pid %d:\n%s", strings.Join(command[1:], " "), s.cmd.Process.Pid, tail(s.out.String()))
		}
	})
	return s
}

// tail is the end of a log; what repeats itself is at the end as well.
func tail(text string) string {
	const bytesMax = 12_000
	if len(text) > bytesMax {
		return text[:1200] + "\n...\n" + text[len(text)-bytesMax:]
	}
	return text
}

// dial waits until the API listens and connects to it.
func (s *service) dial(options ...grpc.DialOption) {
	s.t.Helper()
	addr := s.address()
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	options = append(options, grpc.WithUnaryInterceptor(s.hear), grpc.WithStreamInterceptor(s.hearStream))
	conn, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.conn = conn
	s.health, s.control = pb.NewHealthServiceClient(conn), pb.NewCdcControlServiceClient(conn)
	s.status, s.metrics = pb.NewCdcStatusServiceClient(conn), pb.NewCdcMetricsServiceClient(conn)
}

// hear keeps every answer of the API, errors too, to look for secrets in them.
func (s *service) hear(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, conn, options...)
	fmt.Fprintln(s.said, method, reply, err)
	return err
}

func (s *service) hearStream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, conn, method, options...)
	return &heardStream{stream, s.said}, err
}

type heardStream struct {
	grpc.ClientStream
	said *journal
}

func (h *heardStream) RecvMsg(m any) error {
	err := h.ClientStream.RecvMsg(m)
	fmt.Fprintln(h.said, m, err)
	return err
}

// address waits until the API listens.
func (s *service) address() (addr string) {
	s.t.Helper()
	eventually(s.t, "the API listens", func() (bool, string) {
		if s.exited() {
			s.t.Fatalf("dbmazz has exited: %v", s.err)
		}
		found := apiListens.FindStringSubmatch(s.out.String())
		if found == nil {
			return false, "no line about it in the log"
		}
		addr = found[1]
		return true, ""
	})
	return addr
}

func (s *service) exited() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// kill ends the process as a power cut would, and waits until it is gone.
func (s *service) kill() {
	_ = s.cmd.Process.Kill() // It may have exited by itself.
	<-s.done
}

// terminate asks the process to stop and returns its exit code.
func (s *service) terminate(bound time.Duration) int {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatalf("send SIGTERM: %v", err)
	}
	return s.exitCode(bound)
}

// exitCode waits until the process ends by itself.
func (s *service) exitCode(bound time.Duration) int {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(bound):
		s.t.Fatalf("dbmazz does not exit within %s", bound)
	}
	if exit, ok := errors.AsType[*exec.ExitError](s.err); ok {
		return exit.ExitCode()
	}
	if s.err != nil {
		s.t.Fatalf("wait for dbmazz: %v", s.err)
	}
	return 0
}

// call bounds one call of the API.
func (s *service) call() context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), 20*time.Second)
	s.t.Cleanup(cancel)
	return ctx
}

// check asks HealthService/Check.
func (s *service) check() *pb.HealthCheckResponse {
	s.t.Helper()
	answer, err := s.health.Check(s.call(), &pb.HealthCheckRequest{})
	if err != nil {
		s.t.Fatalf("check the health: %v", err)
	}
	return answer
}

// look asks CdcStatusService/GetStatus.
func (s *service) look() *pb.StatusResponse {
	s.t.Helper()
	answer, err := s.status.GetStatus(s.call(), &pb.StatusRequest{})
	if err != nil {
		s.t.Fatalf("get the status: %v", err)
	}
	return answer
}

// sample takes the first sample of a new metrics stream.
func (s *service) sample() *pb.MetricsResponse {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	stream, err := s.metrics.StreamMetrics(ctx, &pb.MetricsRequest{IntervalMs: 1000})
	if err != nil {
		s.t.Fatalf("stream the metrics: %v", err)
	}
	sample, err := stream.Recv()
	if err != nil {
		s.t.Fatalf("receive a sample: %v", err)
	}
	return sample
}

// serving waits until the pipeline is ready.
func (s *service) serving() {
	s.t.Helper()
	eventually(s.t, "dbmazz is serving", func() (bool, string) {
		if s.exited() {
			s.t.Fatalf("dbmazz has exited: %v", s.err)
		}
		answer := s.check()
		return answer.GetStatus() == pb.HealthCheckResponse_SERVING, answer.String()
	})
}

// copied waits until no existing rows are being copied.
func (s *service) copied() {
	s.t.Helper()
	s.serving() // Before, it need not know yet what there is to copy.
	eventually(s.t, "existing rows are copied", func() (bool, string) {
		if s.exited() {
			s.t.Fatalf("dbmazz has exited: %v", s.err)
		}
		now := s.look()
		return !now.GetSnapshotActive(), now.String()
	})
}

// complains waits until Check says NOT_SERVING with every text in its error, and the
// log has them as well.
func (s *service) complains(texts ...string) {
	s.t.Helper()
	eventually(s.t, "Check and log name what is wrong", func() (bool, string) {
		if s.exited() {
			s.t.Fatalf("dbmazz has exited: %v", s.err)
		}
		answer := s.check()
		log := strings.ReplaceAll(s.out.String(), `\"`, `"`)
		if answer.GetStatus() != pb.HealthCheckResponse_NOT_SERVING {
			return false, answer.String()
		}
		for _, text := range texts {
			if !strings.Contains(answer.GetErrorDetail(), text) {
				return false, "no " + text + " in the answer: " + answer.GetErrorDetail()
			}
			if !strings.Contains(log, text) {
				return false, "no " + text + " in the log"
			}
		}
		return true, ""
	})
}

// succeeds checks the answer of a control call.
func (s *service) succeeds(answer *pb.ControlResponse, err error) string {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("control call: %v", err)
	}
	if !answer.GetSuccess() {
		s.t.Fatalf("control call refused: %s", answer.GetMessage())
	}
	return answer.GetMessage()
}

func (s *service) pause() {
	s.t.Helper()
	s.succeeds(s.control.Pause(s.call(), &pb.PauseRequest{}))
}

func (s *service) resume() {
	s.t.Helper()
	s.succeeds(s.control.Resume(s.call(), &pb.ResumeRequest{}))
}
