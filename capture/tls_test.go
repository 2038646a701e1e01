package capture_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestStreamingOverTLS(t *testing.T) {
	t.Parallel()
	server := pgtest.StartServer(t, pgtest.Options{})
	db := server.Database(t)
	installCertificate(t, server.DataDir())
	db.Exec("ALTER SYSTEM SET ssl = on")
	db.Exec("SELECT pg_reload_conf()")
	db.Exec("CREATE TABLE t (id int PRIMARY KEY, v text)")
	r := newRig(t, db, "t")
	u, err := url.Parse(r.cfg.SourceURL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("sslmode", "require")
	u.RawQuery = query.Encode()
	r.cfg.SourceURL = u.String()
	r.startStreaming()
	db.Exec("INSERT INTO t SELECT i, repeat('v', 500) FROM generate_series(1, 20000) i")
	for range 20 {
		db.Exec("UPDATE t SET v = 'w' WHERE id = 1")
	}
	r.drain()
	if n := len(r.changes()); n != 20020 {
		t.Errorf("%d changes", n)
	}
	if n := pgtest.Value[int](db, "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl"); n != 1 {
		t.Errorf("%d encrypted replication connections", n)
	}
}

// installCertificate puts a self-signed certificate where the server looks for it.
func installCertificate(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	for name, block := range map[string]*pem.Block{
		"server.crt": {Type: "CERTIFICATE", Bytes: cert}, "server.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}
