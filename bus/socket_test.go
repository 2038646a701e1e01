package bus_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/cdc"
)

// attached opens a bus that has a folder, and returns the configuration of one that
// attaches to it.
func attached(t *testing.T, cfg bus.Config) (owner *bus.Bus, other bus.Config) {
	t.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	return bustest.Open(t, cfg), bus.Config{Pipeline: "test", DataDir: cfg.DataDir, Attach: true}
}

func TestAttached(t *testing.T) {
	t.Parallel()
	for _, name := range overTheWire {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A path that does not fit into the address of a socket.
			folder := filepath.Join(t.TempDir(), strings.Repeat("long", 40), "folder")
			_, cfg := attached(t, bus.Config{Pipeline: "test", DataDir: folder})
			conformance[name](t, cfg)
		})
	}
}

func TestSocketIsForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	// What a dead process has left is replaced.
	if err := os.WriteFile(filepath.Join(folder, bus.SocketFile), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	attached(t, bus.Config{DataDir: folder})
	stat, err := os.Stat(filepath.Join(folder, bus.SocketFile))
	if err != nil || stat.Mode().Perm() != 0o600 || stat.Mode().Type() != os.ModeSocket {
		t.Errorf("socket is %v, %v", stat.Mode(), err)
	}
}

func TestAttachWithoutAnOwnerSaysWhatToDo(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	refused := func() {
		t.Helper()
		_, err := bustest.TryOpen(t, bus.Config{DataDir: folder, Attach: true})
		var unreachable *bus.ConnectError
		if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), folder) || !strings.Contains(err.Error(), "start the process") {
			t.Errorf("got %v", err)
		}
	}
	refused()
	owner, err := bustest.TryOpen(t, bus.Config{DataDir: folder})
	if err != nil {
		t.Fatal(err)
	}
	bustest.Close(t, owner)
	if _, err := os.Stat(filepath.Join(folder, bus.SocketFile)); err == nil {
		t.Error("the socket is still there")
	}
	refused()
}

// TestStrangerOnTheSocketIsSentAway connects to the socket without the key.
func TestStrangerOnTheSocketIsSentAway(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	bustest.Open(t, bus.Config{DataDir: folder})
	conn, err := net.Dial("unix", filepath.Join(folder, bus.SocketFile))
	if err != nil {
		t.Skip(err) // skip: the path of the test's folder is too long for a socket here.
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("CONNECT {\"verbose\":true}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Authorization Violation") {
			return
		}
		if strings.HasPrefix(lines.Text(), "PONG") {
			break
		}
	}
	t.Error("the server let it in")
}

// The environment of a process that owns a folder for others.
const ownerFolder = "BUS_OWNER_FOLDER"

// ownerChild serves the folder until it is killed.
func ownerChild(folder string) error {
	b, err := bus.New(bus.Config{Pipeline: "test", DataDir: folder, DiskReserve: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	if err := b.Open(context.Background()); err != nil {
		return err
	}
	fmt.Println("open")
	select {}
}

// startOwner returns when the process has opened the folder.
func startOwner(t *testing.T, folder string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerFolder+"="+folder)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "open\n" {
		t.Fatalf("owner said %q, %v", line, err)
	}
	return cmd
}

// TestAttachedOutlivesItsOwner kills the process that has the folder, under an attached
// publisher and consumer, and starts another in its place.
func TestAttachedOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	folder := t.TempDir()
	owner := startOwner(t, folder)
	b := bustest.Open(t, bus.Config{DataDir: folder, Attach: true, Logger: slog.New(slog.DiscardHandler)})
	bus.SetPatience(b, time.Second)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := b.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const total = 1200
	result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), total, 20<<10)
	check := bustest.Checker{Epoch: b.Epoch()}
	var revision uint64
	for n := uint64(100); n <= total; n += 100 {
		m, err := check.Read(ctx, c, n)
		if err != nil {
			t.Fatal(err)
		}
		if n%300 == 0 && n < total {
			_ = owner.Process.Kill()
			_ = owner.Wait()
			owner = startOwner(t, folder)
		}
		if revision, err = b.Update(ctx, "apply", []byte(strconv.FormatUint(m.Sequence, 10)), revision); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if check.Skipped > 0 || check.Frames != total {
		t.Errorf("%d frames, %d changes twice", check.Frames, check.Skipped)
	}
	info, err := b.Info(ctx)
	if err != nil || info.LastSequence != total || info.DiskFreeBytes <= 0 {
		t.Errorf("info is %+v, %v", info, err)
	}
}

// TestAttachedOutlivesTheServer replaces the server in the owner's process.
func TestAttachedOutlivesTheServer(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	owner, cfg := attached(t, bus.Config{Pipeline: "test"})
	b := bustest.Open(t, cfg)
	bus.SetPatience(b, time.Second)
	p, err := b.Publisher(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := owner.Consumer(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const total = 600
	result := flood(ctx, p, bustest.NewSource(b.Epoch(), cdc.Tail{}), total, 20<<10)
	check := bustest.Checker{Epoch: b.Epoch()}
	for n := uint64(200); n <= total; n += 200 {
		if _, err := check.Read(ctx, c, n); err != nil {
			t.Fatal(err)
		}
		if n < total {
			if err := bus.RestartServer(ctx, owner); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if check.Skipped > 0 || check.Frames != total {
		t.Errorf("%d frames, %d changes twice", check.Frames, check.Skipped)
	}
}

// TestNothingListensByDefault looks at the sockets of a process with a folder.
func TestNothingListensByDefault(t *testing.T) {
	t.Parallel()
	owner := startOwner(t, t.TempDir())
	inodes := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", owner.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "socket:[") {
			inodes[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
		}
	}
	if len(inodes) == 0 {
		t.Error("not even the socket of the folder is open")
	}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", owner.Process.Pid, table))
		if err != nil {
			continue // skip: no such protocol here.
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			if f := strings.Fields(line); len(f) > 9 && inodes[f[9]] {
				t.Errorf("%s: %s", table, line)
			}
		}
	}
}
