package e2e_test

import (
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// apart is a pipeline whose stages run in processes of their own, each with the
// variables of its stage only.
type apart struct {
	*rig
	captureEnv, applyEnv map[string]string // over those of the rig
	// copyKey brings the key of capture's server to the host of apply.
	copyKey bool
}

// onSocket has both stages on one machine, where apply finds capture through the folder
// of the queue.
func (r *rig) onSocket() *apart {
	return &apart{rig: r, captureEnv: map[string]string{"BUS_LISTEN": "off"}, applyEnv: map[string]string{}}
}

// overTCP has apply on a machine of its own, with a copy of the key.
func (r *rig) overTCP() *apart {
	addr := freeAddr(r.t)
	return &apart{
		rig: r, copyKey: true,
		captureEnv: map[string]string{"BUS_LISTEN": addr},
		applyEnv: map[string]string{
			"BUS_URL": "nats://" + addr, "BUS_NKEY_FILE": filepath.Join(r.dir, "copied.nk"), "BUS_DATA_DIR": filepath.Join(r.dir, "other host"),
		},
	}
}

// onCluster has the queue on servers of its own.
func (r *rig) onCluster(servers []*bustest.Server) *apart {
	env := map[string]string{"BUS_URL": bustest.URLs(servers), "BUS_REPLICAS": "3"}
	return &apart{rig: r, captureEnv: env, applyEnv: maps.Clone(env)}
}

// env returns the variables of a process. A stage gets nothing of what the other needs.
func (a *apart) env(command, instance string) map[string]string {
	env := maps.Clone(a.rig.env)
	env["INSTANCE"] = instance
	over, others := a.captureEnv, []string{"SINK_URL", "SINK_PORT", "SINK_DATABASE", "SINK_PASSWORD"}
	if command != "capture" {
		over, others = a.applyEnv, []string{"SOURCE_URL", "SOURCE_PUBLICATION_NAME", "TABLES"}
	}
	for _, name := range others {
		delete(env, name)
	}
	maps.Copy(env, over)
	return env
}

// capture starts one, with its API.
func (a *apart) capture(instance string) *service {
	a.t.Helper()
	s := a.process(a.env("capture", instance), "capture")
	s.dial()
	if a.copyKey {
		a.bringKey(s)
	}
	return s
}

// bringKey copies the key as an operator would, once it is there.
func (a *apart) bringKey(s *service) {
	a.t.Helper()
	var key []byte
	eventually(a.t, "capture has made a key", func() (bool, string) {
		var err error
		key, err = os.ReadFile(filepath.Join(a.rig.env["BUS_DATA_DIR"], bus.KeyFile))
		return err == nil || s.exited(), fmt.Sprint(err)
	})
	a.secrets = append(a.secrets, strings.TrimSpace(string(key)))
	if err := os.WriteFile(a.applyEnv["BUS_NKEY_FILE"], key, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// apply starts one, with its API.
func (a *apart) apply(instance string) *service {
	a.t.Helper()
	s := a.process(a.env("apply", instance), "apply")
	s.dial()
	return s
}

// both starts one of each and waits until the pipeline is ready.
func (a *apart) both() (capture, apply *service) {
	a.t.Helper()
	capture = a.capture("capture-1")
	apply = a.apply("apply-1")
	capture.serving()
	apply.serving()
	capture.copied()
	return capture, apply
}

// roundsEnv sets how often the tests that kill kill.
const roundsEnv = "DBMAZZ_E2E_ROUNDS"

// number reads a size from the environment.
func number(t testing.TB, name string, fallback int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return n
}

// endings are how the two are ended in turns: which, and whether it is asked to.
var endings = []struct{ apply, asked bool }{{false, false}, {true, false}, {false, true}, {true, true}}

// eachKilled ends one of the two at a time, at random moments under load, and starts it
// again. It returns the last pair and the load, which goes on.
func (a *apart) eachKilled() (capture, apply *service, l *load) {
	a.t.Helper()
	random := random(a.t)
	capture, apply = a.both()
	l = a.load(random, 5*time.Millisecond)
	for round := range number(a.t, roundsEnv, len(endings)) {
		ending := endings[round%len(endings)]
		wait := time.NewTimer(time.Duration(random.IntN(300)) * time.Millisecond)
		<-wait.C
		victim, start, name := &capture, a.capture, "capture"
		if ending.apply {
			victim, start, name = &apply, a.apply, "apply"
		}
		if !ending.asked {
			(*victim).kill()
		} else if code := (*victim).terminate(25 * time.Second); code != 0 {
			a.t.Fatalf("exit code %d, want 0", code)
		}
		a.confirmedIsApplied(l)
		l.more(random.IntN(30))
		*victim = start(fmt.Sprintf("%s-%d", name, round+2))
		a.t.Logf("%s, asked %t: all goes on after %s", name, ending.asked, a.flows().Round(time.Millisecond))
	}
	return capture, apply, l
}

// flows waits until what is committed now is in the sink, and says how long that took.
func (r *rig) flows() time.Duration {
	r.t.Helper()
	took, _ := r.flowing()
	return took
}

// flowing is flows; starved tells that the machine has so much to do that the time says
// little: this process itself got less than half of its turns.
func (r *rig) flowing() (took time.Duration, starved bool) {
	r.t.Helper()
	began, turns := time.Now(), 0
	id := pgtest.Value[int64](r.db, "INSERT INTO mark DEFAULT VALUES RETURNING id")
	eventually(r.t, "what is committed now arrives", func() (bool, string) {
		turns++
		return r.row("mark", fmt.Sprintf("id = %d", id)) != nil, fmt.Sprintf("mark %d is not in the sink", id)
	})
	took = time.Since(began)
	return took, time.Duration(turns)*pollEvery < took/2
}

func TestCaptureAndApplyApartLoseNothingWhenEitherIsKilled(t *testing.T) {
	t.Parallel()
	for name, wire := range map[string]func(*rig) *apart{"unix socket": (*rig).onSocket, "TCP with the key": (*rig).overTCP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := setup(t, loadDDL, loadTables...)
			_, apply, l := wire(r.set("FLUSH_SIZE", "50")).eachKilled()
			l.stop()
			r.same(apply, loadTables...)
			t.Logf("%d transactions, %d of them confirmed", l.count(), r.confirmedIsApplied(l))
		})
	}
}

// TestApplyStartedFirstWaitsForCapture: its API says what it waits for, and all goes on
// without a restart.
func TestApplyStartedFirstWaitsForCapture(t *testing.T) {
	t.Parallel()
	for name, wire := range map[string]func(*rig) *apart{"unix socket": (*rig).onSocket, "TCP with the key": (*rig).overTCP} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := wire(setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item"))
			if a.copyKey { // Nobody can copy what is not there yet: the first run makes it.
				a.capture("capture-0").terminate(20 * time.Second)
			}
			apply := a.apply("apply-1")
			apply.complains("open the queue")
			t.Logf("apply says: %s", apply.check().GetErrorDetail())
			capture := a.capture("capture-1")
			apply.serving()
			capture.serving()
			a.db.Exec("INSERT INTO item VALUES (1)")
			a.same(apply, "item")
		})
	}
}

// TestProcessThatWaitsForTheQueueStopsCleanly, whatever it was about to say about the queue.
func TestProcessThatWaitsForTheQueueStopsCleanly(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() { // It resets every connection.
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			_ = conn.Close()
		}
	}()
	for _, command := range []string{"apply", "capture", "run"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			r := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item").set("BUS_URL", "nats://"+l.Addr().String())
			s := r.process(r.env, command)
			s.dial()
			s.complains("open the queue")
			if code := s.terminate(20 * time.Second); code != 0 {
				t.Errorf("exit code %d:\n%s", code, s.out.String())
			}
		})
	}
}

// TestWrongOrMissingKeyIsRefusedWithARemedy and works as soon as the key is right.
func TestWrongOrMissingKeyIsRefusedWithARemedy(t *testing.T) {
	t.Parallel()
	a := setup(t, "CREATE TABLE item (id int PRIMARY KEY)", "item").overTCP()
	capture := a.capture("capture-1")
	right := a.applyEnv["BUS_NKEY_FILE"]
	stranger, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := stranger.Seed()
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(a.dir, "wrong.nk")
	if err := os.WriteFile(wrong, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	a.secrets = append(a.secrets, string(seed))
	for file, want := range map[string]string{"": "BUS_NKEY_FILE", wrong: "BUS_NKEY_FILE", filepath.Join(a.dir, "none.nk"): "none.nk"} {
		a.applyEnv["BUS_NKEY_FILE"] = file
		s := a.process(a.env("apply", "stranger"), "apply")
		eventually(t, "the refusal names the remedy", func() (bool, string) {
			return strings.Contains(s.out.String(), want) && strings.Contains(s.out.String(), "open the queue"), s.out.String()
		})
		t.Logf("with %q: %s", file, lastError(s.out.String()))
		if a.sink.Stats().Writers["dbmazz/stranger"].Loads > 0 {
			t.Error("a stranger has written")
		}
		s.kill()
	}
	a.applyEnv["BUS_NKEY_FILE"] = right
	apply := a.apply("apply-1")
	apply.serving()
	a.db.Exec("INSERT INTO item VALUES (1)")
	a.same(apply, "item")
	if capture.exited() {
		t.Error("capture has exited")
	}
}

// lastError is the last error of a log, or its last line.
func lastError(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for _, line := range slices.Backward(lines) {
		if _, text, ok := strings.Cut(line, "err="); ok {
			return text
		}
	}
	return lines[len(lines)-1]
}

// TestRaceDetectorFindsNothingInEitherProcess runs binaries with the race detector through
// load, control calls, a takeover, a replay and restarts.
func TestRaceDetectorFindsNothingInEitherProcess(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("no C compiler for the race detector") // skip: cgo needs one.
	}
	a := setup(t, loadDDL, loadTables...).onSocket()
	a.race = true
	capture, first := a.both()
	second := a.apply("apply-2")
	capture.stands("apply-2", "", "standby")
	l := a.load(random(t), 5*time.Millisecond)
	l.more(20)
	second.pause()
	capture.isIn(pb.StatusResponse_PAUSED)
	capture.resume()
	second.sample()
	a.does("replay", "--all", "--sink-database", "copy")
	clean := func(s *service) {
		t.Helper()
		if code := s.terminate(30 * time.Second); code != 0 {
			t.Errorf("exit code %d, want 0: the race detector exits with 66", code)
		}
	}
	clean(first)
	a.flows()
	a.does("replay", "--all")
	clean(capture)
	capture = a.capture("capture-2")
	a.flows()
	l.stop()
	a.same(second, loadTables...)
	capture.succeeds(capture.control.DrainAndStop(capture.call(), &pb.DrainRequest{}))
	for _, s := range []*service{capture, second} {
		if code := s.exitCode(patience); code != 0 {
			t.Errorf("exit code %d, want 0: the race detector exits with 66", code)
		}
	}
}
