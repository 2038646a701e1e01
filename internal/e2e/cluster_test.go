package e2e_test

import (
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/bustest"
)

// TestOnAClusterOfThreeServers runs what needs an external queue on one cluster: three
// servers of their own, every stream on all of them.
func TestOnAClusterOfThreeServers(t *testing.T) {
	t.Parallel()
	servers := bustest.StartCluster(t, 3, bustest.ServerConfig{})
	for name, test := range map[string]func(*testing.T, []*bustest.Server){
		"each stage is killed and restarted alone under load": clusterKills,
		"replay into another database":                        clusterReplay,
		"a killed capture is replaced within 10 s":            killedCaptureIsReplaced,
		"a stopped capture is replaced and writes nothing":    stoppedCaptureIsReplaced,
		"a killed apply is replaced within 10 s":              killedApplyIsReplaced,
		"a stopped apply is replaced and writes nothing":      stoppedApplyIsReplaced,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, servers)
		})
	}
}

func clusterKills(t *testing.T, servers []*bustest.Server) {
	r := setup(t, loadDDL, loadTables...)
	_, apply, l := r.onCluster(servers).eachKilled()
	l.stop()
	r.same(apply, loadTables...)
	t.Logf("%d transactions, %d of them confirmed", l.count(), r.confirmedIsApplied(l))
}

func clusterReplay(t *testing.T, servers []*bustest.Server) {
	r := setup(t, loadDDL, loadTables...)
	a := r.onCluster(servers)
	capture, apply := a.both()
	l := r.load(random(t), 5*time.Millisecond)
	l.more(50)
	a.does("replay", "--all", "--sink-database", "copy")
	l.stop()
	r.same(apply, loadTables...)
	capture.terminate(20 * time.Second)
	apply.terminate(20 * time.Second)
	a.does("replay", "--all", "--sink-database", "copy")
	r.equalIn("copy", loadTables...)
	a.does("replay", "--all")
	r.equal(loadTables...)
}

// TestALostServerOfTheClusterDelaysAndLosesNothing kills the server that leads the stream
// and starts it again, under load.
func TestALostServerOfTheClusterDelaysAndLosesNothing(t *testing.T) {
	t.Parallel()
	servers := bustest.StartCluster(t, 3, bustest.ServerConfig{})
	r := setup(t, loadDDL, loadTables...)
	capture, apply := r.onCluster(servers).both()
	l := r.load(random(t), 5*time.Millisecond)
	l.more(20)
	for range number(t, roundsEnv, 1) {
		leader := bustest.Leader(t, servers, "DBMAZZ_"+r.slot)
		leader.Kill(t)
		l.more(20)
		t.Logf("without %s all goes on after %s", leader.Name(), r.flows().Round(time.Millisecond))
		leader.Start(t)
		r.flows()
	}
	if capture.exited() || apply.exited() {
		t.Error("a stage has exited")
	}
	l.stop()
	r.same(apply, loadTables...)
	r.confirmedIsApplied(l)
}
