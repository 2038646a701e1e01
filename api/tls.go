package api

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificates reads the certificate, its key and the client CA again when one of the
// files changes. While they do not fit together, which happens in the middle of a
// renewal, the last good ones are used.
type certificates struct {
	certFile, keyFile, caFile string
	log                       *slog.Logger

	mu sync.Mutex
	// tried is what the files looked like when they were last read.
	tried   fileStamps
	current certificateSet
}

type certificateSet struct {
	certificate tls.Certificate
	clientCAs   *x509.CertPool
}

// fileStamps tells versions of the three files apart.
type fileStamps [3]struct {
	modified time.Time
	size     int64
}

func loadCertificates(cfg Config, log *slog.Logger) (*certificates, error) {
	c := &certificates{certFile: cfg.TLSCertFile, keyFile: cfg.TLSKeyFile, caFile: cfg.TLSClientCAFile, log: log}
	c.tried = c.stamps()
	set, err := c.read()
	if err != nil {
		return nil, err
	}
	c.current = set
	return c, nil
}

func (c *certificates) stamps() fileStamps {
	var stamps fileStamps
	for i, name := range []string{c.certFile, c.keyFile, c.caFile} {
		if info, err := os.Stat(name); name != "" && err == nil {
			stamps[i].modified, stamps[i].size = info.ModTime(), info.Size()
		}
	}
	return stamps
}

func (c *certificates) read() (certificateSet, error) {
	certificate, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return certificateSet{}, fmt.Errorf("load TLS certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	set := certificateSet{certificate: certificate}
	if c.caFile == "" {
		return set, nil
	}
	data, err := os.ReadFile(c.caFile)
	if err != nil {
		return certificateSet{}, fmt.Errorf("load client CA: %w", err)
	}
	set.clientCAs = x509.NewCertPool()
	if !set.clientCAs.AppendCertsFromPEM(data) {
		return certificateSet{}, fmt.Errorf("load client CA: %s holds no PEM certificate", c.caFile)
	}
	return set, nil
}

// latest returns the newest certificates that fit together.
func (c *certificates) latest() certificateSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps := c.stamps()
	if stamps == c.tried {
		return c.current
	}
	c.tried = stamps
	set, err := c.read()
	if err != nil {
		c.log.Warn("changed TLS files cannot be used, the previous ones stay in use", "err", err)
		return c.current
	}
	c.log.Info("TLS files loaded again", "cert_file", c.certFile)
	c.current = set
	return set
}

// required is the client authentication of gRPC, optional that of HTTP.
func (c *certificates) required() tls.ClientAuthType {
	if c.caFile == "" {
		return tls.NoClientCert
	}
	return tls.RequireAndVerifyClientCert
}

func (c *certificates) optional() tls.ClientAuthType {
	if c.caFile == "" {
		return tls.NoClientCert
	}
	return tls.VerifyClientCertIfGiven
}

// config returns a configuration that looks at the files on every handshake. Session
// tickets are off, so that no session outlives a change of the client CA.
func (c *certificates) config(auth tls.ClientAuthType, protocols ...string) *tls.Config {
	base := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             protocols,
		ClientAuth:             auth,
		SessionTicketsDisabled: true,
	}
	config := base.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		set := c.latest()
		fresh := base.Clone()
		fresh.Certificates = []tls.Certificate{set.certificate}
		fresh.ClientCAs = set.clientCAs
		return fresh, nil
	}
	return config
}
