package chaos_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

const (
	sinkDatabase = "mart"
	sinkPassword = "s1nk-Secret-9x!"
	slotName     = "chaos"
	// memoryLimit is the MEMORY_LIMIT of every process.
	memoryLimit = 256 << 20
)

// run is one seed's history.
type run struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand // of the schedule
	shape  shape
	binary string
	dir    string
	began  time.Time

	server  *pgtest.Server
	standby *pgtest.Server // until it is promoted
	db      *pgtest.DB
	sink    *starrockstest.Server
	skew    atomic.Int64 // of the sink's clock
	queue   []*bustest.Server
	proxies map[string]*proxy
	stages  []*stage
	load    *load
	// invisible is until when the sink may hide what it has committed.
	invisible atomic.Int64
	// wiped tells that history was repeated to a sink that is further.
	wiped atomic.Bool

	mu       sync.Mutex
	primary  *pgtest.Server
	counts   map[string]map[string]int
	problems []problem
}

// problem is a promise that was broken.
type problem struct{ kind, text string }

// The kinds of problems.
const (
	lost       = "lost rows"
	duplicated = "duplicated rows"
	altered    = "altered rows"
	passed     = "confirmed before applied"
	back       = "version went back"
	memory     = "memory over the limit"
	exits      = "exit"
	stuck      = "not drained"
	secrets    = "log"
	broken     = "the suite itself"
)

// problemsMax bounds how many are kept of one run.
const problemsMax = 20

func (r *run) problem(kind, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) < problemsMax {
		at := time.Since(r.began).Round(time.Millisecond)
		r.problems = append(r.problems, problem{kind, fmt.Sprintf("%s after %s: %s", kind, at, fmt.Sprintf(format, args...))})
	}
}

func (r *run) failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.problems) > 0
}

func (r *run) count(kind, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts[kind] == nil {
		r.counts[kind] = map[string]int{}
	}
	r.counts[kind][name]++
}

// connect opens a connection to whichever server is the primary, past the proxies.
func (r *run) connect(ctx context.Context) (*pgx.Conn, error) {
	r.mu.Lock()
	server := r.primary
	r.mu.Unlock()
	return server.Connect(ctx, r.db.Name())
}

// jitter is a duration around d.
func (r *run) jitter(random *rand.Rand, d time.Duration) time.Duration {
	return d/2 + time.Duration(random.Int64N(int64(d)+1))
}

// invisibleFor is how long what is committed may take to be seen.
func (r *run) invisibleFor() time.Duration {
	if time.Now().UnixNano() < r.invisible.Load() {
		return 8 * time.Second
	}
	return 0
}

func newRun(t *testing.T, seed uint64, binary string) *run {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // Repeatable on purpose.
	r := &run{
		t: t, seed: seed, random: random, shape: newShape(random), binary: binary, dir: t.TempDir(), began: time.Now(),
		counts: map[string]map[string]int{}, proxies: map[string]*proxy{},
	}
	r.count("layout", r.shape.layout)
	return r
}

// setUp starts the servers, fills the tables and starts dbmazz.
func (r *run) setUp() {
	r.startSource()
	r.startSink()
	ddl := tablesDDL
	tables := keyedTables
	if r.shape.keyless {
		ddl += eventDDL
		tables = append(slices.Clip(tables), "event")
	}
	r.db.Exec(ddl)
	if r.shape.existing {
		r.db.Exec(fmt.Sprintf(existingRows, ids, onceRows))
		if r.shape.keyless {
			r.db.Exec("INSERT INTO event SELECT i % 20, 'old' FROM generate_series(1, 500) i")
		}
	}
	for name, value := range map[string]string{"wal_sender_timeout": "4s", "logical_decoding_work_mem": "64kB"} {
		r.db.Exec(fmt.Sprintf("ALTER DATABASE %s SET %s = '%s'", r.db.Name(), name, value))
	}
	_, query, err := net.SplitHostPort(r.proxies["query"].addr())
	if err != nil {
		r.t.Fatal(err)
	}
	env := map[string]string{
		"SOURCE_URL": r.sourceURL(), "SOURCE_SLOT_NAME": slotName, "SOURCE_PUBLICATION_NAME": "chaos", "TABLES": strings.Join(tables, ","),
		"SINK_URL": "http://" + r.proxies["frontend"].addr(), "SINK_PORT": query, "SINK_DATABASE": sinkDatabase, "SINK_PASSWORD": sinkPassword,
		"GRPC_ADDR": "127.0.0.1:0", "BUS_DATA_DIR": filepath.Join(r.dataDir(), "bus"), "MEMORY_LIMIT": strconv.Itoa(memoryLimit),
		"MIN_LOAD_INTERVAL_MS": "20", "FLUSH_INTERVAL_MS": "500", "SHUTDOWN_TIMEOUT_S": "15", "LOG_LEVEL": "info",
	}
	r.shape.environment(env)
	r.makeStages(env)
	switch {
	case r.shape.existing && r.random.IntN(2) == 0:
		r.stages[0].arm(pick(r.random, copyPoints), r.random.IntN(6), "kill")
	case r.random.IntN(4) == 0:
		r.stages[0].arm(pick(r.random, startPoints), 0, "kill")
	}
	for _, s := range r.stages {
		s.start()
	}
}

func (r *run) startSource() {
	settings := map[string]string{"max_wal_senders": "20", "max_replication_slots": "20"}
	if r.shape.layout == layoutFailover {
		settings["synchronized_standby_slots"] = "standby"
	}
	r.server = pgtest.StartServer(r.t, pgtest.Options{Major: r.shape.major, Settings: settings})
	r.primary = r.server
	r.db = r.server.Database(r.t)
	r.proxies["source"] = startProxy(r.t, "127.0.0.1").forward(net.JoinHostPort(r.server.Host(), strconv.Itoa(r.server.Port())))
	if r.shape.layout == layoutFailover {
		r.standby = r.server.Standby(r.t, "standby", map[string]string{"sync_replication_slots": "on", "synchronized_standby_slots": ""})
	}
}

// sourceURL leads through the proxy.
func (r *run) sourceURL() string {
	u, err := url.Parse(r.db.URL())
	if err != nil {
		r.t.Fatal(err)
	}
	u.Host = r.proxies["source"].addr()
	return u.String()
}

func (r *run) startSink() {
	for name, host := range map[string]string{"frontend": "127.0.0.1", "backend": "127.0.0.2", "query": "127.0.0.1"} {
		r.proxies[name] = startProxy(r.t, host)
	}
	r.sink = starrockstest.Start(r.t, starrockstest.Options{
		Password: sinkPassword, BEPublic: r.proxies["backend"].addr(), LabelKeepMaxNum: r.shape.labels, LabelCleanInterval: -1,
		DisableFastSchemaEvolution: r.shape.slowAlter,
		Now:                        func() time.Time { return time.Now().Add(time.Duration(r.skew.Load())) },
	})
	r.proxies["frontend"].forward(r.sink.FEHTTP())
	r.proxies["backend"].forward(r.sink.BEHTTP())
	r.proxies["query"].forward(r.sink.MySQL())
	if err := r.sink.Exec("CREATE DATABASE " + sinkDatabase); err != nil {
		r.t.Fatal(err)
	}
}

// makeStages lays the processes out.
func (r *run) makeStages(env map[string]string) {
	switch r.shape.layout {
	case layoutTogether:
		r.stage("both", "", env)
		return
	case layoutQueue:
		r.queue = []*bustest.Server{bustest.StartServer(r.t, bustest.ServerConfig{})}
		u, err := url.Parse(r.queue[0].URL)
		if err != nil {
			r.t.Fatal(err)
		}
		r.proxies["queue"] = startProxy(r.t, "127.0.0.1").forward(u.Host)
		env["BUS_URL"] = "nats://" + r.proxies["queue"].addr()
	case layoutCluster:
		r.queue = bustest.StartCluster(r.t, 3, bustest.ServerConfig{})
		env["BUS_URL"], env["BUS_REPLICAS"] = bustest.URLs(r.queue), "3"
	default:
		env["BUS_LISTEN"] = "off"
	}
	r.stage("capture-1", "capture", without(env, "SINK_URL", "SINK_PORT", "SINK_DATABASE", "SINK_PASSWORD"))
	if env["BUS_LISTEN"] != "" {
		delete(env, "BUS_LISTEN")
	}
	r.stage("apply-1", "apply", without(env, "SOURCE_URL", "SOURCE_PUBLICATION_NAME", "TABLES"))
	if !r.shape.standby {
		return
	}
	r.stage("apply-2", "apply", without(env, "SOURCE_URL", "SOURCE_PUBLICATION_NAME", "TABLES"))
	if len(r.queue) > 0 {
		r.stage("capture-2", "capture", without(env, "SINK_URL", "SINK_PORT", "SINK_DATABASE", "SINK_PASSWORD"))
	}
}

func without(env map[string]string, names ...string) map[string]string {
	out := maps.Clone(env)
	for _, name := range names {
		delete(out, name)
	}
	return out
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }

// wait lets time pass.
func (r *run) wait(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}
