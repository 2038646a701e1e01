package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/dbmazz/dbmazz/internal/tlsfiles"
)

// Auth says how to authenticate with the servers of a URL.
type Auth struct {
	// NKeyFile holds an nkey seed, as `nats --nkey` reads it. For a dbmazz
	// process that listens it is a copy of the [KeyFile] in its data folder.
	NKeyFile string
	// CredsFile holds a user's JWT and seed, as `nats --creds` reads it.
	CredsFile string
	// User and Password, or User alone for a token.
	User, Password string
}

// TLSFiles name PEM files. All are optional; a certificate and its key go together.
type TLSFiles struct {
	// CAFile holds the authorities to trust. Empty means those of the system,
	// for a listener none: clients need no certificate.
	CAFile string
	// CertFile and KeyFile are the own certificate, with the chain, and its key.
	CertFile, KeyFile string
}

func (a Auth) check() error {
	ways := 0
	for _, set := range []bool{a.NKeyFile != "", a.CredsFile != "", a.User != ""} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		return errors.New("more than one way to authenticate with NATS: give an nkey file, a credentials file, or a user")
	}
	if a.Password != "" && a.User == "" {
		return errors.New("a NATS password without a user")
	}
	return nil
}

func (f TLSFiles) check(whose string) error {
	if (f.CertFile == "") != (f.KeyFile == "") {
		return fmt.Errorf("the %s certificate and its key go together: one of the two files is missing", whose)
	}
	return nil
}

func (f TLSFiles) checkListener() error {
	if f.CAFile != "" && f.CertFile == "" {
		return errors.New("an authority for the clients of a listener that has no certificate of its own")
	}
	return f.check("listener's")
}

// options returns those of the client. The files are read here, so that a mistake in
// them has a clear error, and again by the client whenever it connects.
func (a Auth) options() ([]nats.Option, error) {
	switch {
	case a.NKeyFile != "":
		if _, err := readSeed(a.NKeyFile); err != nil {
			return nil, fmt.Errorf("use BUS_NKEY_FILE: %w", err)
		}
		option, err := nats.NkeyOptionFromSeed(a.NKeyFile)
		if err != nil {
			return nil, fmt.Errorf("use nkey file %s: %w", a.NKeyFile, err)
		}
		return []nats.Option{option}, nil
	case a.CredsFile != "":
		if err := checkCreds(a.CredsFile); err != nil {
			return nil, err
		}
		return []nats.Option{nats.UserCredentials(a.CredsFile)}, nil
	case a.User != "" && a.Password == "":
		return []nats.Option{nats.Token(a.User)}, nil
	case a.User != "":
		return []nats.Option{nats.UserInfo(a.User, a.Password)}, nil
	}
	return nil, nil
}

// checkCreds reports what is wrong with a credentials file, without what is in it.
func checkCreds(file string) error {
	data, err := os.ReadFile(file) //nolint:gosec // A configured file.
	if err != nil {
		return fmt.Errorf("read NATS credentials of BUS_CREDS_FILE: %w", err)
	}
	_, noToken := nkeys.ParseDecoratedJWT(data)
	keys, noSeed := nkeys.ParseDecoratedUserNKey(data)
	if noToken != nil || noSeed != nil {
		return fmt.Errorf("read NATS credentials of BUS_CREDS_FILE: %s does not hold the JWT and the seed of a user; nsc generate creds makes such a file", file)
	}
	keys.Wipe()
	return nil
}

// options returns those of the client; see [Auth.options].
func (f TLSFiles) options(log *slog.Logger) ([]nats.Option, error) {
	if f == (TLSFiles{}) {
		return nil, nil
	}
	files := tlsfiles.New(f.names(), log)
	if _, err := files.Roots(); err != nil {
		return nil, err
	}
	var cert nats.TLSCertHandler
	var roots nats.RootCAsHandler
	if f.CertFile != "" {
		cert = files.Certificate
	}
	if f.CAFile != "" {
		roots = files.Roots
	}
	return []nats.Option{nats.ClientTLSConfig(cert, roots)}, nil
}

func (f TLSFiles) names() tlsfiles.Names {
	return tlsfiles.Names{CA: f.CAFile, Cert: f.CertFile, Key: f.KeyFile}
}

// settings name what an operator sets about connections to a URL.
var settings = tlsfiles.Settings{Address: "BUS_URL", CA: "BUS_TLS_CA_FILE", Cert: "BUS_TLS_CERT_FILE and BUS_TLS_KEY_FILE"}

// servers are those of a URL list.
type servers struct {
	urls    []string
	hosts   []string // without credentials, for messages
	secrets []string // what no message may show
}

// parseServers reads a list of URLs. Its errors show nothing of them: a password that
// makes a URL malformed would be in it.
func parseServers(list string) (servers, error) {
	var s servers
	for i, text := range strings.Split(list, ",") {
		text = strings.TrimSpace(text)
		// A password with a comma, a hash or the like that is not encoded would be a host in part.
		torn := strings.ContainsAny(text, "?#")
		if !strings.Contains(text, "://") {
			torn = torn || strings.Contains(text, "@")
			text = "nats://" + text
		}
		u, err := url.Parse(text)
		torn = torn || err == nil && strings.Trim(u.Path, "/") != ""
		if err != nil || torn || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return servers{}, fmt.Errorf("number %d of the NATS URLs is not nats://host:port or tls://host:port; percent-encode special characters of a password", i+1)
		}
		s.urls, s.hosts = append(s.urls, text), append(s.hosts, u.Host)
		if u.User != nil {
			s.secrets = append(s.secrets, u.User.Username(), u.User.String())
			if password, ok := u.User.Password(); ok {
				s.secrets = append(s.secrets, password)
			}
		}
	}
	return s, nil
}

func (s servers) String() string { return strings.Join(s.hosts, ", ") }

// redacted returns the error without the secrets of the URLs.
func (s servers) redacted(err error) error {
	text := err.Error()
	for _, secret := range s.secrets {
		if secret != "" && strings.Contains(text, secret) {
			text = strings.ReplaceAll(text, secret, "xxxxx")
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}
