package e2e_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/dbmazz/dbmazz/bus/bustest"
)

const busUser, busPassword = "dbmazz", "Bus-passw0rd-17"

// guardedBus starts a NATS server that wants TLS with a certificate of the client, and a
// password, and returns with what dbmazz gets in.
func (r *rig) guardedBus(ca, clients *bustest.Authority, server pair) (bus *bustest.Server, client pair) {
	r.t.Helper()
	client = issue(r.t, clients, asIs)
	bus = bustest.StartServer(r.t, bustest.ServerConfig{
		Extra: fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }\nauthorization { user: %s, password: %q }",
			server.cert, server.key, clients.File, busUser, busPassword),
		Connect: []nats.Option{nats.RootCAs(ca.File), nats.ClientCert(client.cert, client.key), nats.UserInfo(busUser, busPassword)},
	})
	r.set("BUS_URL", strings.Replace(bus.URL, "nats://", "tls://", 1)).set("BUS_USER", busUser).set("BUS_PASSWORD", busPassword)
	r.set("BUS_TLS_CA_FILE", ca.File).set("BUS_TLS_CERT_FILE", client.cert).set("BUS_TLS_KEY_FILE", client.key)
	return bus, client
}

func TestTLSToNATSIsVerifiedBothWays(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE items (id int PRIMARY KEY, v text)", "items")
	ca, clients := bustest.NewAuthority(t), bustest.NewAuthority(t)
	server := issue(t, ca, asIs)
	bus, client := r.guardedBus(ca, clients, server)
	const certVariables = "BUS_TLS_CERT_FILE and BUS_TLS_KEY_FILE"
	foreign, old := issue(t, ca, asIs), issue(t, clients, expired)
	r.but("BUS_TLS_CA_FILE", clients.File).refused("no authority that is trusted", "BUS_TLS_CA_FILE")
	r.but("BUS_URL", strings.Replace(r.env["BUS_URL"], "127.0.0.1", "localhost", 1)).refused("the server's certificate is for 127.0.0.1", "BUS_URL")
	r.but("BUS_TLS_CERT_FILE", "", "BUS_TLS_KEY_FILE", "").refused("wants a certificate of this client", certVariables)
	r.but("BUS_TLS_CERT_FILE", foreign.cert, "BUS_TLS_KEY_FILE", foreign.key).refused("refuses the certificate of this client", certVariables)
	r.but("BUS_TLS_CERT_FILE", old.cert, "BUS_TLS_KEY_FILE", old.key).refused("refuses the certificate of this client", certVariables)
	r.but("BUS_PASSWORD", "wrong-Passw0rd").refused("does not let this client in", "BUS_USER and BUS_PASSWORD")

	s := r.start()
	r.db.Exec("INSERT INTO items SELECT i, 'v' FROM generate_series(1, 100) i")
	r.same(s, "items")

	// The server comes back with a certificate of another authority. A half-written file
	// of it changes nothing; the whole one is used without a restart.
	next := bustest.NewAuthority(t)
	bus.Kill(t)
	renewed := issue(t, next, asIs)
	replace(t, renewed.key, server.key)
	replace(t, renewed.cert, server.cert)
	bus.Launch(t)
	if err := os.WriteFile(ca.File, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(client.cert, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.logs("changed tls files cannot be used, the previous ones stay in use")
	fresh := issue(t, clients, asIs)
	replace(t, next.File, ca.File)
	replace(t, fresh.key, client.key)
	replace(t, fresh.cert, client.cert)
	r.db.Exec("INSERT INTO items SELECT i, 'w' FROM generate_series(101, 200) i")
	r.same(s, "items")
}

func TestExpiredCertificateOfNATSIsRefused(t *testing.T) {
	t.Parallel()
	r := setup(t, "SELECT 1")
	ca := bustest.NewAuthority(t)
	server := issue(t, ca, expired)
	bus := bustest.StartServer(t, bustest.ServerConfig{
		Extra:   fmt.Sprintf("tls { cert_file: %q, key_file: %q }\n", server.cert, server.key),
		Connect: []nats.Option{nats.Secure(unverified())},
	})
	r.set("BUS_URL", strings.Replace(bus.URL, "nats://", "tls://", 1)).set("BUS_TLS_CA_FILE", ca.File)
	r.refused("the server's certificate is not valid at this time")
}

// operator is a NATS server that trusts who an operator has signed, and what signs users.
type operator struct {
	*bustest.Server
	account nkeys.KeyPair
}

func newOperator(t *testing.T) *operator {
	t.Helper()
	pairOf := func(kind func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		keys, err := kind()
		if err != nil {
			t.Fatal(err)
		}
		public, err := keys.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return keys, public
	}
	op, opPublic := pairOf(nkeys.CreateOperator)
	account, accountPublic := pairOf(nkeys.CreateAccount)
	_, systemPublic := pairOf(nkeys.CreateAccount)
	opClaims := jwt.NewOperatorClaims(opPublic)
	opClaims.SystemAccount = systemPublic
	opToken, err := opClaims.Encode(op)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwt.NewAccountClaims(accountPublic)
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	token, err := claims.Encode(op)
	if err != nil {
		t.Fatal(err)
	}
	system, err := jwt.NewAccountClaims(systemPublic).Encode(op)
	if err != nil {
		t.Fatal(err)
	}
	o := &operator{account: account}
	creds := o.user(t, account)
	o.Server = bustest.StartServer(t, bustest.ServerConfig{
		Extra: fmt.Sprintf("operator: %s\nresolver: MEMORY\nresolver_preload: { %s: %s, %s: %s }\n",
			opToken, accountPublic, token, systemPublic, system),
		Connect: []nats.Option{nats.UserCredentials(creds)},
	})
	return o
}

// user makes a credentials file of a user whom an account has signed.
func (o *operator) user(t *testing.T, by nkeys.KeyPair) (file string) {
	t.Helper()
	keys, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := keys.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.NewUserClaims(public).Encode(by)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := keys.Seed()
	if err != nil {
		t.Fatal(err)
	}
	data, err := jwt.FormatUserConfig(token, seed)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "user.creds")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCredentialsOfAnOperatorModeServer(t *testing.T) {
	t.Parallel()
	r := setup(t, "CREATE TABLE items (id int PRIMARY KEY, v text)", "items")
	o := newOperator(t)
	stranger, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	r.set("BUS_URL", o.URL).set("BUS_CREDS_FILE", o.user(t, stranger)).refused("does not let this client in", "BUS_CREDS_FILE")
	nonsense := filepath.Join(r.dir, "nonsense.creds")
	if err := os.WriteFile(nonsense, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.set("BUS_CREDS_FILE", nonsense).refused(nonsense, "BUS_CREDS_FILE", "nsc generate creds")
	r.set("BUS_CREDS_FILE", filepath.Join(r.dir, "missing.creds")).refused("missing.creds", "BUS_CREDS_FILE")
	creds := o.user(t, o.account)
	s := r.set("BUS_CREDS_FILE", creds).start()
	r.db.Exec("INSERT INTO items SELECT i, 'v' FROM generate_series(1, 100) i")
	r.same(s, "items")
	// Another user's file in its place is used for the next connection.
	replace(t, o.user(t, o.account), creds)
	o.Kill(t)
	o.Start(t)
	r.db.Exec("INSERT INTO items SELECT i, 'w' FROM generate_series(101, 200) i")
	r.same(s, "items")
}
