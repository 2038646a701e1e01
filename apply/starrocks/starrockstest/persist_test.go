package starrockstest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
)

// session runs a server on a folder for the length of f.
func session(t *testing.T, opts starrockstest.Options, f func(s *starrockstest.Server)) {
	t.Helper()
	opts.Password = testPassword
	s, err := starrockstest.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	select {
	case <-s.Ready():
		f(s)
	case err := <-done:
		stop()
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDataAndLabelsSurviveARestart(t *testing.T) {
	t.Parallel()
	opts := starrockstest.Options{Data: t.TempDir(), AlterDuration: time.Millisecond}
	var rows, jobs []string
	session(t, opts, func(s *starrockstest.Server) {
		exec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (id INT NOT NULL, v VARCHAR(20), n INT, c DATETIME DEFAULT CURRENT_TIMESTAMP) PRIMARY KEY(id)"+one,
			`CREATE TABLE d.dup (id INT, v INT) DUPLICATE KEY(id)`+one)
		mustLoad(t, s, `{"id":1,"v":"a","n":1}{"id":2,"v":"b","n":2}{"id":3}`, "label: one")
		mustLoad(t, s, `{"id":2,"v":"c"}`, "label: two", "partial_update: true", "columns: id,v")
		mustLoad(t, s, `{"id":3,"__op":1}`, "label: three")
		if a := load(t, s, `{"id":"x"}`, "label: bad"); a.Status != "Fail" {
			t.Fatal(a.raw)
		}
		exec(t, s, "ALTER TABLE d.t ADD COLUMN x DATETIME DEFAULT CURRENT_TIMESTAMP", "ALTER TABLE d.t MODIFY COLUMN n BIGINT")
		waitFor(t, func() bool { return alterFinished(t, s) })
		mustLoad(t, s, `{"id":4,"n":5000000000}`, "label: four")
		exec(t, s, "UPDATE d.t SET v = 'u' WHERE id = 4", "INSERT INTO d.t (id) VALUES (5)", "DELETE FROM d.t WHERE id = 1", "INSERT INTO d.dup VALUES (1,1),(1,1)")
		exec(t, s, "CREATE DATABASE gone", "DROP DATABASE gone", `ADMIN SET FRONTEND CONFIG ("label_keep_max_num"="5")`)
		rows, jobs = dump(t, s, "t"), query(t, s, "DESC d.t")
	})
	for range 2 {
		session(t, opts, func(s *starrockstest.Server) {
			if diff := cmp.Diff(rows, dump(t, s, "t")); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(jobs, query(t, s, "DESC d.t")); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"1|1", "1|1"}, dump(t, s, "dup")); diff != "" {
				t.Error(diff)
			}
			if got := [3]string{state(t, s, "one"), state(t, s, "bad"), state(t, s, "none")}; got != [3]string{"VISIBLE", "ABORTED", "UNKNOWN"} {
				t.Errorf("states %v", got)
			}
			if a := load(t, s, `{"id":1}`, "label: two"); a.Existing != "FINISHED" {
				t.Errorf("got %s", a.raw)
			}
			if got := query(t, s, "ADMIN SHOW FRONTEND CONFIG LIKE 'label_keep_max_num'"); got[0] != "label_keep_max_num|[]|1000|int|true|" {
				t.Errorf("got %v", got)
			}
		})
	}
}

func alterFinished(t *testing.T, s *starrockstest.Server) bool {
	t.Helper()
	jobs := query(t, s, "SHOW ALTER TABLE COLUMN FROM d WHERE State <> 'FINISHED'")
	return len(jobs) == 0
}

func TestRecordCutShortByAKillIsDropped(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	opts := starrockstest.Options{Data: folder}
	path := filepath.Join(folder, "standin.log")
	var before int64
	session(t, opts, func(s *starrockstest.Server) {
		exec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (id INT NOT NULL, v INT) PRIMARY KEY(id)"+one)
		mustLoad(t, s, `{"id":1}`, "label: one")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		before = info.Size()
		mustLoad(t, s, `{"id":2}`, "label: two")
	})
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for size := before; size < int64(len(whole)); size++ {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		session(t, opts, func(s *starrockstest.Server) {
			if rows := dump(t, s, "t"); len(rows) != 1 || state(t, s, "two") != "UNKNOWN" {
				t.Errorf("cut at %d: rows %v", size, rows)
			}
			mustLoad(t, s, `{"id":3}`, "label: two")
		})
		session(t, opts, func(s *starrockstest.Server) {
			if rows := dump(t, s, "t"); len(rows) != 2 {
				t.Errorf("cut at %d and written again: rows %v", size, rows)
			}
		})
	}
	whole[before-1] ^= 1
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := starrockstest.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("a damaged record in the middle was passed over")
	}
}

func TestPendingSchemaChangeSurvivesARestart(t *testing.T) {
	t.Parallel()
	opts := starrockstest.Options{Data: t.TempDir(), AlterDuration: time.Hour}
	session(t, opts, func(s *starrockstest.Server) {
		exec(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (id INT NOT NULL, v INT) PRIMARY KEY(id)"+one)
		mustLoad(t, s, `{"id":1,"v":7}`)
		exec(t, s, "ALTER TABLE d.t MODIFY COLUMN v VARCHAR(5)")
		mustLoad(t, s, `{"id":2,"v":8}`)
	})
	opts.AlterDuration = time.Nanosecond
	session(t, opts, func(s *starrockstest.Server) {
		waitFor(t, func() bool { return alterFinished(t, s) })
		mustLoad(t, s, `{"id":3,"v":"x"}`)
		if diff := cmp.Diff([]string{"1|7", "2|8", "3|x"}, dump(t, s, "t")); diff != "" {
			t.Error(diff)
		}
	})
}
