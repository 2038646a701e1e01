// Package tlsfiles reads the PEM files of a TLS client anew for each connection, and says
// what to do about a connection that TLS refuses.
package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// Names are the files of a client. All are optional; a certificate and its key go
// together.
type Names struct {
	// CA holds the authorities to trust instead of those of the system.
	CA string
	// Cert and Key are the client's certificate, with the chain, and its key.
	Cert, Key string
}

// Files keeps what was read of the files. It reads them again when they have changed;
// while they cannot be read or do not fit together, which happens in the middle of a
// renewal, what was read before stays in use and the log says so. Its methods may be
// called concurrently.
type Files struct {
	names Names
	log   *slog.Logger

	mu      sync.Mutex
	tried   stamps
	read    bool
	roots   *x509.CertPool
	cert    *tls.Certificate
	problem error
}

// stamps tells versions of the three files apart.
type stamps [3]struct {
	modified time.Time
	size     int64
}

// New returns files that are not read yet.
func New(names Names, log *slog.Logger) *Files { return &Files{names: names, log: log} }

// Roots returns the authorities to trust, nil for those of the system.
func (f *Files) Roots() (*x509.CertPool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.refresh()
	return f.roots, err
}

// Certificate returns the client's certificate, an empty one if it has none.
func (f *Files) Certificate() (tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.refresh()
	if f.cert == nil {
		return tls.Certificate{}, err
	}
	return *f.cert, err
}

// Config returns the settings of the next connection to a host.
func (f *Files) Config(host string) (*tls.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refresh(); err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: f.roots}
	if f.cert != nil {
		config.Certificates = []tls.Certificate{*f.cert}
	}
	return config, nil
}

// refresh reads the files if they have changed. Its error is that of files which could
// never be read.
func (f *Files) refresh() error {
	now := f.stamps()
	if f.read && now == f.tried {
		return nil
	}
	if !f.read && f.problem != nil && now == f.tried {
		return f.problem
	}
	f.tried = now
	roots, cert, err := f.load()
	switch {
	case err == nil:
		if f.read {
			f.log.Info("tls files are read again", "ca_file", f.names.CA, "cert_file", f.names.Cert)
		}
		f.roots, f.cert, f.read, f.problem = roots, cert, true, nil
	case f.read:
		f.log.Warn("changed tls files cannot be used, the previous ones stay in use", "err", err)
	default:
		f.problem = err
		return err
	}
	return nil
}

func (f *Files) stamps() (s stamps) {
	for i, name := range []string{f.names.CA, f.names.Cert, f.names.Key} {
		if name == "" {
			continue
		}
		if info, err := os.Stat(name); err == nil {
			s[i].modified, s[i].size = info.ModTime(), info.Size()
		}
	}
	return s
}

func (f *Files) load() (*x509.CertPool, *tls.Certificate, error) {
	var roots *x509.CertPool
	if f.names.CA != "" {
		data, err := os.ReadFile(f.names.CA)
		if err != nil {
			return nil, nil, fmt.Errorf("read certificate authorities: %w", err)
		}
		if roots = x509.NewCertPool(); !roots.AppendCertsFromPEM(data) {
			return nil, nil, fmt.Errorf("read certificate authorities: %s holds no PEM certificate", f.names.CA)
		}
	}
	if f.names.Cert == "" {
		return roots, nil, nil
	}
	cert, err := tls.LoadX509KeyPair(f.names.Cert, f.names.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("read certificate %s with key %s: %w", f.names.Cert, f.names.Key, err)
	}
	return roots, &cert, nil
}

// Settings are the names of what an operator sets about a connection.
type Settings struct {
	Address string // of the server
	CA      string // the authorities to trust
	Cert    string // the client's certificate and key
}

// Remedy says what to do about an error of a connection, empty if TLS is not what refused
// it.
func Remedy(err error, set Settings) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	name, isName := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case isName:
		names := append([]string{}, name.Certificate.DNSNames...)
		for _, ip := range name.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Sprintf("the server's certificate is for %s: use such a name in %s, or give the server a certificate for %s",
			strings.Join(names, ", "), set.Address, name.Host)
	case isInvalid && invalid.Reason == x509.Expired:
		return "the server's certificate is not valid at this time: renew it, or set the clocks right"
	case isInvalid:
		return "the server needs another certificate"
	case unknown, strings.Contains(text, "unknown authority"):
		return "no authority that is trusted has signed the server's certificate: name the file with its authority in " + set.CA
	case strings.Contains(text, "certificate required"), strings.Contains(text, "valid client certificate"):
		return "the server wants a certificate of this client: set " + set.Cert
	case strings.Contains(text, "remote error: tls: "):
		return "the server refuses the certificate of this client: set " + set.Cert + " to one that the server's authority has signed and that has not expired"
	case strings.Contains(text, "does not look like a TLS handshake"), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return "the server does not speak TLS there: check " + set.Address
	}
	return ""
}
