package bus_test

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
)

// listening opens a bus whose server takes connections, and returns the configuration
// with which another process reaches it.
func listening(t *testing.T, cfg bus.Config) (owner *bus.Bus, remote bus.Config) {
	t.Helper()
	cfg.DataDir, cfg.Listen = t.TempDir(), "127.0.0.1:0"
	owner = bustest.Open(t, cfg)
	return owner, bus.Config{
		Pipeline: "test", URL: "nats://" + owner.ListenAddr(),
		Auth: bus.Auth{NKeyFile: filepath.Join(cfg.DataDir, bus.KeyFile)},
	}
}

// overTheWire lists the claims where another way to the embedded server could matter.
var overTheWire = []string{
	"FramesComeBackInOrder", "LargeFrameIsSplitAndReassembled", "FullStreamHolds", "StateIsComparedAndSet",
	"WatchBeginsWithTheCurrentValue", "ConsumerIsReplacedByTheNext", "BoardShowsWhoIsThere", "LettersArePutOnce",
}

func TestListening(t *testing.T) {
	t.Parallel()
	for _, name := range overTheWire {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, remote := listening(t, bus.Config{Pipeline: "owner"})
			conformance[name](t, remote)
		})
	}
}

func TestNobodyGetsInWithoutTheKey(t *testing.T) {
	t.Parallel()
	owner, remote := listening(t, bus.Config{})
	other := filepath.Join(t.TempDir(), "other.nk")
	elsewhere := t.TempDir()
	bustest.Open(t, bus.Config{DataDir: elsewhere})
	seed, err := os.ReadFile(filepath.Join(elsewhere, bus.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, auth := range []bus.Auth{{}, {User: "root", Password: "hunter2"}, {NKeyFile: other}} {
		remote.Auth = auth
		_, err := bustest.TryOpen(t, remote)
		var refused *bus.ConnectError
		if !errors.As(err, &refused) || !errors.Is(err, nats.ErrAuthorization) || !strings.Contains(err.Error(), owner.ListenAddr()) {
			t.Errorf("%+v: %v", auth, err)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Error("the error shows the password")
		}
	}
}

func TestKeyOfTheFolderIsMadeOnceAndChecked(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	name := filepath.Join(folder, bus.KeyFile)
	var before []byte
	for range 2 {
		b, err := bustest.TryOpen(t, bus.Config{DataDir: folder})
		if err != nil {
			t.Fatal(err)
		}
		bustest.Close(t, b)
		seed, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if before != nil && string(before) != string(seed) {
			t.Error("another key was made")
		}
		before = seed
	}
	stat, err := os.Stat(name)
	if err != nil || stat.Mode().Perm() != 0o600 || !strings.HasPrefix(string(before), "SU") {
		t.Errorf("mode %s, %v", stat.Mode(), err)
	}
	refused := func(want string) {
		t.Helper()
		_, err := bustest.TryOpen(t, bus.Config{DataDir: folder})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, want)
		}
		if err != nil && strings.Contains(err.Error(), strings.TrimSpace(string(before))) {
			t.Error("the error shows the key")
		}
	}
	if err := os.Chmod(name, 0o640); err != nil {
		t.Fatal(err)
	}
	refused("chmod 600")
	if err := os.WriteFile(name, before[:20], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("nkey")
}

func TestAddressInUseIsOneClearError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	folder := t.TempDir()
	begun := time.Now()
	_, err = bustest.TryOpen(t, bus.Config{DataDir: folder, Listen: l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "BUS_LISTEN") || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	// Nothing is left behind that would keep the next one out.
	bustest.Open(t, bus.Config{DataDir: folder})
}

// serial returns the serial number of the certificate that a listener shows.
func serial(t *testing.T, addr string, ca *bustest.Authority) int64 {
	t.Helper()
	var number int64
	nc, err := nats.Connect("tls://"+addr, nats.RootCAs(ca.File), nats.Timeout(5*time.Second),
		nats.Secure(&tls.Config{VerifyConnection: func(s tls.ConnectionState) error {
			number = s.PeerCertificates[0].SerialNumber.Int64()
			return nil
		}}))
	if err == nil {
		nc.Close()
	}
	return number // A client without the key is sent away after the handshake.
}

func TestListenerWithTLS(t *testing.T) {
	t.Parallel()
	ca, folder := bustest.NewAuthority(t), t.TempDir()
	files := bus.TLSFiles{CertFile: filepath.Join(folder, "cert.pem"), KeyFile: filepath.Join(folder, "key.pem")}
	ca.Issue(t, files.CertFile, files.KeyFile, 7)
	owner, remote := listening(t, bus.Config{ListenTLS: files})
	if _, err := bustest.TryOpen(t, remote); err == nil {
		t.Error("a client that does not know the authority got in")
	}
	remote.TLS.CAFile = ca.File
	publish(t, owner, 5, 1000)
	readAll(t, bustest.Open(t, remote), 0, 5)

	if got := serial(t, owner.ListenAddr(), ca); got != 7 {
		t.Fatalf("serial is %d", got)
	}
	ca.Issue(t, files.CertFile, files.KeyFile, 8)
	later := time.Now().Add(time.Second)
	if err := os.Chtimes(files.CertFile, later, later); err != nil {
		t.Fatal(err)
	}
	if got := serial(t, owner.ListenAddr(), ca); got != 8 {
		t.Errorf("serial after the certificate was replaced is %d", got)
	}
	if err := os.WriteFile(files.CertFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := serial(t, owner.ListenAddr(), ca); got != 8 {
		t.Errorf("serial while the certificate is being replaced is %d", got)
	}
}

func TestListenerDemandsClientCertificates(t *testing.T) {
	t.Parallel()
	ca, folder := bustest.NewAuthority(t), t.TempDir()
	files := bus.TLSFiles{CAFile: ca.File, CertFile: filepath.Join(folder, "cert.pem"), KeyFile: filepath.Join(folder, "key.pem")}
	ca.Issue(t, files.CertFile, files.KeyFile, 7)
	owner, remote := listening(t, bus.Config{ListenTLS: files})
	publish(t, owner, 1, 10)
	remote.TLS.CAFile = ca.File
	if _, err := bustest.TryOpen(t, remote); err == nil {
		t.Error("a client without a certificate got in")
	}
	remote.TLS = files
	readAll(t, bustest.Open(t, remote), 0, 1)
}

func TestBadTLSFilesAreNamed(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "nonsense.pem")
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]bus.Config{
		"listener": {DataDir: folder, Listen: "127.0.0.1:0", ListenTLS: bus.TLSFiles{CertFile: file, KeyFile: file}},
		"ca":       {URL: "nats://127.0.0.1:1", TLS: bus.TLSFiles{CAFile: file}},
		"client":   {URL: "nats://127.0.0.1:1", TLS: bus.TLSFiles{CertFile: file, KeyFile: file}},
		"nkey":     {URL: "nats://127.0.0.1:1", Auth: bus.Auth{NKeyFile: file}},
		"creds":    {URL: "nats://127.0.0.1:1", Auth: bus.Auth{CredsFile: file + ".missing"}},
	} {
		if _, err := bustest.TryOpen(t, cfg); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFullStreamIsDrainedFromAfar holds the publisher until a remote consumer, whose
// process also keeps the checkpoint, has made room.
func TestFullStreamIsDrainedFromAfar(t *testing.T) {
	t.Parallel()
	owner, remote := listening(t, bus.Config{MaxBytes: 2 << 20, JanitorPeriod: 20 * time.Millisecond})
	remote.Existing = true
	remote.JanitorPeriod = 20 * time.Millisecond
	drainedFromAfar(t, owner, bustest.Open(t, remote), bus.StateFull, 300)
}

// TestFullDiskIsDrainedFromAfar does the same with a disk that is full.
func TestFullDiskIsDrainedFromAfar(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, "64m")
	owner := bustest.Open(t, bus.Config{
		DataDir: disk, Listen: "127.0.0.1:0", DiskReserve: 16 << 20,
		Logger: slog.New(slog.DiscardHandler),
	})
	remote := bustest.Open(t, bus.Config{
		URL: "nats://" + owner.ListenAddr(), Existing: true, JanitorPeriod: 20 * time.Millisecond,
		Auth: bus.Auth{NKeyFile: filepath.Join(disk, bus.KeyFile)},
	})
	drainedFromAfar(t, owner, remote, bus.StateDiskFull, 2000)
}
