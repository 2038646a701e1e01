package pgtest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// childEnv makes the test binary start a server, print its process id, and wait to be killed.
const childEnv = "PGTEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
	}
	goleak.VerifyTestMain(pgtest.Tests(m))
}

func child() {
	server, err := pgtest.Start(context.Background(), pgtest.Options{})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	fmt.Println(server.PID(), server.DataDir())
	select {}
}

func TestEveryMajorKeepsItsSlotOverKillAndRestart(t *testing.T) {
	t.Parallel()
	for _, major := range pgtest.Majors() {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			server := pgtest.StartServer(t, pgtest.Options{Major: major})
			db := server.Database(t)
			if got := pgtest.Value[int](db, "SELECT current_setting('server_version_num')::int / 10000"); got != major {
				t.Fatalf("server of major %d, want %d", got, major)
			}
			db.Exec("SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
			db.Exec("CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (7)")
			port := server.Port()
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
			if err := server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if server.Port() != port {
				t.Errorf("port %d after a restart, want %d", server.Port(), port)
			}
			if got := pgtest.Value[int](db, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 's'"); got != 1 {
				t.Errorf("%d slots after a kill, want 1", got)
			}
			if got := pgtest.Value[int](db, "SELECT id FROM kept"); got != 7 {
				t.Errorf("row %d after a kill, want 7", got)
			}
		})
	}
}

func TestForEachMajorVisitsEveryInstalledServer(t *testing.T) {
	t.Parallel()
	var seen []int
	pgtest.ForEachMajor(t, func(t *testing.T, server *pgtest.Server) {
		db := server.Database(t)
		seen = append(seen, pgtest.Value[int](db, "SELECT current_setting('server_version_num')::int / 10000"))
	})
	if fmt.Sprint(seen) != fmt.Sprint(pgtest.Majors()) {
		t.Errorf("visited %v, want %v", seen, pgtest.Majors())
	}
}

func TestDatabaseIsDroppedWithItsActiveSlot(t *testing.T) {
	t.Parallel()
	var name string
	var server *pgtest.Server
	var hold *pgconn.PgConn
	t.Run("use", func(t *testing.T) {
		db := pgtest.Database(t)
		name, server = db.Name(), db.Server()
		db.Exec("SELECT pg_create_logical_replication_slot('held_slot', 'pgoutput')")
		db.Exec("CREATE PUBLICATION p FOR ALL TABLES")
		hold = holdSlot(t, db, "held_slot")
	})
	_ = hold.Close(t.Context()) // The server has ended it.
	conn, err := server.Connect(t.Context(), "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	var left int
	const query = `SELECT (SELECT count(*) FROM pg_database WHERE datname = $1)
		+ (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'held_slot')`
	if err := conn.QueryRow(t.Context(), query, name).Scan(&left); err != nil {
		t.Fatal(err)
	}
	if left != 0 {
		t.Errorf("%d of database and slot are left after the test", left)
	}
}

func TestStartedDataFolderIsReusedWithItsPassword(t *testing.T) {
	t.Parallel()
	options := pgtest.Options{DataDir: filepath.Join(t.TempDir(), "data"), Password: `it's "odd"`}
	for range 2 {
		server, err := pgtest.Start(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := server.Connect(t.Context(), "postgres")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS seen (n int)"); err != nil {
			t.Error(err)
		}
		if err := errors.Join(conn.Close(t.Context()), server.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(options.DataDir, "PG_VERSION")); err != nil {
		t.Errorf("the caller's data folder went with the server: %v", err)
	}
}

func TestServerDiesWithAProcessThatIsKilled(t *testing.T) {
	t.Parallel()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(executable)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(line)
	pid, err := strconv.Atoi(fields[0])
	if err != nil {
		t.Fatalf("child said %q", line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // It was killed.
	awaitEnd(t, pid)
	if err := pgtest.SweepTemp(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(fields[1])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data folder of a killed process is still there: %v", err)
	}
}

func TestStartSaysWhatTheServerSaid(t *testing.T) {
	t.Parallel()
	_, err := pgtest.Start(t.Context(), pgtest.Options{Settings: map[string]string{"wal_level": "nonsense"}})
	if err == nil || !strings.Contains(err.Error(), "wal_level") {
		t.Errorf("error %v, want one that quotes the server's log about wal_level", err)
	}
}

func TestMissingMajorNamesTheRemedy(t *testing.T) {
	t.Parallel()
	_, err := pgtest.Start(t.Context(), pgtest.Options{Major: 7})
	if !errors.Is(err, pgtest.ErrNoServer) || !strings.Contains(err.Error(), "make setup-postgres-majors") {
		t.Errorf("error %v, want ErrNoServer and what to run", err)
	}
}

func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	limit := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("process %d still runs after its parent was killed", pid)
		}
	}
}
