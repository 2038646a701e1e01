package bus

import (
	"crypto/tls"
	"log/slog"

	"github.com/dbmazz/dbmazz/internal/tlsfiles"
)

// listener returns the TLS settings of a listener, nil without a certificate. The files
// are looked at for each connection.
func (f TLSFiles) listener(log *slog.Logger) (*tls.Config, error) {
	if f.CertFile == "" {
		return nil, nil
	}
	files := tlsfiles.New(f.names(), log)
	roots, err := files.Roots()
	if err != nil {
		return nil, err
	}
	base := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := files.Certificate()
			return &cert, err
		},
	}
	if roots == nil {
		return base, nil
	}
	base.ClientAuth, base.ClientCAs = tls.RequireAndVerifyClientCert, roots
	config := base.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		fresh := base.Clone()
		var err error
		fresh.ClientCAs, err = files.Roots()
		return fresh, err
	}
	return config, nil
}
