package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
)

// gateway speaks https in front of one HTTP listener of the sink, as the nodes of a
// cluster with https do. Its certificate and the authority of its clients can be replaced
// while it runs.
type gateway struct {
	addr    string
	server  pair
	clients string // the file of the clients' authority
}

// front starts a gateway on an address. next is what redirects of the sink lead to
// instead; empty leaves them.
func front(t *testing.T, on, to string, server pair, clients string, next func() string) *gateway {
	t.Helper()
	listener, err := net.Listen("tcp", on)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{addr: listener.Addr().String(), server: server, clients: clients}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: to})
	proxy.Transport = &http.Transport{ExpectContinueTimeout: 5 * time.Second, DisableCompression: true}
	proxy.ModifyResponse = func(answer *http.Response) error {
		if location, err := answer.Location(); err == nil {
			location.Scheme, location.Host = "https", next()
			answer.Header.Set("Location", location.String())
		}
		return nil
	}
	https := &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second, TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			cert, err := tls.LoadX509KeyPair(g.server.cert, g.server.key)
			if err != nil {
				return nil, err
			}
			data, err := os.ReadFile(g.clients)
			if err != nil {
				return nil, err
			}
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(data)
			return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, nil
		},
	}}
	https.SetKeepAlivesEnabled(false)
	go func() { _ = https.ServeTLS(listener, "", "") }() // Ends with the test.
	t.Cleanup(func() { _ = https.Close() })
	return g
}

// but is the rig with other variables.
func (r *rig) but(pairs ...string) *rig {
	changed := *r
	changed.env = maps.Clone(r.env)
	for i := 0; i < len(pairs); i += 2 {
		changed.env[pairs[i]] = pairs[i+1]
	}
	return &changed
}

// bothHosts is for the certificate of nodes on the two addresses that the sink has.
func bothHosts(c *x509.Certificate) {
	c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)}
}

func TestTLSToStarRocksIsVerifiedBothWays(t *testing.T) {
	t.Parallel()
	ca, clients := bustest.NewAuthority(t), bustest.NewAuthority(t)
	server := issue(t, ca, bothHosts)
	cert, err := tls.LoadX509KeyPair(server.cert, server.key)
	if err != nil {
		t.Fatal(err)
	}
	db := pgtest.Database(t)
	r := setupOn(t, db, starrockstest.Options{MySQLTLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}},
		"CREATE TABLE items (id int PRIMARY KEY, v text)", "items")
	files := t.TempDir()
	clientCA := filepath.Join(files, "clients.pem")
	replace(t, clients.File, clientCA)
	back := front(t, "127.0.0.2:0", r.sink.BEHTTP(), server, clientCA, nil)
	fe := front(t, "127.0.0.1:0", r.sink.FEHTTP(), server, clientCA, func() string { return back.addr })
	client := issue(t, clients, asIs)
	r.set("SINK_URL", "https://"+fe.addr).set("SINK_BE_HOSTS", back.addr).set("SINK_SQL_TLS", "true")
	r.set("SINK_TLS_CA_FILE", ca.File).set("SINK_TLS_CERT_FILE", client.cert).set("SINK_TLS_KEY_FILE", client.key)

	foreign, old := issue(t, ca, asIs), issue(t, clients, expired)
	const certVariables = "SINK_TLS_CERT_FILE and SINK_TLS_KEY_FILE"
	r.but("SINK_TLS_CA_FILE", clients.File).refused("StarRocks connection failed", "no authority that is trusted", "SINK_TLS_CA_FILE")
	r.but("SINK_TLS_CA_FILE", clients.File, "SINK_SQL_TLS", "").refused("Sink HTTP connection failed", "no authority that is trusted", "SINK_TLS_CA_FILE")
	r.but("SINK_URL", strings.Replace(r.env["SINK_URL"], "127.0.0.1", "localhost", 1), "SINK_SQL_TLS", "").refused("the server's certificate is for 127.0.0.1, 127.0.0.2", "SINK_URL")
	r.but("SINK_TLS_CERT_FILE", "", "SINK_TLS_KEY_FILE", "").refused("wants a certificate of this client", certVariables)
	r.but("SINK_TLS_CERT_FILE", foreign.cert, "SINK_TLS_KEY_FILE", foreign.key).refused("refuses the certificate of this client", certVariables)
	r.but("SINK_TLS_CERT_FILE", old.cert, "SINK_TLS_KEY_FILE", old.key).refused("refuses the certificate of this client", certVariables)
	r.but("SINK_URL", "https://"+r.sink.FEHTTP()).refused("does not speak TLS there", "SINK_URL")
	r.but("SINK_TLS_CA_FILE", "/no/such/ca.pem").refused("/no/such/ca.pem")

	s := r.start()
	r.db.Exec("INSERT INTO items SELECT i, 'v' FROM generate_series(1, 100) i")
	r.same(s, "items")

	// The nodes take only clients of another authority; the file of the client is half
	// written at first.
	next := bustest.NewAuthority(t)
	replace(t, next.File, clientCA)
	if err := os.WriteFile(client.cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.db.Exec("INSERT INTO items SELECT i, 'w' FROM generate_series(101, 200) i")
	s.logs("changed tls files cannot be used, the previous ones stay in use")
	renewed := issue(t, next, asIs)
	replace(t, renewed.key, client.key)
	replace(t, renewed.cert, client.cert)
	r.same(s, "items")
	if s.exited() {
		t.Error("the process has exited")
	}
}

func TestMySQLWithoutTLSIsRefusedWhereItIsDemanded(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	r.set("SINK_SQL_TLS", "true").refused("StarRocks connection failed", "does not support TLS", "SINK_SQL_TLS=false")
}

func TestExpiredCertificateOfStarRocksIsRefused(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	ca := bustest.NewAuthority(t)
	fe := front(t, "127.0.0.1:0", r.sink.FEHTTP(), issue(t, ca, expired), ca.File, nil)
	r.set("SINK_URL", "https://"+fe.addr).set("SINK_TLS_CA_FILE", ca.File).refused("the server's certificate is not valid at this time")
}
