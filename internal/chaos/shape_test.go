package chaos_test

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// The layouts.
const (
	layoutTogether = "one process"
	layoutApart    = "capture and apply apart"
	layoutQueue    = "a nats-server of its own"
	layoutCluster  = "a cluster of three nats-servers"
	layoutFailover = "a standby of PostgreSQL that is promoted"
)

// shape is what a seed has chosen before anything starts.
type shape struct {
	layout  string
	major   int // of PostgreSQL
	standby bool
	writers int
	pace    time.Duration
	wide    int
	steps   int
	// existing rows are copied while changes flow.
	existing  bool
	withheld  bool // and commits are withheld meanwhile
	keyless   bool
	hard      bool
	streaming bool
	small     bool // the stream has little room
	smallDisk bool // and so has its disk
	retention bool
	slowAlter bool
	flush     int
	chunk     int
	labels    int
}

// failoverFirst is the first version of PostgreSQL whose slots can fail over.
const failoverFirst = 17

func newShape(random *rand.Rand) shape {
	s := shape{
		writers: 2 + random.IntN(3), pace: time.Duration(1+random.IntN(12)) * time.Millisecond, wide: pick(random, []int{20, 60, 400, 2000}),
		steps: 4 + random.IntN(4), existing: random.IntN(2) == 0, keyless: random.IntN(3) > 0, hard: random.IntN(3) == 0, streaming: random.IntN(4) > 0,
		standby: random.IntN(3) == 0, small: random.IntN(6) == 0, smallDisk: random.IntN(5) == 0, retention: random.IntN(2) == 0, slowAlter: random.IntN(4) == 0,
		flush: pick(random, []int{5, 50, 500, 5000}), chunk: 40 + random.IntN(200), labels: pick(random, []int{3, 50, 1000}),
	}
	switch n := random.IntN(100); {
	case n < 35:
		s.layout = layoutTogether
	case n < 60:
		s.layout = layoutApart
	case n < 85:
		s.layout = layoutQueue
	case n < 92:
		s.layout = layoutCluster
	default:
		s.layout = layoutFailover
	}
	majors := slices.DeleteFunc(slices.Clone(pgtest.Majors()), func(major int) bool { return s.layout == layoutFailover && major < failoverFirst })
	if len(majors) == 0 {
		s.layout, majors = layoutApart, []int{0}
	}
	s.withheld = random.IntN(3) > 0 && s.existing && s.layout != layoutFailover
	s.major = pick(random, majors)
	s.smallDisk = s.smallDisk && s.embedded() && os.Getuid() == 0
	return s
}

// embedded tells that the queue is inside dbmazz.
func (s *shape) embedded() bool { return s.layout != layoutQueue && s.layout != layoutCluster }

// environment sets what the shape asks for.
func (s *shape) environment(env map[string]string) {
	env["FLUSH_SIZE"] = strconv.Itoa(s.flush)
	env["SNAPSHOT_CHUNK_ROWS"] = strconv.Itoa(s.chunk)
	env["SOURCE_STREAMING"] = strconv.FormatBool(s.streaming)
	if !s.existing {
		env["SNAPSHOT"] = "never"
	}
	if s.withheld {
		env["SNAPSHOT_RATE"] = "2000" // So that the copy takes a few seconds.
	}
	if s.hard {
		env["SINK_DELETE_MODE"] = "hard"
	}
	if s.small {
		env["BUS_MAX_BYTES"] = "2MiB"
	} else {
		env["BUS_MAX_BYTES"] = "256MiB"
	}
	if !s.retention {
		env["BUS_RETENTION"] = "0"
	}
}

// diskSize is that of a small disk. Capture waits below a reserve of its own.
const diskSize = "512m"

// dataDir is where the queue keeps its files: a disk of its own if it is a small one.
func (r *run) dataDir() string {
	if !r.shape.smallDisk {
		return r.dir
	}
	dir := r.dir + "/disk"
	if err := os.Mkdir(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+diskSize); err != nil {
		r.shape.smallDisk = false
		return r.dir
	}
	r.t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			r.t.Errorf("unmount the small disk: %v", err)
		}
	})
	return dir
}
