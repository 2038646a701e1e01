package capture_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dbmazz/dbmazz/capture"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// identityRefusals are what the identity check refuses, by name.
var identityRefusals = map[string]struct {
	change func(*rig)
	want   string
}{
	"slot dropped": {
		change: func(r *rig) { r.db.Exec("SELECT pg_drop_replication_slot($1)", r.cfg.Slot) },
		want:   "does not exist any more",
	},
	"slot dropped and created again": {
		change: func(r *rig) {
			r.db.Exec("SELECT pg_drop_replication_slot($1)", r.cfg.Slot)
			r.db.Exec("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", r.cfg.Slot)
		},
		want: "moved or created again",
	},
	"slot moved by somebody else": {
		change: func(r *rig) {
			r.db.Exec("SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())", r.cfg.Slot)
		},
		want: "moved or created again",
	},
	"sink set back and stream lost": {
		change: func(r *rig) {
			r.stream.ForgetApplied()
			r.stream.Cut(0)
		},
		want: "the sink was set back",
	},
	"record lost": {
		change: func(r *rig) { r.stream.SetState(nil) },
		want:   "record of the server",
	},
	"record and stream lost": {
		change: func(r *rig) {
			r.stream.SetState(nil)
			r.stream.Cut(0)
		},
		want: "record of the server",
	},
	"checkpoint lost": {
		change: func(r *rig) { r.stream.ForgetApplied() },
		want:   "checkpoint is missing",
	},
	"stream of another epoch": {
		change: func(r *rig) { r.stream.Rename("another") },
		want:   "the stream is another one",
	},
	"publication dropped": {
		change: func(r *rig) { r.db.Exec(`DROP PUBLICATION "` + r.cfg.Publication + `"`) },
		want:   "was dropped",
	},
	"table taken out of the publication": {
		change: func(r *rig) { r.db.Exec(`ALTER PUBLICATION "` + r.cfg.Publication + `" DROP TABLE t`) },
		want:   "taken out of publication",
	},
	"another system": {
		change: func(r *rig) { r.edit("system_id", "123") },
		want:   "system identifier",
	},
	"another database": {
		change: func(r *rig) { r.edit("database_oid", 1) },
		want:   "database is another one",
	},
	"older server": {
		change: func(r *rig) { r.edit("confirmed", "FF/0") },
		want:   "older backup",
	},
	"younger timeline": {
		change: func(r *rig) { r.edit("timeline", 7) },
		want:   "timeline",
	},
}

func TestIdentityRefusesWhatWouldLoseChanges(t *testing.T) {
	t.Parallel()
	forMajors(t, func(t *testing.T, server *pgtest.Server) {
		t.Parallel()
		for name, test := range identityRefusals {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				db := server.Database(t)
				db.Exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
				r := newRig(t, db, "t", "u")
				r.startStreaming()
				db.Exec("INSERT INTO t VALUES (1)")
				r.drain()
				r.stop()
				frames := len(r.stream.Frames())
				db.Exec("INSERT INTO t VALUES (2)")
				test.change(r)
				db.Exec("INSERT INTO t VALUES (3)")
				r.refusesFor(test.want)
				if n := len(r.stream.Frames()); n > frames {
					t.Errorf("%d frames after, %d before", n, frames)
				}
			})
		}
	})
}

// forMajors runs a subtest on the oldest version and the newest, as far as they are
// installed.
func forMajors(t *testing.T, run func(t *testing.T, server *pgtest.Server)) {
	t.Helper()
	pgtest.ForMajors(t, []int{13, 18}, run)
}

// refusesFor starts the capture and checks that it wants an operator for this reason.
func (r *rig) refusesFor(reason string) {
	r.t.Helper()
	r.start()
	s := r.await("refused", func(s capture.Status) bool { return s.LastError != "" })
	r.stop()
	if !s.Refused || !strings.Contains(s.LastError, reason) || !strings.Contains(s.LastError, "Recovery: ") {
		r.t.Errorf("refused %t, want %q: %s", s.Refused, reason, s.LastError)
	}
	r.t.Log(s.LastError)
}

// edit changes one field of the stored identity.
func (r *rig) edit(field string, value any) {
	r.t.Helper()
	fields := map[string]any{}
	if err := json.Unmarshal(r.stream.State(), &fields); err != nil {
		r.t.Fatal(err)
	}
	fields[field] = value
	state, err := json.Marshal(fields)
	if err != nil {
		r.t.Fatal(err)
	}
	r.stream.SetState(state)
}

// recorded returns one field of the stored identity.
func (r *rig) recorded(field string) string {
	r.t.Helper()
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(r.stream.State(), &fields); err != nil {
		r.t.Fatal(err)
	}
	return string(fields[field])
}

func TestOtherClusterIsRefused(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	r.stop()
	// Clusters of one major version may be copies of each other here.
	majors := pgtest.Majors()
	if len(majors) < 2 {
		// skip: one major version is installed; CI has six.
		t.Skip("needs two major versions")
	}
	major := majors[0]
	if major == db.Server().Major() {
		major = majors[1]
	}
	other := pgtest.StartServer(t, pgtest.Options{Major: major}).Database(t)
	other.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r.cfg.SourceURL = other.URL()
	r.refusesFor("system identifier")
	if n := pgtest.Value[int](other, "SELECT count(*) FROM pg_publication") + pgtest.Value[int](other, "SELECT count(*) FROM pg_replication_slots"); n != 0 {
		t.Error("something was created on the other server")
	}
}

func TestRestoredServerIsRefusedAlsoAfterItHasGrown(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{})
	db := server.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	db.Exec("CHECKPOINT") // The slot goes into the backup as it is.
	restored := db.On(server.Restored(t))
	db.Exec("INSERT INTO t SELECT generate_series(2, 1000)")
	r.drain()
	r.stop()
	frames := len(r.stream.Frames())
	r.cfg.SourceURL = restored.URL()
	restored.Exec("INSERT INTO t VALUES (2)")
	r.refusesFor("the server's WAL ends at")
	restored.Exec("INSERT INTO t SELECT generate_series(3, 100000)")
	r.refusesFor("the server does not have the transaction that committed at")
	if n := len(r.stream.Frames()); n != frames {
		t.Errorf("%d frames, %d before", n, frames)
	}
	r.cfg.SourceURL = db.URL()
	r.start()
	r.drain()
	if n := len(r.changes()); n != 1000 {
		t.Errorf("%d changes with the right server again", n)
	}
}
