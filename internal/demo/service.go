package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dbmazz/dbmazz/internal/demo/shop"
	"github.com/dbmazz/dbmazz/internal/freeport"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// service is dbmazz, a process of its own, over all its restarts.
type service struct {
	command command
	ended   func(error)
	address string // Of the gRPC API.
	metrics string // Of the metrics endpoint.
	queue   string // Folder of the queue.

	mu      sync.Mutex
	process *process
	conn    *grpc.ClientConn
	starts  int
	now     counters // Of the process that runs.
	before  counters // Of the processes that ran before.
}

// counters are what a process counts from its start.
type counters struct {
	captured, applied, batches, retried uint64
	cpu                                 time.Duration
	peak, resident                      uint64
}

func (c counters) plus(o counters) counters {
	return counters{
		captured: c.captured + o.captured, applied: c.applied + o.applied, batches: c.batches + o.batches,
		retried: c.retried + o.retried, cpu: c.cpu + o.cpu, peak: max(c.peak, o.peak), resident: o.resident,
	}
}

// tableList is the variable TABLES.
func tableList() string {
	var names []string
	for _, t := range shop.Tables() {
		names = append(names, t.String())
	}
	return strings.Join(names, ",")
}

// newService says how dbmazz is started.
func newService(ctx context.Context, d *demo) (*service, error) {
	grpcAddress, err := freeport.PickAddress(ctx)
	if err != nil {
		return nil, err
	}
	metricsAddress, err := freeport.PickAddress(ctx)
	if err != nil {
		return nil, err
	}
	s := &service{ended: d.serviceEnded, address: grpcAddress, metrics: metricsAddress, queue: filepath.Join(d.dir, "queue")}
	s.command = command{
		name: "dbmazz", path: d.binary("dbmazz"), log: filepath.Join(d.dir, dbmazzLog),
		dir: d.dir, // Not the caller's folder, which may hold an .env file.
		env: childEnv(
			"SOURCE_URL="+d.source.url(captureRole),
			"SOURCE_SLOT_NAME="+slotName,
			"TABLES="+tableList(),
			"SINK_URL=http://"+d.sink.fe,
			"SINK_PORT="+d.sink.port(),
			"SINK_DATABASE="+sinkDatabase,
			"SINK_USER="+sinkUser,
			"SINK_PASSWORD="+d.sink.password,
			"GRPC_ADDR="+s.address,
			"METRICS_ADDR="+s.metrics,
			"BUS_DATA_DIR="+s.queue,
		),
	}
	if d.hard {
		s.command.env = append(s.command.env, "SINK_DELETE_MODE=hard")
	}
	return s, nil
}

// start starts the process; it need not be serving yet.
func (s *service) start() error {
	p, err := start(s.command, s.ended)
	if err != nil {
		return err
	}
	// A new connection has no memory of the old process and its back-off.
	conn, err := grpc.NewClient("passthrough:///"+s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.kill()
		return fmt.Errorf("connect to dbmazz: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process, s.conn = p, conn
	s.starts++
	return nil
}

// kill ends the process with SIGKILL.
func (s *service) kill() error {
	s.mu.Lock()
	p, conn := s.process, s.conn
	s.mu.Unlock()
	s.count(p.pid(), nil)
	p.kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.now, s.conn = s.before.plus(s.now), counters{}, nil
	return conn.Close()
}

// stop ends the process in order.
func (s *service) stop(ctx context.Context) error {
	s.mu.Lock()
	p, conn := s.process, s.conn
	s.conn = nil
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	s.count(p.pid(), nil)
	err := p.stop(ctx, stopWithin)
	if conn != nil {
		err = errors.Join(err, conn.Close())
	}
	return err
}

// stopWithin is a little more than dbmazz's own bound.
const stopWithin = 40 * time.Second

func (s *service) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.pid()
}

// total sums the counters of all processes up to now.
func (s *service) total() counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.before.plus(s.now)
}

// count notes the counters of the process that runs.
func (s *service) count(pid int, m *pb.MetricsResponse) {
	u := usageOf(pid)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil || s.process.pid() != pid {
		return
	}
	s.now.cpu, s.now.peak, s.now.resident = max(s.now.cpu, u.cpu), max(s.now.peak, u.peak), u.resident
	if m != nil {
		s.now.captured, s.now.applied = m.GetRowsCapturedTotal(), m.GetRowsAppliedTotal()
		s.now.batches, s.now.retried = m.GetTotalBatchesSent(), m.GetLoadsRetriedTotal()
	}
}

// state is what the API says at one moment; all nil while dbmazz cannot be reached.
type state struct {
	health  *pb.HealthCheckResponse
	status  *pb.StatusResponse
	metrics *pb.MetricsResponse
}

// askWithin bounds one look at the API.
const askWithin = 2 * time.Second

// ask looks at the API.
func (s *service) ask(ctx context.Context) (state, error) {
	s.mu.Lock()
	conn, pid := s.conn, 0
	if s.process != nil {
		pid = s.process.pid()
	}
	s.mu.Unlock()
	if conn == nil {
		return state{}, errors.New("dbmazz does not run")
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var now state
	var err error
	if now.health, err = pb.NewHealthServiceClient(conn).Check(ctx, &pb.HealthCheckRequest{}); err != nil {
		return state{}, fmt.Errorf("ask dbmazz for its health: %w", err)
	}
	if now.status, err = pb.NewCdcStatusServiceClient(conn).GetStatus(ctx, &pb.StatusRequest{}); err != nil {
		return state{}, fmt.Errorf("ask dbmazz for its status: %w", err)
	}
	// The first sample comes at once, with rates over about the last second.
	stream, err := pb.NewCdcMetricsServiceClient(conn).StreamMetrics(ctx, &pb.MetricsRequest{IntervalMs: 1000})
	if err != nil {
		return state{}, fmt.Errorf("ask dbmazz for its metrics: %w", err)
	}
	if now.metrics, err = stream.Recv(); err != nil {
		return state{}, fmt.Errorf("ask dbmazz for its metrics: %w", err)
	}
	s.count(pid, now.metrics)
	return now, nil
}

// serving tells whether dbmazz replicates.
func (n state) serving() bool { return n.health.GetStatus() == pb.HealthCheckResponse_SERVING }

// text is the state for people: readiness, stage, what is being done.
func (n state) text() string {
	if n.health == nil {
		return "not reachable"
	}
	text := n.health.GetStatus().String() + ", stage " + strings.TrimPrefix(n.health.GetStage().String(), "STAGE_") + ", " + n.health.GetStageDetail()
	if n.status.GetState() != pb.StatusResponse_RUNNING {
		text += ", " + n.status.GetState().String()
	}
	return text
}

// stages says what capture and apply do.
func (n state) stages() string {
	var parts []string
	for _, stage := range n.status.GetStages() {
		text := stage.GetName() + " " + strings.ToLower(strings.TrimPrefix(stage.GetState().String(), "STATE_"))
		if stage.GetRestarts() > 0 {
			text += fmt.Sprintf(" after %d restarts", stage.GetRestarts())
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// trouble is what is wrong, as one line, empty when nothing is.
func (n state) trouble() string { return strings.Join(strings.Fields(n.health.GetErrorDetail()), " ") }

// all is everything for a message about a failure.
func (n state) all() string {
	if t := n.trouble(); t != "" {
		return n.text() + ": " + t
	}
	return n.text()
}
