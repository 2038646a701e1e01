package capture_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// both is the URL of a database that is on either of two servers.
func both(t *testing.T, db *pgtest.DB, other *pgtest.Server) string {
	t.Helper()
	u, err := url.Parse(db.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Host += "," + net.JoinHostPort(other.Host(), strconv.Itoa(other.Port()))
	u.RawQuery += "&target_session_attrs=read-write"
	return u.String()
}

// pair is a primary and a standby that keeps the slots in step.
type pair struct {
	db, there *pgtest.DB
	standby   *pgtest.Server
	rig       *rig
}

// newPair starts both and a capture that knows both. If the primary waits for the standby
// no change reaches capture before it has reached the standby.
func newPair(t *testing.T, major int, waits bool) *pair {
	t.Helper()
	settings := map[string]string{}
	if waits {
		settings["synchronized_standby_slots"] = "standby"
	}
	primary := pgtest.StartServer(t, pgtest.Options{Major: major, Settings: settings})
	db := primary.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	standby := primary.Standby(t, "standby", map[string]string{"sync_replication_slots": "on", "synchronized_standby_slots": ""})
	p := &pair{db: db, there: db.On(standby), standby: standby, rig: newRig(t, db, "t")}
	p.rig.cfg.SourceURL = both(t, db, standby)
	p.rig.cfg.StatusInterval = 50 * time.Millisecond
	return p
}

// load inserts rows one by one until the server goes away, and returns how many it took.
func (p *pair) load(ctx context.Context) <-chan int {
	done := make(chan int, 1)
	conn := p.db.Connect()
	go func() {
		for id := 1; ; id++ {
			if _, err := conn.Exec(ctx, "INSERT INTO t VALUES ($1)", id); err != nil {
				done <- id - 1
				return
			}
			pause(time.Millisecond)
		}
	}()
	return done
}

// untilSynced waits until a promoted standby would have the slot.
func (p *pair) untilSynced(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !pgtest.Value[bool](p.there, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary)", p.rig.cfg.Slot) {
		if time.Now().After(deadline) {
			t.Fatalf("the slot does not reach the standby: %+v", p.rig.c.Status())
		}
		// The slot can be kept on the standby once it has passed what the standby
		// has, and it moves with each such snapshot that is confirmed.
		p.db.Exec("SELECT pg_log_standby_snapshot()")
		pause(20 * time.Millisecond)
	}
}

func TestPromotedStandbyIsFollowedWithoutLoss(t *testing.T) {
	t.Parallel()
	since(t, 17, func(t *testing.T, major int) {
		p := newPair(t, major, true)
		r := p.rig
		r.startStreaming()
		if !pgtest.Value[bool](p.db, "SELECT failover FROM pg_replication_slots WHERE slot_name = $1", r.cfg.Slot) {
			t.Fatal("the slot is not marked for failover")
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		inserted := p.load(ctx)
		p.untilSynced(t)
		pause(200 * time.Millisecond)
		if err := p.db.Server().Kill(); err != nil {
			t.Fatal(err)
		}
		tried := <-inserted
		before := r.recorded("timeline")
		p.standby.Promote(t)
		p.there.Exec("INSERT INTO t VALUES (-1)")
		r.db = p.there
		r.await("streaming from the new primary", func(s capture.Status) bool { return s.State == capture.StateStreaming && s.Restarts > 0 })
		r.drain()
		var want []string
		for id := range strings.FieldsSeq(pgtest.Value[string](p.there, "SELECT string_agg(id::text, ' ' ORDER BY id <= 0, id) FROM t")) {
			want = append(want, fmt.Sprintf("insert public.t (%s)", id))
		}
		if diff := cmp.Diff(want, r.changes()); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		if after := r.recorded("timeline"); before == after {
			t.Errorf("the record says timeline %s still", after)
		}
		t.Logf("%d rows were inserted, %d survive", tried, len(want)-1)
	})
}

// The new primary lacks changes that were captured, so the sink has rows that the source
// never had.
func TestPromotedStandbyThatLacksCapturedChangesIsRefused(t *testing.T) {
	t.Parallel()
	since(t, 18, func(t *testing.T, major int) {
		p := newPair(t, major, false)
		r := p.rig
		r.startStreaming()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		loading, stop := context.WithCancel(ctx)
		inserted := p.load(loading)
		p.untilSynced(t)
		stop()
		<-inserted
		if err := p.standby.Stop(ctx, pgtest.Immediate); err != nil {
			t.Fatal(err)
		}
		p.db.Exec("INSERT INTO t VALUES (-1)")
		r.drain()
		if err := p.db.Server().Kill(); err != nil {
			t.Fatal(err)
		}
		if err := p.standby.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		p.standby.Promote(t)
		s := r.await("refused", func(s capture.Status) bool { return s.Refused })
		for _, part := range []string{"the server was promoted", "Recovery: ", "synchronized_standby_slots"} {
			if !strings.Contains(s.LastError, part) {
				t.Errorf("error lacks %q: %s", part, s.LastError)
			}
		}
	})
}

// A slot that is kept in step is the primary's; and a promoted server without the slot has
// lost changes.
func TestStandbyWithTheSlotIsNotReadAndOneWithoutItIsRefused(t *testing.T) {
	t.Parallel()
	since(t, 18, func(t *testing.T, major int) {
		p := newPair(t, major, false)
		r := p.rig
		r.startStreaming()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		inserted := p.load(ctx)
		p.untilSynced(t)
		r.stop()
		cancel()
		<-inserted
		r.cfg.SourceURL = p.there.URL()
		if s := r.refused(); s.Refused || !strings.Contains(s.LastError, "this server is a standby") {
			t.Errorf("refused %t: %s", s.Refused, s.LastError)
		}
		r.stop()
		if err := p.db.Server().Kill(); err != nil {
			t.Fatal(err)
		}
		p.standby.Promote(t)
		p.there.Exec("SELECT pg_drop_replication_slot($1)", r.cfg.Slot)
		r.start()
		s := r.await("refused", func(s capture.Status) bool { return s.Refused })
		if !strings.Contains(s.LastError, "does not exist any more") && !strings.Contains(s.LastError, "was promoted") {
			t.Error(s.LastError)
		}
	})
}
