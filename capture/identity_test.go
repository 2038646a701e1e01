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
	for name, test := range identityRefusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Database(t)
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
			s := r.refused()
			r.stop()
			if !s.Refused || !strings.Contains(s.LastError, test.want) || !strings.Contains(s.LastError, "Recovery: ") {
				t.Errorf("refused %t: %s", s.Refused, s.LastError)
			}
			if n := len(r.stream.Frames()); n > frames {
				t.Errorf("%d frames after, %d before", n, frames)
			}
			t.Log(s.LastError)
		})
	}
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

func TestInvalidatedSlotIsRefused(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{Settings: map[string]string{
		"max_slot_wal_keep_size": "1MB", "wal_keep_size": "0", "max_wal_size": "32MB", "min_wal_size": "32MB",
	}})
	db := server.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	r.stop()
	for range 5 {
		db.Exec("SELECT pg_switch_wal()")
		db.Exec("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
		db.Exec("DROP TABLE filler")
		db.Exec("CHECKPOINT")
	}
	if s := r.refused(); !s.Refused || !strings.Contains(s.LastError, "cannot be read any more") {
		t.Errorf("refused %t: %s", s.Refused, s.LastError)
	}
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
	if s := r.refused(); !s.Refused || !strings.Contains(s.LastError, "system identifier") {
		t.Errorf("refused %t: %s", s.Refused, s.LastError)
	}
	if n := pgtest.Value[int](other, "SELECT count(*) FROM pg_publication") + pgtest.Value[int](other, "SELECT count(*) FROM pg_replication_slots"); n != 0 {
		t.Error("something was created on the other server")
	}
}

func TestNewStreamBesideAnUnappliedSlotStartsOver(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	db.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	r := newRig(t, db, "t")
	r.stream.AutoApply(false)
	r.startStreaming()
	db.Exec("INSERT INTO t VALUES (1)")
	r.drain()
	r.stop()
	r.stream.Cut(0)
	r.start()
	r.want("insert public.t (1)")
	if s := r.c.Status(); s.State != capture.StateStreaming {
		t.Errorf("status %+v", s)
	}
}
