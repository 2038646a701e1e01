package starrocks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dbmazz/dbmazz/apply"
	"github.com/dbmazz/dbmazz/internal/tlsfiles"
)

const (
	dialTimeout = 10 * time.Second
	// continueTimeout is how long a server may take to say whether it wants the
	// body. After it the body is sent, to a front end in vain.
	continueTimeout = 10 * time.Second
	// publishWait is added to the load's timeout: StarRocks waits for the load to
	// become visible and looks at the clock every ten seconds.
	publishWait    = 30 * time.Second
	controlTimeout = 15 * time.Second
	redirectsMax   = 3
	answerBytesMax = 1 << 20
	idleConnsMax   = 32
)

// loader sends loads and asks for the state of their labels.
type loader struct {
	config *Config
	http   *http.Client
	base   *url.URL
	hosts  *hosts
	log    *slog.Logger
}

func newLoader(config *Config, base *url.URL, d directory, files *tlsfiles.Files) *loader {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	transport := &http.Transport{
		DialContext:    dialer.DialContext,
		DialTLSContext: dialTLS(files, dialer), // The dialer's time is for the handshake too.
		// Zero would send the body at once, to the front end too.
		ExpectContinueTimeout: continueTimeout,
		MaxIdleConns:          idleConnsMax,
		MaxIdleConnsPerHost:   idleConnsMax,
		IdleConnTimeout:       time.Minute,
		DisableCompression:    true,
	}
	client := &http.Client{
		Transport: transport,
		// Redirects are followed by hand: net/http drops the credentials on the
		// way to another host, and asks nobody whether it may go there.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &loader{config: config, http: client, base: base, hosts: newHosts(config, base, d), log: config.Logger}
}

// request is one Stream Load.
type request struct {
	table   string
	label   string
	columns string // the columns header, if one is needed
	partial bool
	// condition is the column whose value in a stored row must not be greater for
	// the row to be replaced; empty without such a condition.
	condition string
	body      []byte
	// missing counts the rows of the load that the table does not have. It is called with
	// the label's state settled.
	missing func(context.Context, *request) (int64, error)
	// once is set for rows that would be there twice if they were sent twice. Then
	// missing makes the request one of those that are missing.
	once bool
	rows int64
}

// gate ends the reading of bodies. net/http may read a request's body after it has
// returned, when an answer comes before the body is written or none does; by then there
// may be the rows of another load in the buffer.
type gate struct {
	mu     sync.RWMutex
	closed bool
}

var errWithdrawn = errors.New("the load was given up while it was being sent")

// close waits for a read that is under way, and makes all later ones fail.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// gatedBody is a body on its way.
type gatedBody struct {
	gate *gate
	from bytes.Reader
}

func (g *gate) body(text []byte) io.ReadCloser {
	b := &gatedBody{gate: g}
	b.from.Reset(text)
	return b
}

// Read implements io.Reader.
func (b *gatedBody) Read(p []byte) (int, error) {
	b.gate.mu.RLock()
	defer b.gate.mu.RUnlock()
	if b.gate.closed {
		return 0, errWithdrawn
	}
	return b.from.Read(p)
}

// Close implements io.Closer.
func (*gatedBody) Close() error { return nil }

// answer is what a back end says about a load; a front end that refuses one uses other
// keys for status and message.
// https://docs.starrocks.io/docs/sql-reference/sql-statements/loading_unloading/STREAM_LOAD/
type answer struct {
	TxnID                int64  `json:"TxnId"`
	Label                string `json:"Label"`
	Status               string `json:"Status"`
	Message              string `json:"Message"`
	LowerMessage         string `json:"msg"`
	NumberTotalRows      int64  `json:"NumberTotalRows"`
	NumberLoadedRows     int64  `json:"NumberLoadedRows"`
	NumberFilteredRows   int64  `json:"NumberFilteredRows"`
	NumberUnselectedRows int64  `json:"NumberUnselectedRows"`
	ErrorURL             string `json:"ErrorURL"`
}

func (a *answer) message() string {
	if a.Message == "" {
		return a.LowerMessage
	}
	return a.Message
}

// httpError is an answer whose HTTP status says that there is none about the load.
type httpError struct {
	status int
	host   string
}

func (e *httpError) Error() string {
	switch e.status {
	case http.StatusUnauthorized:
		return fmt.Sprintf("%s refuses the credentials, or the user may not do this: check SINK_USER and SINK_PASSWORD, and GRANT SELECT, INSERT, UPDATE, DELETE, ALTER on the tables to the user", e.host)
	case http.StatusNotFound:
		return fmt.Sprintf("%s does not know Stream Load (HTTP 404): is SINK_URL the HTTP address of a front end, usually port 8030?", e.host)
	}
	return fmt.Sprintf("%s answers HTTP %d %s", e.host, e.status, http.StatusText(e.status))
}

// put sends the load once, along the redirects. Nobody reads the body afterwards.
func (l *loader) put(ctx context.Context, r *request) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, l.config.LoadTimeout+publishWait)
	defer cancel()
	address := l.base.JoinPath("api", url.PathEscape(l.config.Database), url.PathEscape(r.table), "_stream_load")
	var sending gate
	defer sending.close()
	data, err := l.send(ctx, address, func(ctx context.Context, to string) (*http.Request, error) {
		if err := apply.Allowed(ctx); err != nil {
			return nil, err
		}
		out, err := http.NewRequestWithContext(ctx, http.MethodPut, to, http.NoBody)
		if err != nil {
			return nil, errors.New("make request: address not usable")
		}
		out.Body, out.ContentLength = sending.body(r.body), int64(len(r.body))
		out.GetBody = func() (io.ReadCloser, error) { return sending.body(r.body), nil }
		l.setHeaders(out.Header, r)
		return out, nil
	})
	if err != nil {
		return nil, err
	}
	var a answer
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("read answer to load %s: %w", r.label, err)
	}
	if a.Status == "" {
		return nil, fmt.Errorf("read answer to load %s: no status in it", r.label)
	}
	return &a, nil
}

func (l *loader) setHeaders(h http.Header, r *request) {
	h.Set("Expect", "100-continue")
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", l.config.agent())
	h.Set("label", r.label)
	h.Set("format", "json")
	h.Set("strip_outer_array", "true")
	h.Set("ignore_json_size", "true")
	h.Set("strict_mode", "true")
	h.Set("max_filter_ratio", "0")
	h.Set("timezone", "UTC")
	h.Set("timeout", strconv.FormatInt(int64((l.config.LoadTimeout+time.Second-1)/time.Second), 10))
	if r.columns != "" {
		h.Set("columns", r.columns)
	}
	if r.partial {
		h.Set("partial_update", "true")
		h.Set("partial_update_mode", "row")
	}
	if r.condition != "" {
		h.Set("merge_condition", r.condition)
	}
}

// send makes the request and again for each redirect, with credentials, and returns the
// body of the last answer.
func (l *loader) send(ctx context.Context, address *url.URL, build func(context.Context, string) (*http.Request, error)) ([]byte, error) {
	for range redirectsMax + 1 {
		out, err := build(ctx, address.String())
		if err != nil {
			return nil, err
		}
		out.SetBasicAuth(l.config.User, l.config.Password)
		in, err := l.http.Do(out)
		if err != nil {
			return nil, fmt.Errorf("reach %s: %w", address.Host, reachError(stripURL(err), httpsSettings))
		}
		data, err := io.ReadAll(io.LimitReader(in.Body, answerBytesMax))
		in.Body.Close() //nolint:gosec // It was read to its end, or the error says why not.
		switch {
		case in.StatusCode == http.StatusTemporaryRedirect || in.StatusCode == http.StatusPermanentRedirect:
			location, err := in.Location()
			if err != nil {
				return nil, fmt.Errorf("follow redirect of %s: no usable location", address.Host)
			}
			if address, err = l.hosts.allow(ctx, location); err != nil {
				return nil, err
			}
			continue
		case in.StatusCode != http.StatusOK:
			return nil, &httpError{in.StatusCode, address.Host}
		case err != nil:
			return nil, fmt.Errorf("read answer of %s: %w", address.Host, err)
		}
		return data, nil
	}
	return nil, fmt.Errorf("follow redirects of %s: more than %d", l.base.Host, redirectsMax)
}

// stripURL leaves the address out of an error of net/http, which repeats it.
func stripURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// errorLines reads the lines that StarRocks keeps about rows it has refused. They hold
// values of the rows and go nowhere without refusalText.
func (l *loader) errorLines(ctx context.Context, address string) ([]string, error) {
	location, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("read error log: address not usable")
	}
	location, err = l.hosts.allow(ctx, location)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), http.NoBody)
	if err != nil {
		return nil, errors.New("read error log: address not usable")
	}
	in, err := l.http.Do(out) // Without credentials: the back end asks for none.
	if err != nil {
		return nil, fmt.Errorf("read error log: %w", stripURL(err))
	}
	defer in.Body.Close()
	if in.StatusCode != http.StatusOK {
		return nil, &httpError{in.StatusCode, location.Host}
	}
	data, err := io.ReadAll(io.LimitReader(in.Body, answerBytesMax))
	if err != nil {
		return nil, fmt.Errorf("read error log: %w", err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n"), nil
}
