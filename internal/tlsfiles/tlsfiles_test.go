package tlsfiles_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/internal/tlsfiles"
)

type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func serial(t *testing.T, files *tlsfiles.Files) int64 {
	t.Helper()
	config, err := files.Config("example")
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if config.ServerName != "example" || config.RootCAs == nil || config.MinVersion < tls.VersionTLS12 {
		t.Errorf("the settings are %+v", config)
	}
	return cert.SerialNumber.Int64()
}

func TestChangedFilesAreUsedOnceTheyFitTogether(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), bustest.NewAuthority(t)
	names := tlsfiles.Names{CA: ca.File, Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	var log journal
	files := tlsfiles.New(names, slog.New(slog.NewTextHandler(&log, nil)))
	if _, err := files.Config("x"); err == nil || !strings.Contains(err.Error(), names.Cert) {
		t.Fatalf("without a certificate: %v", err)
	}
	ca.Issue(t, names.Cert, names.Key, 2)
	if got := serial(t, files); got != 2 {
		t.Fatalf("serial %d, want 2", got)
	}
	if err := os.WriteFile(names.Cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := serial(t, files); got != 2 {
			t.Fatalf("serial %d while the file is half written, want 2", got)
		}
	}
	if n := strings.Count(log.text.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings, want one: %s", n, &log.text)
	}
	if err := os.Remove(names.Key); err != nil {
		t.Fatal(err)
	}
	if got := serial(t, files); got != 2 {
		t.Fatalf("serial %d while the key is gone, want 2", got)
	}
	ca.Issue(t, names.Cert, names.Key, 3)
	if got := serial(t, files); got != 3 {
		t.Fatalf("serial %d, want 3", got)
	}
}

func TestRemediesNameTheSetting(t *testing.T) {
	t.Parallel()
	ca, other := bustest.NewAuthority(t), bustest.NewAuthority(t)
	set := tlsfiles.Settings{Address: "THE_URL", CA: "THE_CA", Cert: "THE_CERT"}
	change := func(f func(*x509.Certificate)) func(*x509.Certificate) { return f }
	for name, test := range map[string]struct {
		trust  *bustest.Authority
		host   string
		change func(*x509.Certificate)
		want   string
	}{
		"authority": {other, "127.0.0.1", change(func(*x509.Certificate) {}), "name the file with its authority in THE_CA"},
		"host":      {ca, "example.org", change(func(*x509.Certificate) {}), "the server's certificate is for 127.0.0.1: use such a name in THE_URL"},
		"expired":   {ca, "127.0.0.1", change(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "not valid at this time"},
		"usage": {ca, "127.0.0.1", change(func(c *x509.Certificate) {
			c.SerialNumber, c.ExtKeyUsage = big.NewInt(9), []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), "another certificate"},
		"none": {ca, "127.0.0.1", change(func(*x509.Certificate) {}), ""},
	} {
		dir := t.TempDir()
		certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
		ca.IssueAs(t, certFile, keyFile, test.change)
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		addr := serveOnce(t, cert)
		config, err := tlsfiles.New(tlsfiles.Names{CA: test.trust.File}, slog.New(slog.DiscardHandler)).Config(test.host)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", addr, config)
		if err == nil {
			_ = conn.Close()
		}
		if got := tlsfiles.Remedy(err, set); !strings.Contains(got, test.want) || (test.want == "") != (got == "") {
			t.Errorf("%s: %v: %q, want %q", name, err, got, test.want)
		}
	}
}

// serveOnce takes one connection on loopback.
func serveOnce(t *testing.T, cert tls.Certificate) (addr string) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_ = conn.(*tls.Conn).Handshake() // The client's error counts.
		_ = conn.Close()
	}()
	return listener.Addr().String()
}
