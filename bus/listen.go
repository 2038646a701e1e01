package bus

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// listener returns the TLS settings of a listener, nil without a certificate.
func (f TLSFiles) listener() (*tls.Config, error) {
	if f.CertFile == "" {
		return nil, nil
	}
	c := &certificate{files: f}
	if _, err := c.current(); err != nil {
		return nil, err
	}
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current() },
	}
	if f.CAFile != "" {
		pool, err := readAuthorities(f.CAFile)
		if err != nil {
			return nil, err
		}
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	return config, nil
}

// certificate reads a certificate again when its file has changed, so that one can be
// replaced while the server runs.
type certificate struct {
	files TLSFiles

	mu   sync.Mutex
	cert *tls.Certificate
	at   [2]time.Time // of the files
}

func (c *certificate) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, err := modified(c.files.CertFile, c.files.KeyFile)
	if err == nil && (c.cert == nil || at != c.at) {
		var cert tls.Certificate
		if cert, err = tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile); err == nil {
			c.cert, c.at = &cert, at
		}
	}
	if c.cert == nil {
		return nil, fmt.Errorf("read the listener's certificate %s and key: %w", c.files.CertFile, err)
	}
	// While the two files are being replaced they do not belong together.
	return c.cert, nil
}

func modified(cert, key string) (at [2]time.Time, err error) {
	for i, name := range []string{cert, key} {
		stat, err := os.Stat(name)
		if err != nil {
			return at, err
		}
		at[i] = stat.ModTime()
	}
	return at, nil
}
