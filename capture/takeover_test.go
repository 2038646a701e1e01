package capture_test

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// wire is a network between a capture and its server that can be cut without either side
// being told, which is what a stopped process looks like to the server, too.
type wire struct {
	to       string
	listener net.Listener
	cut      sync.RWMutex // held while nothing gets through
	mend     func()       // ends a cut, once
	open     sync.WaitGroup
}

func newWire(t *testing.T, r *rig) *wire {
	t.Helper()
	server := r.db.Server()
	listener, err := net.Listen("tcp", net.JoinHostPort(server.Host(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{to: net.JoinHostPort(server.Host(), strconv.Itoa(server.Port())), listener: listener}
	w.mend = func() {}
	w.open.Go(w.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		w.mend()
		r.stop()
		w.open.Wait()
	})
	u, err := url.Parse(r.cfg.SourceURL)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = listener.Addr().String()
	r.cfg.SourceURL = u.String()
	return w
}

func (w *wire) serve() {
	for {
		near, err := w.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		w.open.Go(func() { w.carry(near, far) })
		w.open.Go(func() { w.carry(far, near) })
	}
}

func (w *wire) carry(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if !w.pass(from, to, buf[:n], err) {
			return
		}
	}
}

// pass hands on what was read, the end of the connection included, once the wire is whole.
func (w *wire) pass(from, to net.Conn, data []byte, end error) bool {
	w.cut.RLock()
	defer w.cut.RUnlock()
	if _, err := to.Write(data); err == nil && end == nil {
		return true
	}
	_ = from.Close()
	_ = to.Close()
	return false
}

// TestChosenCaptureTakesTheSlotFromOneThatIsCutOff: the server would hold the slot for the
// former leader until wal_sender_timeout. When the former leader wakes it has lost its
// lease, and must neither take the slot back nor tell the server anything.
func TestChosenCaptureTakesTheSlotFromOneThatIsCutOff(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		db := server.Database(t)
		db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
		var lost atomic.Bool
		first := newRig(t, db, "t")
		first.cfg.Instance, first.cfg.Takeover = "first", true
		first.cfg.Fence = func() error {
			if lost.Load() {
				return errors.New("the lease is lost")
			}
			return nil
		}
		w := newWire(t, first)
		first.startStreaming()
		db.Exec("INSERT INTO t VALUES (1)")
		first.want("insert public.t (1,~)")
		w.cut.Lock()
		w.mend = sync.OnceFunc(w.cut.Unlock)
		db.Exec("INSERT INTO t SELECT i, repeat('v', 1000) FROM generate_series(2, 20000) i")

		second := newRig(t, db, "t")
		second.stream = first.stream
		second.cfg.Instance, second.cfg.Takeover = "second", true
		began := time.Now()
		second.start()
		second.await("streaming", func(s capture.Status) bool { return s.State == capture.StateStreaming })
		if took := time.Since(began); took > 20*time.Second { // Left alone, the walsender of before holds the slot for a minute.
			t.Errorf("the takeover took %s", took)
		}
		lost.Store(true)
		second.drain()
		at := second.confirmed()
		w.mend()
		s := first.await("fenced off", func(s capture.Status) bool { return strings.Contains(s.LastError, "the lease is lost") })
		t.Log(s.LastError)
		db.Exec("INSERT INTO t VALUES (20001)")
		second.drain()
		if n := len(second.changes()); n != 20001 {
			t.Errorf("%d changes", n)
		}
		if s := second.c.Status(); s.Restarts != 0 {
			t.Errorf("the former leader disturbed the present one: %+v", s)
		}
		if now := second.confirmed(); now < at {
			t.Errorf("the slot went back from %s to %s", at, now)
		}
	})
}

func TestSlotIsTakenOnlyFromADbmazzOfThePipeline(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	first := newRig(t, db, "t")
	first.startStreaming()
	name := "SELECT application_name FROM pg_stat_activity a JOIN pg_replication_slots s ON s.active_pid = a.pid WHERE slot_name = $1"
	if got, want := pgtest.Value[string](db, name, first.cfg.Slot), "dbmazz/"+first.stream.Epoch()[:min(8, len(first.stream.Epoch()))]+"/"+first.cfg.Slot; got != want {
		t.Errorf("application_name is %q, want %q", got, want)
	}
	// A role that is not the holder's and may not signal it.
	role := "other_" + db.Name()
	db.Exec("CREATE ROLE " + role + " LOGIN REPLICATION PASSWORD 'secret'")
	second := newRig(t, db, "t")
	second.stream, second.cfg.Takeover = first.stream, true
	second.cfg.SourceURL = as(t, db, role, "secret")
	if s := second.refused(); !strings.Contains(s.LastError, "SELECT pg_terminate_backend(") || !strings.Contains(s.LastError, `GRANT pg_signal_backend TO "`+role+`"`) {
		t.Errorf("without permission: %s", s.LastError)
	}
	second.stop()
	// A dbmazz that publishes to another stream.
	stranger := newRig(t, db, "t")
	stranger.cfg.Takeover = true
	stranger.stream.Rename("stranger")
	if s := stranger.refused(); !strings.Contains(s.LastError, "is no dbmazz of this pipeline and stream") {
		t.Errorf("from the capture of another stream: %s", s.LastError)
	}
	stranger.stop()
	first.stop()

	// Somebody else's reader.
	third := newRig(t, db, "t")
	third.cfg.Slot, third.cfg.Takeover = "other_"+first.cfg.Slot, true
	db.Exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", third.cfg.Slot)
	holder := holdSlot(t, db, third.cfg.Slot, "p")
	defer func() { _ = holder.Close(t.Context()) }()
	if s := third.refused(); !strings.Contains(s.LastError, "is no dbmazz of this pipeline") {
		t.Errorf("from a stranger: %s", s.LastError)
	}
}

func TestFenceKeepsAProcessFromTouchingTheServer(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.cfg.Fence = func() error { return errors.New("the lease is lost") }
	if s := r.refused(); !strings.Contains(s.LastError, "the lease is lost") {
		t.Error(s.LastError)
	}
	if n := pgtest.Value[int](db, "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1)", r.cfg.Slot); n != 0 {
		t.Error("something was created")
	}
}

// The lease may be lost at any moment of a session; from then on nothing is confirmed.
func TestNothingIsConfirmedOnceTheLeaseIsLost(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	var lost atomic.Bool
	r := newRig(t, db, "t")
	r.stream.AutoApply(false)
	r.cfg.Fence = func() error {
		if lost.Load() {
			return errors.New("the lease is lost")
		}
		return nil
	}
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	at := r.confirmed()
	lost.Store(true)
	r.stream.Apply(1)
	r.await("ended", func(s capture.Status) bool { return strings.Contains(s.LastError, "the lease is lost") })
	r.stop()
	if now := r.confirmed(); now != at {
		t.Errorf("confirmed %s after the lease was lost, it was at %s", now, at)
	}
}
