package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/dbmazz/dbmazz/apply/starrocks/starrockstest"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/internal/pgtest"
	pb "github.com/dbmazz/dbmazz/proto/dbmazz"
)

// pair is a certificate and its key.
type pair struct{ cert, key string }

// issue makes a certificate for 127.0.0.1 in a folder of its own, after a change.
func issue(t *testing.T, by *bustest.Authority, change func(*x509.Certificate)) pair {
	t.Helper()
	dir := t.TempDir()
	p := pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	by.IssueAs(t, p.cert, p.key, change)
	return p
}

func asIs(*x509.Certificate) {}

func expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
}

func forOther(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 1, 2, 3)} }

// replace puts one file in the place of another, as a renewal does.
func replace(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

// logs waits until a text is in the log.
func (s *service) logs(text string) {
	s.t.Helper()
	eventually(s.t, "the log says "+text, func() (bool, string) {
		return strings.Contains(s.out.String(), text), tail(s.out.String())
	})
}

// guardedSource is a PostgreSQL that takes the role of dbmazz over TLS only, with a
// certificate of the client authority.
type guardedSource struct {
	*rig
	ca, clients *bustest.Authority
}

const secureRole, securePassword = "secure", "Very-s3cure-pa55"

func secureSource(t *testing.T) *guardedSource {
	t.Helper()
	server := pgtest.StartServer(t, pgtest.Options{})
	db := server.Database(t)
	g := &guardedSource{
		rig: setupOn(t, db, starrockstest.Options{}, "CREATE TABLE items (id int PRIMARY KEY, v text)", "items"),
		ca:  bustest.NewAuthority(t), clients: bustest.NewAuthority(t),
	}
	db.Exec(fmt.Sprintf("CREATE ROLE %s LOGIN SUPERUSER PASSWORD '%s'", secureRole, securePassword))
	hba := filepath.Join(server.DataDir(), "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	first := fmt.Sprintf("hostssl all %s 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\nhost all %[1]s all reject\n", secureRole)
	if err := os.WriteFile(hba, append([]byte(first), rules...), 0o600); err != nil {
		t.Fatal(err)
	}
	g.serve(issue(t, g.ca, asIs))
	g.trust(g.clients)
	db.Exec("ALTER SYSTEM SET ssl_ca_file = 'clients.pem'")
	db.Exec("ALTER SYSTEM SET ssl = on")
	g.reload()
	return g
}

// serve gives the server a certificate, from its next reload.
func (g *guardedSource) serve(p pair) {
	g.t.Helper()
	g.install(p.cert, "server.crt")
	g.install(p.key, "server.key")
}

// trust says which authority's clients get in, from the next reload.
func (g *guardedSource) trust(clients *bustest.Authority) {
	g.t.Helper()
	g.install(clients.File, "clients.pem")
}

func (g *guardedSource) install(from, name string) {
	g.t.Helper()
	to := filepath.Join(g.db.Server().DataDir(), name)
	replace(g.t, from, to)
	info, err := os.Stat(g.db.Server().DataDir())
	if err != nil {
		g.t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	if err := os.Chown(to, int(owner.Uid), int(owner.Gid)); err != nil {
		g.t.Fatal(err)
	}
}

// reload makes the server read its configuration and certificates again. The postmaster
// does it when it gets to it: after that its log says so.
func (g *guardedSource) reload() {
	g.t.Helper()
	const said = "received SIGHUP, reloading configuration files"
	times := func() int {
		data, err := os.ReadFile(g.db.Server().LogFile())
		if err != nil {
			g.t.Fatal(err)
		}
		return strings.Count(string(data), said)
	}
	before := times()
	g.db.Exec("SELECT pg_reload_conf()")
	eventually(g.t, "the server reads its files again", func() (bool, string) { return times() > before, "it has not begun" })
	probe := func() (bool, string) {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(g.db.Server().Port())), time.Second)
		if err != nil {
			return false, err.Error()
		}
		defer func() { _ = conn.Close() }()
		// SSLRequest: the answer of a backend that was made after the reload.
		if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
			return false, err.Error()
		}
		answer := make([]byte, 1)
		_, err = conn.Read(answer)
		return err == nil && answer[0] == 'S', fmt.Sprintf("%q %v", answer, err)
	}
	eventually(g.t, "the server speaks TLS", probe)
}

// url is the source as the role of dbmazz, with these parameters.
func (g *guardedSource) url(host string, parameters ...string) string {
	g.t.Helper()
	query := url.Values{}
	for i := 0; i < len(parameters); i += 2 {
		query.Set(parameters[i], parameters[i+1])
	}
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(secureRole, securePassword), Path: "/" + g.db.Name(), RawQuery: query.Encode(),
		Host: net.JoinHostPort(host, fmt.Sprint(g.db.Server().Port())),
	}
	return u.String()
}

// refused starts dbmazz, which must say what is in the way.
func (r *rig) refused(texts ...string) {
	r.t.Helper()
	s := r.up()
	s.complains(texts...)
	r.silent(s)
	s.kill()
}

func TestTLSToPostgreSQLIsVerifiedBothWays(t *testing.T) {
	t.Parallel()
	g := secureSource(t)
	client := issue(t, g.clients, asIs)
	with := func(host, mode, ca string, client pair) string {
		if client.cert == "" {
			return g.url(host, "sslmode", mode, "sslrootcert", ca)
		}
		return g.url(host, "sslmode", mode, "sslrootcert", ca, "sslcert", client.cert, "sslkey", client.key)
	}
	for _, c := range []struct {
		url  string
		want []string
	}{
		{with("127.0.0.1", "verify-full", g.clients.File, client), []string{"unknown authority", "sslrootcert of SOURCE_URL"}},
		{with("127.0.0.1", "verify-ca", g.clients.File, client), []string{"unknown authority", "sslrootcert of SOURCE_URL"}},
		{with("localhost", "verify-full", g.ca.File, client), []string{"the server's certificate is for 127.0.0.1", "SOURCE_URL"}},
		{with("127.0.0.1", "verify-full", g.ca.File, pair{}), []string{"wants a certificate of this client", "sslcert and sslkey of SOURCE_URL"}},
		{with("127.0.0.1", "verify-full", g.ca.File, issue(t, g.ca, asIs)), []string{"refuses the certificate of this client", "sslcert and sslkey of SOURCE_URL"}},
		{with("127.0.0.1", "verify-full", g.ca.File, issue(t, g.clients, expired)), []string{"refuses the certificate of this client", "expired"}},
		{g.url("127.0.0.1", "sslmode", "disable"), []string{"pg_hba.conf rejects", map[bool]string{true: "SSL off", false: "no encryption"}[major(t) < 14]}},
	} {
		g.set("SOURCE_URL", c.url).refused(append(c.want, "PostgreSQL connection failed")...)
	}
	g.set("SOURCE_URL", with("127.0.0.1", "verify-full", "/no/such/ca.pem", client)).refuses("SOURCE_URL", "/no/such/ca.pem")

	g.serve(issue(t, g.ca, expired))
	g.reload()
	g.set("SOURCE_URL", with("127.0.0.1", "verify-full", g.ca.File, client)).refused("not valid at this time: renew it")

	// A name that is not the certificate's is for verify-ca no matter.
	g.serve(issue(t, g.ca, forOther))
	g.reload()
	s := g.set("SOURCE_URL", with("127.0.0.1", "verify-ca", g.ca.File, client)).start()
	g.db.Exec("INSERT INTO items SELECT i, 'v' FROM generate_series(1, 100) i")
	g.same(s, "items")
	if n := pgtest.Value[int](g.db, "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl AND client_dn IS NOT NULL"); n != 1 {
		t.Errorf("%d replication connections with TLS and a client certificate", n)
	}
}

func TestNewClientCertificateForPostgreSQLIsUsedWithoutARestart(t *testing.T) {
	t.Parallel()
	g := secureSource(t)
	client := issue(t, g.clients, asIs)
	s := g.set("SOURCE_URL", g.url("127.0.0.1", "sslmode", "verify-full", "sslrootcert", g.ca.File, "sslcert", client.cert, "sslkey", client.key)).start()
	next := bustest.NewAuthority(t)
	g.trust(next)
	g.reload()
	if err := os.WriteFile(client.cert, []byte("-----BEGIN CERTIFICATE-----\nhalf"), 0o600); err != nil {
		t.Fatal(err)
	}
	drop := func() {
		g.db.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", secureRole)
	}
	drop()
	s.logs("changed files of the source url cannot be used, the previous ones stay in use")
	s.complains("refuses the certificate of this client")
	renewed := issue(t, next, asIs)
	replace(t, renewed.key, client.key)
	replace(t, renewed.cert, client.cert)
	g.db.Exec("INSERT INTO items SELECT i, 'v' FROM generate_series(1, 100) i")
	g.same(s, "items")
	if s.exited() {
		t.Error("the process has exited")
	}
}

func TestAPIOverTLSWithClientCertificatesAndToken(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	ca, clients := bustest.NewAuthority(t), bustest.NewAuthority(t)
	server := issue(t, ca, asIs)
	const token = "t0ken-of-the-api-93"
	r.set("GRPC_TLS_CERT_FILE", server.cert).set("GRPC_TLS_KEY_FILE", server.key).set("GRPC_TLS_CLIENT_CA_FILE", clients.File).set("GRPC_TOKEN", token)
	s := r.launch()
	good := grpcTLS(t, ca, issue(t, clients, asIs))
	s.dial(good, grpc.WithPerRPCCredentials(bearer(token)))
	s.serving()
	try := func(what string, want codes.Code, options ...grpc.DialOption) {
		t.Helper()
		conn, err := grpc.NewClient("passthrough:///"+s.address(), options...)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = pb.NewCdcControlServiceClient(conn).Pause(s.call(), &pb.PauseRequest{})
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %s", what, err, want)
		}
	}
	try("no token", codes.Unauthenticated, good)
	try("another token", codes.Unauthenticated, good, grpc.WithPerRPCCredentials(bearer("wrong")))
	try("no client certificate", codes.Unavailable, grpcTLS(t, ca, pair{}), grpc.WithPerRPCCredentials(bearer(token)))
	try("a foreign client certificate", codes.Unavailable, grpcTLS(t, ca, issue(t, ca, asIs)), grpc.WithPerRPCCredentials(bearer(token)))
	try("an expired client certificate", codes.Unavailable, grpcTLS(t, ca, issue(t, clients, expired)), grpc.WithPerRPCCredentials(bearer(token)))
	if err := os.WriteFile(server.cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	try("while the certificate is being written", codes.Unauthenticated, good)
	s.logs("changed TLS files cannot be used, the previous ones stay in use")
	other := bustest.NewAuthority(t)
	renewed := issue(t, other, asIs)
	replace(t, renewed.key, server.key)
	replace(t, renewed.cert, server.cert)
	try("after the renewal, with the old authority", codes.Unavailable, good)
	try("after the renewal", codes.Unauthenticated, grpcTLS(t, other, issue(t, clients, asIs)))
}

// grpcTLS trusts an authority and shows a certificate, if there is one, whatever the
// server says that it takes.
func grpcTLS(t *testing.T, ca *bustest.Authority, client pair) grpc.DialOption {
	t.Helper()
	data, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(data)
	if client.cert != "" {
		cert, err := tls.LoadX509KeyPair(client.cert, client.key)
		if err != nil {
			t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	return grpc.WithTransportCredentials(credentials.NewTLS(config))
}

// bearer is a token that goes with every call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return true }

// unverified is for tests that wait for a server whose certificate is no good.
func unverified() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true} //nolint:gosec // That is the point.
}
