package starrocks

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/dbmazz/dbmazz/internal/tlsfiles"
)

// httpsSettings and sqlSettings name what an operator sets about the two connections.
var (
	httpsSettings = tlsfiles.Settings{Address: "SINK_URL", CA: "SINK_TLS_CA_FILE", Cert: "SINK_TLS_CERT_FILE and SINK_TLS_KEY_FILE"}
	sqlSettings   = tlsfiles.Settings{Address: "SINK_URL and SINK_PORT", CA: "SINK_TLS_CA_FILE", Cert: "SINK_TLS_CERT_FILE and SINK_TLS_KEY_FILE"}
)

// reachError is err with what to do about it, if TLS is what refuses the connection.
func reachError(err error, settings tlsfiles.Settings) error {
	remedy := tlsfiles.Remedy(err, settings)
	switch {
	case remedy != "":
		return fmt.Errorf("%w: %s", err, remedy)
	case errors.Is(err, mysql.ErrNoTLS):
		return fmt.Errorf("%w: set up SSL in the front end (ssl_keystore_location in fe.conf), or set SINK_SQL_TLS=false if the network is trusted", err)
	}
	return err
}

// dialTLS opens a connection for https with the files as they are now.
func dialTLS(files *tlsfiles.Files, dialer *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		config, err := files.Config(host)
		if err != nil {
			return nil, err
		}
		return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, addr)
	}
}

// connector connects to the MySQL protocol, with TLS and the files as they are now if
// that is asked for.
type connector struct {
	config *mysql.Config
	files  *tlsfiles.Files // nil without TLS
}

// newConnector checks what it can without connecting.
func newConnector(c *Config, files *tlsfiles.Files) (*connector, error) {
	my := mysql.NewConfig()
	my.Net, my.Addr, my.User, my.Passwd = "tcp", c.MySQLAddr, c.User, c.Password
	my.InterpolateParams = true
	my.Timeout = dialTimeout
	my.Logger = &mysql.NopLogger{}
	my.ConnectionAttributes = "program_name:" + strings.NewReplacer(",", " ", ":", " ").Replace(c.agent())
	if _, err := mysql.NewConnector(my); err != nil {
		return nil, errors.New("MySQL address or user: not usable in a connection")
	}
	if !c.SQLTLS {
		files = nil
	}
	return &connector{config: my, files: files}, nil
}

// Connect implements driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	config := c.config
	if c.files != nil {
		host, _, err := net.SplitHostPort(config.Addr)
		if err != nil {
			return nil, err
		}
		config = config.Clone()
		if config.TLS, err = c.files.Config(host); err != nil {
			return nil, err
		}
	}
	inner, err := mysql.NewConnector(config)
	if err != nil {
		return nil, errors.New("MySQL address or user: not usable in a connection")
	}
	return inner.Connect(ctx)
}

// Driver implements driver.Connector.
func (c *connector) Driver() driver.Driver { return mysql.MySQLDriver{} }
