package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/dbmazz/dbmazz/api"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// authority signs certificates for a test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// sign returns a certificate and key (PEM) for server and client use.
func (a *authority) sign(t *testing.T, serial int64) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

func (a *authority) client(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.sign(t, 100))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// tlsFiles writes the files of a server.
func tlsFiles(t *testing.T, server *authority, clients *authority) api.Config {
	t.Helper()
	dir := t.TempDir()
	cfg := api.Config{TLSCertFile: filepath.Join(dir, "cert.pem"), TLSKeyFile: filepath.Join(dir, "key.pem")}
	certificate, key := server.sign(t, 2)
	write(t, cfg.TLSCertFile, certificate)
	write(t, cfg.TLSKeyFile, key)
	if clients != nil {
		cfg.TLSClientCAFile = filepath.Join(dir, "ca.pem")
		write(t, cfg.TLSClientCAFile, clients.pem)
	}
	return cfg
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func withTLS(cfg *tls.Config) grpc.DialOption {
	return grpc.WithTransportCredentials(credentials.NewTLS(cfg))
}

func check(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	_, err := pb.NewHealthServiceClient(conn).Check(soon(t), &pb.HealthCheckRequest{})
	return err
}

func TestTLSServesEncryptedOnly(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	addr := start(t, tlsFiles(t, ca, nil), &fakePipeline{}).Addr()
	if err := check(t, dial(t, addr, withTLS(&tls.Config{RootCAs: ca.pool()}))); err != nil {
		t.Errorf("with the CA: %v", err)
	}
	if err := check(t, dial(t, addr)); status.Code(err) != codes.Unavailable {
		t.Errorf("in plain text: got %v, want UNAVAILABLE", err)
	}
	if err := check(t, dial(t, addr, withTLS(&tls.Config{RootCAs: newAuthority(t).pool()}))); err == nil {
		t.Error("with another CA: want an error")
	}
	conn, err := tls.Dial("tcp", addr.String(), &tls.Config{
		RootCAs: ca.pool(), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
	if err == nil {
		_ = conn.Close()
		t.Error("with TLS 1.1: want an error")
	}
}

func TestClientCAAdmitsItsClientsOnly(t *testing.T) {
	t.Parallel()
	ca, clients := newAuthority(t), newAuthority(t)
	cfg := tlsFiles(t, ca, clients)
	cfg.MetricsAddr = "127.0.0.1:0"
	server := start(t, cfg, &fakePipeline{})
	with := func(certificates ...tls.Certificate) *tls.Config {
		// The certificate is sent whatever the server says it accepts.
		give := &tls.Config{RootCAs: ca.pool()}
		if len(certificates) > 0 {
			give.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificates[0], nil }
		}
		return give
	}
	if err := check(t, dial(t, server.Addr(), withTLS(with(clients.client(t))))); err != nil {
		t.Errorf("with a client certificate: %v", err)
	}
	for name, cfg := range map[string]*tls.Config{"none": with(), "foreign": with(newAuthority(t).client(t))} {
		conn := dial(t, server.Addr(), withTLS(cfg))
		if err := check(t, conn); status.Code(err) != codes.Unavailable {
			t.Errorf("with certificate %s: got %v, want UNAVAILABLE", name, err)
		}
		if _, err := healthpb.NewHealthClient(conn).Check(soon(t), &healthpb.HealthCheckRequest{}); err == nil {
			t.Errorf("health probe with certificate %s: want an error", name)
		}
	}
	base := "https://" + server.MetricsAddr().String()
	if code, _ := fetch(t, with(), base+"/healthz", ""); code != http.StatusOK {
		t.Errorf("/healthz without certificate: got %d", code)
	}
	if code, _ := fetch(t, with(), base+"/metrics", ""); code != http.StatusForbidden {
		t.Errorf("/metrics without certificate: got %d", code)
	}
	if code, body := fetch(t, with(clients.client(t)), base+"/metrics", ""); code != http.StatusOK || !strings.Contains(body, "dbmazz_ready") {
		t.Errorf("/metrics with certificate: got %d", code)
	}
}

func TestChangedCertificatesAreUsedOnceTheyFitTogether(t *testing.T) {
	t.Parallel()
	ca, clients := newAuthority(t), newAuthority(t)
	cfg := tlsFiles(t, ca, clients)
	server := start(t, cfg, &fakePipeline{})
	serial := func(client *authority) int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", server.Addr().String(), &tls.Config{
			RootCAs: ca.pool(), NextProtos: []string{"h2"}, Certificates: []tls.Certificate{client.client(t)},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	// Coarse file systems give files of the same moment the same time, so set it.
	stamp := time.Now()
	renew := func(path string, data []byte) {
		t.Helper()
		write(t, path, data)
		stamp = stamp.Add(time.Second)
		if err := os.Chtimes(path, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	if got := serial(clients); got != 2 {
		t.Fatalf("got serial %d, want 2", got)
	}
	certificate, key := ca.sign(t, 3)
	renew(cfg.TLSCertFile, certificate)
	if got := serial(clients); got != 2 {
		t.Errorf("with a new certificate and the old key: got serial %d, want the old 2", got)
	}
	renew(cfg.TLSKeyFile, key)
	if got := serial(clients); got != 3 {
		t.Errorf("got serial %d, want the new 3", got)
	}
	others := newAuthority(t)
	renew(cfg.TLSClientCAFile, others.pem)
	if err := check(t, dial(t, server.Addr(), withTLS(&tls.Config{
		RootCAs: ca.pool(), Certificates: []tls.Certificate{others.client(t)},
	}))); err != nil {
		t.Errorf("client of the new CA: %v", err)
	}
	if err := check(t, dial(t, server.Addr(), withTLS(&tls.Config{
		RootCAs: ca.pool(), Certificates: []tls.Certificate{clients.client(t)},
	}))); err == nil {
		t.Error("client of the old CA: want an error")
	}
}

func TestRunNamesTLSFilesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	good := tlsFiles(t, newAuthority(t), newAuthority(t))
	bad := filepath.Join(t.TempDir(), "bad.pem")
	write(t, bad, []byte("not PEM"))
	for name, change := range map[string]func(*api.Config){
		"missing certificate": func(c *api.Config) { c.TLSCertFile = "/no/cert.pem" },
		"bad key":             func(c *api.Config) { c.TLSKeyFile = bad },
		"missing CA":          func(c *api.Config) { c.TLSClientCAFile = "/no/ca.pem" },
		"bad CA":              func(c *api.Config) { c.TLSClientCAFile = bad },
	} {
		cfg := good
		cfg.Addr = "127.0.0.1:0"
		change(&cfg)
		server, err := api.New(cfg, &fakePipeline{})
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Run(soon(t)); err == nil || (!strings.Contains(err.Error(), "/no/") && !strings.Contains(err.Error(), bad)) {
			t.Errorf("%s: got %v, want an error that names the file", name, err)
		}
	}
}
