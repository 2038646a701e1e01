package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Standby starts a streaming standby of this server, closed when the test ends. It follows
// through the physical slot of the given name, which is made if it does not exist, and
// sends feedback, so that it may hold synchronised slots. Settings go over the primary's.
func (s *Server) Standby(t testing.TB, slot string, settings map[string]string) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	s.admin(t, fmt.Sprintf(`SELECT pg_create_physical_replication_slot('%[1]s', true)
		WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '%[1]s')`, slot))
	all := map[string]string{
		"primary_conninfo": fmt.Sprintf("host=%s port=%d user=%s password=%s dbname=%[3]s application_name=%s",
			host, s.port, superuser, s.Password(), slot),
		"primary_slot_name":    slot,
		"hot_standby_feedback": "on",
		// What the standby tells its primary, tests wait for.
		"wal_receiver_status_interval": "1s",
	}
	maps.Copy(all, settings)
	return s.copied(ctx, t, all, true)
}

// Restored starts a server from a backup that is taken now: a server with the same system
// identifier, timeline, databases and slots, which then goes its own way.
func (s *Server) Restored(t testing.TB) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	return s.copied(ctx, t, nil, false)
}

// On is the database of the same name on another server, which got it from this one's. It
// is not dropped when the test ends.
func (d *DB) On(server *Server) *DB {
	other := &DB{t: d.t, server: server, name: d.name}
	d.t.Cleanup(func() {
		other.mu.Lock()
		defer other.mu.Unlock()
		if other.conn != nil {
			_ = other.conn.Close(context.WithoutCancel(d.t.Context())) // The test may have broken it on purpose.
		}
	})
	return other
}

// Promote makes a standby a primary, on a timeline of its own, and waits until it is one.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	s.admin(t, "SELECT pg_promote(true, 60)")
}

func (s *Server) copied(ctx context.Context, t testing.TB, settings map[string]string, standby bool) *Server {
	t.Helper()
	all := maps.Clone(s.settings)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, settings)
	other, err := newServer(Options{Major: s.major, Password: s.password, Settings: all, Fsync: s.fsync})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := other.Close(); err != nil {
			t.Errorf("close a copy of PostgreSQL: %v", err)
		}
	})
	if err := s.backUp(ctx, other, standby); err != nil {
		t.Fatalf("copy PostgreSQL %d: %v", s.major, err)
	}
	if err := other.create(ctx, true); err != nil {
		t.Fatalf("start a copy of PostgreSQL %d: %v", s.major, err)
	}
	return other
}

// backUp fills the data folder of another server as pg_basebackup does, which not every
// set of binaries has.
func (s *Server) backUp(ctx context.Context, to *Server, standby bool) (err error) {
	conn, err := s.Connect(ctx, superuser)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	start, stop := "SELECT pg_backup_start('pgtest', true)", "SELECT labelfile FROM pg_backup_stop(false)"
	if s.major < 15 {
		start, stop = "SELECT pg_start_backup('pgtest', true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)"
	}
	if _, err := conn.Exec(ctx, start); err != nil {
		return fmt.Errorf("begin the backup: %w", err)
	}
	left := []string{"pg_wal", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"}
	if standby {
		left = append(left, "pg_replslot")
	}
	if err := copyRunning(s.account, s.dataDir, to.dataDir, left); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return fmt.Errorf("end the backup: %w", err)
	}
	// The end of the backup has completed the segment that is needed.
	if err := copyRunning(s.account, filepath.Join(s.dataDir, "pg_wal"), filepath.Join(to.dataDir, "pg_wal"), []string{"archive_status"}); err != nil {
		return err
	}
	files := map[string]string{"backup_label": label}
	if standby {
		files["standby.signal"] = ""
	}
	for name, text := range files {
		path := filepath.Join(to.dataDir, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), s.account.own(path)); err != nil {
			return fmt.Errorf("complete the backup: %w", err)
		}
	}
	return nil
}

// copyRunning copies a folder that a server works in: files may go while it does, which
// its WAL makes up for. Of the folders that are left out only the top remains.
func copyRunning(owner account, from, to string, left []string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case slices.Contains(left, topOf(relative)) && relative != topOf(relative):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return makeDir(owner, target)
		case relative == "postmaster.pid", relative == "postmaster.opts", relative == "server.log":
			return nil
		}
		if err := copyFile(path, target); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		return owner.own(target)
	})
}

// topOf is the first element of a relative path.
func topOf(path string) string {
	top, _, _ := strings.Cut(path, string(filepath.Separator))
	return top
}
