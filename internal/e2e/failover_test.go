package e2e_test

import (
	"net"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// TestPromotedStandbyOfPostgreSQLIsFollowedWithoutLoss: the primary dies under load, its
// standby has the slot and becomes the primary. SOURCE_URL names both.
func TestPromotedStandbyOfPostgreSQLIsFollowedWithoutLoss(t *testing.T) {
	t.Parallel()
	const first = 17
	majors := slices.DeleteFunc(slices.Clone(pgtest.Majors()), func(major int) bool { return major < first })
	if len(majors) == 0 {
		t.Skipf("no PostgreSQL %d or later is installed", first) // skip: failover slots came with it.
	}
	primary := pgtest.StartServer(t, pgtest.Options{Major: majors[len(majors)-1], Settings: map[string]string{"synchronized_standby_slots": "standby"}})
	db := primary.Database(t)
	senderTimeout(db, 3*time.Second) // The slot on the standby follows what is confirmed.
	r := setupOn(t, db, starrockstest.Options{}, loadDDL, loadTables...)
	standby := primary.Standby(t, "standby", map[string]string{"sync_replication_slots": "on", "synchronized_standby_slots": ""})
	there := db.On(standby)
	either, err := url.Parse(db.URL())
	if err != nil {
		t.Fatal(err)
	}
	either.Host += "," + net.JoinHostPort(standby.Host(), strconv.Itoa(standby.Port()))
	either.RawQuery += "&target_session_attrs=read-write"
	a := r.set("SOURCE_URL", either.String()).onSocket()
	capture, apply := a.both()
	l := r.load(random(t), 5*time.Millisecond)
	eventually(t, "the slot is on the standby", func() (bool, string) {
		r.db.Exec("SELECT pg_log_standby_snapshot()")
		synced := "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary)"
		return pgtest.Value[bool](there, synced, r.slot), capture.check().String()
	})
	l.more(50)
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	l.stop()
	began := time.Now()
	standby.Promote(t)
	r.db = there
	r.flows()
	t.Logf("rows of the new primary are in the sink %s after its promotion began; %d transactions before it", time.Since(began).Round(time.Millisecond), l.count())
	l = r.load(random(t), 5*time.Millisecond)
	l.more(50)
	l.stop()
	r.same(apply, loadTables...)
	if capture.exited() {
		t.Error("capture has exited")
	}
}
