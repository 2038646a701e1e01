package starrocks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/dbmazz/dbmazz/apply"
)

// labelState is what a front end knows about the newest transaction of a label.
type labelState string

// The states of a label. Only the first three are final, and unknown is no fence: a
// request that is under way may still begin.
const (
	stateVisible   labelState = "VISIBLE"
	stateCommitted labelState = "COMMITTED"
	stateAborted   labelState = "ABORTED"
	statePrepare   labelState = "PREPARE"
	statePrepared  labelState = "PREPARED"
	stateUnknown   labelState = "UNKNOWN"
)

var errUnknownDatabase = errors.New("the database does not exist")

func (s labelState) committed() bool { return s == stateVisible || s == stateCommitted }

func (s labelState) settled() bool { return s.committed() || s == stateAborted || s == stateUnknown }

// state asks for the state of a label.
func (l *loader) state(ctx context.Context, label string) (labelState, error) {
	data, err := l.control(ctx, http.MethodGet, "get_load_state?label="+url.QueryEscape(label))
	if err != nil {
		return "", fmt.Errorf("ask for the state of label %s: %w", label, err)
	}
	var a struct {
		State   labelState `json:"state"`
		Message string     `json:"msg"`
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return "", fmt.Errorf("read the state of label %s: %w", label, err)
	}
	switch a.State {
	case stateVisible, stateCommitted, stateAborted, statePrepare, statePrepared, stateUnknown:
		return a.State, nil
	case "":
		if strings.Contains(strings.ToLower(a.Message), "unknown database") {
			return "", fmt.Errorf("ask for the state of label %s: %w: %s", label, errUnknownDatabase, a.Message)
		}
		return "", fmt.Errorf("ask for the state of label %s: %s", label, a.Message)
	}
	return "", fmt.Errorf("ask for the state of label %s: unknown state %q", label, string(a.State))
}

// cancel aborts the transaction of a label that is still open. Whatever the answer, the
// state has to be asked for afterwards.
func (l *loader) cancel(ctx context.Context, table, label string) error {
	if err := apply.Allowed(ctx); err != nil {
		return err
	}
	_, err := l.control(ctx, http.MethodPost, url.PathEscape(table)+"/_cancel?label="+url.QueryEscape(label))
	if err != nil {
		return fmt.Errorf("cancel label %s: %w", label, err)
	}
	return nil
}

// control makes a request that only a front end answers.
func (l *loader) control(ctx context.Context, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	build := func(ctx context.Context, to string) (*http.Request, error) {
		out, err := http.NewRequestWithContext(ctx, method, to, http.NoBody)
		if err != nil {
			return nil, errors.New("make request: address not usable")
		}
		out.Header.Set("User-Agent", l.config.agent())
		return out, nil
	}
	data, err := l.send(ctx, l.address(l.base, path), build)
	var status *httpError
	if !errors.As(err, &status) || status.status != http.StatusNotFound {
		return data, err
	}
	// A back end does not know this request.
	base, err := l.hosts.frontEnd(ctx)
	if err != nil {
		return nil, err
	}
	return l.send(ctx, l.address(base, path), build)
}

func (l *loader) address(base *url.URL, path string) *url.URL {
	path, query, _ := strings.Cut(path, "?")
	u := base.JoinPath("api", url.PathEscape(l.config.Database), path)
	u.RawQuery = query
	return u
}

// checkLabel follows FeNameFormat of StarRocks.
func checkLabel(label string) error {
	const labelBytesMax = 128
	ok := len(label) > 0 && len(label) <= labelBytesMax
	for i := 0; ok && i < len(label); i++ {
		c := label[i]
		ok = c == '_' || c == '-' || (c >= '0' && c <= '9') || (c|0x20 >= 'a' && c|0x20 <= 'z')
	}
	if !ok {
		return permanent(errors.New("make label " + strconv.Quote(label) + ": want at most 128 of letters, digits, _ and -"))
	}
	return nil
}
