package e2e_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// proxy stands between a process and a server. Cut off, it takes connections and bytes
// and passes nothing on, as a network does that has lost its way.
type proxy struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	whole chan struct{} // closed while bytes pass
	conns []net.Conn
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, whole: make(chan struct{})}
	close(p.whole)
	go p.run()
	t.Cleanup(func() {
		_ = listener.Close()
		p.heal()
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) run() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.serve(near)
	}
}

func (p *proxy) serve(near net.Conn) {
	defer near.Close()
	<-p.passing()
	far, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer far.Close()
	p.mu.Lock()
	p.conns = append(p.conns, near, far)
	p.mu.Unlock()
	go func() {
		defer near.Close()
		p.pass(near, far)
	}()
	p.pass(far, near)
}

// pass copies bytes for as long as they may pass; those that may not are lost.
func (p *proxy) pass(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		select {
		case <-p.passing():
		default:
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) passing() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.whole
}

// cut loses everything from now on.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole = make(chan struct{})
}

// heal lets bytes pass again. Connections that have lost some are closed.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
	select {
	case <-p.whole:
	default:
		close(p.whole)
	}
}

// TestApplyThatIsCutOffFromTheQueueIsReplacedAndWritesNothing although it can reach the
// sink all the time.
func TestApplyThatIsCutOffFromTheQueueIsReplacedAndWritesNothing(t *testing.T) {
	t.Parallel()
	a := setup(t, loadDDL, loadTables...).overTCP()
	capture := a.capture("capture-1")
	direct := a.applyEnv["BUS_URL"]
	way := startProxy(t, strings.TrimPrefix(direct, "nats://"))
	a.applyEnv["BUS_URL"] = "nats://" + way.addr()
	first := a.apply("apply-1")
	first.serving()
	a.applyEnv["BUS_URL"] = direct
	second := a.apply("apply-2")
	capture.stands("apply-2", "", "standby")
	l := a.load(random(t), 5*time.Millisecond)
	l.more(20)
	way.cut()
	a.inTime(time.Now())
	wrote := a.written("apply-1")
	stays(t, 2*time.Second, "what is cut off writes nothing", func() (bool, string) {
		return a.written("apply-1") == wrote, fmt.Sprintf("%+v", a.written("apply-1"))
	})
	way.heal()
	capture.stands("apply-2", "", "active")
	capture.stands("apply-1", "", "standby")
	if now := a.written("apply-1"); now != wrote {
		t.Errorf("what was cut off had written %+v and has written %+v", wrote, now)
	}
	l.more(20)
	l.stop()
	a.same(second, loadTables...)
	a.confirmedIsApplied(l)
}

// TestCaptureThatIsCutOffFromTheQueueIsReplaced although it can reach PostgreSQL all the
// time, and holds the slot.
func TestCaptureThatIsCutOffFromTheQueueIsReplaced(t *testing.T) {
	t.Parallel()
	server := bustest.StartServer(t, bustest.ServerConfig{})
	a := setup(t, loadDDL, loadTables...).onCluster([]*bustest.Server{server})
	a.captureEnv["BUS_REPLICAS"], a.applyEnv["BUS_REPLICAS"] = "1", "1"
	way := startProxy(t, strings.TrimPrefix(server.URL, "nats://"))
	a.captureEnv["BUS_URL"] = "nats://" + way.addr()
	first := a.capture("capture-1")
	apply := a.apply("apply-1")
	apply.serving()
	a.captureEnv["BUS_URL"] = server.URL
	a.capture("capture-2")
	apply.stands("capture-2", "standby", "")
	l := a.load(random(t), 5*time.Millisecond)
	l.more(20)
	way.cut()
	a.inTime(time.Now())
	if sender := a.sender(); sender != "capture-2" {
		t.Errorf("the slot is streamed to %q", sender)
	}
	way.heal()
	apply.stands("capture-1", "standby", "")
	apply.stands("capture-2", "active", "")
	if first.exited() {
		t.Error("what was cut off has exited")
	}
	l.more(20)
	l.stop()
	a.same(apply, loadTables...)
	a.confirmedIsApplied(l)
}

// TestLoadOfAStoppedApplyThatCommitsLateChangesNothing: it was in the sink when another
// process took over.
func TestLoadOfAStoppedApplyThatCommitsLateChangesNothing(t *testing.T) {
	t.Parallel()
	for _, kind := range []starrockstest.FaultKind{starrockstest.FaultHoldBeforeCommit, starrockstest.FaultBeginLate} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			a := setup(t, "CREATE TABLE doc (id int PRIMARY KEY, v text, body text); ALTER TABLE doc ALTER COLUMN body SET STORAGE EXTERNAL", "doc").onSocket()
			_, first := a.both()
			second := a.apply("apply-2")
			a.db.Exec("INSERT INTO doc SELECT i, 'v', repeat('b', 5000) FROM generate_series(1, 20) i")
			a.same(first, "doc")
			a.script(starrockstest.Fault{Kind: kind, Table: "doc"})
			a.db.Exec("UPDATE doc SET v = 'w' WHERE id > 10; DELETE FROM doc WHERE id = 20")
			eventually(t, "the load is in the sink", func() (bool, string) { return len(a.sink.Faults()) == 0, "" })
			first.signal(syscall.SIGSTOP)
			a.db.Exec("UPDATE doc SET v = 'after' WHERE id > 10; INSERT INTO doc VALUES (20, 'new', NULL)")
			a.same(second, "doc")
			a.sink.Release()
			first.signal(syscall.SIGCONT)
			stays(t, 2*time.Second, "a late commit changes nothing", func() (bool, string) {
				found := a.compare("doc")
				return len(found) == 0, strings.Join(found, "\n")
			})
			id := pgtest.Value[int](a.db, "INSERT INTO doc SELECT max(id) + 1, 'last', 'last' FROM doc RETURNING id")
			a.same(second, "doc")
			t.Logf("row %d has arrived", id)
		})
	}
}
