package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

const (
	sinkDatabase = "bench"
	sinkUser     = "bench"
)

// sink takes loads. Its front end redirects to its back end, as StarRocks does; the back end parses each body, checks
// it, applies it whole or not at all, and keeps of each row what the source can be compared by. Statements go to the
// stand-in for StarRocks, which thus has the tables but no rows.
type sink struct {
	standin  *starrockstest.Server
	password string
	fe, be   net.Listener
	group    errgroup.Group
	stop     context.CancelFunc
	servers  []*http.Server

	mu     sync.Mutex
	tables map[string]*sunk
	labels map[string]bool
	// first and last are when loads were done; atFirst is how many rows had arrived by then.
	first, last    time.Time
	rows, atFirst  int64
	bytes, loads   int64
	onFirst        func()
	late           []int32 // microseconds from the time in n to the end of the load
	timed          bool
	faulty         error // the first load that was refused
	buffers, parts sync.Pool
	// delay is how long a load takes at least.
	delay time.Duration
}

func startSink(ctx context.Context, delay time.Duration) (*sink, error) {
	s := &sink{password: rand.Text(), delay: delay}
	s.count(false, nil)
	var err error
	if s.standin, err = starrockstest.New(starrockstest.Options{User: sinkUser, Password: s.password, NoStore: true}); err != nil {
		return nil, err
	}
	ctx, s.stop = context.WithCancel(ctx)
	ended := make(chan error, 1)
	s.group.Go(func() error {
		err := s.standin.Run(ctx)
		ended <- err
		return err
	})
	select {
	case <-s.standin.Ready():
	case err := <-ended:
		return nil, errors.Join(err, s.group.Wait())
	}
	if err := s.standin.Exec("CREATE DATABASE " + sinkDatabase); err != nil {
		return s, fmt.Errorf("create the database of the sink: %w", err)
	}
	for _, listener := range []struct {
		to      *net.Listener
		handler http.HandlerFunc
	}{{&s.fe, s.redirect}, {&s.be, s.load}} {
		var config net.ListenConfig
		if *listener.to, err = config.Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return s, fmt.Errorf("listen: %w", err)
		}
		server := &http.Server{Handler: listener.handler, ReadHeaderTimeout: 10 * time.Second}
		s.servers = append(s.servers, server)
		s.group.Go(func() error {
			if err := server.Serve(*listener.to); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	return s, nil
}

func (s *sink) close() error {
	var errs []error
	for _, server := range s.servers {
		errs = append(errs, server.Close())
	}
	s.stop()
	return errors.Join(append(errs, s.group.Wait())...)
}

// env is what dbmazz needs to know of the sink.
func (s *sink) env() []string {
	_, port, _ := net.SplitHostPort(s.standin.MySQL()) // It is one that a listener has.
	return []string{
		"SINK_URL=http://" + s.fe.Addr().String(), "SINK_PORT=" + port, "SINK_DATABASE=" + sinkDatabase,
		"SINK_USER=" + sinkUser, "SINK_PASSWORD=" + s.password, "SINK_BE_HOSTS=" + s.be.Addr().String(),
	}
}

// reset removes all tables and forgets all figures. onFirst, if there is one, is called after the first load.
func (s *sink) reset(onFirst func()) {
	s.count(false, onFirst)
	s.mu.Lock()
	defer s.mu.Unlock()
	// Tables that never had a row are among them.
	for _, name := range s.standin.Tables() {
		s.faulty = errors.Join(s.faulty, s.standin.Exec("DROP TABLE "+name))
	}
}

// count forgets all figures and what the tables hold. With timed the sink notes how old each row is by its column n,
// which holds microseconds since 1970.
func (s *sink) count(timed bool, onFirst func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables, s.labels = map[string]*sunk{}, map[string]bool{}
	s.first, s.last, s.rows, s.atFirst, s.bytes, s.loads = time.Time{}, time.Time{}, 0, 0, 0, 0
	s.timed, s.onFirst, s.late, s.faulty = timed, onFirst, nil, nil
}

func (s *sink) redirect(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	switch {
	case strings.HasSuffix(r.URL.Path, "/_stream_load"):
		http.Redirect(w, r, "http://"+s.be.Addr().String()+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	case strings.HasSuffix(r.URL.Path, "/get_load_state"):
		s.mu.Lock()
		state := "UNKNOWN"
		if s.labels[r.URL.Query().Get("label")] {
			state = "VISIBLE"
		}
		s.mu.Unlock()
		fmt.Fprintf(w, `{"state":%q,"status":"OK"}`, state)
	default:
		http.NotFound(w, r)
	}
}

// load takes one Stream Load.
func (s *sink) load(w http.ResponseWriter, r *http.Request) {
	label := r.Header.Get("label")
	timer := time.NewTimer(s.delay)
	defer timer.Stop()
	rows, bytes, err := s.take(r, label, timer.C)
	if err != nil {
		s.mu.Lock()
		if s.faulty == nil {
			s.faulty = fmt.Errorf("load %s: %w", label, err)
		}
		s.mu.Unlock()
		fmt.Fprintf(w, `{"Label":%q,"Status":"Fail","Message":%q}`, label, err.Error())
		return
	}
	fmt.Fprintf(w, `{"TxnId":1,"Label":%q,"Status":"Success","Message":"OK","NumberTotalRows":%d,"NumberLoadedRows":%d,`+
		`"NumberFilteredRows":0,"NumberUnselectedRows":0,"LoadBytes":%d}`, label, rows, rows, bytes)
}

// take reads, checks and applies a body, not before the time has come.
func (s *sink) take(r *http.Request, label string, due <-chan time.Time) (rows, size int, err error) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	user, password, ok := r.BasicAuth()
	switch {
	case len(parts) != 4 || parts[0] != "api" || parts[1] != sinkDatabase || parts[3] != "_stream_load" || r.Method != http.MethodPut:
		return 0, 0, errors.New("not a load")
	case !ok || user != sinkUser || password != s.password:
		return 0, 0, errors.New("not the user")
	}
	for name, want := range map[string]string{"format": "json", "strip_outer_array": "true", "strict_mode": "true", "max_filter_ratio": "0"} {
		if got := r.Header.Get(name); got != want {
			return 0, 0, fmt.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	var list []string
	for name := range strings.SplitSeq(r.Header.Get("columns"), ",") {
		if name = strings.Trim(strings.TrimSpace(name), "`"); name != "" {
			list = append(list, name)
		}
	}
	if partial := r.Header.Get("partial_update") == "true"; partial != (len(list) > 0) {
		return 0, 0, fmt.Errorf("a partial update is %t, and there are %d columns", partial, len(list))
	}
	table, err := s.table(parts[2])
	if err != nil {
		return 0, 0, err
	}
	buffer, _ := s.buffers.Get().([]byte)
	text, err := readAll(r.Body, buffer[:0], r.ContentLength)
	defer func() { s.buffers.Put(text) }() //nolint:staticcheck // A slice in an interface costs little beside a body.
	if err != nil {
		return 0, 0, fmt.Errorf("read the body: %w", err)
	}
	scratch, _ := s.parts.Get().([]arrived)
	arrivals, err := table.parseBody(text, list, scratch[:0])
	if err != nil {
		return 0, 0, err
	}
	defer func() { s.parts.Put(arrivals) }() //nolint:staticcheck // As above.
	<-due
	return len(arrivals), len(text), s.commit(table, label, arrivals, len(text))
}

func readAll(from io.Reader, into []byte, size int64) ([]byte, error) {
	if size < 0 {
		return into, errors.New("its length is not given")
	}
	into = slices.Grow(into, int(size))[:size]
	_, err := io.ReadFull(from, into)
	return into, err
}

// table returns what is known of a table of the stand-in.
func (s *sink) table(name string) (*sunk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[name]; t != nil {
		return t, nil
	}
	data, err := s.standin.Rows(sinkDatabase, name)
	if err != nil {
		return nil, err
	}
	t, err := newSunk(data.Columns)
	if err == nil {
		s.tables[name] = t
	}
	return t, err
}

// commit applies a load. A label counts once.
func (s *sink) commit(t *sunk, label string, rows []arrived, size int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if label == "" || s.labels[label] {
		return fmt.Errorf("label %q has already been used", label)
	}
	s.labels[label] = true
	t.apply(rows)
	now := time.Now()
	if s.timed {
		micros := now.UnixMicro()
		for i := range rows {
			s.late = append(s.late, int32(min(micros-rows[i].n, 1<<31-1))) //nolint:gosec // Bounded.
		}
	}
	s.rows += int64(len(rows))
	s.bytes += int64(size)
	s.loads++
	s.last = now
	if s.first.IsZero() {
		s.first, s.atFirst = now, s.rows
		if s.onFirst != nil {
			s.onFirst()
		}
	}
	return nil
}

// arrivals are the figures of the loads since the last reset.
type arrivals struct {
	first, last   time.Time
	rows, atFirst int64
	bytes, loads  int64
}

func (s *sink) arrivals() arrivals {
	s.mu.Lock()
	defer s.mu.Unlock()
	return arrivals{first: s.first, last: s.last, rows: s.rows, atFirst: s.atFirst, bytes: s.bytes, loads: s.loads}
}

// delays returns how late each row was, in microseconds, in the order of arrival.
func (s *sink) delays() []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.late)
}

// fault returns the first load that was refused since the last reset.
func (s *sink) fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faulty
}

// check compares the tables with what the source has.
func (s *sink) check(wants map[string]sums) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.faulty}
	for name, want := range wants {
		var got sums
		if t := s.tables[name]; t != nil {
			got = t.sums()
		}
		if got != want {
			errs = append(errs, fmt.Errorf("table %s of the sink holds %+v, the source %+v", name, got, want))
		}
	}
	return errors.Join(errs...)
}
