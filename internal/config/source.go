package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// replicationParameter is stripped from SOURCE_URL: dbmazz opens ordinary and replication
// connections with the same string and adds it where it belongs.
const replicationParameter = "replication"

// setSourceURL never shows what it was given, not even the part that the parser
// complains about: in a URL that does not parse nobody knows where the password is.
func setSourceURL(c *Config, value string) error {
	const want = "want postgres://user:password@host:5432/database, " +
		"with characters such as @ : / # % in the password percent-encoded"
	stripped := stripReplication(value)
	if isURL(stripped) && !isClearURL(stripped) {
		return errors.New("it is not a connection string; " + want)
	}
	parsed, err := pgconn.ParseConfig(stripped)
	var file *fs.PathError
	switch {
	case errors.As(err, &file):
		return fmt.Errorf("a file that it names cannot be read: %s: %w", file.Path, file.Err)
	case err != nil && strings.Contains(err.Error(), "sslmode is invalid"):
		return errors.New("its sslmode is not known; want disable, allow, prefer, require, verify-ca or verify-full")
	case err != nil:
		return errors.New("it is not a connection string; " + want)
	}
	display := url.URL{
		Scheme: "postgres",
		User:   url.User(parsed.User),
		Host:   net.JoinHostPort(parsed.Host, strconv.Itoa(int(parsed.Port))),
		Path:   "/" + parsed.Database,
	}
	c.SourceURL = SourceURL{text: stripped, display: display.String()}
	return nil
}

// isURL tells the URL form from the keyword form.
func isURL(value string) bool {
	scheme, _, ok := strings.Cut(value, "://")
	return ok && !strings.ContainsAny(scheme, " =")
}

// isClearURL refuses a URL of another kind, and one whose only @ comes after the
// authority: there a / ? or # of the password would make part of it look like a port.
func isClearURL(value string) bool {
	scheme, rest, _ := strings.Cut(value, "://")
	if scheme != "postgres" && scheme != "postgresql" {
		return false
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority = rest[:i]
	}
	return strings.Contains(authority, "@") || !strings.Contains(rest, "@")
}

// stripReplication removes replication=... from both forms of a connection string and
// leaves everything else byte for byte.
func stripReplication(value string) string {
	if !isURL(value) {
		return stripKeyword(value)
	}
	head, query, found := strings.Cut(value, "?")
	if !found {
		return value
	}
	var kept []string
	for parameter := range strings.SplitSeq(query, "&") {
		if name, _, _ := strings.Cut(parameter, "="); name != replicationParameter {
			kept = append(kept, parameter)
		}
	}
	if len(kept) == 0 {
		return head
	}
	return head + "?" + strings.Join(kept, "&")
}

// stripKeyword removes the parameter from a string such as host=h password='a b'.
func stripKeyword(value string) string {
	var kept []string
	for rest := value; ; {
		rest = strings.TrimLeft(rest, " \t\r\n")
		if rest == "" {
			return strings.Join(kept, " ")
		}
		end := keywordEnd(rest)
		name, _, _ := strings.Cut(rest[:end], "=")
		if strings.TrimSpace(name) != replicationParameter {
			kept = append(kept, rest[:end])
		}
		rest = rest[end:]
	}
}

// keywordEnd returns where the first name = value ends. Spaces may surround the =, a
// value in single quotes may hold spaces, and a backslash takes the next byte along.
func keywordEnd(text string) int {
	i := strings.IndexByte(text, '=')
	if i < 0 {
		return len(text)
	}
	for i++; i < len(text) && strings.IndexByte(" \t\r\n", text[i]) >= 0; i++ {
	}
	quoted := i < len(text) && text[i] == '\''
	if quoted {
		i++
	}
	for ; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			i++
		case quoted && text[i] == '\'':
			return i + 1
		case !quoted && strings.IndexByte(" \t\r\n", text[i]) >= 0:
			return i
		}
	}
	return len(text)
}
